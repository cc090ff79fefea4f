"""The README's section on the wire says what the code does."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.support.readme import README, TABLES, marked
from tests.support.wire import make_error_answer, make_infer_answer, make_infer_request, make_spec
from trtd.wire import codec, tensors
from trtd.wire.messages import Timing

EXAMPLES = {
    "request-header": codec.encode_client_message(make_infer_request(inputs=(make_spec(shape=(1, 2)),), timeout_s=1.5)),
    "request-tensor": bytes(tensors.to_frame(np.array([[1.0, -2.0]], np.float32))),
    "answer-header": codec.encode_router_message(
        make_infer_answer(outputs=(make_spec("y", shape=(1, 1)),), timing=Timing(120, 40, 900))
    ),
    "answer-tensor": bytes(tensors.to_frame(np.array([[0.5]], np.float32))),
    "error-header": codec.encode_router_message(make_error_answer(message="the queue is full", retry_after_s=0.25)),
}


def bytes_of(block: str) -> bytes:
    """The bytes of an annotated hex dump."""
    return bytes.fromhex(re.sub(r"#.*|```", "", block))


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_those_of_the_code(name: str) -> None:
    """A table that is made from the code is printed by scripts/readme-tables and stands in the README unchanged."""
    assert marked(README.read_text(), name) == TABLES[name]()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_worked_example_has_the_real_bytes(name: str) -> None:
    """What a newcomer compares with is what trtd sends."""
    block = marked(README.read_text(), name)
    assert block is not None
    assert bytes_of(block).hex(" ") == EXAMPLES[name].hex(" ")
