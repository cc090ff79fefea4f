"""What the files that a worker reads are at this moment, so that a reload notices when one of them is another file.

A file is known by device, inode, size, and the instants at which its content and its inode changed: a copy with the
size and the time of the former one is another file all the same. Nothing of a model is read but where it keeps weights
in other files, and that only when the model itself is a new one.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import PurePath

from trtd import observe
from trtd.core.onnx_files import Unreadable, external_locations
from trtd.files import NotRegular, look_at, open_regular, under_way
from trtd.supervisor.aside import Aside
from trtd.wire.settings import WorkerSettings

Stat = Callable[[str], os.stat_result]
"""Looks at a file; raises OSError where it cannot."""
Identity = tuple[str | int, ...]
Look = Callable[[WorkerSettings], list[Identity]]
"""Looks at the files of a worker with these settings."""

LOOK_PATIENCE_S = 10.0
"""With the files of one tenant. A large ONNX model on a slow disk takes a second or two."""
SHORT_PATIENCE_S = 0.2
"""With those of each further tenant, once some were waited for in vain."""
MAX_KNOWN_MODELS = 4096
"""Models of which it is remembered where their weights are."""
ONNX_RUNTIME = "onnxruntime"

log = observe.get_logger()


def identities(settings: WorkerSettings, look: Stat = look_at) -> list[Identity]:
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


class Watch:
    """Looks at the files of one tenant after the other, and waits for none of them for ever.

    Of files that do not come, as on a network that is away, it is taken that they are what they were: that tenant's
    workers stay, and the others' are not kept from anything.
    """

    def __init__(self, look: Look = identities, patience_s: float = LOOK_PATIENCE_S) -> None:
        self._look = look
        self._patience_s = patience_s
        self._known: dict[str, list[Identity]] = {}
        self._hanging: dict[str, Aside[list[Identity]]] = {}

    def look(self) -> Look:
        """A way to look at all tenants once; patience is lost for the whole of it."""
        patience_s = self._patience_s

        def patiently(settings: WorkerSettings) -> list[Identity]:
            nonlocal patience_s
            tenant = settings.tenant
            looking = self._hanging.get(tenant)
            if looking is None or looking.has_ended:
                looking = Aside(lambda: self._look(settings))
            try:
                found = self._known[tenant] = looking.wait(patience_s)
            except TimeoutError:
                self._hanging[tenant] = looking
                log.error("model.files_hang", tenant=tenant, path=looking.waits_for, patience_s=patience_s)
                patience_s = min(patience_s, SHORT_PATIENCE_S)
                return self._known.get(tenant, [])
            return found

        return patiently


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
        with open_regular(path) as file, under_way(path):
            fd = file.fileno()
            locations = external_locations(lambda at, count: os.pread(fd, count, at), os.fstat(fd).st_size)
    except NotRegular:
        return ()
    except (OSError, ValueError, Unreadable) as error:
        log.warning("model.weights_not_watched", path=path, cause=str(error))
        return ()
    return tuple(str(PurePath(path).parent / location) for location in locations)
