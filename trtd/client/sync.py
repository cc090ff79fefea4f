"""The client for ordinary programs: calls that block, from any number of threads."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

import numpy as np

from trtd.client.arenas import Arenas
from trtd.client.arguments import iterator_of, name_of, path_of, priority_of, seconds_of, tenant_of, window_of
from trtd.client.calls import Form, Forms, RequestIds
from trtd.client.handle import Handle
from trtd.client.many import DEFAULT_WINDOW, answers_in_order
from trtd.client.pending import PendingRequest, new_request
from trtd.client.placing import empty, place
from trtd.client.shared import SharedExchange
from trtd.client.transport import CurveKeys, Transport
from trtd.client.values import Answer, Health, TensorLike
from trtd.errors import TrtdError
from trtd.wire import addresses
from trtd.wire.messages import UNKNOWN_REQUEST_ID, ClientMessage, DescribeRequest, HealthRequest, ModelDescription

DEFAULT_TIMEOUT_S = 30.0

Result = TypeVar("Result")


def address_of(tenant: str, runtime_dir: str | os.PathLike[str] | None) -> str:
    """The address of a tenant of this host's daemon.

    Raises:
        trtd.errors.Usage: no tenant has such a name, or the directory is no path.
    """
    directory = addresses.runtime_dir(os.environ, os.getuid()) if runtime_dir is None else path_of(runtime_dir)
    return addresses.tenant_address(directory, tenant_of(tenant))


class Client:
    """A connection to one tenant of a daemon. Safe for any number of threads; requests run side by side.

    The connection is made in the background and made again when it is lost; what is unanswered then is sent again under
    the same id. Every request ends once: with an answer, or with a `trtd.errors.TrtdError`. A client cannot be used
    across `os.fork`.

    Use it as a context manager, or call `close`.
    """

    def __init__(self, address: str, *, timeout: float = DEFAULT_TIMEOUT_S, curve: CurveKeys | None = None) -> None:
        """Begin to connect.

        Args:
            address: of the tenant's socket, such as `ipc:///run/trtd/a.sock` or `tcp://host:7001`.
            timeout: seconds for requests that name no timeout of their own.
            curve: keys, for `tcp://`.

        Raises:
            trtd.errors.Usage: the address, a key or the timeout is not one, or this process has no descriptors left.
        """
        self._timeout_s = seconds_of(timeout)
        self._ids = RequestIds()
        self._forms = Forms()
        transport = Transport(address, curve)
        self._arenas = Arenas(addresses.arenas_path_beside(address))
        self._shared = SharedExchange(transport, self._arenas)

    @classmethod
    def for_tenant(
        cls, tenant: str, runtime_dir: str | os.PathLike[str] | None = None, *, timeout: float = DEFAULT_TIMEOUT_S
    ) -> Self:
        """A client of a tenant of this host's daemon.

        Args:
            tenant: its name.
            runtime_dir: the daemon's runtime directory; None finds it as the daemon does (`TRTD_DAEMON__RUNTIME_DIR`,
                `/run/trtd` for root, `$XDG_RUNTIME_DIR/trtd`, `/tmp/trtd-UID`).
            timeout: seconds for requests that name no timeout of their own.
        """
        return cls(address_of(tenant, runtime_dir), timeout=timeout)

    def infer(
        self,
        model: str,
        inputs: Mapping[str, TensorLike],
        *,
        outputs: Sequence[str] | None = None,
        version: str | None = None,
        timeout: float | None = None,
        priority: int = 0,
    ) -> Answer:
        """Run a model and wait for its answer.

        Args:
            model: its name.
            inputs: arrays by name, or what NumPy reads as one: lists, scalars, tensors in the memory of the host
                (DLPack, `__array__`). Floats of Python become float32, whole numbers int64. Arrays must not change
                before the call returns.
            outputs: names of the outputs that are wanted; None for all.
            version: of the model; None for the newest.
            timeout: seconds until the request is given up, in the daemon too; None for the client's own.
            priority: 0 is normal, a higher one goes first, from -8 to 7.

        Raises:
            trtd.errors.TrtdError: the typed error of the daemon; `DeadlineExceeded` when the time was up;
                `Unreachable` when no daemon came in that time; `NotAllowed` when it refused this user or key;
                `InvalidInput`, `UnsupportedDtype` or `Usage` for arguments that cannot be sent.
        """
        handle = self._submit_infer(model, inputs, outputs, version, timeout, priority, is_detached=False)
        return self._wait(handle)

    def submit(
        self,
        model: str,
        inputs: Mapping[str, TensorLike],
        *,
        outputs: Sequence[str] | None = None,
        version: str | None = None,
        timeout: float | None = None,
        priority: int = 0,
    ) -> Handle[Answer]:
        """Run a model without waiting; many requests can be on their way at a time.

        Arguments and errors are those of `infer`; the errors of the daemon come out of the handle. The input arrays
        must not change before the handle is done: they are sent from where they are, and again after a reconnection.
        """
        return self._submit_infer(model, inputs, outputs, version, timeout, priority, is_detached=True)

    @overload
    def infer_many(
        self,
        model: str,
        inputs: Iterable[Mapping[str, TensorLike]],
        *,
        window: int = ...,
        outputs: Sequence[str] | None = ...,
        version: str | None = ...,
        timeout: float | None = ...,
        priority: int = ...,
        return_errors: Literal[False] = ...,
    ) -> Iterator[Answer]: ...

    @overload
    def infer_many(
        self,
        model: str,
        inputs: Iterable[Mapping[str, TensorLike]],
        *,
        window: int = ...,
        outputs: Sequence[str] | None = ...,
        version: str | None = ...,
        timeout: float | None = ...,
        priority: int = ...,
        return_errors: Literal[True],
    ) -> Iterator[Answer | TrtdError]: ...

    def infer_many(
        self,
        model: str,
        inputs: Iterable[Mapping[str, TensorLike]],
        *,
        window: int = DEFAULT_WINDOW,
        outputs: Sequence[str] | None = None,
        version: str | None = None,
        timeout: float | None = None,
        priority: int = 0,
        return_errors: bool = False,
    ) -> Iterator[Answer | TrtdError]:
        """Run a model on many inputs, many at a time, and yield the answers in the order of the inputs.

        Small requests leave several in one message where the daemon takes that. Inputs are taken from the iterable as
        the window has room. Ending the iteration early gives up what is on its way.

        Args:
            model: its name.
            inputs: as for `infer`, one mapping for each request; the arrays must not change until its answer is there.
            window: most requests on their way at a time.
            outputs: as for `infer`.
            version: as for `infer`.
            timeout: as for `infer`, of each request by itself.
            priority: as for `infer`.
            return_errors: whether an error stands in the place of the answer; otherwise it is raised there, and the
                iteration is over.

        Raises:
            trtd.errors.TrtdError: as `infer`, while iterating; `Usage` at once where an argument is no good.
        """
        timeout_s = self._timeout_s if timeout is None else seconds_of(timeout)
        prepare = partial(self._prepare, name_of(model, "model"), outputs, version, timeout_s, priority_of(priority))
        source = iterator_of(inputs)
        return answers_in_order(self._shared, source, prepare, window_of(window), return_errors=return_errors)

    def empty(self, shape: int | Sequence[int], dtype: Any = np.float32) -> np.ndarray[Any, Any]:
        """An array to be filled and sent: in shared memory where it is large and the daemon is on this host.

        It is used like any other array. Sent as an input, as it is or as a part of it that starts at a multiple of 64
        bytes, it is not copied. Its memory is free again when the last array that refers to it is gone.

        Args:
            shape: of the array.
            dtype: of the array.

        Raises:
            trtd.errors.Usage: the client is closed, or there is no array of that shape and dtype.
        """
        self._shared.check_usable()
        return empty(shape, dtype, self._arenas, time.monotonic())

    def describe(self, model: str | None = None, *, timeout: float | None = None) -> tuple[ModelDescription, ...]:
        """The models of the tenant, or all versions of one: names, dtypes and shapes of inputs and outputs.

        Raises:
            trtd.errors.TrtdError: as `infer`.
        """
        wanted = None if model is None else name_of(model, "model")
        handle: Handle[tuple[ModelDescription, ...]] = self._send(DescribeRequest(UNKNOWN_REQUEST_ID, wanted), timeout)
        return self._wait(handle)

    def health(self, *, timeout: float | None = None) -> Health:
        """Whether the tenant would take a request now.

        Raises:
            trtd.errors.TrtdError: as `infer`.
        """
        handle: Handle[Health] = self._send(HealthRequest(UNKNOWN_REQUEST_ID), timeout)
        return self._wait(handle)

    def close(self) -> None:
        """Release the connection, its threads and descriptors; requests under way end as `Unreachable`. Repeatable."""
        self._shared.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _submit_infer(
        self,
        model: str,
        inputs: Mapping[str, TensorLike],
        outputs: Sequence[str] | None,
        version: str | None,
        timeout: float | None,
        priority: int,
        *,
        is_detached: bool,
    ) -> Handle[Answer]:
        timeout_s = self._timeout_s if timeout is None else seconds_of(timeout)
        if type(priority) is not int or priority:
            priority = priority_of(priority)
        request = self._prepare(model, outputs, version, timeout_s, priority, inputs, time.monotonic())
        self._shared.submit(request, is_detached=is_detached)
        handle: Handle[Answer] = request.handle
        return handle

    def _prepare(
        self,
        model: str,
        outputs: Sequence[str] | None,
        version: str | None,
        timeout_s: float,
        priority: int,
        inputs: Mapping[str, TensorLike],
        now: float,
    ) -> PendingRequest:
        form, frames = self._forms.infer(model, inputs, version, timeout_s, priority, outputs)
        placement = place(form, frames, self._arenas, now) if form.large or form.outputs.area_bytes else None
        return new_request(Handle(self._shared, self._ids.next()), form, frames, timeout_s, now, placement)

    def _send(self, message: ClientMessage, timeout: float | None) -> Handle[Result]:
        timeout_s = self._timeout_s if timeout is None else seconds_of(timeout)
        handle: Handle[Result] = Handle(self._shared, self._ids.next())
        request = new_request(handle, Form(message), (), timeout_s, time.monotonic())
        self._shared.submit(request, is_detached=False)
        return handle

    def _wait(self, handle: Handle[Result]) -> Result:
        try:
            return handle.result()
        except BaseException:
            # Ctrl-C, and anything else that ends the wait early.
            if not handle.done():
                self._shared.abandon(handle)
            raise
