"""Studies: what joins training and evaluation."""
