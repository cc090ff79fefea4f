"""The client for asyncio programs: the same calls as `trtd.Client`, awaited.

An ordinary ZeroMQ socket and the event loop's readers; everything runs in the loop's thread.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from trtd.client.calls import Form, Forms, RequestIds, check_call
from trtd.client.exchange import Completion, Exchange
from trtd.client.sync import DEFAULT_TIMEOUT_S, address_of
from trtd.client.transport import CurveKeys, Transport
from trtd.client.values import Answer, Health, Tensor
from trtd.errors import TrtdError, Usage
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
        self._exchange = Exchange(self._transport)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_turn_due = False
        self._is_closed = False
        self._pid = os.getpid()

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
        """Run a model; the future gets its answer. With a connection, the request leaves before this returns."""
        timeout_s = self._timeout_s if timeout is None else timeout
        check_call(timeout_s, priority)
        form, tensors = self._forms.infer(model, inputs, version, timeout_s, priority)
        future: asyncio.Future[Answer] = self._send(form, tensors, timeout_s)
        return future

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
        return self._send(Form(message), (), timeout_s)

    def _send(self, form: Form, tensors: Sequence[Any], timeout_s: float) -> asyncio.Future[Any]:
        if self._is_closed:
            raise Usage("this client is closed")
        if os.getpid() != self._pid:
            raise Usage("a client cannot be used in a process forked from its own; open another one there")
        loop = self._attach()
        future: asyncio.Future[Any] = loop.create_future()
        request_id = self._ids.next()
        _settle(self._exchange.submit(request_id, form, tensors, timeout_s, future, time.monotonic()))
        future.add_done_callback(lambda done: self._exchange.abandon(request_id) if done.cancelled() else None)
        self._look_again()
        return future

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


def _settle(completions: list[Completion]) -> None:
    for future, outcome in completions:
        if future.done():
            continue
        if isinstance(outcome, TrtdError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
