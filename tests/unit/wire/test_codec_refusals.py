"""Headers between clients and the router that are not accepted: each is refused in one line that names the key."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.wire import (
    REQUEST_ID,
    infer_fields,
    pack,
)
from trtd.core.ids import RequestId
from trtd.errors import Malformed, TrtdError, UnsupportedDtype, UnsupportedVersion
from trtd.wire import codec
from trtd.wire.messages import (
    MAX_HEADER_BYTES,
    MAX_TENSORS,
    UNKNOWN_REQUEST_ID,
)

PLAIN = {"name": "m", "version": "1", "inputs": [], "outputs": [], "is_batched": False, "max_batch": 0, "batching": ""}
"""A description of a model as it travels."""


def refusal(fields: dict[str, Any]) -> str:
    """The line that refuses a request."""
    with pytest.raises(Malformed) as raised:
        codec.decode_client_message(pack(fields))
    assert "\n" not in str(raised.value)
    return raised.value.message


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"v": ...}, "v: missing"),
        ({"v": "1"}, "v: expected an integer, got a string"),
        ({"v": True}, "v: expected an integer, got a boolean"),
        ({"v": 1.0}, "v: expected an integer, got a float"),
        ({"type": ...}, "type: missing"),
        ({"type": 1}, "type: expected one of infer, describe, health, got 1"),
        ({"type": "result"}, "type: 'result' is none of infer, describe, health"),
        ({"id": ...}, "id: missing"),
        ({"id": "0123456789abcdef"}, "id: expected 16 bytes of binary, got a string"),
        ({"id": b"short"}, "id: expected 16 bytes of binary, got 5"),
        ({"model": ...}, "model: missing"),
        ({"model": None}, "model: expected a string, got nil"),
        ({"model": b"mlp"}, "model: expected a string, got binary"),
        ({"model": ""}, "model: is empty"),
        ({"model": "x" * 257}, "model: is longer than 256 bytes"),
        ({"model": "é" * 129}, "model: is longer than 256 bytes"),
        ({"model": "a\nb"}, "model: 'a\\nb' has a control character"),
        ({"model": "a\u2028b"}, "has a control character"),
        ({"version": None}, "version: expected a string, got nil"),
        ({"version": 1}, "version: expected a string, got an integer"),
        ({"timeout_s": None}, "timeout_s: expected a finite number of seconds above 0, got nil"),
        ({"timeout_s": 0}, "timeout_s: expected a finite number of seconds above 0, got 0"),
        ({"timeout_s": -1.5}, "got -1.5"),
        ({"timeout_s": float("nan")}, "got nan"),
        ({"timeout_s": float("inf")}, "got inf"),
        ({"timeout_s": True}, "got a boolean"),
        ({"timeout_s": "1"}, "got a string"),
        ({"priority": 8}, "priority: expected an integer from -8 to 7, got 8"),
        ({"priority": -9}, "got -9"),
        ({"priority": True}, "got a boolean"),
        ({"priority": 1.0}, "got 1.0"),
        ({"priority": None}, "got nil"),
        ({"is_resent": 1}, "is_resent: expected a boolean, got 1"),
        ({"is_resent": None}, "is_resent: expected a boolean, got nil"),
        ({"inputs": ...}, "inputs: missing"),
        ({"inputs": {}}, "inputs: expected an array, got a map"),
        ({"outputs": None}, "outputs: expected an array, got nil"),
        ({"outputs": []}, f"outputs: has 0 names, expected 1 to {MAX_TENSORS}"),
        ({"outputs": [f"y{at}" for at in range(MAX_TENSORS + 1)]}, f"outputs: has {MAX_TENSORS + 1} names"),
        ({"outputs": ["y", 1]}, "outputs[1]: expected a string, got an integer"),
        ({"outputs": ["y", "z", "y"]}, "outputs: names a tensor twice"),
        ({"colour": 1}, "'colour' is no key of an infer request"),
        ({b"model": 1}, "b'model' is no key of an infer request"),
        ({"x" * 300: 1}, "is no key of an infer request"),
    ],
)
def test_a_bad_header_is_refused_by_its_key(fields: dict[Any, Any], line: str) -> None:
    """Every bad value is refused in one line that names the key and the problem."""
    assert line in refusal(infer_fields(**{k: v for k, v in fields.items() if isinstance(k, str)}) | {
        k: v for k, v in fields.items() if isinstance(k, bytes)
    })  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("x", "inputs[0]: expected [name, dtype, shape, place], got a string"),
        ([], "inputs[0]: expected [name, dtype, shape, place], got an array of 0"),
        (["x", "float32", [1]], "got an array of 3"),
        ([1, "float32", [1], "frame"], "inputs[0]: expected a string, got an integer"),
        (["", "float32", [1], "frame"], "inputs[0]: is empty"),
        (["a\x7f", "float32", [1], "frame"], "has a control character"),
        (["x", 5, [1], "frame"], "inputs 'x' dtype: expected a string, got an integer"),
        (["x", None, [1], "frame"], "inputs 'x' dtype: expected a string, got nil"),
        (["x", [], [1], "frame"], "inputs 'x' dtype: expected a string, got an array"),
        (["x", "float32", None, "frame"], "inputs 'x' shape: expected an array of integers, got nil"),
        (["x", "float32", [-1], "frame"], "inputs 'x' shape: -1 is negative"),
        (["x", "float32", [True], "frame"], "inputs 'x' shape: expected integers, got a boolean"),
        (["x", "float32", [2.0], "frame"], "inputs 'x' shape: expected integers, got a float"),
        (["x", "float32", [float("nan")], "frame"], "inputs 'x' shape: expected integers, got a float"),
        (["x", "float32", [1] * 17, "frame"], "inputs 'x' shape: has 17 dimensions, the most is 16"),
        (["x", "float32", [2**32, 2**32], "frame"], "stands for more than"),
        (["x", "float32", [0, 2**63, 2**63], "frame"], "stands for more than"),
        (["x", "float32", [2**64 - 1] * 16, "frame"], "stands for more than"),
        (
            ["x", "float32", [1], "shm"],
            "inputs 'x' place: expected 'frame' or 'arena', got 'shm'",
        ),
        (
            ["x", "float32", [1], ["shm", 0, 0, 4]],
            "place: expected 'frame' or 'arena', got an array",
        ),
        (["x", "float32", [1], None], "got nil"),
    ],
)
def test_a_bad_tensor_is_refused_by_its_name(spec: Any, line: str) -> None:
    """Every bad tensor is refused in one line that names it and the problem."""
    assert line in refusal(infer_fields(inputs=[spec]))


def test_two_tensors_of_one_name_are_refused() -> None:
    """A request cannot name one input twice."""
    spec = ["x", "float32", [1], "frame"]
    assert "two tensors have the same name" in refusal(infer_fields(inputs=[spec, spec]))


def test_the_number_of_tensors_is_bounded() -> None:
    """One tensor more than travel is refused, as many as travel are not."""
    inputs = [[f"x{at}", "float32", [], "frame"] for at in range(MAX_TENSORS + 1)]
    assert f"has {MAX_TENSORS + 1} tensors, the most is {MAX_TENSORS}" in refusal(infer_fields(inputs=inputs))
    assert codec.decode_client_message(pack(infer_fields(inputs=inputs[:-1])))


@pytest.mark.parametrize("dtype", ["string", "str", "object"])
def test_strings_do_not_travel(dtype: str) -> None:
    """A tensor of strings is refused with a code of its own, because no other bytes would help."""
    with pytest.raises(UnsupportedDtype, match=f"{dtype} tensors do not travel"):
        codec.decode_client_message(pack(infer_fields(inputs=[["x", dtype, [1], "frame"]])))


def test_an_unknown_dtype_is_refused_with_the_known_ones() -> None:
    """A dtype of tomorrow is refused in a line that names those of today."""
    with pytest.raises(UnsupportedDtype, match=r"'float8_e4m3' is none of bool, int8.*complex128"):
        codec.decode_client_message(pack(infer_fields(inputs=[["x", "float8_e4m3", [1], "frame"]])))


@pytest.mark.parametrize("version", [0, 2, 2**63])
def test_another_version_is_refused_before_anything_else(version: int) -> None:
    """A message of another version is told which version is spoken, whatever else stands in it."""
    for decode in (codec.decode_client_message, codec.decode_router_message):
        with pytest.raises(UnsupportedVersion, match=f"speaks wire version 1, the message has {version}"):
            decode(pack({"v": version, "kind": [["of", "tomorrow"]]}))


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "is not valid msgpack"),
        (b"\xc1", "is not valid msgpack"),
        (b"\x93\x01", "is not valid msgpack"),
        (pack([1, 2]), "the header is an array, expected a map"),
        (pack("v"), "the header is a string, expected a map"),
        (pack(None), "the header is nil, expected a map"),
        (pack(infer_fields()) + b"\x00", "is followed by further bytes"),
        (pack({1: 2}), "is not valid msgpack"),
        (b"\x81\xa1v\xa2\xff\xff", "holds a string that is not UTF-8"),
        (b"\x81\xa1v\xd4\x05\x00", "extension type 5 is not allowed"),
        (b"\x81\xa1v\xc7\x00\x05", "extension type 5 is not allowed"),
        (b"\x81\xa1v\xdd\xff\xff\xff\xff", "is not valid msgpack"),
        (b"\x82\xa1v\x01\xa1v\x01", "names a key twice"),
        (b"\xde\x00\x02\xa1v\x01\xa1v\x01", "names a key twice"),
        (b"\xdf\x00\x00\x00\x02\xa1v\x01\xa1v\x01", "names a key twice"),
        (b"\x91" * 2000 + b"\xc0", "is not valid msgpack"),
        (b"\x91" * 500 + b"\xc0", "the header is an array"),
        (pack(infer_fields(model="x" * MAX_HEADER_BYTES)), f"the most is {MAX_HEADER_BYTES}"),
        (pack({f"key{at}": at for at in range(65)}), "is not valid msgpack"),
        (pack(infer_fields(inputs=[0] * 513)), "is not valid msgpack"),
    ],
)
def test_bytes_that_are_no_header_are_refused(data: bytes, line: str) -> None:
    """Whatever comes in place of a header is refused in one line."""
    for decode in (codec.decode_client_message, codec.decode_router_message):
        with pytest.raises(Malformed) as raised:
            decode(data)
        assert line in raised.value.message
        assert raised.value.message.isprintable()


@given(st.binary(max_size=300))
@settings(deadline=None, max_examples=300)
def test_random_bytes_are_refused_with_a_code(data: bytes) -> None:
    """Noise gives a typed error from every decoder, never another exception."""
    for decode in (codec.decode_client_message, codec.decode_router_message, codec.decode_models):
        try:
            decode(data)
        except (Malformed, UnsupportedVersion, UnsupportedDtype):
            continue
        assert decode is codec.decode_models
        assert data.startswith((b"\x90", b"\xdc\x00\x00", b"\xdd\x00\x00\x00\x00"))


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"timing": [1, 2]}, "timing: expected [queue_us, batch_us, compute_us]"),
        ({"timing": [1, 2, True]}, "timing: expected [queue_us, batch_us, compute_us]"),
        ({"timing": [1, 2, -1]}, "timing: expected [queue_us, batch_us, compute_us]"),
        ({"timing": [1, 2, 2**63]}, "timing: expected [queue_us, batch_us, compute_us]"),
        ({"generation": -1}, "generation: expected an integer from 0 to 2**63 - 1, got -1"),
        ({"generation": True}, "generation: expected an integer from 0 to 2**63 - 1, got a boolean"),
        ({"outputs": [["y", "float32", [1], "lost"]]}, "outputs 'y' place"),
    ],
)
def test_a_bad_answer_is_refused_by_its_key(fields: dict[str, Any], line: str) -> None:
    """A client does not trust a daemon's header more than the daemon trusts the client's."""
    answer = {"v": 1, "type": "result", "id": bytes(16), "model": "m", "version": "1", "generation": 1, "outputs": []}
    with pytest.raises(Malformed) as raised:
        codec.decode_router_message(pack({**answer, "timing": [1, 2, 3], **fields}))
    assert line in raised.value.message


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (pack(infer_fields(model=5)), REQUEST_ID),
        (pack({"v": 9, "id": bytes(REQUEST_ID)}), REQUEST_ID),
        (pack(infer_fields(id=b"short")), UNKNOWN_REQUEST_ID),
        (pack(infer_fields(id="0123456789abcdef")), UNKNOWN_REQUEST_ID),
        (pack([1]), UNKNOWN_REQUEST_ID),
        (b"\xc1", UNKNOWN_REQUEST_ID),
    ],
)
def test_the_id_is_read_from_a_refused_header_where_possible(data: bytes, expected: RequestId) -> None:
    """The error that answers a bad header carries its id if there is one, else zeros."""
    assert codec.read_request_id(data) == expected


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ([{}], "name: missing"),
        ([5], "models: expected a map for each, got an integer"),
        ({}, "models: expected an array, got a map"),
        ([{"name": "m", "version": "1", "inputs": [["x", "float32"]]}], "inputs[0]: expected [name, dtype, shape]"),
        (
            [{**PLAIN, "inputs": [["x", "float32", [-1]]]}],
            "expected nil or an array of integers and nil",
        ),
        ([{**PLAIN, "optional_inputs": 1}], "optional_inputs: expected an array"),
        ([{**PLAIN, "unserved": [["y"]]}], "unserved[0]: expected [name, reason]"),
        ([{**PLAIN, "unserved": [["y", 1]]}], "reason: expected a string"),
        ([{"name": "m", "version": "1", "inputs": [["x", "string", [1]]]}], "string tensors do not travel"),
    ],
)
def test_a_bad_description_is_refused(fields: Any, line: str) -> None:
    """A frame of models is checked as strictly as a header."""
    with pytest.raises(TrtdError) as raised:
        codec.decode_models(pack(fields))
    assert line in raised.value.message
