"""The client for asyncio programs: the same calls as `trtd.Client`, awaited.

An ordinary ZeroMQ socket and the event loop's readers; everything runs in the loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
import weakref
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import numpy as np

from trtd.client import forks
from trtd.client.arenas import Arenas
from trtd.client.arguments import iterator_of, name_of, priority_of, seconds_of, window_of
from trtd.client.calls import Form, Forms, RequestIds
from trtd.client.exchange import Exchange
from trtd.client.futures import RequestFuture, settle
from trtd.client.many import DEFAULT_WINDOW, batch_of
from trtd.client.pending import PendingRequest, Placement, new_request
from trtd.client.placing import empty, place
from trtd.client.sync import DEFAULT_TIMEOUT_S, address_of
from trtd.client.transport import CurveKeys, Transport
from trtd.client.values import Answer, Health, TensorLike
from trtd.errors import TrtdError, Usage
from trtd.wire import addresses
from trtd.wire.messages import UNKNOWN_REQUEST_ID, ClientMessage, DescribeRequest, HealthRequest, ModelDescription

Result = TypeVar("Result")
Turn = Callable[[bool], None]

_OTHER_LOOP = "a client belongs to the event loop of its first call; open another one for this loop"


class Client:
    """A connection to one tenant of a daemon, for one event loop. Any number of tasks may await requests side by side.

    See `trtd.Client` for what holds of connections, errors and arrays. Cancelling a task that awaits gives its request
    up here; the daemon may still run it. Use it as an asynchronous context manager, or call `close`.
    """

    def __init__(self, address: str, *, timeout: float = DEFAULT_TIMEOUT_S, curve: CurveKeys | None = None) -> None:
        """Begin to connect. The first call decides which event loop it belongs to.

        Args:
            address: of the tenant's socket, such as `ipc:///run/trtd/a.sock` or `tcp://host:7001`.
            timeout: seconds for requests that name no timeout of their own.
            curve: keys, for `tcp://`.

        Raises:
            trtd.errors.Usage: as in `trtd.Client`.
        """
        self._timeout_s = seconds_of(timeout)
        self._ids = RequestIds()
        self._forms = Forms()
        self._transport = Transport(address, curve)
        self._arenas = Arenas(addresses.arenas_path_beside(address))
        self._exchange = Exchange(self._transport, self._arenas)
        self._outbox: list[PendingRequest] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._is_turn_due = False
        self._is_one_at_a_time = True
        self._is_closed = False
        self._fork_depth = forks.depth
        self._dropped: weakref.finalize[..., Client] | None = None

    @classmethod
    def for_tenant(
        cls, tenant: str, runtime_dir: str | os.PathLike[str] | None = None, *, timeout: float = DEFAULT_TIMEOUT_S
    ) -> Self:
        """A client of a tenant of this host's daemon; arguments as in `trtd.Client.for_tenant`."""
        return cls(address_of(tenant, runtime_dir), timeout=timeout)

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, TensorLike],
        *,
        outputs: Sequence[str] | None = None,
        version: str | None = None,
        timeout: float | None = None,
        priority: int = 0,
    ) -> Answer:
        """Run a model and await its answer; arguments and errors as in `trtd.Client.infer`."""
        return await self.submit(model, inputs, outputs=outputs, version=version, timeout=timeout, priority=priority)

    def submit(
        self,
        model: str,
        inputs: Mapping[str, TensorLike],
        *,
        outputs: Sequence[str] | None = None,
        version: str | None = None,
        timeout: float | None = None,
        priority: int = 0,
    ) -> asyncio.Future[Answer]:
        """Run a model; the future gets its answer.

        With a connection, the request of a caller that makes one at a time leaves before this returns. Requests of many
        tasks leave with all others that are submitted before the event loop goes on.
        """
        timeout_s = self._timeout_s if timeout is None else seconds_of(timeout)
        if type(priority) is not int or priority:
            priority = priority_of(priority)
        now = time.monotonic()
        form, frames = self._forms.infer(model, inputs, version, timeout_s, priority, outputs)
        placement = place(form, frames, self._arenas, now) if form.large or form.outputs.area_bytes else None
        return self._send(form, frames, timeout_s, now, placement)

    async def infer_many(
        self,
        model: str,
        inputs: Iterable[Mapping[str, TensorLike]] | AsyncIterable[Mapping[str, TensorLike]],
        *,
        window: int = DEFAULT_WINDOW,
        outputs: Sequence[str] | None = None,
        version: str | None = None,
        timeout: float | None = None,
        priority: int = 0,
        return_errors: bool = False,
    ) -> AsyncIterator[Answer | TrtdError]:
        """Run a model on many inputs and yield the answers in their order; arguments as in `trtd.Client.infer_many`.

        The inputs may come from an asynchronous iterable too. Errors are yielded with `return_errors` only.
        """
        window = window_of(window)
        source = inputs if isinstance(inputs, AsyncIterable) else _asynchronous(iterator_of(inputs))
        batch = batch_of(window)
        futures: deque[asyncio.Future[Answer]] = deque()
        iterator: AsyncIterator[Mapping[str, TensorLike]] | None = aiter(source)
        try:
            while True:
                room = window - len(futures)
                if iterator is not None and (room >= batch or not futures or (room and not futures[0].done())):
                    while len(futures) < window:
                        try:
                            one = await anext(iterator)
                        except StopAsyncIteration:
                            iterator = None
                            break
                        futures.append(self._submit_in_place(model, one, outputs, version, timeout, priority))
                if not futures:
                    break
                outcome: Answer | TrtdError
                try:
                    outcome = await futures[0]
                except TrtdError as error:
                    if not return_errors:
                        raise
                    outcome = error
                futures.popleft()
                yield outcome
        finally:
            for future in futures:
                if not future.cancel() and not future.cancelled():
                    # Looked at, so that asyncio does not report an error that nobody asked for.
                    future.exception()

    def empty(self, shape: int | Sequence[int], dtype: Any = np.float32) -> np.ndarray[Any, Any]:
        """An array to be filled and sent, in shared memory where that helps, as `trtd.Client.empty`."""
        self._check_usable()
        return empty(shape, dtype, self._arenas, time.monotonic())

    async def describe(self, model: str | None = None, *, timeout: float | None = None) -> tuple[ModelDescription, ...]:
        """The models of the tenant, or all versions of one."""
        message = DescribeRequest(UNKNOWN_REQUEST_ID, None if model is None else name_of(model, "model"))
        return cast("tuple[ModelDescription, ...]", await self._ask(message, timeout))

    async def health(self, *, timeout: float | None = None) -> Health:
        """Whether the tenant would take a request now."""
        return cast("Health", await self._ask(HealthRequest(UNKNOWN_REQUEST_ID), timeout))

    async def close(self) -> None:
        """Release the connection, its threads and descriptors; requests under way end as `Unreachable`. Repeatable.

        Raises:
            trtd.errors.Usage: the client's own event loop runs in another thread.
        """
        if self._is_closed or forks.depth != self._fork_depth:
            return
        loop = self._loop
        if loop is not None and loop is not asyncio.get_running_loop() and loop.is_running():
            raise Usage(_OTHER_LOOP)
        self._is_closed = True
        if self._dropped is not None:
            self._dropped.detach()
        if loop is not None and not loop.is_closed():
            _leave(loop, self._transport)
        if self._timer is not None:
            self._timer.cancel()
        # What has not left yet ends as everything else does.
        settle(self._exchange.submit(self._outbox, time.monotonic()))
        settle(self._exchange.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _ask(self, message: ClientMessage, timeout: float | None) -> asyncio.Future[Any]:
        timeout_s = self._timeout_s if timeout is None else seconds_of(timeout)
        return self._send(Form(message), (), timeout_s, time.monotonic())

    def _submit_in_place(
        self,
        model: str,
        inputs: Mapping[str, TensorLike],
        outputs: Sequence[str] | None,
        version: str | None,
        timeout: float | None,
        priority: int,
    ) -> asyncio.Future[Answer]:
        """As `submit`, with the error of a call that cannot be made in the future."""
        try:
            return self.submit(model, inputs, outputs=outputs, version=version, timeout=timeout, priority=priority)
        except TrtdError as error:
            self._check_usable()
            future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            future.set_exception(error)
            return future

    def _check_usable(self) -> None:
        if self._is_closed:
            raise Usage("this client is closed")
        if forks.depth != self._fork_depth:
            raise Usage("a client cannot be used in a process forked from its own; open another one there")

    def _send(
        self, form: Form, frames: Sequence[Any], timeout_s: float, now: float, placement: Placement | None = None
    ) -> RequestFuture:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise Usage("an asyncio client is used in an event loop that runs; trtd.Client needs none") from None
        if self._is_closed or loop is not self._loop or forks.depth != self._fork_depth:
            self._check_usable()
            self._attach(loop)
        future = RequestFuture(loop=loop)
        future.id = self._ids.next()
        future.abandon = self._abandon
        self._outbox.append(new_request(future, form, frames, timeout_s, now, placement))
        if len(self._outbox) == 1:
            if self._is_one_at_a_time and not len(self._exchange):
                self._send_outbox()
            else:
                # Behind all tasks that the last answers have woken, so that what they submit leaves together.
                loop.call_soon(self._send_outbox)
        return future

    def _send_outbox(self) -> None:
        if not self._is_closed and self._outbox:
            outbox, self._outbox = self._outbox, []
            settle(self._exchange.submit(outbox, time.monotonic()))
            if self._exchange.has_work():
                self._turn_soon()
            self._set_timer()

    def _abandon(self, future: RequestFuture) -> None:
        self._outbox = [request for request in self._outbox if request.handle is not future]
        self._exchange.abandon(future.id)

    def _attach(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None:
            raise Usage(_OTHER_LOOP)
        self._loop = loop
        self._dropped = weakref.finalize(self, _drop, self._fork_depth, weakref.ref(loop), self._transport)
        self._dropped.atexit = False
        # While requests are pending the timer keeps the client; without any it belongs to its callers alone.
        turn: weakref.ref[Turn] = weakref.WeakMethod(self._turn)
        loop.add_reader(self._transport.fd, _call, turn, False)
        loop.add_reader(self._transport.monitor_fd, _call, turn, True)

    def _turn(self, is_connection_news: bool = False) -> None:
        self._is_turn_due = False
        if self._is_closed:
            return
        completions = self._exchange.turn(time.monotonic(), is_connection_news=is_connection_news)
        if completions:
            self._is_one_at_a_time = len(completions) == 1
            settle(completions)
        self._set_timer()

    def _turn_soon(self) -> None:
        """Have a turn though the edge of the descriptor is used up."""
        if not self._is_turn_due:
            self._is_turn_due = True
            cast("asyncio.AbstractEventLoop", self._loop).call_soon(self._turn)

    def _set_timer(self) -> None:
        """Have a turn by the next deadline.

        A timer goes on though its request was answered: one that is early costs less than a new one for each request.
        """
        deadline = self._exchange.next_deadline()
        if deadline is None or self._timer_at <= deadline:
            return
        if self._timer is not None:
            self._timer.cancel()
        # asyncio's clock is time.monotonic, by the documentation of its base event loop.
        self._timer_at = deadline
        self._timer = cast("asyncio.AbstractEventLoop", self._loop).call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self._turn()


def _call(method: weakref.ref[Turn], is_connection_news: bool) -> None:
    turn = method()
    if turn is not None:
        turn(is_connection_news)


def _drop(fork_depth: int, of: weakref.ref[asyncio.AbstractEventLoop], transport: Transport) -> None:
    # Any thread may come here at any time. The descriptors have to leave the loop before their numbers are used again;
    # the transport, which nobody else knows, ends with the last reference to it.
    loop = of()
    if loop is not None and not loop.is_closed() and fork_depth == forks.depth:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_leave, loop, transport)


def _leave(loop: asyncio.AbstractEventLoop, transport: Transport) -> None:
    loop.remove_reader(transport.fd)
    loop.remove_reader(transport.monitor_fd)


async def _asynchronous(inputs: Iterable[Mapping[str, TensorLike]]) -> AsyncIterator[Mapping[str, TensorLike]]:
    for one in inputs:
        yield one
