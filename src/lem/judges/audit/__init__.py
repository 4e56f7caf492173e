"""How far a judge can be trusted: canaries and repeats, what they measure, and the bounds it has to keep."""
