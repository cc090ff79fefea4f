"""`serve`: the daemon from its first step to its exit code.

The order matters: the directory and the lock before anything is touched, the operators' socket before the children,
so that the daemon can be asked what is wrong when nothing works; and at the end the other way round.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from trtd import observe
from trtd.child.own_loop import OwnLoop
from trtd.child.streams import let_nothing_wait
from trtd.config.load import Loaded
from trtd.config.model import Config
from trtd.config.reload import reloaded
from trtd.core.privacy import TELEMETRY_OFF
from trtd.errors import ExitCode, TrtdError, Unavailable
from trtd.supervisor import cgroup, runtime_dir
from trtd.supervisor.activation import take_listeners
from trtd.supervisor.aside import Attempts
from trtd.supervisor.caretaker import look_after
from trtd.supervisor.commands import STOPPING_HINT, Commands
from trtd.supervisor.control import ControlServer
from trtd.supervisor.descriptors import claim_fds
from trtd.supervisor.health import HealthChild
from trtd.supervisor.loop import Supervisor
from trtd.supervisor.model_files import Watch
from trtd.supervisor.notify import Notifier, take_notifier
from trtd.supervisor.plan import Plan, make_plan
from trtd.supervisor.processes import become_subreaper
from trtd.supervisor.service_manager import ServiceManager
from trtd.supervisor.shutdown import Shutdown
from trtd.supervisor.vitals import watch
from trtd.wire import addresses
from trtd.wire.settings import Listener

READ_PATIENCE_S = 60.0
"""With the files and account databases of a configuration that is read while the daemon serves."""

log = observe.get_logger()


def serve(loaded: Loaded, load: Callable[[], Loaded]) -> ExitCode:
    """Run the daemon in this process until it is told to stop.

    Args:
        loaded: the configuration.
        load: reads the configuration again, for a reload.

    Returns:
        OK when every accepted request was answered, TEMPORARY when something had to be cut.

    Raises:
        trtd.errors.InvalidConfig: a user or group in the configuration does not exist, or the host allows too few file
            descriptors for it.
        trtd.errors.NotAllowed: the runtime directory or a socket cannot be used.
        trtd.errors.Unavailable: another daemon serves this runtime directory.
    """
    config = loaded.config
    # Whoever started us may have had signals blocked, and so would we and every child: deaf to SIGTERM and to deaths.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    notifier = take_notifier(os.environ, os.getpid())
    let_nothing_wait(os.environ)
    observe.configure(str(config.log.format), config.log.level)
    claim_fds(config)
    listeners = take_listeners(os.environ, os.getpid())
    directory = config.daemon.runtime_dir
    runtime_dir.prepare(directory)
    with contextlib.closing(runtime_dir.Lock(directory)) as lock:
        become_subreaper()
        with contextlib.closing(notifier), asyncio.Runner(loop_factory=OwnLoop) as runner:
            return runner.run(_Daemon(loaded, load, notifier, listeners, lock).run())


def claim_cgroup() -> tuple[cgroup.Delegation | None, str]:
    """The cgroup subtree for memory limits, if there is one, and what holds the limits, in words."""
    try:
        delegation = cgroup.claim()
    except cgroup.NotDelegated as reason:
        return None, f"each worker watches its own resident memory; no cgroup: {reason}"
    return delegation, f"cgroup {delegation.base}"


class _Daemon:
    """Everything that lives as long as the event loop."""

    def __init__(
        self,
        loaded: Loaded,
        load: Callable[[], Loaded],
        notifier: Notifier,
        listeners: tuple[Listener, ...],
        lock: runtime_dir.Lock,
    ) -> None:
        self._watch = Watch()
        self._plan = self._make_plan(loaded)
        self._load = load
        self._notifier = notifier
        self._listeners = listeners
        self._lock = lock
        self._reloading = asyncio.Lock()
        self._reading = Attempts("reading the configuration", READ_PATIENCE_S)
        self._is_reload_due = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> ExitCode:
        """Serve until stopped."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_exception)
        delegation, memory_limits = claim_cgroup()
        self._supervisor = supervisor = Supervisor(
            self._plan, os.environ, loop, delegation, memory_limits, self._listeners
        )
        self._service_manager = ServiceManager(self._notifier, supervisor, loop)
        shutdown = Shutdown(supervisor, loop)
        config = self._plan.config
        control = ControlServer(
            addresses.operator_path(config.daemon.runtime_dir),
            Commands(supervisor, self.reload).handlers(),
            lambda: supervisor.plan.roles,
        )
        health = HealthChild(config.health.listen, supervisor, os.environ)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, shutdown.request, number.name)
        loop.add_signal_handler(signal.SIGHUP, self._reload_on_signal)
        loop.add_signal_handler(signal.SIGCHLD, supervisor.processes.sweep)
        try:
            await _listen(control, health, config)
            log.info("daemon.started", pid=os.getpid(), runtime_dir=config.daemon.runtime_dir, memory=memory_limits)
            log.info("telemetry.switched_off", cause="nothing leaves this host but answers", by=sorted(TELEMETRY_OFF))
            _report_unused(self._listeners, supervisor.plan)
            supervisor.apply(self._plan)
            self._keep(self._service_manager.attend())
            self._keep(watch(supervisor, shutdown))
            self._keep(look_after(self._lock.look_after, control.look_after, health.look_after))
            await supervisor.stopped.wait()
        finally:
            await control.close()
            await health.close()
            supervisor.close()
        log.info("daemon.stopped", exit_code=int(shutdown.exit_code))
        return shutdown.exit_code

    async def reload(self) -> dict[str, Any]:
        """Read the configuration again, check all of it, and apply the difference; on any error the old one stays.

        Raises:
            InvalidConfig: the new configuration cannot be used.
            Unavailable: it cannot be read now, or the daemon is stopping.
        """
        async with self._reloading:
            with self._service_manager.reloading():
                return await self._reload()

    async def _reload(self) -> dict[str, Any]:
        before = self._supervisor.plan
        if self._supervisor.fleet.is_stopping:
            raise Unavailable("the daemon is stopping", hint=STOPPING_HINT)
        try:
            # Disks and account databases may be slow; the loop is not.
            wanted = await self._reading.make(self._load)
            kept = reloaded(before.config, wanted.config, wanted.origins)
            loaded = Loaded(kept.config, wanted.origins, wanted.files)
            plan = await self._reading.make(lambda: self._make_plan(loaded))
        except TrtdError as error:
            log.error("config.reload_failed", cause=" ".join(error.message.split()))
            raise
        was = {spec.name: spec for spec in before.specs}
        now = {spec.name: spec for spec in plan.specs}
        self._supervisor.apply(plan)
        answer: dict[str, Any] = {
            "added": sorted(now.keys() - was.keys()),
            "removed": sorted(was.keys() - now.keys()),
            "changed": sorted(name for name in now.keys() & was.keys() if now[name] != was[name]),
            "needs_restart": list(kept.needs_restart),
        }
        log.info("config.reloaded", **answer)
        return answer

    def _make_plan(self, loaded: Loaded) -> Plan:
        return make_plan(loaded, os.geteuid(), self._watch.look(), is_terminal=sys.stderr.isatty())

    def _reload_on_signal(self) -> None:
        # A reload that has not begun reads the files later than this signal: one for all of them is enough.
        if not self._is_reload_due:
            self._is_reload_due = True
            self._keep(self._reload_quietly())

    async def _reload_quietly(self) -> None:
        """Reload for a signal, which nobody waits for: the log has the outcome."""
        async with self._reloading:
            self._is_reload_due = False
            with contextlib.suppress(TrtdError), self._service_manager.reloading():
                await self._reload()

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run this beside everything else, for as long as the loop runs."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("loop.task_failed", cause=repr(error))


def _report_unused(listeners: tuple[Listener, ...], plan: Plan) -> None:
    """Name the sockets that were handed over and that no tenant has: a reload may bring it, or its name is wrong."""
    endpoints = plan.endpoints.values()
    wanted = {address for endpoint in endpoints for address in (endpoint.address, endpoint.tcp_address)}
    used = {listener.fd for listener in listeners if listener.address in wanted}
    for listener in listeners:
        if listener.fd not in used:
            log.warning("listener.unused", address=listener.address)


async def _listen(control: ControlServer, health: HealthChild, config: Config) -> None:
    where = f"the operators' socket in {config.daemon.runtime_dir}"
    try:
        await control.start()
        where = f"health.listen, {config.health.listen}"
        health.start()
    except OSError as error:
        raise Unavailable(f"{where}, cannot be opened: {error.strerror or error}") from None


def _log_exception(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A defect in a callback: tell it and go on, the workers are worth more than a clean end."""
    log.error("loop.callback_failed", what=context.get("message"), cause=repr(context.get("exception")))
