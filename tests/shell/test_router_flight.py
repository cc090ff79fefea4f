"""Routers that die of a request, one after the other, with the page that outlives them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from tests.support.router import PATIENCE_S
from trtd.core.flight import PAGE_BYTES
from trtd.errors import ErrorCode
from trtd.supervisor.spawn import blank_page
from trtd.wire.control import Stop
from trtd.wire.messages import ErrorAnswer, InferAnswer

DEADLY = b"deadly"
MOST_LIVES = 8


@pytest.fixture
def page() -> Iterator[int]:
    fd = blank_page("page", PAGE_BYTES)
    yield fd
    os.close(fd)


class Lives:
    """One router after the other; each dies whenever a worker is given the deadly request, and clients send again."""

    def __init__(self, bench, page: int) -> None:
        self._bench = bench
        self._page = page
        self.generation = 0

    def begin(self):
        self.generation += 1
        self._bench.start(generation=self.generation, flight_fd=self._page)
        self._bench.tenant()
        return self._bench.worker(generation=self.generation), self._bench.client()

    def run(self, payloads: dict[bytes, bytes]) -> dict[bytes, object]:
        """What the requests with these ids and payloads are answered, over as many lives as that takes."""
        answers: dict[bytes, object] = {}
        is_first = True
        while len(answers) < len(payloads):
            assert self.generation < MOST_LIVES
            worker, client = self.begin()
            for request_id, payload in payloads.items():
                if request_id not in answers:
                    client.ask(payload, id=request_id, is_resent=not is_first)
            is_first = False
            is_dead = False
            while not is_dead and len(answers) < len(payloads):
                if worker.has_work(0.02):
                    batch, requests = worker.receive()
                    is_dead = any(DEADLY in request for request in requests)
                    if not is_dead:
                        worker.answer(batch, requests)
                while client.has_answer(0.02):
                    answer, frames = client.receive()
                    answers[answer.id] = answer.code if isinstance(answer, ErrorAnswer) else frames
        return answers


@pytest.mark.parametrize("count", [1, 12, 40])
def test_a_request_that_ends_routers_is_refused_and_all_others_are_answered(bench, page, count):
    """Its like is refused by the router that found it, and nothing else is."""
    lives = Lives(bench, page)
    payloads = {uuid.uuid4().bytes: b"%d" % number for number in range(count - 1)}
    deadly = uuid.uuid4().bytes
    payloads[deadly] = DEADLY
    answers = lives.run(payloads)
    assert answers.pop(deadly) == ErrorCode.POISONOUS
    assert answers == {request_id: [payload] for request_id, payload in payloads.items() if request_id != deadly}
    worker, client = bench.worker(generation=100), bench.client()
    client.ask(DEADLY)
    answer, _ = client.receive()
    assert isinstance(answer, ErrorAnswer)
    assert answer.code == ErrorCode.POISONOUS
    client.ask(b"harmless")
    worker.serve(1)
    assert isinstance(client.receive()[0], InferAnswer)


def test_a_router_that_stops_as_it_should_leaves_nobody_suspected(bench, page):
    """What it had in hand is not looked at by the next one."""
    lives = Lives(bench, page)
    lives.begin()
    _, client = lives.begin()
    client.ask(is_resent=True)
    bench.router.stats("a", lambda it: it.accepted == 1)
    assert os.pread(page, PAGE_BYTES, 5).strip(b"\0")
    bench.router.tell(Stop())
    assert bench.router.process.wait(PATIENCE_S) == 0
    lives.begin()
    assert os.pread(page, PAGE_BYTES, 5) == bytes(PAGE_BYTES - 5)
