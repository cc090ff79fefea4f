"""The `trtd` command: one table of commands, and how their answers look."""
