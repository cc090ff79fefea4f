"""What becomes of clients' messages: a request like the one before it on its connection is taken like any other."""

from __future__ import annotations

import random
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.router import make_endpoint
from tests.support.wire import infer_fields, make_infer_request, pack, pack_bundle
from trtd.core.arenas import ArenaBook
from trtd.core.dispatch import TenantLimits
from trtd.core.ids import RequestId, TenantName
from trtd.core.requests import Request
from trtd.errors import TooLarge
from trtd.router.callers import Caller, Route
from trtd.router.intake import Intake
from trtd.wire.arenas import REF_BYTES
from trtd.wire.bundles import BUNDLE_HEADER
from trtd.wire.codec import encode_client_message
from trtd.wire.messages import DescribeRequest, Dtype, Place, TensorSpec

OWNER = "uid:1001"
SETTINGS = make_endpoint(Path("/nowhere"))
STRICTER = replace(SETTINGS, limits=TenantLimits(max_timeout_s=5.0))


class Frame(bytes):
    """A frame as libzmq hands it out."""

    @property
    def buffer(self) -> memoryview:
        return memoryview(self)


class Door:
    """An intake, with what passed it: requests that were submitted, and answers that were delivered at once."""

    def __init__(self) -> None:
        self.passed: list[Any] = []
        self.is_open = True
        self.tenant = TenantName("a")
        self.settings = SETTINGS
        self.arenas = self
        self.book = ArenaBook(0)
        self.intake = Intake(self, self.submit, self, lambda _: (), lambda _: True)

    def submit(self, request: Request, now: float) -> None:
        assert request.received_at == now
        values = [getattr(request, field.name) for field in fields(Request)]
        self.passed.append([tuple(value) if isinstance(value, tuple) else value for value in values])

    def deliver(self, route: Route, frames: list[bytes], now: float) -> None:
        del now
        self.passed.append((route, frames))

    def is_admitted(self, tenant: str, owner: str) -> bool:
        assert (tenant, owner) == ("a", OWNER)
        return self.is_open


def make_caller(*, is_named: bool = False) -> Caller:
    """A connection that has asked nothing yet."""
    return Caller(Route(None, b"peer"), OWNER, "", is_named=is_named)


UINT8S = TensorSpec("x", Dtype.UINT8, (4,))
PLAIN = make_infer_request(inputs=(UINT8S,))
ASKED = [
    PLAIN,
    replace(PLAIN, id=RequestId(b"j" * 16)),
    replace(PLAIN, is_resent=True),
    replace(PLAIN, timeout_s=20.0),
    replace(PLAIN, priority=1),
    replace(PLAIN, inputs=(replace(UINT8S, shape=(5,)),)),
    replace(PLAIN, inputs=(replace(UINT8S, place=Place.ARENA),)),
    DescribeRequest(RequestId(b"d" * 16), None),
]
REORDERED = infer_fields(inputs=[["x", "uint8", [4], "frame"]])
HEADERS = [*map(encode_client_message, ASKED), pack(dict(sorted(REORDERED.items())))]
HEADERS.append(b"\x8f" + HEADERS[0][1:])
FRAMES = [[b"1234"], [b"12345"], [bytes(REF_BYTES)], [b"1234", b"x"], []]


@pytest.mark.parametrize("is_named", [False, True])
def test_what_a_connection_asked_before_changes_nothing(is_named: bool) -> None:
    """Each message of a connection has the outcome that it would have as the first one, in a bundle or not."""
    rng = random.Random(7)
    used, fresh = Door(), Door()
    caller = make_caller(is_named=is_named)
    for step in range(3000):
        settings = rng.choice([*[SETTINGS] * 8, STRICTER])
        error = rng.choice([*[None] * 8, TooLarge("too large")])
        is_bundle = rng.random() < 0.3
        header = rng.choice([*HEADERS[:2] * 8, *HEADERS])
        frames = rng.choice([*FRAMES[:1] * 16, *FRAMES])
        for door, asks in ((used, caller), (fresh, make_caller(is_named=is_named))):
            door.settings = settings
            if is_bundle:
                bundle = Frame(pack_bundle([[header, *frames]] * 2))
                received = (asks, BUNDLE_HEADER, [bundle], len(bundle), error)
            else:
                received = (asks, header, frames, len(header) + sum(map(len, frames)), error)
            assert door.intake.take(door, received, float(step)) == (2 if is_bundle and error is None else 1)
        assert used.passed == fresh.passed
        used.passed, fresh.passed = [], []
    assert (caller.habit is not None) == (not is_named)


def test_new_settings_end_a_habit() -> None:
    """Who may not use the tenant any more is refused at the next request, however often the same was taken before."""
    door, caller = Door(), make_caller()
    header = encode_client_message(make_infer_request(inputs=(UINT8S,)))
    for _ in range(3):
        door.intake.take(door, (caller, header, [b"1234"], 100, None), 1.0)
    assert caller.habit is not None
    door.settings, door.is_open = STRICTER, False
    door.intake.take(door, (caller, header, [b"1234"], 100, None), 1.0)
    assert len(door.passed) == 4
    assert b"not_allowed" in door.passed[3][1][0]
