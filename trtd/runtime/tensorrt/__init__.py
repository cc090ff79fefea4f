"""TensorRT in all its flavours, on memory, streams and staging of our own.

Nothing here is imported before a tenant asks for it (`trtd.runtime.open_runtime`); `tensorrt` itself is imported by
name in `loading`, so that two workers may use two versions side by side. `runtime` is where a reader starts.
"""
