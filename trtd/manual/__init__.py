"""Man pages and shell completions, made from the table of commands and the schema of the configuration.

The files in `etc/man` and `etc/completions` are written by `scripts/manual`; a test holds them true.
"""
