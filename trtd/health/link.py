"""Questions to the supervisor, few at any number of HTTP requests.

Requests that come while a question is under way share the next one: an answer is never older than the request that it
is for, so readiness cannot lag behind, and a flood of probes costs the supervisor one question at a time, with a pause
between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict
from typing import Any

from trtd.health.answers import SupervisorSilent
from trtd.wire.health import ASK_BEAT

PATIENCE_S = 2.0
"""With the supervisor's answer. A longer silence is told as such to who asks."""
PAUSE_S = 0.01
"""Between an answer and the next question."""
BEAT_EVERY_S = 1.0
"""Without any probe the supervisor still hears so often that its child lives."""


class Link:
    """The connection to the supervisor, with at most one question under way.

    Args:
        reader: of the connection.
        writer: likewise.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._waiting: dict[str, list[asyncio.Future[Any]]] = defaultdict(list)
        self._is_wanted = asyncio.Event()

    async def ask(self, word: str) -> Any:
        """The record of this word, made after this call.

        Raises:
            SupervisorSilent: it did not come in time.
        """
        asked: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[word].append(asked)
        self._is_wanted.set()
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await asked
        except TimeoutError:
            raise SupervisorSilent(f"the supervisor said nothing for {PATIENCE_S:g} s") from None

    async def run(self) -> None:
        """Carry questions and answers until the supervisor closes the connection."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_EVERY_S):
                    await self._is_wanted.wait()
            self._is_wanted.clear()
            waiting, self._waiting = self._waiting, defaultdict(list)
            for word in [*waiting] or [ASK_BEAT]:
                line = await self._exchange(word)
                if not line:
                    return
                record = json.loads(line)
                for asked in waiting[word]:
                    if not asked.done():
                        asked.set_result(record)
            await asyncio.sleep(PAUSE_S)

    async def _exchange(self, word: str) -> bytes:
        self._writer.write(json.dumps({"ask": word}).encode() + b"\n")
        await self._writer.drain()
        return await self._reader.readline()
