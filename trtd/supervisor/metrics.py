"""A tiny HTTP responder for Prometheus and for health probes: GET /metrics, /live, /ready. Off unless it is configured.

Bounded in everything: connections, bytes, time. It serves loopback or a unix socket; access beyond is for a proxy to
give.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from trtd import observe
from trtd.supervisor.loop import Supervisor

MAX_CONNECTIONS = 16
MAX_REQUEST_BYTES = 8192
TIMEOUT_S = 5.0
UNIX_PREFIX = "unix:"
TEXT = "text/plain; charset=utf-8"
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"

log = observe.get_logger()


class MetricsServer:
    """Serves one address until it is closed; without an address it does nothing."""

    def __init__(self, listen: str, supervisor: Supervisor) -> None:
        self._listen = listen
        self._supervisor = supervisor
        self._server: asyncio.Server | None = None
        self._connections = 0

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be bound.
        """
        if not self._listen:
            return
        if self._listen.startswith(UNIX_PREFIX):
            path = self._listen.removeprefix(UNIX_PREFIX)
            self._server = await asyncio.start_unix_server(self._connected, path, limit=MAX_REQUEST_BYTES)
        else:
            host, _, port = self._listen.rpartition(":")
            self._server = await asyncio.start_server(
                self._connected, host.strip("[]"), int(port), limit=MAX_REQUEST_BYTES
            )
        log.info("metrics.listening", address=self._listen)

    async def close(self) -> None:
        """Stop listening."""
        if self._server is None:
            return
        self._server.close()
        if self._listen.startswith(UNIX_PREFIX):
            with contextlib.suppress(OSError):
                Path(self._listen.removeprefix(UNIX_PREFIX)).unlink()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= MAX_CONNECTIONS:
                async with asyncio.timeout(TIMEOUT_S):
                    await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._connections -= 1
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        status, kind, body = await self._answer(head.split(b"\r\n", 1)[0].decode("latin-1"))
        lines = [
            f"HTTP/1.1 {status}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "Connection: close",
        ]
        writer.write("\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def _answer(self, request: str) -> tuple[str, str, bytes]:
        """Status line, content type and body for the first line of a request."""
        method, _, rest = request.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method != "GET":
            return "405 Method Not Allowed", TEXT, b"only GET\n"
        if path == "/metrics":
            return "200 OK", EXPOSITION, await self._supervisor.exposition()
        if path == "/live":
            return "200 OK", TEXT, b"live\n"
        if path == "/ready":
            missing = [tenant["name"] for tenant in self._supervisor.status()["tenants"] if not tenant["is_ready"]]
            if missing:
                return "503 Service Unavailable", TEXT, f"not ready: {', '.join(missing)}\n".encode()
            return "200 OK", TEXT, b"ready\n"
        return "404 Not Found", TEXT, b"there are /metrics, /live and /ready\n"
