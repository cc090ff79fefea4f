"""The memo of headers says what the decoder says, only sooner."""

from __future__ import annotations

import pytest

from tests.support.wire import infer_fields, make_infer_request, make_spec, pack
from trtd.core.ids import RequestId
from trtd.errors import Malformed
from trtd.wire import codec, memo
from trtd.wire.memo import HeaderMemo
from trtd.wire.messages import MAX_HEADER_BYTES, Dtype, HealthRequest, InferRequest

OTHER_ID = RequestId(b"o" * 16)


def test_a_header_that_differs_in_its_id_alone_is_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second request of a kind costs a look-up, and has its own id."""
    calls: list[bytes] = []

    def decode(header: bytes) -> codec.ClientMessage:
        calls.append(header)
        return codec.decode_client_message(header)

    monkeypatch.setattr(memo, "decode_client_message", decode)
    headers = HeaderMemo()
    spec = make_spec(dtype=Dtype.FLOAT64, shape=(2, 3))
    for request_id in (make_infer_request().id, OTHER_ID):
        request = make_infer_request(id=request_id, inputs=(spec,))
        got_id, known = headers.decode(codec.encode_client_message(request))
        assert got_id == request_id
        assert isinstance(known.message, InferRequest)
        assert known.message.inputs == (spec,)
        assert known.frame_sizes == [48]
    assert len(calls) == 1


@pytest.mark.parametrize(
    "fields", [{"model": "other"}, {"timeout_s": 2.0}, {"priority": 1}, {"is_resent": True}, {"inputs": ()}]
)
def test_a_header_that_differs_in_anything_else_is_decoded(fields: dict[str, object]) -> None:
    """Nothing of one request is taken for another's."""
    headers = HeaderMemo()
    headers.decode(codec.encode_client_message(make_infer_request()))
    request = make_infer_request(**fields)
    assert headers.decode(codec.encode_client_message(request))[1].message == request


def test_keys_in_another_order_are_understood() -> None:
    """A client that writes the keys as it likes is served too."""
    fields = infer_fields()
    for keys in (sorted(fields), sorted(fields, reverse=True)):
        request_id, known = HeaderMemo().decode(pack({key: fields[key] for key in keys}))
        assert request_id == make_infer_request().id
        assert known.message == make_infer_request()


def test_a_question_has_no_frames() -> None:
    """What is no request is passed through."""
    request_id, known = HeaderMemo().decode(codec.encode_client_message(HealthRequest(OTHER_ID)))
    assert request_id == OTHER_ID
    assert known == (HealthRequest(OTHER_ID), None, False)


def test_a_refused_header_is_refused_again() -> None:
    """Nothing that was refused is remembered."""
    headers = HeaderMemo()
    for _ in range(2):
        with pytest.raises(Malformed, match="priority"):
            headers.decode(pack(infer_fields(priority=9)))


def test_the_memo_is_bounded() -> None:
    """A client that never repeats a header does not fill the router's memory."""
    headers = HeaderMemo()
    for at in range(3 * memo.MAX_ENTRIES):
        headers.decode(codec.encode_client_message(make_infer_request(timeout_s=1.0 + at)))
        assert len(headers._known) <= memo.MAX_ENTRIES


def test_the_memo_is_bounded_in_bytes() -> None:
    """Large headers are remembered as well, and fewer of them."""
    headers = HeaderMemo()
    long = "n" * 250
    for at in range(3 * memo.MAX_BYTES // MAX_HEADER_BYTES):
        inputs = tuple(make_spec(f"{long}{at:03}{number:03}") for number in range(200))
        header = codec.encode_client_message(make_infer_request(inputs=inputs))
        _, known = headers.decode(header)
        assert headers.decode(header)[1] is known
        assert sum(len(key[1]) for key in headers._known) <= memo.MAX_BYTES
    assert len(headers._known) > 1
