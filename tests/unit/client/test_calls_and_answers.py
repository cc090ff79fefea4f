"""Calls become messages, messages become outcomes; what is remembered of the last ones never changes a meaning."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trtd.client.answers import AnswerReader, outcome
from trtd.client.calls import Form, Forms, RequestIds
from trtd.client.values import Answer, Health
from trtd.core.ids import RequestId
from trtd.errors import DeadlineExceeded, Internal, InvalidInput, Malformed, TooLarge, TrtdError, UnsupportedDtype
from trtd.wire import codec, packing
from trtd.wire.arenas import REF_BYTES
from trtd.wire.forms import ResultForm
from trtd.wire.messages import (
    MAX_TENSORS,
    DescribeRequest,
    Dtype,
    ErrorAnswer,
    HealthAnswer,
    HealthRequest,
    InferAnswer,
    InferRequest,
    TensorSpec,
    Timing,
)
from trtd.wire.tensors import BFloat16


def make_id(number: int = 1) -> RequestId:
    return RequestId(number.to_bytes(16, "big"))


def make_answer(number: int = 1, **changes: object) -> InferAnswer:
    specs = (TensorSpec("y", Dtype.FLOAT32, (2,)),)
    return replace(InferAnswer(make_id(number), "m", "1", 3, specs, Timing(1, 2, 3)), **changes)


def make_header(answer: InferAnswer) -> bytes:
    """As a worker writes it, with the timing at its full width."""
    timing = answer.timing
    form = ResultForm(answer.model, answer.version, answer.generation, answer.outputs)
    return form.header(answer.id, timing.queue_us, timing.batch_us, timing.compute_us)


def read(reader: AnswerReader, header: bytes) -> InferAnswer:
    request_id, message, timing_us, _ = reader.read([header])
    assert isinstance(message, InferAnswer)
    return replace(message, id=request_id, timing=Timing(*timing_us))


def call(forms: Forms, inputs: dict[str, object], **changes: object) -> tuple[Form, list[Any]]:
    arguments = {"model": "m", "version": None, "timeout_s": 5.0, "priority": 0} | changes
    return forms.infer(inputs=inputs, **arguments)  # type: ignore[arg-type]


def test_ids_are_unique():
    """Two clients never choose the same id, nor does one choose an id twice."""
    first, second = RequestIds(), RequestIds()
    ids = {ids.next() for ids in (first, second) for _ in range(1000)}
    assert len(ids) == 2000
    assert {len(each) for each in ids} == {16}


@pytest.mark.parametrize(
    "message",
    [
        InferRequest(make_id(), "m", "2", (TensorSpec("x", Dtype.INT8, (0, 3)),), 1.5, -2),
        InferRequest(make_id(), "m", None, (), None),
        DescribeRequest(make_id(), "m"),
        HealthRequest(make_id()),
    ],
)
def test_a_form_gives_the_header_of_every_id(message):
    """A header that is put together is the one that the codec writes, for each kind of message."""
    form = Form(replace(message, id=make_id(99)))
    for number in (1, 2, 2**127):
        expected = replace(message, id=make_id(number))
        assert form.header(make_id(number)) == codec.encode_client_message(expected)
        assert form.message(make_id(number)) == expected


@pytest.mark.parametrize("shapes", [[], [(1, 256)], [(3,), (0, 3), (7,)], [(5, 5)] * 32])
@pytest.mark.parametrize("has_area", [False, True])
def test_a_form_packs_what_packing_packs(shapes, has_area):
    """A call that is put together for a bundle has the bytes and the length of its header and frames when packed."""
    specs = tuple(TensorSpec(f"x{number}", Dtype.INT8, shape) for number, shape in enumerate(shapes))
    form = Form(InferRequest(make_id(), "m", None, specs, 5.0, has_area=has_area))
    frames = [bytes([number]) * math.prod(shape) for number, shape in enumerate(shapes)] + [b"r" * REF_BYTES] * has_area
    expected = b"".join(packing.pack_sized([form.header(make_id(7)), *frames])[0])
    parts = [b"before"]
    form.pack(make_id(7), frames, parts)
    assert b"".join(parts) == b"before" + expected
    assert form.packed_bytes == len(expected)


def test_calls_that_differ_have_headers_that_differ():
    """Whatever a header tells, a call that differs in it gets its own, and one that repeats itself the known one."""
    forms = Forms()
    x = np.zeros((2, 3), dtype=np.float32)
    calls = [
        ({"x": x}, {}),
        ({"x": x}, {"model": "n"}),
        ({"x": x}, {"version": "1"}),
        ({"x": x}, {"timeout_s": 6.0}),
        ({"x": x}, {"priority": 1}),
        ({"y": x}, {}),
        ({"x": x.T}, {}),
        ({"x": x.astype(np.float64)}, {}),
        ({"x": x.astype(np.uint16)}, {}),
        ({"x": BFloat16(x.astype(np.uint16))}, {}),
        ({"x": x, "y": x}, {}),
        ({}, {}),
    ]
    headers = [call(forms, inputs, **changes)[0].header(make_id()) for inputs, changes in calls]
    assert len(set(headers)) == len(calls)
    for (inputs, changes), header in zip(calls, headers, strict=True):
        message = codec.decode_client_message(header)
        assert isinstance(message, InferRequest)
        assert [spec.name for spec in message.inputs] == list(inputs)
        assert call(forms, inputs, **changes)[0] is call(forms, inputs, **changes)[0]


def test_thousands_of_forms_are_not_kept():
    """A caller who never repeats itself does not fill the memory."""
    forms = Forms()
    for size in range(1000):
        call(forms, {"x": np.zeros(size)})
    assert len(forms._known) < 300


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ({"x": np.array(["a"])}, UnsupportedDtype),
        ({"x": np.array([None])}, UnsupportedDtype),
        ({"x": None}, UnsupportedDtype),
        ({f"x{number}": np.zeros(1) for number in range(MAX_TENSORS + 1)}, InvalidInput),
        ({f"{number}" * 85: np.zeros(1) for number in range(100, 100 + MAX_TENSORS)}, TooLarge),
    ],
)
def test_calls_that_cannot_be_made(inputs, error):
    """What cannot travel is refused with a typed error, the second time as well."""
    forms = Forms()
    for _ in range(2):
        with pytest.raises(error):
            call(forms, inputs)


names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)


# A busy machine is no defect of the strategy.
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.builds(
            make_answer,
            number=st.integers(0, 2**128 - 1),
            model=names | st.just("¦timing"),
            generation=st.integers(0, 2),
            outputs=st.lists(
                st.builds(
                    TensorSpec,
                    names | st.just("¦timing"),
                    st.sampled_from([Dtype.INT8, Dtype.BFLOAT16]),
                    st.just((1,)) | st.just(()),
                ),
                max_size=2,
                unique_by=lambda spec: spec.name,
            ).map(tuple),
            timing=st.builds(Timing, *[st.integers(0, 2**63 - 1)] * 3),
        ),
        max_size=12,
    ),
    st.sampled_from([make_header, codec.encode_router_message]),
)
def test_what_is_known_never_changes_a_meaning(answers, encode):
    """A reader that has seen any answers, of a worker or of another encoder, reads each as the codec does."""
    reader = AnswerReader()
    for answer in answers:
        assert read(reader, encode(answer)) == answer


def test_a_repeated_answer_is_read_without_the_codec(monkeypatch):
    """Answers of a worker that differ in id and timing only are decoded once."""
    reader = AnswerReader()
    read(reader, make_header(make_answer()))
    monkeypatch.setattr(codec, "decode_router_message", None)
    again = make_answer(2, timing=Timing(70000, 0, 9))
    assert read(reader, make_header(again)) == again


def test_an_id_that_is_also_a_name():
    """An id that a header holds a second time, before its own place, is not taken from there in later ones."""
    reader = AnswerReader()
    text = "0123456789abcdef"
    for name in (text, text[::-1]):
        answer = make_answer(int.from_bytes(text.encode(), "big"), model=name)
        header = make_header(answer)
        at, after = header.index(b"\xa5model"), header.index(b"\xa7version")
        assert read(reader, header[:4] + header[at:after] + header[4:at] + header[after:]) == answer


def test_an_unknown_key_that_ends_like_the_timing():
    """What a newer daemon writes last is not read as the timing, though it has been the same once."""
    reader = AnswerReader()
    timings = [make_header(make_answer(timing=Timing(queue_us, 2, 3)))[-28:] for queue_us in (1, 9)]
    for last in timings:
        fields = make_header(make_answer())
        assert read(reader, bytes([fields[0] + 1]) + fields[1:] + b"\xa5later" + last) == make_answer()


def judgement(reader: AnswerReader, header: bytes) -> object:
    """What a reader makes of a header: the parts that a caller looks at, or the error."""
    try:
        request_id, message, timing_us, _ = reader.read([header, b"\x90"])
    except TrtdError as error:
        return type(error), error.message
    return request_id, timing_us, getattr(message, "outputs", None)


def test_each_byte_of_a_known_header_counts():
    """A header with one other byte is judged by a reader that knows the right one as by one that knows nothing."""
    reader = AnswerReader()
    header = make_header(make_answer())
    reader.read([header])
    for position, byte in enumerate(header):
        for mask in (0x01, 0x04, 0x80, 0xFF):
            other = header[:position] + bytes([byte ^ mask]) + header[position + 1 :]
            assert judgement(reader, other) == judgement(AnswerReader(), other)


@settings(deadline=None, max_examples=500)
@given(st.data())
def test_damaged_answers_are_judged_by_the_codec(data):
    """Damage anywhere in a known header is found out as it is in an unknown one."""
    reader = AnswerReader()
    header = make_header(make_answer())
    reader.read([header])
    position = data.draw(st.integers(0, len(header) - 1))
    damaged = header[:position] + data.draw(st.binary(max_size=3)) + header[position + data.draw(st.integers(0, 3)) :]
    assert judgement(reader, damaged) == judgement(AnswerReader(), damaged)


@pytest.mark.parametrize(("first", "second", "third"), [(2**63, 0, 0), (0, 2**63, 0), (0, 0, 2**64 - 1)])
def test_times_that_cannot_be(first, second, third):
    """A time that no header may have is refused in a known header too."""
    reader = AnswerReader()
    answer = make_answer()
    read(reader, make_header(answer))
    with pytest.raises(Malformed):
        read(reader, make_header(replace(answer, timing=Timing(first, second, third))))


def test_keys_in_another_order():
    """A daemon that writes the timing first is read all the same."""
    reader = AnswerReader()
    fields = msgpack.unpackb(codec.encode_router_message(make_answer()))
    header = msgpack.packb({"timing": fields.pop("timing"), **fields})
    for _ in range(2):
        assert read(reader, header) == make_answer()


def test_outcomes():
    """Results, errors, unknown errors and health become what callers see; frames that do not fit are malformed."""
    reader = AnswerReader()

    def ask(message, *frames: bytes):
        received = [codec.encode_router_message(message), *frames]
        return outcome(reader.read(received), received, 0.5)

    answer = ask(make_answer(), np.array([1, 2], dtype=np.float32).tobytes())
    assert isinstance(answer, Answer)
    assert (answer.model, answer.version, answer.generation) == ("m", "1", 3)
    assert answer.timing == pytest.approx((1e-6, 2e-6, 3e-6, 0.5))
    np.testing.assert_array_equal(answer["y"], [1, 2])
    late = ask(ErrorAnswer(make_id(), "deadline_exceeded", "late", 2.0))
    assert isinstance(late, DeadlineExceeded)
    assert late.retry_after_s == 2.0
    assert isinstance(ask(ErrorAnswer(make_id(), "tired", "x")), Internal)
    health = ask(HealthAnswer(make_id(), False, "draining", "why", (1,), "0.1"))
    assert health == Health(False, "draining", "why", "0.1")
    for frames in ([], [b"123"], [b"12345678", b""]):
        with pytest.raises(Malformed):
            ask(make_answer(), *frames)


def test_what_is_known_of_outputs_does_not_depend_on_timeouts():
    """A caller whose timeout or priority changes with each call has areas for its outputs; another input has not."""
    forms = Forms()
    inputs: dict[str, object] = {"x": np.zeros(4)}
    call(forms, inputs)[0].outputs.learn((TensorSpec("y", Dtype.UINT8, (2**20,)),))
    for number in range(1, 600):
        # More forms than are kept.
        form, _ = call(forms, inputs, timeout_s=1.0 + number / 1000, priority=number % 8)
        assert form.outputs.area_bytes == 2**20
    for other in ({"x": np.zeros(5)}, {"y": np.zeros(4)}, {"x": np.zeros(4, np.float32)}):
        assert call(forms, other)[0].outputs.area_bytes == 0
    assert call(forms, inputs, version="2")[0].outputs.area_bytes == 0
