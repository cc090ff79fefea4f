"""SHELL: the router process, ZeroMQ in front, with `trtd.core.dispatch` as its mind."""
