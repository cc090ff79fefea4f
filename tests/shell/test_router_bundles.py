"""Several requests in one message: each is answered by itself, and the answers leave together."""

from __future__ import annotations

import uuid

from tests.support.arenas import closing, place_frames
from tests.support.wire import pack_bundle
from trtd.errors import ErrorCode
from trtd.wire import codec
from trtd.wire.arenas import ArenaRef
from trtd.wire.bundles import BUNDLE_HEADER, unpack_bundle
from trtd.wire.messages import (
    UNKNOWN_REQUEST_ID,
    Dtype,
    ErrorAnswer,
    InferAnswer,
    InferRequest,
    RouterMessage,
    TensorSpec,
)


def request(payload: bytes, request_id: bytes | None = None, size: int | None = None) -> list[bytes]:
    """The frames of a request with one tensor, of this size by its header."""
    spec = TensorSpec("x", Dtype.UINT8, (len(payload) if size is None else size,))
    message = InferRequest(request_id or uuid.uuid4().bytes, "m", None, (spec,))
    return [codec.encode_client_message(message), payload]


def receive_all(client, count: int) -> tuple[list[tuple[RouterMessage, list[bytes]]], int]:
    """So many answers, and in how many messages they came."""
    answers: list[tuple[RouterMessage, list[bytes]]] = []
    messages = 0
    while len(answers) < count:
        assert client.socket.poll(10_000)
        header, *frames = client.socket.recv_multipart()
        messages += 1
        parts = unpack_bundle(frames[0]) if header == BUNDLE_HEADER else [[header, *frames]]
        for own, *tensors in parts:
            answers.append((codec.decode_router_message(bytes(own)), [bytes(one) for one in tensors]))
    return answers, messages


def test_each_request_of_a_bundle_is_answered(bench):
    """Good and bad ones side by side: each gets its own answer, its own bytes, and all come in few messages."""
    worker, client = bench.worker(), bench.client()
    payloads = {uuid.uuid4().bytes: bytes([number]) * number for number in range(1, 9)}
    wrong = uuid.uuid4().bytes
    bundle = [request(payload, request_id) for request_id, payload in payloads.items()]
    bundle.insert(3, request(b"short", wrong, size=6))
    client.send(BUNDLE_HEADER, pack_bundle(bundle))
    worker.serve(8)
    answers, messages = receive_all(client, 9)
    for answer, frames in answers:
        if answer.id == wrong:
            assert isinstance(answer, ErrorAnswer)
            assert answer.code == ErrorCode.MALFORMED
        else:
            assert isinstance(answer, InferAnswer)
            assert frames == [payloads.pop(answer.id)]
    assert not payloads
    assert messages < 9
    assert bench.router.stats("a", lambda it: it.answered == 8).accepted == 8


def test_an_answer_alone_is_not_bundled(bench):
    """One that has no company leaves as a plain message, and so does one to a request that came by itself."""
    worker, client = bench.worker(), bench.client()
    for frames in ([BUNDLE_HEADER, pack_bundle([request(b"a")])], request(b"b")):
        client.send(*frames)
        worker.serve(1)
        assert isinstance(client.receive()[0], InferAnswer)


def test_large_answers_leave_by_themselves(bench):
    """What is too large for a bundle comes whole, in order with the others."""
    worker, client = bench.worker(), bench.client()
    large, small = uuid.uuid4().bytes, uuid.uuid4().bytes
    client.send(BUNDLE_HEADER, pack_bundle([request(b"s", small), request(bytes(100_000), large), request(b"t")]))
    worker.serve(3)
    answers, _ = receive_all(client, 3)
    assert [len(frames[0]) for _, frames in answers] == [1, 100_000, 1]
    assert [answer.id for answer, _ in answers[:2]] == [small, large]


def test_what_is_no_bundle_is_malformed(bench):
    """Damage in the frame, frames too many, a bundle in a bundle: refused in words, and the next message is served."""
    worker, client = bench.worker(), bench.client()
    good = request(b"x")
    nested = [BUNDLE_HEADER, pack_bundle([good])]
    for frames in ([b"noise"], [], [pack_bundle([good]), b"more"], [pack_bundle([nested])]):
        client.send(BUNDLE_HEADER, *frames)
        answer, _ = client.receive()
        assert isinstance(answer, ErrorAnswer)
        assert (answer.id, answer.code) == (UNKNOWN_REQUEST_ID, ErrorCode.MALFORMED)
    client.send(*good)
    worker.serve(1)
    assert isinstance(client.receive()[0], InferAnswer)


def test_a_deaf_client_gets_its_bundle_later(bench):
    """Answers to a client that does not read for a while are parked, and arrive one and all."""
    worker, client = bench.worker(), bench.client(rcvhwm=1)
    ids = set()
    for _ in range(40):
        bundle = [request(bytes(8_000), uuid.uuid4().bytes) for _ in range(8)]
        ids |= {codec.decode_client_message(header).id for header, _ in bundle}
        client.send(BUNDLE_HEADER, pack_bundle(bundle))
    worker.serve(len(ids))
    answers, _ = receive_all(client, len(ids))
    assert {answer.id for answer, _ in answers} == ids


def test_requests_of_a_bundle_name_places_in_arenas(bench):
    """What a bundled request names in shared memory is looked for like that of any other one."""
    worker, client, offerer = bench.worker(), bench.client(), bench.offerer()
    offerer.welcome()
    key, fd = offerer.open()
    with closing(fd):
        bundle = [place_frames(ArenaRef(named, 0, 8)) for named in (key, key + 1, key)]
        client.send(BUNDLE_HEADER, pack_bundle(bundle))
        worker.serve(2)
        codes = {answer.id: getattr(answer, "code", None) for answer, _ in receive_all(client, 3)[0]}
    assert [codes[codec.read_request_id(frames[0])] for frames in bundle] == [None, ErrorCode.ARENA_UNKNOWN, None]
