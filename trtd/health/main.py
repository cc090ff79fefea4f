"""Entry point of the HTTP child: `python -m trtd.health.main --listener FD --link FD --parent PID`.

The supervisor bound the listening socket, so probes wait through a restart of this process instead of being refused.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import signal
import socket
import sys

from trtd.child.own_loop import OwnLoop
from trtd.child.trampoline import die_with_parent
from trtd.errors import ExitCode
from trtd.health.link import Link
from trtd.health.server import Server
from trtd.wire.health import MAX_ANSWER_BYTES

MEMORY_LIMIT_BYTES = 512 * 1024**2
"""Of heap. The process needs about 20 MiB; a defect here shall cost no worker its memory."""


def main(argv: list[str]) -> int:
    """Serve until the supervisor closes the link."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--listener", type=int, required=True)
    parser.add_argument("--link", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    args = parser.parse_args(argv)
    die_with_parent(args.parent)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    with asyncio.Runner(loop_factory=OwnLoop) as runner:
        runner.run(_serve(socket.socket(fileno=args.listener), socket.socket(fileno=args.link)))
    return ExitCode.OK


async def _serve(listener: socket.socket, link_end: socket.socket) -> None:
    link = Link(*await asyncio.open_unix_connection(sock=link_end, limit=MAX_ANSWER_BYTES))
    server = await Server(listener, link.ask).start()
    await link.run()
    server.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
