"""What the exchange does with a transport whose every state the test decides: edges, full connections, refusals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import pytest

from tests.support.wire import pack, pack_bundle
from trtd.client.arenas import Arenas
from trtd.client.calls import Form
from trtd.client.exchange import Completion, Exchange
from trtd.client.pending import GRACE_S, PendingRequest, new_request
from trtd.client.transport import READABLE, WRITABLE, ConnectionEvent, Transport
from trtd.client.values import Answer
from trtd.core.ids import RequestId
from trtd.errors import DeadlineExceeded, Malformed, NotAllowed, Overloaded, TrtdError, Unreachable
from trtd.wire import codec
from trtd.wire.bundles import BUNDLE_HEADER, MAX_BUNDLED, MAX_BUNDLED_BYTES, unpack_bundle
from trtd.wire.forms import ResultForm
from trtd.wire.messages import UNKNOWN_REQUEST_ID, Dtype, HealthAnswer, HealthRequest, InferRequest, TensorSpec


class ScriptedTransport:
    """Takes as many messages as it has room for, and has the answers and events that the test put there."""

    address = "tcp://192.0.2.1:7001"

    def __init__(self, *events: ConnectionEvent, room: int = 100) -> None:
        self.events = list(events)
        self.room = room
        self.sent: list[RequestId] = []
        self.headers: list[bytes] = []
        self.tensors: list[Sequence[Any]] = []
        self.answers: list[list[Any]] = []
        self.reconnects = 0

    def send(self, header: bytes, tensors: Sequence[Any]) -> bool:
        if not self.room:
            return False
        self.room -= 1
        self.headers.append(header)
        self.tensors.append(tensors)
        if header == BUNDLE_HEADER:
            self.sent += [codec.decode_client_message(frames[0]).id for frames in unpack_bundle(tensors[0])]
        else:
            self.sent.append(codec.decode_client_message(header).id)
        return True

    def readiness(self) -> int:
        return (READABLE if self.answers else 0) | (WRITABLE if self.room else 0)

    def receive(self) -> list[Any] | None:
        return self.answers.pop(0) if self.answers else None

    def connection_events(self) -> list[ConnectionEvent]:
        events, self.events = self.events, []
        return events

    def reconnect(self) -> None:
        self.reconnects += 1

    def close(self) -> None:
        self.room = 0

    def answer(self, number: int) -> None:
        self.answers.append([make_answer(number)])

    def answer_together(self, *numbers: int) -> None:
        self.answers.append([BUNDLE_HEADER, pack_bundle([make_answer(number)] for number in numbers)])

    @property
    def bundle_sizes(self) -> list[int]:
        """How many requests went out together, for each message; 0 for one by itself."""
        pairs = zip(self.headers, self.tensors, strict=True)
        return [len(unpack_bundle(tensors[0])) if header == BUNDLE_HEADER else 0 for header, tensors in pairs]


def make_answer(number: int) -> bytes:
    return codec.encode_router_message(HealthAnswer(make_id(number), True, "ready", "", (1,), "0.1"))


def make_id(number: int) -> RequestId:
    return RequestId(number.to_bytes(16, "big"))


class Owner(NamedTuple):
    """Whose a request is, as a number."""

    id: RequestId
    number: int


def make_health_request(number: int, *, now: float = 0.0, timeout_s: float = 5.0) -> PendingRequest:
    form = Form(HealthRequest(UNKNOWN_REQUEST_ID))
    return new_request(Owner(make_id(number), number), form, (), timeout_s, now)


def make_exchange(*events: ConnectionEvent, room: int = 100) -> tuple[Exchange, ScriptedTransport]:
    transport = ScriptedTransport(*events, room=room)
    return Exchange(cast("Transport", transport), Arenas(None)), transport


def submit(exchange: Exchange, number: int, *, now: float = 0.0, timeout_s: float = 5.0) -> list[Completion]:
    return exchange.submit([make_health_request(number, now=now, timeout_s=timeout_s)], now)


def test_a_request_goes_out_at_once():
    """With a connection a request is sent in its own call, and nothing is left to do but to wait."""
    exchange, transport = make_exchange(ConnectionEvent.CONNECTED)
    assert submit(exchange, 1) == []
    assert transport.sent == [make_id(1)]
    assert not exchange.has_work()
    assert exchange.next_deadline() == 5.0


def test_a_connection_that_a_submit_finds_serves_the_older_requests_first():
    """A submit that learns of the connection sends what waited for it as well, in order."""
    exchange, transport = make_exchange()
    submit(exchange, 1)
    assert transport.sent == []
    transport.events = [ConnectionEvent.CONNECTED]
    submit(exchange, 2)
    assert transport.sent == [make_id(1), make_id(2)]


def test_room_on_a_full_connection_is_work():
    """Requests that a full connection did not take are work as soon as it takes more, and are sent by the next turn."""
    exchange, transport = make_exchange(ConnectionEvent.CONNECTED, room=1)
    for number in (1, 2, 3):
        submit(exchange, number)
    assert transport.sent == [make_id(1)]
    assert not exchange.has_work()
    transport.room = 5
    assert exchange.has_work()
    exchange.turn(0.0, is_connection_news=False)
    assert transport.sent == [make_id(1), make_id(2), make_id(3)]
    assert not exchange.has_work()


def test_a_turn_takes_every_answer():
    """One turn hands out all answers that are there, second ones and strangers left out."""
    exchange, transport = make_exchange(ConnectionEvent.CONNECTED)
    for number in (1, 2, 3):
        submit(exchange, number)
    for number in (2, 2, 9, 1):
        transport.answer(number)
    assert exchange.has_work()
    assert [handle.number for handle, _ in exchange.turn(0.0, is_connection_news=False)] == [2, 1]
    assert not exchange.has_work()
    assert len(exchange) == 1


def test_news_and_answers_in_one_turn():
    """A turn that finds a lost and a new connection sends again what is unanswered, and takes answers."""
    exchange, transport = make_exchange(ConnectionEvent.CONNECTED)
    submit(exchange, 1)
    submit(exchange, 2)
    transport.events = [ConnectionEvent.DISCONNECTED, ConnectionEvent.CONNECTED]
    transport.answer(1)
    assert [handle.number for handle, _ in exchange.turn(1.0, is_connection_news=True)] == [1]
    assert transport.sent == [make_id(1), make_id(2), make_id(2)]


def test_nothing_is_sent_between_two_connections():
    """What comes while the connection is lost waits for the next one, though the socket would take it."""
    exchange, transport = make_exchange(ConnectionEvent.CONNECTED)
    submit(exchange, 1)
    transport.events = [ConnectionEvent.DISCONNECTED]
    exchange.turn(0.0, is_connection_news=True)
    submit(exchange, 2)
    assert transport.sent == [make_id(1)]
    assert not exchange.has_work()


def test_a_refusal_ends_what_is_pending():
    """When the daemon refuses the user every pending request is not allowed; a refusal of before counts for none."""
    exchange, transport = make_exchange(ConnectionEvent.NOT_ALLOWED)
    assert submit(exchange, 1) == []
    assert transport.reconnects == 1
    transport.events = [ConnectionEvent.NOT_ALLOWED]
    [(handle, error)] = exchange.turn(0.0, is_connection_news=True)
    assert handle.number == 1
    assert isinstance(error, NotAllowed)
    transport.events = [ConnectionEvent.NOT_ALLOWED, ConnectionEvent.CONNECTED]
    assert submit(exchange, 2) == []
    assert transport.sent == [make_id(2)]


def test_a_lack_of_places_ends_what_is_pending():
    """When the daemon has no place for the connection every pending request is told to come again."""
    exchange, transport = make_exchange()
    submit(exchange, 1)
    transport.events = [ConnectionEvent.TOO_MANY]
    [(handle, error)] = exchange.turn(0.0, is_connection_news=True)
    assert handle.number == 1
    assert isinstance(error, Overloaded)
    assert error.retry_after_s == 1.0
    submit(exchange, 2)
    assert transport.reconnects == 1


def test_what_is_given_up_says_why():
    """The error tells a daemon that never came, one that was lost, one that takes nothing and one that says nothing."""

    def fate(exchange: Exchange, now: float) -> str:
        [(_, error)] = exchange.turn(now, is_connection_news=True)
        assert isinstance(error, TrtdError)
        return f"{type(error).__name__}: {error.message}"

    exchange, transport = make_exchange()
    submit(exchange, 1)
    assert fate(exchange, 5.0) == f"Unreachable: no daemon answered at {transport.address} within 5 s"
    submit(exchange, 2)
    transport.events = [ConnectionEvent.HANDSHAKE_FAILED]
    assert fate(exchange, 5.0).endswith(
        "the peer does not speak ZeroMQ, has another CURVE key than expected, or no place for us"
    )
    transport.events, transport.room = [ConnectionEvent.CONNECTED], 0
    submit(exchange, 3)
    assert "took no further request within 5 s" in fate(exchange, 5.0)
    transport.room = 1
    submit(exchange, 4)
    assert exchange.turn(5.0, is_connection_news=False) == []
    assert fate(exchange, 5.0 + GRACE_S).startswith(DeadlineExceeded.__name__)
    submit(exchange, 5)
    transport.events = [ConnectionEvent.DISCONNECTED]
    exchange.turn(1.0, is_connection_news=True)
    assert "was lost and no daemon came back within 5 s" in fate(exchange, 5.0)


def test_close_ends_everything():
    """Whatever is pending at the end is unreachable."""
    exchange, _ = make_exchange(ConnectionEvent.CONNECTED)
    submit(exchange, 1)
    [(handle, error)] = exchange.close()
    assert handle.number == 1
    assert isinstance(error, Unreachable)


def make_infer_request(number: int, size_bytes: int) -> PendingRequest:
    spec = TensorSpec("x", Dtype.UINT8, (size_bytes,))
    form = Form(InferRequest(UNKNOWN_REQUEST_ID, "m", None, (spec,), 5.0))
    return new_request(Owner(make_id(number), number), form, [bytes(size_bytes)], 5.0, 0.0)


def make_bundling_exchange(*, room: int = 100) -> tuple[Exchange, ScriptedTransport]:
    exchange, transport = make_exchange(ConnectionEvent.CONNECTED, room=room)
    exchange.turn(0.0, is_connection_news=True)
    exchange.arenas.has_bundles = True
    return exchange, transport


def test_what_is_submitted_together_leaves_together():
    """Requests of one submit are one message, one by itself is sent as it is, and none is bundled for an old daemon."""
    exchange, transport = make_exchange(ConnectionEvent.CONNECTED)
    exchange.submit([make_health_request(number) for number in (1, 2)], 0.0)
    assert transport.bundle_sizes == [0, 0]
    exchange.arenas.has_bundles = True
    exchange.submit([make_health_request(3)], 0.0)
    exchange.submit([make_health_request(number) for number in (4, 5, 6)], 0.0)
    assert transport.bundle_sizes == [0, 0, 0, 3]
    assert transport.sent == [make_id(number) for number in range(1, 7)]


def test_bundles_keep_their_bounds():
    """A bundle has at most 64 requests and 256 KiB, and a large request travels by itself, all in order."""
    exchange, transport = make_bundling_exchange()
    exchange.submit([make_health_request(number) for number in range(1, 101)], 0.0)
    assert transport.bundle_sizes == [MAX_BUNDLED, 100 - MAX_BUNDLED]
    transport.headers.clear()
    transport.tensors.clear()
    sizes = [100, 100, MAX_BUNDLED_BYTES, 100, *[60_000] * 9]
    exchange.submit([make_infer_request(200 + index, size) for index, size in enumerate(sizes)], 0.0)
    # 100, 60,000 x 4; 60,000 x 4; 60,000
    assert transport.bundle_sizes == [2, 0, 5, 4, 0]
    assert transport.sent[100:] == [make_id(200 + index) for index in range(len(sizes))]


def test_a_bundle_that_is_not_taken_stays():
    """Requests of a bundle for which there is no room leave with the next one, each once."""
    exchange, transport = make_bundling_exchange(room=0)
    exchange.submit([make_health_request(number) for number in (1, 2)], 0.0)
    assert transport.sent == []
    transport.room = 5
    exchange.submit([make_health_request(3)], 0.0)
    assert transport.bundle_sizes == [3]
    assert transport.sent == [make_id(1), make_id(2), make_id(3)]


def test_answers_that_come_together():
    """Each answer of a bundle finds its request; a bundle that cannot be read is nobody's, and the requests go on."""
    exchange, transport = make_bundling_exchange()
    exchange.submit([make_health_request(number) for number in (1, 2, 3)], 0.0)
    transport.answers += [[BUNDLE_HEADER, b"damaged"], [BUNDLE_HEADER]]
    transport.answer_together(3, 9, 1)
    assert [handle.number for handle, _ in exchange.turn(0.0, is_connection_news=False)] == [3, 1]
    assert len(exchange) == 1


def test_a_bundle_of_old_and_new_requests():
    """Requests that waited for a connection tell in the bundle how much time they have left, as those by themselves."""
    exchange, transport = make_bundling_exchange(room=0)
    exchange.submit([make_infer_request(1, 8)], 0.0)
    transport.room = 5
    exchange.submit([replace(make_infer_request(2, 8), submitted_at=2.0)], 2.0)
    [messages] = [unpack_bundle(tensors[0]) for tensors in transport.tensors]
    decoded = [codec.decode_client_message(frames[0]) for frames in messages]
    assert [message.timeout_s for message in decoded if isinstance(message, InferRequest)] == [3.0, 5.0]
    assert [bytes(frames[1]) for frames in messages] == [bytes(8), bytes(8)]


def make_result(number: int, dtype: Dtype, *frames: bytes) -> list[bytes]:
    """The answer of a worker with one output of four bytes."""
    form = ResultForm("m", "1", 1, (TensorSpec("y", dtype, (4,)),))
    return [form.header(make_id(number), 1, 2, 3), *frames]


def test_results_that_come_together():
    """Of the results in a bundle each is judged by its frames: whole ones are answers, others malformed."""
    exchange, transport = make_bundling_exchange()
    exchange.submit([make_infer_request(number, 8) for number in range(1, 7)], 0.0)
    results = [
        make_result(1, Dtype.INT8, b"1234"),
        make_result(2, Dtype.INT8, b"1234"),
        make_result(3, Dtype.INT8, b"123"),
        make_result(4, Dtype.INT8),
        make_result(5, Dtype.BOOL, b"\0\1\0\1"),
        make_result(6, Dtype.BOOL, b"\0\1\0\2"),
    ]
    transport.answers.append([BUNDLE_HEADER, pack_bundle(results)])
    outcomes = {handle.number: outcome for handle, outcome in exchange.turn(0.5, is_connection_news=False)}
    assert [type(outcomes[number]) for number in range(1, 7)] == [
        Answer,
        Answer,
        Malformed,
        Malformed,
        Answer,
        Malformed,
    ]
    second = outcomes[2]
    assert isinstance(second, Answer)
    assert second["y"].tolist() == [49, 50, 51, 52]
    assert second.timing == pytest.approx((1e-6, 2e-6, 3e-6, 0.5))


@pytest.mark.parametrize(("count", "size_bytes", "is_learned"), [(1, 200_000, True), (8, 16_384, True), (8, 4, False)])
def test_large_outputs_are_learned_from(count, size_bytes, is_learned):
    """Outputs that would be worth an area, one or many together, are remembered for later calls of the same form."""
    exchange, transport = make_bundling_exchange()
    request = make_infer_request(1, 8)
    exchange.submit([request], 0.0)
    specs = tuple(TensorSpec(f"y{number}", Dtype.INT8, (size_bytes,)) for number in range(count))
    header = ResultForm("m", "1", 1, specs).header(make_id(1), 1, 2, 3)
    transport.answers.append([header, *[bytes(size_bytes)] * count])
    [(_, outcome)] = exchange.turn(0.5, is_connection_news=False)
    assert isinstance(outcome, Answer)
    assert bool(request.form.outputs.area_bytes) == is_learned


def test_a_lost_bundle_is_sent_again():
    """After a reconnection the requests of a bundle leave again, marked as sent before, those answered left out."""
    exchange, transport = make_bundling_exchange()
    exchange.submit([make_infer_request(number, 8) for number in (1, 2, 3)], 0.0)
    transport.answer(2)
    exchange.turn(0.0, is_connection_news=False)
    transport.events = [ConnectionEvent.DISCONNECTED]
    exchange.turn(1.0, is_connection_news=True)
    transport.events = [ConnectionEvent.CONNECTED]
    exchange.turn(1.0, is_connection_news=True)
    assert transport.sent[3:] == [make_id(1), make_id(3)]
    [first, second] = [codec.decode_client_message(header) for header in transport.headers[-2:]]
    assert isinstance(first, InferRequest)
    assert isinstance(second, InferRequest)
    assert (first.is_resent, second.is_resent) == (True, True)


@pytest.mark.parametrize("is_bundled", [False, True])
def test_an_answer_that_cannot_be_read_ends_its_request(is_bundled):
    """Whose it is can be read, and so its caller gets the reason at once instead of waiting until the time is up."""
    exchange, transport = make_exchange(ConnectionEvent.CONNECTED)
    submit(exchange, 1)
    submit(exchange, 2)
    spec = ["y", "float32", [1], "frame"]
    fields = {"v": 1, "type": "result", "id": make_id(1), "model": "m", "version": "1", "generation": 1}
    header = pack({**fields, "outputs": [spec, spec], "timing": [0, 0, 0]})
    transport.answers.append([BUNDLE_HEADER, pack_bundle([[header]])] if is_bundled else [header])
    transport.answers.append([pack({**fields, "id": make_id(9), "outputs": [spec, spec]})])
    transport.answers.append([b"nonsense"])
    ((owner, outcome),) = exchange.turn(0.0, is_connection_news=False)
    assert owner.number == 1
    assert isinstance(outcome, Malformed)
    assert "two tensors have the same name" in outcome.message
    transport.answer(2)
    ((owner, _),) = exchange.turn(0.0, is_connection_news=False)
    assert owner.number == 2
