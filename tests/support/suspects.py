"""Requests that end their workers, and workers that die of them."""

from __future__ import annotations

from tests.support.desk import Desk
from trtd.core.dispatch import Request
from trtd.core.ids import WorkerId

POISON = (b"poison",)


def is_poison(request: Request) -> bool:
    """Whether a worker that runs this dies."""
    return request.payload == POISON


def run(desk: Desk, worker: WorkerId, most_turns: int = 1000) -> tuple[WorkerId, int]:
    """Let one replica work until nothing waits, dying of poison; its last life and how many it took."""
    deaths = 0
    for _ in range(most_turns):
        held = desk.held_by(worker)
        if not held:
            return worker, deaths
        if any(is_poison(request) for request in held):
            deaths += 1
            worker = desk.admit(desk.die(worker))
        else:
            desk.answer(worker)
    raise AssertionError("it never ends")


def die_with(desk: Desk, *requests: Request) -> WorkerId:
    """A worker takes these and dies; the admitted successor."""
    worker = desk.admit()
    desk.submit(*requests)
    return desk.admit(desk.die(worker))
