"""The router's process: `python -m trtd.router.main`, started by the supervisor only."""

from __future__ import annotations

import gc
import os
import resource
import sys
import threading
import traceback

import zmq

from trtd import observe
from trtd.child import trampoline
from trtd.child.allocation import keep_freed
from trtd.errors import ExitCode, InvalidConfig
from trtd.router.flight import open_flight
from trtd.router.intake import daemon_version
from trtd.router.link import Link
from trtd.router.loop import RouterLoop
from trtd.wire.settings import RouterSettings

SWITCH_EVERY_S = 0.0005
"""How long the thread of `import_the_rest` may keep the loop from running; the default is 10 times as long."""
COLLECT_AFTER = 50_000
"""Objects made and not freed before the collector looks at the young ones. Requests and frames form no cycles."""


def main(argv: list[str]) -> int:
    """Run the router until it is told to stop; returns its exit code."""
    channel, settings = trampoline.start(argv, RouterSettings)
    observe.configure(settings.log_format, settings.log_level, fields={"process": "router"})
    log = observe.get_logger(generation=settings.generation)
    raise_fd_limit()
    keep_freed()
    flight = open_flight(settings.flight_fd)
    if flight is not None and flight.suspects:
        log.warning("router.suspects_known", count=len(flight.suspects))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 65_536)
    try:
        loop = RouterLoop(settings, Link(channel, log), context, first_lease(), log, flight)
    except (OSError, zmq.ZMQError, InvalidConfig) as error:
        log.error("router.start_failed", path=settings.workers_path, cause=str(error))
        return ExitCode.TEMPORARY
    sys.setswitchinterval(SWITCH_EVERY_S)
    threading.Thread(target=import_the_rest, daemon=True).start()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 50)
    try:
        exit_code = loop.run()
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        log.error("router.crashed", cause=repr(error), where=f"{place.filename}:{place.lineno} in {place.name}")
        exit_code = ExitCode.INTERNAL
    if exit_code != ExitCode.OK:
        # Its memory is too large, or nobody is left to stop for: no time for good manners.
        os._exit(exit_code)
    if flight is not None:
        flight.land()
    loop.close()
    context.term()
    return exit_code


def first_lease() -> int:
    """A number that no other life of the router comes near, so that answers to a former router's leases are stale.

    31 random bits stand above the 32 in which leases are counted.
    """
    return (int.from_bytes(os.urandom(4)) >> 1) << 32


def import_the_rest() -> None:
    """Import beside the loop what is needed later and would hold it up for a tenth of a second."""
    observe.prepare()
    daemon_version()


def raise_fd_limit() -> None:
    """Take as many file descriptors as the host allows: each client is one, and libzmq aborts where it gets none."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
