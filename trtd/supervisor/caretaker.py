"""Looks after what the daemon has in the file system: its directory, its lock, the sockets of this process.

The router looks after its own sockets (`trtd.router.chores`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from trtd import observe
from trtd.errors import TrtdError

LOOK_EVERY_S = 1.0

log = observe.get_logger()


async def look_after(*things: Callable[[], None]) -> None:
    """Call each about once a second, for ever; where one cannot be mended, say so once, and when it could be.

    Args:
        things: each notices that something is lost and mends it; what comes later waits for what comes earlier. They
            raise OSError or TrtdError where that cannot be done now.
    """
    problem = ""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        before, problem = problem, _look(things)
        if problem and problem != before:
            log.error("runtime_dir.damaged", cause=problem)
        elif before and not problem:
            log.info("runtime_dir.mended")


def _look(things: tuple[Callable[[], None], ...]) -> str:
    try:
        for thing in things:
            thing()
    except TrtdError as error:
        return error.message
    except OSError as error:
        return str(error)
    return ""
