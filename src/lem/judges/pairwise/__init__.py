"""Two arms side by side: which answers are compared, in both orders, and the win rates that follow."""
