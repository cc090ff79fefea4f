"""The slots of a worker: requests in, batches out to the runtime, answers back, without a thread switch on the way.

Each slot is a thread, and they share the one socket to the router. Whoever has no batch to run waits for the socket,
one thread at a time (`_lead`); the one that is woken takes the batch itself and lets the next thread wait. Everything
that touches the connection or the batcher happens under `_io`. With one slot nobody else is there, and both locks are
free.

How requests are read is in `trtd.worker.intake`, what runs together is decided in `trtd.core.batching`, how it is run
and answered is in `trtd.worker.runner`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping

from trtd.child.waiting import wait
from trtd.core.batching import Batcher
from trtd.core.faults import Fault, FaultKind, ProcessFault
from trtd.core.polling import BusyPoll
from trtd.errors import Blame, DeadlineExceeded, TrtdError
from trtd.observe import get_logger
from trtd.runtime.protocol import Slot
from trtd.wire.settings import DEFAULT_MAX_ANSWER_BYTES
from trtd.worker.answers import Answers, Job
from trtd.worker.arenas import Arenas
from trtd.worker.intake import Intake
from trtd.worker.link import Link
from trtd.worker.progress import Progress
from trtd.worker.runner import Runner
from trtd.worker.validate import Catalogue, ServedModel

log = get_logger()


class Loop:
    """What the slots of one worker share."""

    def __init__(
        self,
        link: Link,
        catalogue: Catalogue,
        generation: int,
        arenas: Arenas,
        busy_poll_s: float = 0.0,
        max_answer_bytes: int = DEFAULT_MAX_ANSWER_BYTES,
        progress: Progress | None = None,
    ) -> None:
        """Begin with nothing to do.

        Args:
            link: to the router.
            catalogue: the models.
            generation: this life of the worker.
            arenas: the shared memory of its clients.
            busy_poll_s: see `trtd.core.polling`.
            max_answer_bytes: what one answer may have in frames.
            progress: counts the batches.
        """
        self.progress = progress or Progress()
        self._polls = BusyPoll(busy_poll_s)
        self._link = link
        self._generation = generation
        self._max_answer_bytes = max_answer_bytes
        self._arenas = arenas
        self._intake = Intake(catalogue, generation, arenas, link.take_fd, max_answer_bytes)
        self._batcher: Batcher[Job] = Batcher()
        self._io = threading.Lock()
        self._lead = threading.Lock()
        self._opened = threading.Semaphore(0)
        self._waiting_until: float | None = None
        self._is_stopping = False

    def serve(self, open_slots: Callable[[], Mapping[ServedModel, Slot]]) -> None:
        """Be a slot until the worker stops and everything received is answered. Called in a thread of its own.

        Args:
            open_slots: gives this thread's, ready to serve.

        Raises:
            trtd.errors.TrtdError: they cannot be opened.
            trtd.core.faults.ProcessFault, MemoryError: nothing may be answered any more.
        """
        runner = Runner(open_slots(), self._generation, self.progress, self._max_answer_bytes)
        self._opened.release()
        answers = Answers()
        while (batch := self._next_batch(answers)) is not None:
            runner.run(batch, answers)
            # An idle slot must not hold the tensors of its last batch.
            batch.clear()

    def wait_until_open(self, threads: int) -> None:
        """Wait until so many threads that serve have their slots; one that cannot open them ends the process."""
        for _ in range(threads):
            self._opened.acquire()

    def connect(self) -> float | None:
        """Connect to the router where there is no connection. Called by one thread.

        What came by a former connection is forgotten: the router that sent it is gone, or has given it to others.

        Returns:
            Seconds until the next try; None while there is a connection.
        """
        if self._link.is_connected:
            return None
        with self._io:
            if len(self._batcher):
                log.info("worker.requests_forgotten", count=len(self._batcher), cause="the router was replaced")
            self._batcher = Batcher()
            self._arenas.clear()
            return self._link.connect()

    def stop(self) -> None:
        """Let `serve` return once everything received is answered. Safe in any thread."""
        self._is_stopping = True
        self._link.wake()

    def silence(self) -> None:
        """Let nobody answer any more, for ever: the process is about to end, and what it would say may be wrong."""
        self._io.acquire()

    def _next_batch(self, answers: Answers) -> list[Job] | None:
        """Send the answers of the last batch and wait for the next one; None when there will be none."""
        with self._io:
            self._send(answers)
            # Where nobody waits for a batch, there is nothing that a message that has come could join.
            batch = self._take() if len(self._batcher) else None
        if batch is not None:
            return batch
        with self._lead:
            while True:
                with self._io:
                    if self._is_stopping:
                        batch = self._take()
                        if batch is not None or not len(self._batcher):
                            return batch
                    self._waiting_until = self._next_look()
                    timeout_s = self._timeout()
                wait(self._polls, timeout_s, self._has_come, self._link.wait, self._is_alone)
                with self._io:
                    self._waiting_until = None
                    batch = self._take()
                if batch is not None:
                    return batch

    def _has_come(self) -> bool:
        return self._link.wait(0.0)

    def _is_alone(self) -> bool:
        """Whether no other slot runs, which would need the interpreter."""
        return not self.progress.is_running

    def _take(self) -> list[Job] | None:
        """Take in what has come, refuse what cannot run, then take a batch that is due.

        Raises:
            ProcessFault: what has come makes no sense.
        """
        self._link.flush()
        now = time.monotonic()
        batcher, refusals = self._batcher, self._intake.refusals
        try:
            for frames in self._link.receive():
                self._intake.accept(frames, batcher, now)
        except TrtdError as unreadable:
            # Its requests would wait for their deadlines. The end of the process gives them to others, and counts.
            text = f"a message of the router cannot be read: {unreadable.message}"
            raise ProcessFault(Fault(FaultKind.EXITED, text, blame=Blame.DAEMON)) from unreadable
        if expired := batcher.take_expired(now):
            # The router has answered their clients; this frees their places there.
            error = DeadlineExceeded("the deadline passed before the request could run")
            for job in expired:
                refusals.refuse(job.lease, job.id, error)
        batch = batcher.take(now)
        self._send(refusals)
        if self._waiting_until is not None:
            self._wake_waiting(self._waiting_until)
        return batch

    def _wake_waiting(self, until: float) -> None:
        """Let the thread that waits look earlier, when something is due before it would look."""
        if self._next_look() < until:
            self._link.wake()

    def _next_look(self) -> float:
        due = self._batcher.next_due()
        return math.inf if due is None else due

    def _timeout(self) -> float | None:
        if self._waiting_until is None or self._waiting_until == math.inf:
            return None
        return max(0.0, self._waiting_until - time.monotonic())

    def _send(self, answers: Answers) -> None:
        if not answers:
            return
        for frames in answers.take(self._generation):
            if not self._link.send(frames):
                log.warning("worker.answers_dropped", cause="no router is connected; it will ask again")
        if self._link.has_output:
            # The thread that waits does not know yet that there is something to send on.
            self._link.wake()
