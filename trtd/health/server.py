"""HTTP/1.1 on one listening socket, bounded in everything: connections, bytes of a head, time. One request each.

When all places are taken, the oldest connection of whoever has most of them makes room. So one that is prompt is served
however many others are slow, and peers at one address make room for themselves first.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import defaultdict
from collections.abc import Hashable
from typing import Any

from trtd.child.stream import peer_of
from trtd.health.answers import Answer, Ask, answer
from trtd.health.requests import MAX_HEAD_BYTES, Refused, parse_head

MAX_CONNECTIONS = 64
"""At a time."""
HEAD_TIMEOUT_S = 2.0
"""From the connection to the end of the head."""
TIMEOUT_S = 10.0
"""For all of it, a peer that reads slowly included."""


class Server:
    """Answers until it is closed.

    Args:
        sock: bound and listening.
        ask: asks the supervisor.
        head_timeout_s: see `HEAD_TIMEOUT_S`.
    """

    def __init__(self, sock: socket.socket, ask: Ask, *, head_timeout_s: float = HEAD_TIMEOUT_S) -> None:
        self._sock = sock
        self._ask = ask
        self._head_timeout_s = head_timeout_s
        self._connections: dict[Hashable, dict[asyncio.StreamWriter, None]] = defaultdict(dict)

    async def start(self) -> asyncio.Server:
        """Begin to accept."""
        if self._sock.family == socket.AF_UNIX:
            return await asyncio.start_unix_server(self._connected, sock=self._sock, limit=MAX_HEAD_BYTES)
        return await asyncio.start_server(self._connected, sock=self._sock, limit=MAX_HEAD_BYTES)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        owner = _owner_of(writer)
        self._make_room()
        self._connections[owner][writer] = None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._leave(owner, writer)
            writer.close()

    def _make_room(self) -> None:
        """Let one connection go where there are as many as there may be."""
        if sum(map(len, self._connections.values())) < MAX_CONNECTIONS:
            return
        owner, theirs = max(self._connections.items(), key=lambda item: len(item[1]))
        oldest = next(iter(theirs))
        self._leave(owner, oldest)
        oldest.transport.abort()

    def _leave(self, owner: Hashable, writer: asyncio.StreamWriter) -> None:
        theirs = self._connections[owner]
        theirs.pop(writer, None)
        if not theirs:
            del self._connections[owner]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        has_body = True
        try:
            request = parse_head(await self._read_head(reader))
            has_body = request.method != "HEAD"
            reply, more = await answer(request, self._ask), ""
        except Refused as refused:
            reply = Answer(refused.status, f"{refused.reason}\n".encode())
            more = "Allow: GET, HEAD\r\n" if refused.status.startswith("405") else ""
        head = (
            f"HTTP/1.1 {reply.status}\r\nContent-Type: {reply.kind}\r\nContent-Length: {len(reply.body)}\r\n"
            f"{more}Cache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode("ascii") + (reply.body if has_body else b""))
        await writer.drain()
        writer.write_eof()
        # Closing with unread bytes would take the answer away from the peer again.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while await reader.read(MAX_HEAD_BYTES):
                    pass

    async def _read_head(self, reader: asyncio.StreamReader) -> bytes:
        try:
            async with asyncio.timeout(self._head_timeout_s):
                return await reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            raise Refused("408 Request Timeout", f"no request came within {self._head_timeout_s:g} s") from None
        except asyncio.LimitOverrunError:
            raise Refused("431 Request Header Fields Too Large", f"a head has at most {MAX_HEAD_BYTES} bytes") from None


def _owner_of(writer: asyncio.StreamWriter) -> Hashable:
    """Whose connection it is: an address of the network, or a user of this host."""
    sock = writer.get_extra_info("socket")
    if sock.family == socket.AF_UNIX:
        return peer_of(sock)[1]
    address: tuple[Any, ...] | None = writer.get_extra_info("peername")
    return address[0] if address else None
