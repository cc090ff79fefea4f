"""The client for asyncio programs: the same calls as `trtd.Client`, awaited.

An ordinary ZeroMQ socket and the event loop's readers; everything runs in the loop's thread.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar, cast

import numpy as np

from trtd.client import forks
from trtd.client.arenas import Arenas
from trtd.client.calls import Form, Forms, RequestIds, check_call
from trtd.client.exchange import Completion, Exchange
from trtd.client.many import DEFAULT_WINDOW, batch_of, check_window
from trtd.client.pending import PendingRequest, Placement, new_request
from trtd.client.placing import empty, place
from trtd.client.sync import DEFAULT_TIMEOUT_S, address_of
from trtd.client.transport import CurveKeys, Transport
from trtd.client.values import Answer, Health, Tensor
from trtd.core.ids import RequestId
from trtd.errors import TrtdError, Usage
from trtd.wire import addresses
from trtd.wire.messages import UNKNOWN_REQUEST_ID, ClientMessage, DescribeRequest, HealthRequest, ModelDescription

Result = TypeVar("Result")


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
            trtd.errors.Usage: the address or a key is not one.
        """
        check_call(timeout)
        self._timeout_s = timeout
        self._ids = RequestIds()
        self._forms = Forms()
        self._transport = Transport(address, curve)
        self._arenas = Arenas(addresses.arenas_path_beside(address))
        self._exchange = Exchange(self._transport, self._arenas)
        self._outbox: list[PendingRequest] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_turn_due = False
        self._is_closed = False
        self._fork_depth = forks.depth

    @classmethod
    def for_tenant(cls, tenant: str, runtime_dir: str | None = None, *, timeout: float = DEFAULT_TIMEOUT_S) -> Self:
        """A client of a tenant of this host's daemon; arguments as in `trtd.Client.for_tenant`."""
        return cls(address_of(tenant, runtime_dir), timeout=timeout)

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Tensor],
        *,
        version: str | None = None,
        timeout: float | None = None,
        priority: int = 0,
    ) -> Answer:
        """Run a model and await its answer; arguments and errors as in `trtd.Client.infer`."""
        return await self.submit(model, inputs, version=version, timeout=timeout, priority=priority)

    def submit(
        self,
        model: str,
        inputs: Mapping[str, Tensor],
        *,
        version: str | None = None,
        timeout: float | None = None,
        priority: int = 0,
    ) -> asyncio.Future[Answer]:
        """Run a model; the future gets its answer.

        With a connection, a request leaves before this returns when no other is on its way, else with all others that
        are submitted before the event loop goes on.
        """
        timeout_s = self._timeout_s if timeout is None else timeout
        check_call(timeout_s, priority)
        now = time.monotonic()
        form, frames = self._forms.infer(model, inputs, version, timeout_s, priority)
        placement = place(form, frames, self._arenas, now) if form.large or form.area_bytes else None
        future: asyncio.Future[Answer] = self._send(form, frames, timeout_s, now, placement)
        return future

    async def infer_many(
        self,
        model: str,
        inputs: Iterable[Mapping[str, Tensor]] | AsyncIterable[Mapping[str, Tensor]],
        *,
        window: int = DEFAULT_WINDOW,
        version: str | None = None,
        timeout: float | None = None,
        priority: int = 0,
        return_errors: bool = False,
    ) -> AsyncIterator[Answer | TrtdError]:
        """Run a model on many inputs and yield the answers in their order; arguments as in `trtd.Client.infer_many`.

        The inputs may come from an asynchronous iterable too. Errors are yielded with `return_errors` only.
        """
        check_window(window)
        source = inputs if isinstance(inputs, AsyncIterable) else _asynchronous(inputs)
        batch = batch_of(window)
        futures: deque[asyncio.Future[Answer]] = deque()
        iterator: AsyncIterator[Mapping[str, Tensor]] | None = aiter(source)
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
                        futures.append(self._submit_in_place(model, one, version, timeout, priority))
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
        message = DescribeRequest(UNKNOWN_REQUEST_ID, model)
        return cast("tuple[ModelDescription, ...]", await self._ask(message, timeout))

    async def health(self, *, timeout: float | None = None) -> Health:
        """Whether the tenant would take a request now."""
        return cast("Health", await self._ask(HealthRequest(UNKNOWN_REQUEST_ID), timeout))

    async def close(self) -> None:
        """Release the connection, its threads and descriptors; requests under way end as `Unreachable`. Repeatable."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._loop is not None:
            self._loop.remove_reader(self._transport.fd)
            self._loop.remove_reader(self._transport.monitor_fd)
        if self._timer is not None:
            self._timer.cancel()
        # What has not left yet ends as everything else does.
        _settle(self._exchange.submit(self._outbox, time.monotonic()))
        _settle(self._exchange.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _ask(self, message: ClientMessage, timeout: float | None) -> asyncio.Future[Any]:
        timeout_s = self._timeout_s if timeout is None else timeout
        check_call(timeout_s)
        return self._send(Form(message), (), timeout_s, time.monotonic())

    def _submit_in_place(
        self, model: str, inputs: Mapping[str, Tensor], version: str | None, timeout: float | None, priority: int
    ) -> asyncio.Future[Answer]:
        """As `submit`, with the error of a call that cannot be made in the future."""
        try:
            return self.submit(model, inputs, version=version, timeout=timeout, priority=priority)
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
    ) -> asyncio.Future[Any]:
        self._check_usable()
        loop = self._attach()
        handle = _Handle(self._ids.next(), loop.create_future())
        handle.future.add_done_callback(lambda done: self._abandon(handle) if done.cancelled() else None)
        self._outbox.append(new_request(handle, form, frames, timeout_s, now, placement))
        if not len(self._exchange):
            self._send_outbox()
        elif len(self._outbox) == 1:
            loop.call_soon(self._send_outbox)
        return handle.future

    def _send_outbox(self) -> None:
        if not self._is_closed and self._outbox:
            outbox, self._outbox = self._outbox, []
            _settle(self._exchange.submit(outbox, time.monotonic()))
            self._look_again()

    def _abandon(self, handle: _Handle) -> None:
        self._outbox = [request for request in self._outbox if request.handle is not handle]
        self._exchange.abandon(handle.id)

    def _attach(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            loop.add_reader(self._transport.fd, self._turn)
            loop.add_reader(self._transport.monitor_fd, self._turn, True)
        elif self._loop is not loop:
            raise Usage("a client belongs to the event loop of its first call; open another one for this loop")
        return loop

    def _turn(self, is_connection_news: bool = False) -> None:
        self._is_turn_due = False
        if not self._is_closed:
            _settle(self._exchange.turn(time.monotonic(), is_connection_news=is_connection_news))
            self._look_again()

    def _look_again(self) -> None:
        """Arrange for the next turn: soon when there is work whose edge is used up, else at the next deadline."""
        loop = cast("asyncio.AbstractEventLoop", self._loop)
        if not self._is_turn_due and self._exchange.has_work():
            self._is_turn_due = True
            loop.call_soon(self._turn)
        deadline = self._exchange.next_deadline()
        if self._timer is not None:
            if deadline is not None and self._timer.when() <= deadline and not self._timer.cancelled():
                return
            self._timer.cancel()
        # asyncio's clock is time.monotonic, by the documentation of its base event loop.
        self._timer = None if deadline is None else loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._turn()


class _Handle(NamedTuple):
    """Whose a request is."""

    id: RequestId
    future: asyncio.Future[Any]


async def _asynchronous(inputs: Iterable[Mapping[str, Tensor]]) -> AsyncIterator[Mapping[str, Tensor]]:
    for one in inputs:
        yield one


def _settle(completions: list[Completion]) -> None:
    for handle, outcome in completions:
        future = handle.future
        if future.done():
            continue
        if isinstance(outcome, TrtdError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
