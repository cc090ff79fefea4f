"""Work that may never end, such as reading from a disk that is away, in a thread that may be left behind.

asyncio's own threads are waited for at the end, and so would hold up SIGTERM for ever; these end with the process.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from trtd import files
from trtd.errors import Unavailable

T = TypeVar("T")


class Aside(Generic[T]):
    """Work in a thread of its own, begun at once."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._future: Future[T] = Future()
        # So that nobody who gives up waiting can cancel it: it goes on in any case.
        self._future.set_running_or_notify_cancel()
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True, name="aside")
        self._thread.start()

    def _run(self, work: Callable[[], T]) -> None:
        try:
            result = work()
        except BaseException as error:
            self._future.set_exception(error)
        else:
            self._future.set_result(result)

    @property
    def has_ended(self) -> bool:
        """Whether there is a result, or an error."""
        return self._future.done()

    @property
    def waits_for(self) -> str:
        """The file, or what else it is at; empty where that is not known."""
        return files.waiting_for(self._thread.ident)

    def wait(self, patience_s: float) -> T:
        """The result.

        Raises:
            TimeoutError: there is none yet. Also what the work raised.
        """
        return self._future.result(patience_s)

    async def result(self, patience_s: float | None = None) -> T:
        """The same for who has a loop to keep turning; None waits for as long as it takes."""
        return await asyncio.wait_for(asyncio.wrap_future(self._future), patience_s)


class Attempts:
    """Pieces of such work for who has a loop: each in a bounded time, and none is begun while an earlier one hangs.

    Args:
        what: they are, in words.
        patience_s: with each.
    """

    def __init__(self, what: str, patience_s: float) -> None:
        self._what = what
        self._patience_s = patience_s
        self._last: Aside[Any] | None = None

    async def make(self, work: Callable[[], T]) -> T:
        """The result of one.

        Raises:
            trtd.errors.Unavailable: it does not come, or the earlier one still has not. Also what the work raised.
        """
        if self._last is not None and not self._last.has_ended:
            raise Unavailable(f"{self._what} still waits for {self._last.waits_for or 'an answer'}, as before")
        attempt = Aside(work)
        self._last = attempt
        try:
            return await attempt.result(self._patience_s)
        except TimeoutError:
            what = attempt.waits_for or "an answer"
            text = f"{self._what} waited {self._patience_s:g} s for {what} in vain; nothing was done"
            raise Unavailable(text) from None
