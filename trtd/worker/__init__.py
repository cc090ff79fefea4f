"""SHELL: a worker process, from its first steps to its exit, with `trtd.core.batching` deciding what runs together."""
