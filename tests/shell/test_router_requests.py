"""Requests through a real router: answered once, queued, leased, replayed, expired, refused."""

from __future__ import annotations

import os
import uuid

from trtd.core.dispatch import TenantLimits
from trtd.errors import ErrorCode
from trtd.wire import control
from trtd.wire.messages import ErrorAnswer, InferAnswer


def test_a_request_is_answered(bench):
    """A request reaches the worker with its frames untouched, and the worker's answer its client."""
    worker = bench.worker()
    client = bench.client()
    request_id = client.ask(b"\x00\x01\x02")
    batch, requests = worker.receive()
    assert batch.generation == 1
    assert requests[0][1] == b"\x00\x01\x02"
    worker.answer(batch, requests)
    answer, frames = client.receive()
    assert isinstance(answer, InferAnswer)
    assert answer.id == request_id
    assert frames == [b"\x00\x01\x02"]
    stats = bench.router.stats("a", lambda it: it.answered == 1)
    assert (stats.accepted, stats.failed, stats.queued, stats.leased) == (1, 0, 0, 0)
    assert stats.outcomes == (("m", "ok", 1),)
