"""One worker process after its first steps: the main thread keeps channel and beats, other threads load and serve.

So a Stop is obeyed and a closed channel is noticed at any moment, and beats go on while a slot is stuck in native code.
The process ends through `os._exit`, because nothing of a runtime can be relied on to come to its end.
"""

from __future__ import annotations

import gc
import math
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from trtd import observe
from trtd.child.channel import Channel, ChannelClosed
from trtd.core.faults import Fault, FaultKind
from trtd.errors import Blame, ExitCode, Malformed, TrtdError
from trtd.runtime.protocol import Runtime
from trtd.wire.batches import encode_attach
from trtd.wire.control import (
    AskBeat,
    FaultReport,
    MakeFault,
    Stop,
    TrialBegun,
    TrialEnded,
    WorkerBeat,
    WorkerReady,
    in_lines,
)
from trtd.wire.messages import Attach
from trtd.wire.settings import WorkerSettings
from trtd.wire.tensorrt import DeviceReport
from trtd.worker.arenas import Arenas
from trtd.worker.faults import fault_of
from trtd.worker.link import Link
from trtd.worker.load import load
from trtd.worker.loop import Loop
from trtd.worker.memory import Resident, over_limit, read_resident, unaccounted
from trtd.worker.progress import Progress
from trtd.worker.trials import Teller

REST_AFTER_S = 1.0
"""Without a batch for so long a worker rests: its life signs come seldom, until the next batch begins."""

log = observe.get_logger()


class WorkerProcess:
    """The whole of one worker's life."""

    def __init__(self, channel: Channel, settings: WorkerSettings, started_at: float) -> None:
        self._channel = channel
        self._settings = settings
        self._started_at = started_at
        self._news_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._is_done = False
        self._lock = threading.Lock()
        self._loop: Loop | None = None
        self._link: Link | None = None
        self._runtime: Runtime | None = None
        self._progress = Progress(self._wake)
        self._beating = threading.Lock()
        self._beat_at = 0.0
        self._resident = Resident(0, 0)
        self._report: DeviceReport | None = None
        self._seen = (0, 0)
        self._busy_at: float | None = None
        """When a batch was last seen to run, or the worker became ready; None before that."""

    def run(self) -> NoReturn:
        """Load, serve, stop, end. Called in the main thread."""
        self._start_thread("slot-0", self._load_and_serve)
        self._answer_for(self._keep_channel)
        if self._link is not None:
            self._link.close()
        leave(ExitCode.OK)

    def _keep_channel(self) -> None:
        """Beat, listen and connect until everything is answered."""
        channel_fd = self._channel.fileno()
        while not self._is_done:
            now = time.monotonic()
            if now >= self._beat_at:
                # Whoever wants one sooner meanwhile is not overruled by the interval.
                self._beat_at = math.inf
                self._beat_at = min(self._beat_at, now + self._beat(now))
            fds = [channel_fd, self._news_fd]
            timeout_s = max(0.0, self._beat_at - now)
            if self._loop is not None and self._link is not None:
                retry_s = self._loop.connect()
                if retry_s is None:
                    fds.append(self._link.loss_fd)
                else:
                    timeout_s = min(timeout_s, retry_s)
            ready, _, _ = select.select(fds, (), (), timeout_s)
            if self._news_fd in ready:
                os.eventfd_read(self._news_fd)
            if channel_fd in ready:
                self._listen()

    def _beat(self, now: float) -> float:
        """Give a life sign; seconds until the next one."""
        settings = self._settings
        self._resident = read_resident()
        self._report = None if self._runtime is None else self._runtime.device_memory()
        seen = self._progress.read()
        if self._busy_at is not None and seen != self._seen:
            self._busy_at = now
        self._seen = seen
        has_rest = self._busy_at is not None and now - self._busy_at >= REST_AFTER_S
        with self._beating:
            is_resting = has_rest and self._progress.rest(seen)
            self._say_beat(is_resting=is_resting)
        fault = over_limit(self._resident, settings.memory_limit_bytes) or unaccounted(self._report)
        if fault is not None:
            self._fail(fault)
        return settings.idle_beat_every_s if is_resting else settings.beat_every_s

    def _wake(self) -> None:
        """The first batch after a rest begins: say so before it can hold the interpreter, and rest no longer."""
        with self._beating:
            self._say_beat(is_resting=False)
        self._beat_soon()

    def _beat_soon(self) -> None:
        self._beat_at = 0.0
        self._tell_main()

    def _say_beat(self, *, is_resting: bool) -> None:
        """A life sign that the supervisor has no room for is left out: it does not read, and the next one will do."""
        progress, in_flight = self._progress.read()
        rss_bytes, peak_rss_bytes = self._resident.rss_bytes, self._resident.peak_rss_bytes
        generation = self._settings.generation
        beat = WorkerBeat(generation, progress, in_flight, rss_bytes, peak_rss_bytes, self._report, is_resting)
        try:
            self._channel.send(beat, wait=False)
        except ChannelClosed:
            leave(ExitCode.TEMPORARY)

    def _listen(self) -> None:
        try:
            message = self._channel.receive(wait=False)
        except ChannelClosed:
            leave(ExitCode.TEMPORARY)
        except Malformed as error:
            log.error("worker.order_refused", cause=error.message)
            return
        if isinstance(message, Stop):
            with self._lock:
                if self._loop is None:
                    leave(ExitCode.OK)
                self._loop.stop()
        elif isinstance(message, MakeFault):
            self._make_fault(message.fault)
        elif isinstance(message, AskBeat):
            self._beat_soon()

    def _make_fault(self, fault: str) -> None:
        """Make a fault on purpose, in a thread of its own: the device may take long to show it."""
        runtime = self._runtime
        if runtime is None or not self._settings.allow_faults:
            log.warning("fault.refused", fault=fault, cause="no model is loaded, or debug.allow_faults is off")
            return

        def make() -> None:
            log.warning("fault.injected", fault=fault)
            try:
                runtime.make_fault(fault)
            except TrtdError as error:
                log.warning("fault.survived", fault=fault, cause=error.message)

        self._start_thread("fault", make)

    def _load_and_serve(self) -> None:
        """Become ready, then be the first slot, and the last one to leave."""
        settings = self._settings
        loaded = load(settings, self._teller())
        self._runtime = loaded.runtime
        models = tuple(model.description for model in loaded.catalogue.models)
        attach = encode_attach(Attach(settings.tenant, settings.replica, settings.generation, models))
        link = Link(settings.router_path, attach)
        loop = Loop(
            link,
            loaded.catalogue,
            settings.generation,
            Arenas(loaded.runtime),
            settings.busy_poll_s,
            settings.max_answer_bytes,
            self._progress,
        )
        with self._lock:
            self._link = link
            self._loop = loop
        self._tell_main()
        serve = partial(loop.serve, loaded.open_slots)
        others = [self._start_thread(f"slot-{number}", serve) for number in range(1, settings.slots)]
        loop.wait_until_open(len(others))
        load_s = time.monotonic() - self._started_at
        runtime = f"{loaded.runtime.info.name} {loaded.runtime.info.version}"
        self._tell(WorkerReady(settings.generation, models, runtime, load_s))
        self._busy_at = time.monotonic()
        # What is there now stays: without it a full collection looks at nothing, instead of at all that was imported.
        gc.freeze()
        loop.serve(lambda: loaded.slots)
        for other in others:
            other.join()
        self._is_done = True
        self._tell_main()

    def _teller(self) -> Teller:
        generation = self._settings.generation
        return Teller(
            begun=lambda model, key: self._tell(TrialBegun(generation, model, key)),
            ended=lambda trial: self._tell(TrialEnded(generation, trial)),
        )

    def _tell_main(self) -> None:
        """Let the main thread look at what has changed."""
        os.eventfd_write(self._news_fd, 1)

    def _start_thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=self._answer_for, args=(work,), name=name, daemon=True)
        thread.start()
        return thread

    def _answer_for(self, work: Callable[[], None]) -> None:
        """Do what a thread is for. What ends it before its time ends the process, judged alike in each thread."""
        try:
            work()
        except BaseException as error:
            self._fail(fault_of(error))

    def _tell(self, message: WorkerReady | TrialBegun | TrialEnded | FaultReport) -> None:
        try:
            self._channel.send(message)
        except ChannelClosed:
            leave(ExitCode.TEMPORARY)

    def _fail(self, fault: Fault) -> NoReturn:
        """Say why, in a line that fits any packet, and leave. From here on nothing is answered."""
        if self._loop is not None:
            self._loop.silence()
        self._tell(FaultReport(self._settings.generation, in_lines(fault)))
        leave(exit_code(fault))


def exit_code(fault: Fault) -> ExitCode:
    """The exit code that tells the same as the fault, for a supervisor that did not get the report."""
    if fault.kind is FaultKind.BAD_CONFIG:
        return ExitCode.BAD_CONFIG
    if fault.permanent:
        return ExitCode.BAD_DATA
    return ExitCode.INTERNAL if fault.blame is Blame.DAEMON else ExitCode.TEMPORARY


def leave(code: ExitCode) -> NoReturn:
    """End the process at once."""
    sys.stderr.flush()
    os._exit(code)
