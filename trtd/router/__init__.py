"""SHELL: the router process, ZeroMQ in front and behind, with `trtd.core.dispatch` as its mind."""
