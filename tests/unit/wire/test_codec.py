"""Headers between clients and the router: what is written, what is accepted, and what the writing side refuses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.wire import (
    REQUEST_ID,
    infer_fields,
    make_description,
    make_error_answer,
    make_health_answer,
    make_infer_answer,
    make_infer_request,
    make_spec,
    pack,
)
from trtd.core.ids import RequestId
from trtd.errors import ErrorCode, Malformed, TooLarge
from trtd.wire import codec
from trtd.wire.messages import (
    MAX_HEADER_BYTES,
    MAX_TENSORS,
    DescribeAnswer,
    DescribeRequest,
    Dtype,
    HealthRequest,
    InferAnswer,
    InferRequest,
    TensorSpec,
    Timing,
)

names = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=20)
ids = st.binary(min_size=16, max_size=16).map(RequestId)
specs = st.lists(
    st.builds(TensorSpec, names, st.sampled_from(Dtype), st.lists(st.integers(0, 300), max_size=4).map(tuple)),
    max_size=4,
    unique_by=lambda spec: spec.name,
).map(tuple)
timeouts = st.none() | st.floats(min_value=0, exclude_min=True, allow_infinity=False)


@given(st.builds(InferRequest, ids, names, st.none() | names, specs, timeouts, st.integers(-8, 7), st.booleans()))
@settings(deadline=None)
def test_infer_request_round_trips(request_: InferRequest) -> None:
    """Whatever a valid request says, the router reads the same."""
    assert codec.decode_client_message(codec.encode_client_message(request_)) == request_


@given(
    st.builds(
        InferAnswer,
        ids,
        names,
        names,
        st.integers(0, 2**63 - 1),
        specs,
        st.builds(Timing, *[st.integers(0, 2**63 - 1)] * 3),
    )
)
@settings(deadline=None)
def test_infer_answer_round_trips(answer: InferAnswer) -> None:
    """Whatever a worker answers, the client reads the same."""
    assert codec.decode_router_message(codec.encode_router_message(answer)) == answer


@pytest.mark.parametrize(
    "message", [DescribeRequest(REQUEST_ID), DescribeRequest(REQUEST_ID, "mlp"), HealthRequest(REQUEST_ID)]
)
def test_questions_round_trip(message: DescribeRequest | HealthRequest) -> None:
    """The questions beside inference are read as they were written."""
    assert codec.decode_client_message(codec.encode_client_message(message)) == message


@pytest.mark.parametrize(
    "answer",
    [
        make_error_answer(),
        make_error_answer(retry_after_s=0.0),
        make_error_answer(code="a_code_of_tomorrow", message=""),
        make_health_answer(),
        make_health_answer(is_ready=True, reason="", wire_versions=(1, 2)),
    ],
)
def test_short_answers_round_trip(answer: Any) -> None:
    """Errors and health are read as they were written, also codes that this client does not know."""
    assert codec.decode_router_message(codec.encode_router_message(answer)) == answer


def test_models_travel_in_a_second_frame() -> None:
    """A description of models needs more room than a header has, so it follows in a frame of its own."""
    answer = DescribeAnswer(REQUEST_ID, (make_description(), make_description(name="b", inputs=())))
    header, frame = codec.encode_router_message(answer), codec.encode_models(answer.models)
    assert codec.decode_router_message(header, [frame]) == answer
    with pytest.raises(Malformed, match="1 frame after its header"):
        codec.decode_router_message(header)


def test_optional_keys_are_left_out() -> None:
    """A request that asks for nothing special carries no key for it."""
    assert codec.encode_client_message(make_infer_request()) == pack(infer_fields())


def test_a_whole_number_of_seconds_may_be_an_integer() -> None:
    """Languages that do not tell 5 from 5.0 can name a timeout."""
    message = codec.decode_client_message(pack(infer_fields(timeout_s=5)))
    assert isinstance(message, InferRequest)
    assert message.timeout_s == 5.0
    assert type(message.timeout_s) is float


@pytest.mark.parametrize("pad", [b"\xde\x00\x05", b"\xdf\x00\x00\x00\x05"])
def test_a_map_may_be_longer_coded_than_needed(pad: bytes) -> None:
    """Encoders that always write the long form of a map are understood."""
    assert codec.decode_client_message(pad + pack(infer_fields())[1:]) == make_infer_request()


@pytest.mark.parametrize(
    ("message", "frames"),
    [
        (make_infer_answer(), ()),
        (make_error_answer(), ()),
        (make_health_answer(), ()),
        (DescribeAnswer(REQUEST_ID, ()), (codec.encode_models(()),)),
    ],
)
def test_an_older_client_reads_a_newer_answer(message: Any, frames: tuple[bytes, ...]) -> None:
    """Keys that a newer daemon adds to an answer are ignored."""
    header = codec.encode_router_message(message)
    newer = bytes([header[0] + 1]) + header[1:] + pack("added") + pack([{"in": ["version", 1]}])
    assert codec.decode_router_message(newer, frames) == message


def test_an_older_client_reads_a_finer_timing() -> None:
    """Items that a newer daemon appends to the timing are ignored."""
    header = codec.encode_router_message(make_infer_answer(timing=Timing(1, 2, 3)))
    assert header.endswith(b"\x93\x01\x02\x03")
    newer = header[:-4] + b"\x95\x01\x02\x03\x04\xa3new"
    assert codec.decode_router_message(newer) == make_infer_answer(timing=Timing(1, 2, 3))


@pytest.mark.parametrize(
    "message",
    ["a\nTraceback (most recent call last):\n", "x" * 5000, "é" * 5000, "a\udcffb", "\U0001f600" * 1000, "\x00\u2028"],
)
def test_an_error_can_always_be_sent(message: str) -> None:
    """Whatever text an error has, it reaches the client as one line within the limits."""
    answer = codec.decode_router_message(codec.encode_router_message(make_error_answer(message=message)))
    text = getattr(answer, "message", "")
    assert len(text.encode()) <= 1024
    assert "\n" not in text


@pytest.mark.parametrize("wait_s", [float("nan"), float("inf"), -1.0])
def test_an_error_leaves_out_a_wait_that_makes_no_sense(wait_s: float) -> None:
    """A wait that cannot be waited does not keep an error from its client."""
    answer = make_error_answer(retry_after_s=wait_s)
    assert codec.decode_router_message(codec.encode_router_message(answer)) == make_error_answer()


def test_a_header_beyond_its_limit_is_not_sent() -> None:
    """The side that writes says that the names are too long, before the other side refuses them."""
    inputs = tuple(make_spec("n" * 250 + str(at)) for at in range(MAX_TENSORS))
    with pytest.raises(TooLarge, match=f"the most is {MAX_HEADER_BYTES}"):
        codec.encode_client_message(make_infer_request(inputs=inputs))


@pytest.mark.parametrize("model", [object(), "a\udcffb", 2**64])
def test_a_value_that_cannot_be_written_is_refused(model: Any) -> None:
    """A caller's mistake is a typed error and no exception of the serializer."""
    with pytest.raises(Malformed, match="the header cannot be written"):
        codec.encode_client_message(make_infer_request(model=model))


def test_every_error_code_is_a_name_on_the_wire() -> None:
    """Every code of ours travels in an error answer and comes back as the typed error."""
    for code in ErrorCode:
        answer = codec.decode_router_message(codec.encode_router_message(make_error_answer(code=code)))
        assert getattr(answer, "code", None) == code


def test_decoders_take_memoryviews() -> None:
    """A header that is a view on a received frame needs no copy."""
    view = memoryview(codec.encode_client_message(make_infer_request()))
    assert codec.decode_client_message(view) == make_infer_request()
    assert codec.read_request_id(view) == REQUEST_ID


def test_descriptions_beyond_their_limit_are_not_sent() -> None:
    """More models than a frame takes are refused where they are written."""
    with pytest.raises(TooLarge, match="1025 models"):
        codec.encode_models((make_description(),) * 1025)
