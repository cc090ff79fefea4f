"""A daemon on whose host a disk can go away: `python -m tests.support.hanging ARGS_OF_PYTHON` in place of `python`.

Whoever looks at a file beside which there is one called `.away`, or opens it, waits for ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

MARK = ".away"
PREFIX = (sys.executable, "-m", "tests.support.hanging")


def hanging(call: Callable[..., Any], stat: Callable[..., Any] = os.stat) -> Callable[..., Any]:
    """The same call, but for files that are away."""

    def wait_or_call(path: Any, *args: Any, **options: Any) -> Any:
        if isinstance(path, str | os.PathLike):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                stat(Path(path).parent / MARK)
                print(json.dumps({"event": "disk.away", "path": str(path)}), file=sys.stderr, flush=True)
                threading.Event().wait()
        return call(path, *args, **options)

    return wait_or_call


if __name__ == "__main__":
    from trtd.cli.main import main

    os.stat = hanging(os.stat)
    os.open = hanging(os.open)
    sys.exit(main(sys.argv[sys.argv.index("trtd.cli.main") + 1 :]))
