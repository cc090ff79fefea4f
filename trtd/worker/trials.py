"""What is known of running a model on inputs that nobody sent, and under which key a successor finds it again.

A wrong memory is worse than none. So a key covers the bytes of the file, what the operator configured for the worker,
and the versions of runtime and trtd; and it is empty, which means not to be remembered, where the file was not the same
before it was loaded and after it was digested.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import trtd
from trtd.core.onnx_files import Unreadable, external_locations
from trtd.runtime.protocol import RuntimeInfo
from trtd.wire.settings import ModelSettings, Trial, WorkerSettings

VERSION = 2
"""To be counted up when the inputs that are made up, or what they must show, become others."""

Identity = tuple[int, ...]


def look(path: str | Path) -> Identity:
    """What changes when a file is written or replaced; empty where it cannot be seen."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def look_at_model(path: str | Path, *, is_onnx: bool) -> tuple[Identity, ...]:
    """The same for a model and all files in which it keeps weights apart; empty where one of them cannot be seen."""
    try:
        with Path(path).open("rb") as file:
            seen = (look(path), *(look(one) for one in _external(Path(path), file.fileno(), is_onnx=is_onnx)))
    except (OSError, ValueError, Unreadable):
        return ()
    return seen if all(seen) else ()


def trial_key(before: tuple[Identity, ...], model: ModelSettings, worker: WorkerSettings, runtime: RuntimeInfo) -> str:
    """The key of a loaded model; empty where nothing is to be remembered.

    Args:
        before: `look_at_model`, before it was loaded.
        model: its settings.
        worker: those of the worker.
        runtime: what it was loaded into.
    """
    path, is_onnx = Path(model.path), worker.runtime == "onnxruntime"
    beside = [Path(one) for one in (*model.warm_up_inputs, *([model.probe.path] if model.probe else []))]
    try:
        digest, _ = read_model(path, is_onnx=is_onnx)
    except (OSError, Unreadable):
        return ""
    # Weights apart may be tens of gigabytes, so that their digest would cost more than to try again.
    kept = [*map(look, beside), *before[1:]]
    if not before or look_at_model(path, is_onnx=is_onnx) != before or not all(kept):
        return ""
    # All but what says which worker it is, so that an option to come counts as well.
    told = replace(worker, tenant="", replica=0, generation=0, slots=0, models=(), trials=(), router_path="")
    options = [VERSION, trtd.__version__, asdict(runtime), asdict(model), asdict(told)]
    return hashlib.sha256(json.dumps([digest, kept, options], sort_keys=True).encode()).hexdigest()


def read_model(path: Path, *, is_onnx: bool) -> tuple[str, list[Path]]:
    """The digest of a model's file, and the files in which it keeps weights apart.

    Raises:
        OSError: it cannot be read.
        trtd.core.onnx_files.Unreadable: nobody can tell where its weights are.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest, _external(path, file.fileno(), is_onnx=is_onnx)


def _external(path: Path, fd: int, *, is_onnx: bool) -> list[Path]:
    size = os.fstat(fd).st_size
    locations = external_locations(lambda at, count: os.pread(fd, count, at), size) if is_onnx else ()
    return [path.parent / location for location in locations]


@dataclass(frozen=True, slots=True)
class Teller:
    """How the supervisor is told, so that it can tell a successor.

    Attributes:
        begun: a trial begins: name and version of the model for people, and its key.
        ended: it has ended, and this came of it.
    """

    begun: Callable[[str, str], None]
    ended: Callable[[Trial], None]


NOBODY = Teller(lambda _model, _key: None, lambda _trial: None)
"""Where there is no supervisor."""
