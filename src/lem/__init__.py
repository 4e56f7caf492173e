"""LEM trains, steers and evaluates ethical-kernel language models and prints only results that can be believed."""

__version__ = "0.1.0"
