"""trtd: a supervised multi-tenant inference daemon for TensorRT and ONNX Runtime.

Importing this package needs no GPU package, opens nothing and starts nothing. The names below are what applications
use; everything else is reached through its own module.
"""

from __future__ import annotations

TYPE_CHECKING = False
"""Stands for `typing.TYPE_CHECKING`: importing `typing` would double the time until a worker's main() runs."""

if TYPE_CHECKING:
    from typing import Any

    from trtd import aio as aio
    from trtd import errors as errors
    from trtd.client import Answer as Answer
    from trtd.client import BFloat16 as BFloat16
    from trtd.client import Client as Client
    from trtd.client import Float8 as Float8
    from trtd.errors import TrtdError as TrtdError

    __version__: str

__all__ = ["Answer", "BFloat16", "Client", "Float8", "TrtdError", "aio", "errors"]


def __getattr__(name: str) -> Any:
    """Import only what is asked for: workers and `trtd status` import `trtd` too and must start fast."""
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version("trtd")
        except metadata.PackageNotFoundError:
            return "0+not.installed"
    if name == "TrtdError":
        from trtd.errors import TrtdError

        return TrtdError
    if name in {"Answer", "BFloat16", "Client", "Float8"}:
        import trtd.client

        return getattr(trtd.client, name)
    if name in {"aio", "client", "errors"}:
        from importlib import import_module

        return import_module(f"trtd.{name}")
    raise AttributeError(f"module 'trtd' has no attribute {name!r}")
