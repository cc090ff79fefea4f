"""The only place that imports inference runtimes (and later tensorrt and cuda), each lazily."""
