"""Builds lem-nano: text, grammar, tokenizer, network, training and acceptance figures."""
