"""The router's messages as jobs: each request is read, compared with its model, and let wait for its batch, or refused.

For `trtd.worker.loop`, which receives the messages and sends what is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trtd.core.batching import Batcher
from trtd.core.ids import RequestId
from trtd.errors import Malformed
from trtd.runtime.inputs import Inputs
from trtd.wire.batches import BATCH_ITEMS, decode_arena_message, decode_batch_items
from trtd.wire.codec import read_request_id
from trtd.wire.memo import AFTER_ID, BEFORE_ID, ID
from trtd.wire.messages import ArenaOpened
from trtd.wire.settings import DEFAULT_MAX_ANSWER_BYTES
from trtd.worker.answers import Answers, Job
from trtd.worker.arenas import Arenas
from trtd.worker.runner import typed
from trtd.worker.validate import Catalogue, Desk


class Intake:
    """What a worker knows of requests to come: models, headers that were seen, shared memory.

    Attributes:
        refusals: answers to requests that cannot run, until somebody takes them.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        generation: int,
        arenas: Arenas,
        take_fd: Callable[[], int | None],
        max_answer_bytes: int = DEFAULT_MAX_ANSWER_BYTES,
    ) -> None:
        """Begin with nothing.

        Args:
            catalogue: the models.
            generation: this life of the worker; a message for another one is none that can be read.
            arenas: the shared memory of its clients.
            take_fd: gives the descriptor that came beside a message, None where there is none.
            max_answer_bytes: what one answer may have in frames.
        """
        self._desk = Desk(catalogue, max_answer_bytes)
        self._generation = generation
        self._arenas = arenas
        self._take_fd = take_fd
        self._messages = 0
        self.refusals = Answers()

    def accept(self, frames: Sequence[memoryview], batcher: Batcher[Job], now: float) -> None:
        """Take in one message of the router.

        Args:
            frames: of it.
            batcher: gets the requests that may run.
            now: monotonic seconds.

        Raises:
            Malformed, UnsupportedVersion: the message as a whole cannot be read, so nobody knows whose requests it had.
        """
        if len(frames) == 1:
            self._hear_of_arena(frames[0])
            return
        self._messages += 1
        generation, sent_at_us, items = decode_batch_items(frames[0] if frames else b"")
        if generation != self._generation:
            raise Malformed(f"the message is for generation {generation}")
        if sum(items[1::BATCH_ITEMS]) != len(frames) - 1:
            raise Malformed(f"the entries of the message do not add up to its {len(frames)} frames")
        # The message may have waited here while every slot was busy. The clock is the same in all processes of a host.
        sent_at = min(sent_at_us / 1e6, now)
        batcher.extend(self._jobs(frames, items, sent_at))

    def _jobs(self, frames: Sequence[memoryview], items: Sequence[Any], sent_at: float) -> list[Job]:
        """The requests of a message that may run; the others are refused."""
        jobs = []
        before, after, last = self._desk.last
        at = 1
        each = iter(items)
        for lease, count, queue_us, remaining_us, must_run_alone in zip(each, each, each, each, each, strict=True):
            header = bytes(frames[at])
            own = frames[at + 1 : at + count]
            at += count
            try:
                # Most headers are like the one before, and most frames as plain as they look: then nothing is called.
                if last is not None and header[AFTER_ID] == after and header[BEFORE_ID] == before:
                    request_id: RequestId = header[ID]  # type: ignore[assignment]  # to say what it is would be a call
                    plan = last
                else:
                    request_id, plan = self._desk.read(header)
                    before, after, last = self._desk.last
                if plan.is_plain and list(map(len, own)) == plan.sizes:
                    inputs = Inputs(plan.layout, own)
                else:
                    inputs = plan.read(own, self._arenas)
            except MemoryError:
                raise
            except Exception as error:
                self.refusals.refuse(lease, read_request_id(header), typed(error))
                continue
            group = plan.group
            if must_run_alone and group is not None:
                # Suspects run with the suspects of their message only, which the router has chosen.
                group = (self._messages, group)
            expires_at = sent_at + remaining_us / 1e6
            jobs.append(
                Job(
                    group, plan.items, sent_at, expires_at, plan.limits, lease, request_id, plan.model, inputs, queue_us
                )
            )
        return jobs

    def _hear_of_arena(self, header: memoryview) -> None:
        """Take in the one kind of message that has no frame besides its header."""
        message = decode_arena_message(header)
        if message is None:
            raise Malformed(f"a message of one frame of {len(header)} bytes is not about an arena")
        if isinstance(message, ArenaOpened):
            fd = self._take_fd()
            if fd is not None:
                self._arenas.open(message.key, message.size_bytes, fd)
        else:
            self._arenas.close(message.key)
