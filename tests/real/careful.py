"""Work on many models in another process, which any of them may end: that one is told, and the rest goes on."""

from __future__ import annotations

import os
import pickle
import selectors
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0
"""How long one model may take."""


@dataclass(frozen=True)
class Failed:
    """What came in the place of a result."""

    reason: str


def each(module: str, items: Sequence[Any]) -> Iterator[Any]:
    """What `main` of a module makes of each item, in order, in processes of its own; `Failed` for one that ended it."""
    done = 0
    with tempfile.TemporaryDirectory(prefix="trtd-real-") as directory:
        while done < len(items):
            path = Path(directory) / "items"
            path.write_bytes(pickle.dumps(list(items[done:])))
            # Not with `-m`: what is pickled there would be of a module that is called `__main__`.
            program = f"from {module} import main; main()"
            with subprocess.Popen(
                [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            ) as process:
                assert process.stdout is not None
                for result in _results(process, process.stdout.fileno()):
                    done += 1
                    yield result
                code = process.wait()
            if code and done < len(items):
                done += 1
                yield Failed(signal.Signals(-code).name if code < 0 else f"the process ended with {code}")


def _results(process: subprocess.Popen[bytes], fd: int) -> Iterator[Any]:
    selector = selectors.DefaultSelector()
    selector.register(fd, selectors.EVENT_READ)
    while True:
        if not selector.select(PATIENCE_S):
            process.kill()
            return
        head = os.read(fd, 8)
        if len(head) < 8:
            return
        size, data = int.from_bytes(head, "little"), b""
        while len(data) < size:
            part = os.read(fd, size - len(data))
            if not part:
                return
            data += part
        yield pickle.loads(data)


def serve_each(work: Callable[[Any], Any]) -> None:
    """The other side: do the work on each item. What runs here may write to stdout, so that results go elsewhere."""
    out = os.dup(1)
    os.dup2(2, 1)
    for item in pickle.loads(Path(sys.argv[1]).read_bytes()):
        try:
            result = work(item)
        except Exception:
            result = Failed(traceback.format_exc(limit=-1).strip().splitlines()[-1])
        data = pickle.dumps(result)
        with os.fdopen(os.dup(out), "wb") as file:
            file.write(len(data).to_bytes(8, "little") + data)
