"""The slots of a worker: requests in, batches out to the runtime, answers back, without a thread switch on the way.

Each slot is a thread, and they share the one socket to the router. Whoever has no batch to run waits for the socket,
one thread at a time (`_lead`); the one that is woken takes the batch itself and lets the next thread wait. Everything
that touches the connection or the batcher happens under `_io`. With one slot nobody else is there, and both locks are
free.

What runs together is decided in `trtd.core.batching`, how it is run and answered in `trtd.worker.runner`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence

from trtd.child.waiting import wait
from trtd.core.batching import Batcher, Waiting
from trtd.core.ids import LeaseId
from trtd.core.polling import BusyPoll
from trtd.errors import DeadlineExceeded, Malformed, TrtdError
from trtd.observe import get_logger
from trtd.runtime.protocol import Slot
from trtd.wire.batches import BATCH_ITEMS, decode_arena_message, decode_batch_items
from trtd.wire.codec import read_request_id
from trtd.wire.messages import ArenaOpened
from trtd.worker.answers import Answer, Job, messages, refusal
from trtd.worker.arenas import Arenas
from trtd.worker.link import Link
from trtd.worker.plans import Plan
from trtd.worker.progress import Progress
from trtd.worker.runner import Runner, typed
from trtd.worker.validate import Catalogue, Desk, ServedModel

log = get_logger()


class Loop:
    """What the slots of one worker share."""

    def __init__(
        self, link: Link, catalogue: Catalogue, generation: int, arenas: Arenas, busy_poll_s: float = 0.0
    ) -> None:
        """Begin with nothing to do.

        Args:
            link: to the router.
            catalogue: the models.
            generation: this life of the worker.
            arenas: the shared memory of its clients.
            busy_poll_s: see `trtd.core.polling`.
        """
        self.progress = Progress()
        self._polls = BusyPoll(busy_poll_s)
        self._link = link
        self._catalogue = catalogue
        self._generation = generation
        self._desk = Desk(catalogue)
        self._arenas = arenas
        self._batcher = Batcher()
        self._io = threading.Lock()
        self._lead = threading.Lock()
        self._opened = threading.Semaphore(0)
        self._waiting_until: float | None = None
        self._is_stopping = False
        self._refusals: list[Answer] = []
        self._messages_received = 0

    def serve(self, slots: Mapping[ServedModel, Slot] | None = None) -> None:
        """Be a slot until the worker stops and everything received is answered. Called in a thread of its own.

        Args:
            slots: this thread's, where they were opened already.

        Raises:
            trtd.core.faults.ProcessFault, MemoryError: nothing may be answered any more.
        """
        runner = Runner(self._catalogue, self._generation, self.progress, slots)
        self._opened.release()
        batch = self._next_batch([])
        while batch is not None:
            answers = runner.run(batch)
            # An idle slot must not hold the tensors of its last batch.
            batch.clear()
            batch = self._next_batch(answers)

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

    def _next_batch(self, answers: list[Answer]) -> list[Waiting] | None:
        """Send the answers of the last batch and wait for the next one; None when there will be none."""
        with self._io:
            self._send(answers)
            answers.clear()
            batch = self._take()
        if batch is not None:
            return batch
        with self._lead:
            while True:
                with self._io:
                    if self._is_finished():
                        return None
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

    def _take(self) -> list[Waiting] | None:
        """Take in what has come, then take a batch that is due."""
        self._link.flush()
        self._pump()
        now = time.monotonic()
        expired = self._batcher.take_expired(now)
        batch = self._batcher.take(now)
        if expired:
            # The router has answered their clients; this frees their places there.
            error = DeadlineExceeded("the deadline passed before the request could run")
            self._send([refusal(waiting.work.lease, waiting.work.id, error) for waiting in expired])
        self._wake_waiting()
        return batch

    def _wake_waiting(self) -> None:
        """Let the thread that waits look earlier, when something is due before it would look."""
        if self._waiting_until is not None and self._next_look() < self._waiting_until:
            self._link.wake()

    def _next_look(self) -> float:
        due = self._batcher.next_due()
        return math.inf if due is None else due

    def _timeout(self) -> float | None:
        if self._waiting_until is None or self._waiting_until == math.inf:
            return None
        return max(0.0, self._waiting_until - time.monotonic())

    def _is_finished(self) -> bool:
        return self._is_stopping and not len(self._batcher)

    def _pump(self) -> None:
        """Receive all that has come, and refuse what cannot run."""
        while (frames := self._link.receive()) is not None:
            self._accept(frames)
        if self._refusals:
            self._send(self._refusals)
            self._refusals.clear()

    def _send(self, answers: Sequence[Answer]) -> None:
        for frames in messages(answers, self._generation):
            if not self._link.send(frames):
                log.warning("worker.answers_dropped", cause="no router is connected; it will ask again")
        if self._link.has_output:
            # The thread that waits does not know yet that there is something to send on.
            self._link.wake()

    def _accept(self, frames: Sequence[memoryview]) -> None:
        """Take in one message of the router."""
        if len(frames) == 1:
            self._hear_of_arena(frames[0])
            return
        self._messages_received += 1
        try:
            generation, sent_at_us, items = decode_batch_items(frames[0] if frames else b"")
            if generation != self._generation:
                raise Malformed(f"it is for generation {generation}")
            if sum(items[1::BATCH_ITEMS]) != len(frames) - 1:
                raise Malformed(f"its entries do not add up to its {len(frames)} frames")
        except TrtdError as error:
            log.error("worker.message_refused", cause=error.message)
            return
        # The message may have waited here while every slot was busy. The clock is the same in all processes of a host.
        sent_at = min(sent_at_us / 1e6, time.monotonic())
        at = 1
        each = iter(items)
        for lease, count, queue_us, remaining_us, must_run_alone in zip(each, each, each, each, each, strict=True):
            end = at + count
            admitted = self._admit(lease, queue_us, frames[at:end])
            if admitted is not None:
                job, plan = admitted
                group = plan.group
                if must_run_alone and group is not None:
                    # Suspects run with the suspects of their message only, which the router has chosen.
                    group = (self._messages_received, group)
                expires_at = sent_at + remaining_us / 1e6
                self._batcher.add(Waiting(group, plan.items, sent_at, expires_at, plan.model.limits, job))
            at = end

    def _hear_of_arena(self, header: memoryview) -> None:
        """Take in the one kind of message that has no frame besides its header."""
        try:
            message = decode_arena_message(header)
        except TrtdError as error:
            log.error("worker.message_refused", cause=error.message)
            return
        if isinstance(message, ArenaOpened):
            fd = self._link.take_fd()
            if fd is not None:
                self._arenas.open(message.key, message.size_bytes, fd)
        elif message is not None:
            self._arenas.close(message.key)

    def _admit(self, lease: LeaseId, queue_us: int, frames: Sequence[memoryview]) -> tuple[Job, Plan] | None:
        """What one request asks for; None when it was refused."""
        header = bytes(frames[0])
        try:
            request_id, plan = self._desk.read(header)
            inputs = plan.read(frames[1:], self._arenas)
        except MemoryError:
            raise
        except Exception as error:
            self._refusals.append(refusal(lease, read_request_id(header), typed(error)))
            return None
        return Job(lease, request_id, plan.model, inputs, queue_us), plan
