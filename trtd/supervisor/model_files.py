"""What the files that a worker reads are at this moment, so that a reload notices when one of them is another file.

A file is known by device, inode, size, and the instants at which its content and its inode changed: a copy with the
size and the time of the former one is another file all the same. Nothing of a model is read but where it keeps weights
in other files, and that only when the model itself is a new one.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import PurePath

from trtd import observe
from trtd.core.onnx_files import Unreadable, external_locations
from trtd.wire.settings import WorkerSettings

Stat = Callable[[str], os.stat_result]
"""Looks at a file; raises OSError where it cannot."""
Identity = tuple[str | int, ...]

MAX_KNOWN_MODELS = 4096
"""Models of which it is remembered where their weights are."""
ONNX_RUNTIME = "onnxruntime"

log = observe.get_logger()


def identities(settings: WorkerSettings, look: Stat = os.stat) -> list[Identity]:
    """The identity of each file that a worker with these settings reads.

    Args:
        settings: what the worker is told.
        look: looks at a file.
    """
    found = [_identity(path, look) for path in _named(settings)]
    if settings.runtime == ONNX_RUNTIME:
        for model in settings.models:
            known = _identity(model.path, look)
            if len(known) > 1:
                found += [_identity(path, look) for path in _beside(model.path, known)]
    return found


def _named(settings: WorkerSettings) -> Iterator[str]:
    """Files that stand in the settings."""
    for model in settings.models:
        yield model.path
        yield from model.warm_up_inputs
        if model.probe is not None:
            yield model.probe.path
    if settings.onnxruntime is not None:
        yield from settings.onnxruntime.custom_op_libraries
    if settings.tensorrt is not None:
        yield from settings.tensorrt.plugin_libraries
        if settings.tensorrt.lean_library:
            yield settings.tensorrt.lean_library


def _identity(path: str, look: Stat) -> Identity:
    """What changes when a file is replaced; a file that cannot be seen has none but its name."""
    try:
        seen = look(path)
    except (OSError, ValueError):
        return (path,)
    return (path, seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)


@functools.lru_cache(maxsize=MAX_KNOWN_MODELS)
def _beside(path: str, _known_as: Identity) -> tuple[str, ...]:
    """Files in which an ONNX model of this identity keeps weights."""
    try:
        # A FIFO would let nobody go on: it is opened without waiting, and not read.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return ()
    try:
        seen = os.fstat(fd)
        if not stat.S_ISREG(seen.st_mode):
            return ()
        locations = external_locations(lambda at, count: os.pread(fd, count, at), seen.st_size)
    except (OSError, Unreadable) as error:
        log.warning("model.weights_not_watched", path=path, cause=str(error))
        return ()
    finally:
        os.close(fd)
    return tuple(str(PurePath(path).parent / location) for location in locations)
