"""What supervisord 4.3 loads: the XML-RPC namespace `trtd`, and a loop that wakes when a child ends.

    [rpcinterface:trtd]
    supervisor.rpcinterface_factory = trtd.hosts.supervisord:make_interface
    runtime_dir = /run/trtd

Every public method of the interface is a method of XML-RPC; its docstring is what `system.methodHelp` tells, in
supervisor's own form. Who reaches supervisord's socket may do all of this: supervisord asks the daemon as its own user.
What runs inside supervisord's loop is in `trtd.hosts.supervisord_loop`.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Any

from supervisor.http import NOT_DONE_YET
from supervisor.xmlrpc import Faults, RPCError

from trtd.cli.operator import CommandFailed
from trtd.errors import TrtdError
from trtd.hosts.supervisord_loop import OperatorExchange, wake_on_child_exit
from trtd.wire import addresses

AT_ONCE_S = 0.05
"""So long supervisord itself waits for an answer. A longer one is deferred, and supervisord goes on meanwhile."""
LOOK_EVERY_S = 0.01
MAX_XMLRPC_INT = 2**31 - 1


def make_interface(supervisord: Any, runtime_dir: str = "") -> TrtdInterface:  # noqa: ARG001 - it passes itself
    """What supervisord calls at its start and after each SIGHUP, with the keys of the section as arguments."""
    wake_on_child_exit()
    return TrtdInterface(runtime_dir or addresses.runtime_dir(os.environ, os.getuid()))


class TrtdInterface:
    """The methods of the namespace."""

    def __init__(self, runtime_dir: str) -> None:
        self._runtime_dir = runtime_dir

    def status(self, tenant: str = "") -> Any:
        """Return the status record of trtd; sizes above 31 bits are doubles, and what is not known is left out.

        @param string tenant    Only this tenant
        @return struct result   The record that `trtd status --json` prints
        """
        return self._answer("status", tenant=tenant or None)

    def drain(self, tenant: str, timeout_s: float = 0.0) -> Any:
        """Refuse new requests of a tenant, finish the accepted ones, stop its workers.

        @param string tenant       The tenant
        @param double timeout_s    Seconds to wait; 0 for daemon.drain_timeout_s
        @return struct result      What became of each tenant
        """
        return self._answer("drain", tenant=tenant, timeout_s=timeout_s or None)

    def drain_all(self, timeout_s: float = 0.0) -> Any:
        """Drain every tenant.

        @param double timeout_s    Seconds to wait; 0 for daemon.drain_timeout_s
        @return struct result      What became of each tenant
        """
        return self._answer("drain", all=True, timeout_s=timeout_s or None)

    def resume(self, tenant: str) -> Any:
        """Let a drained or quarantined tenant serve again.

        @param string tenant    The tenant
        @return struct result   What became of each tenant
        """
        return self._answer("resume", tenant=tenant)

    def resume_all(self) -> Any:
        """Let every tenant serve again.

        @return struct result   What became of each tenant
        """
        return self._answer("resume", all=True)

    def _answer(self, command: str, **args: Any) -> Any:
        """The answer, or a function that supervisord calls until it returns one."""
        try:
            exchange = OperatorExchange(self._runtime_dir, command, args)
        except TrtdError as error:
            raise _fault(error) from None
        _wait(exchange)
        if exchange.is_over:
            return _value(exchange)

        def look() -> Any:
            return _value(exchange) if exchange.is_over else NOT_DONE_YET

        return _deferred(look)


def _wait(exchange: OperatorExchange) -> None:
    poller = select.poll()
    poller.register(exchange.fd, select.POLLIN)
    while not exchange.is_over and poller.poll(AT_ONCE_S * 1000):
        exchange.handle_read_event()


def _deferred(look: Callable[[], Any]) -> Callable[[], Any]:
    look.delay = LOOK_EVERY_S  # type: ignore[attr-defined]  # where supervisor looks for it
    return look


def _value(exchange: OperatorExchange) -> Any:
    try:
        return xmlrpc_value(exchange.result())
    except TrtdError as error:
        raise _fault(error) from None


def _fault(error: TrtdError) -> RPCError:
    cause = error.cause if isinstance(error, CommandFailed) else error
    return RPCError(Faults.FAILED, f"{cause.code}: {' '.join(cause.message.split())}")


def xmlrpc_value(value: Any) -> Any:
    """The value as XML-RPC can carry it: it has no null, and its integers have 32 bits."""
    if isinstance(value, dict):
        return {key: xmlrpc_value(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [xmlrpc_value(item) for item in value if item is not None]
    if isinstance(value, int) and abs(value) > MAX_XMLRPC_INT:
        return float(value)
    return value
