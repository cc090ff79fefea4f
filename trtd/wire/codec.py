"""The exact bytes of wire protocol v1: msgpack header frames, strictly limited, beside raw tensor frames.

Encoding and decoding of headers only; arrays are turned into frames and back by `trtd.wire.tensors`.
"""
