"""Command line: one file per command group; a body parses, builds a config, calls one library function, prints."""
