"""When the area of a request is safe to use again: for every way in which a request can end, and only then."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from tests.unit.client.test_exchange import Owner, ScriptedTransport, make_id
from trtd.client.answers import Area
from trtd.client.arenas import Arenas
from trtd.client.calls import Form
from trtd.client.exchange import Exchange
from trtd.client.pending import GRACE_S, Placement, new_request
from trtd.client.transport import ConnectionEvent, Transport
from trtd.client.values import Answer
from trtd.core.ids import RequestId
from trtd.errors import ErrorCode, Malformed
from trtd.wire import codec
from trtd.wire.arenas import MIN_PLACED_BYTES, ArenaRef, encode_ref
from trtd.wire.messages import (
    UNKNOWN_REQUEST_ID,
    Dtype,
    ErrorAnswer,
    InferAnswer,
    InferRequest,
    Place,
    TensorSpec,
    Timing,
)

KEY = 5
AREA = ArenaRef(KEY, 128, 256)
SPECS = (TensorSpec("x", Dtype.UINT8, (64,), Place.ARENA),)

SAFE_CODES = {
    ErrorCode.MALFORMED,
    ErrorCode.UNSUPPORTED_VERSION,
    ErrorCode.UNSUPPORTED_DTYPE,
    ErrorCode.UNKNOWN_MODEL,
    ErrorCode.INVALID_INPUT,
    ErrorCode.TOO_LARGE,
    ErrorCode.OVERLOADED,
    ErrorCode.OUT_OF_MEMORY,
    ErrorCode.MODEL_FAILED,
    ErrorCode.ARENA_UNKNOWN,
}


class Memory:
    """Stands for a region: 256 bytes at offset 128."""

    offset = AREA.offset

    def array(self) -> Any:
        return np.arange(AREA.size_bytes, dtype=np.uint8)


class RecordingArenas:
    """Remembers what is done to regions."""

    def __init__(self) -> None:
        self.epoch = 1
        self.has_bundles = self.is_expecting = False
        self.retired: list[Any] = []
        self.disowned: list[set[int]] = []

    def retire(self, region: Any) -> None:
        self.retired.append(region)

    def disown(self, keys: set[int], now: float) -> None:
        self.disowned.append(keys)

    def connected(self, now: float) -> None:
        self.epoch += 1

    def disconnected(self) -> None:
        self.epoch += 1

    def close(self) -> None:
        self.epoch += 1


class Stage:
    """One request with an area, out on a connection, with an end to come."""

    def __init__(self, *, is_connected: bool = True) -> None:
        self.transport = ScriptedTransport(*[ConnectionEvent.CONNECTED] * is_connected)
        self.arenas = RecordingArenas()
        self.exchange = Exchange(cast("Transport", self.transport), cast("Arenas", self.arenas))
        self.exchange.turn(0.0, is_connection_news=True)
        self.region = Memory()
        form = Form(InferRequest(UNKNOWN_REQUEST_ID, "m", None, (TensorSpec("x", Dtype.UINT8, (64,)),), 5.0))
        frames = [encode_ref(ArenaRef(KEY, 0, 64)), encode_ref(AREA)]
        placed = form.placed((0,), has_area=True)
        placement = Placement(placed, frames, Area(AREA, self.region), self.arenas.epoch, {KEY}, [])
        request = new_request(Owner(make_id(1), 1), form, [bytes(64)], 5.0, 0.0, placement)
        assert self.exchange.submit([request], 0.0) == []

    def events(self, *events: ConnectionEvent, now: float = 1.0) -> list[Any]:
        self.transport.events = list(events)
        return self.outcomes(now)

    def outcomes(self, now: float = 1.0) -> list[Any]:
        return [outcome for _, outcome in self.exchange.turn(now, is_connection_news=True)]

    def fail(self, code: str) -> list[Any]:
        self.transport.answers.append([codec.encode_router_message(ErrorAnswer(make_id(1), code, "why"))])
        return self.outcomes()

    def succeed(self, frame: bytes, specs: tuple[TensorSpec, ...] = SPECS) -> list[Any]:
        message = InferAnswer(make_id(1), "m", "1", 3, specs, Timing(1, 2, 3))
        self.transport.answers.append([codec.encode_router_message(message), frame])
        return self.outcomes()

    @property
    def is_retired(self) -> bool:
        return self.arenas.retired == [self.region]


def test_a_result_frees_the_area():
    """A result proves that its worker is done, whether the outputs are in the area or in frames."""
    stage = Stage()
    [answer] = stage.succeed(encode_ref(ArenaRef(KEY, 192, 64)))
    assert isinstance(answer, Answer)
    np.testing.assert_array_equal(answer["x"], np.arange(64, 128))
    assert not stage.arenas.retired
    stage = Stage()
    assert isinstance(stage.succeed(bytes(64), (TensorSpec("x", Dtype.UINT8, (64,)),))[0], Answer)
    assert not stage.arenas.retired


def test_an_area_that_was_withheld_is_not_used_again():
    """Large outputs in frames say that another worker had the area before, and may write into it yet."""
    for size, is_retired in ((MIN_PLACED_BYTES, True), (MIN_PLACED_BYTES - 1, False)):
        stage = Stage()
        [answer] = stage.succeed(bytes(size), (TensorSpec("x", Dtype.UINT8, (size,)),))
        assert isinstance(answer, Answer)
        assert stage.is_retired == is_retired


def test_an_output_in_an_area_is_read_only():
    """An output in shared memory cannot be changed, as one in a frame cannot, not even by asking for it."""
    [answer] = Stage().succeed(encode_ref(ArenaRef(KEY, 192, 64)))
    with pytest.raises(ValueError, match="WRITEABLE"):
        answer["x"].flags.writeable = True


@pytest.mark.parametrize(
    "ref",
    [
        ArenaRef(KEY + 1, 192, 64),
        ArenaRef(KEY, 64, 64),
        ArenaRef(KEY, 384, 64),
        ArenaRef(KEY, 192, 63),
        ArenaRef(KEY, 2**63, 64),
    ],
)
def test_a_place_outside_of_the_area(ref):
    """An answer that names another place, or one of another size, is malformed, and its area is not used again."""
    stage = Stage()
    [error] = stage.succeed(encode_ref(ref))
    assert isinstance(error, Malformed)
    assert stage.is_retired


@pytest.mark.parametrize("code", [code for code in ErrorCode if code is not ErrorCode.ARENA_UNKNOWN])
def test_errors(code):
    """Only errors that come from the worker or from the door free the area; all others retire it."""
    stage = Stage()
    [error] = stage.fail(code)
    assert error.code == code
    assert stage.is_retired == (code not in SAFE_CODES)


def test_an_error_of_a_newer_daemon():
    """A code that this client does not know proves nothing."""
    stage = Stage()
    stage.fail("tired")
    assert stage.is_retired


def test_an_arena_that_is_not_known():
    """The request is sent again in frames, by itself, as one that was never sent; its arenas are named no more."""
    stage = Stage()
    assert stage.fail(ErrorCode.ARENA_UNKNOWN) == []
    assert not stage.arenas.retired
    assert stage.arenas.disowned == [{KEY}]
    assert stage.transport.sent == [make_id(1)] * 2
    message = codec.decode_client_message(stage.transport.headers[-1])
    assert isinstance(message, InferRequest)
    assert (message.is_resent, message.has_area, message.inputs[0].place) == (False, False, Place.FRAME)
    assert stage.transport.tensors[-1] == [bytes(64)]
    [error] = stage.fail(ErrorCode.ARENA_UNKNOWN)
    assert error.code == ErrorCode.ARENA_UNKNOWN


def test_the_daemon_says_nothing():
    """A request that is given up after its deadline may still run."""
    stage = Stage()
    assert stage.outcomes(5.0) == []
    assert not stage.arenas.retired
    [error] = stage.outcomes(5.0 + GRACE_S)
    assert error.code == ErrorCode.DEADLINE_EXCEEDED
    assert stage.is_retired


def test_a_request_that_nobody_waits_for():
    """A request that was abandoned may still run, and its answer changes nothing any more."""
    stage = Stage()
    stage.exchange.abandon(make_id(1))
    assert stage.is_retired
    assert stage.succeed(encode_ref(ArenaRef(KEY, 192, 64))) == []
    assert stage.is_retired


def test_a_lost_connection():
    """With the connection the area is lost; the request goes out again in frames and has no area to free."""
    stage = Stage()
    stage.events(ConnectionEvent.DISCONNECTED)
    assert stage.is_retired
    stage.events(ConnectionEvent.CONNECTED)
    message = codec.decode_client_message(stage.transport.headers[-1])
    assert isinstance(message, InferRequest)
    assert (message.is_resent, message.has_area, message.inputs[0].place) == (True, False, Place.FRAME)
    [error] = stage.succeed(encode_ref(ArenaRef(KEY, 192, 64)))
    assert isinstance(error, Malformed)
    assert stage.is_retired


def test_a_router_that_was_replaced_unnoticed():
    """When the new router refuses the place and the request went out again in frames already, its answer is awaited."""
    stage = Stage()
    stage.events(ConnectionEvent.DISCONNECTED, ConnectionEvent.CONNECTED)
    assert stage.transport.sent == [make_id(1)] * 2
    assert stage.fail(ErrorCode.ARENA_UNKNOWN) == []
    assert stage.transport.sent == [make_id(1)] * 2
    assert isinstance(stage.succeed(bytes(64), (TensorSpec("x", Dtype.UINT8, (64,)),))[0], Answer)


def test_a_request_that_was_never_sent():
    """Without a connection no worker has the area, so the end of the request frees it; old references are void."""
    stage = Stage(is_connected=False)
    [error] = stage.outcomes(5.0)
    assert error.code == ErrorCode.UNREACHABLE
    assert not stage.arenas.retired
    stage = Stage(is_connected=False)
    stage.events(ConnectionEvent.CONNECTED)
    assert stage.transport.tensors[-1] == [bytes(64)]


def test_the_next_call_gets_an_area():
    """Outputs of 16 KiB and more are added up from an answer, with the gaps between them, when they are worth it."""
    form = Form(InferRequest(RequestId(bytes(16)), "m", None, (), 5.0))
    assert form.outputs.area_bytes == 0
    form.outputs.learn((TensorSpec("a", Dtype.UINT8, (100_000,)),))
    assert form.outputs.area_bytes == 0
    form.outputs.learn(
        tuple(TensorSpec(name, Dtype.UINT8, (size,)) for name, size in (("a", 131_073), ("b", 16_384), ("c", 9)))
    )
    assert form.outputs.area_bytes == 131_136 + 16_384
    form.outputs.learn((TensorSpec("a", Dtype.UINT8, (131_072,)),))
    assert form.outputs.area_bytes == 131_136 + 16_384
