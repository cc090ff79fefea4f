"""Entry point of a worker: `python -m trtd.worker.main`, spawned by the supervisor and by nobody else.

Hello leaves before anything heavy is imported, so that the supervisor knows early that the process lives. Our own
modules are imported in `main` too: the time that they take is part of a worker's start, not of the interpreter's.
"""

from __future__ import annotations

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main(argv: list[str]) -> NoReturn:
    """The worker's life; it ends with a code of `trtd.errors.ExitCode`."""
    main_at = time.monotonic()
    from trtd.child import trampoline
    from trtd.wire.settings import WorkerSettings

    channel, settings = trampoline.start(argv, WorkerSettings, main_at)
    started_at = time.monotonic()
    try:
        from trtd import observe
        from trtd.child.allocation import keep_freed
        from trtd.worker.process import WorkerProcess
    except ImportError as error:
        trampoline.cannot_start(channel, settings.generation, error)

    observe.configure(
        settings.log_format,
        settings.log_level,
        fields={"tenant": settings.tenant, "replica": settings.replica, "generation": settings.generation},
    )
    keep_freed()
    WorkerProcess(channel, settings, started_at).run()


if __name__ == "__main__":
    main(sys.argv[1:])
