"""Headers from a form mean what the headers of the encoder do."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.wire import make_spec
from trtd.core.ids import RequestId
from trtd.errors import Malformed, TooLarge
from trtd.wire.codec import decode_router_message, encode_router_message
from trtd.wire.forms import ResultForm
from trtd.wire.messages import MAX_TENSORS, InferAnswer, Timing

uints = st.integers(0, 2**63 - 1)


@settings(deadline=None)
@given(
    model=st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=60),
    request_id=st.binary(min_size=16, max_size=16).map(RequestId),
    generation=uints,
    shapes=st.lists(st.lists(st.integers(0, 300), max_size=4).map(tuple), max_size=4),
    timing=st.builds(Timing, uints, uints, uints),
)
def test_a_form_says_what_the_encoder_says(model, request_id, generation, shapes, timing) -> None:
    """Whatever names, ids and numbers are, they are read back, and all bytes before the timing are the same."""
    outputs = tuple(make_spec(name=f"y{at}", shape=shape) for at, shape in enumerate(shapes))
    answer = InferAnswer(request_id, model, "1", generation, outputs, timing)
    form = ResultForm(model, "1", generation, outputs)
    header = form.header(request_id, timing.queue_us, timing.batch_us, timing.compute_us)
    assert decode_router_message(header) == answer
    (same,) = form.headers([request_id], [timing.queue_us], [timing.batch_us], timing.compute_us)
    assert same == header
    up_to_timing = header.rindex(b"timing") + len("timing")
    assert encode_router_message(answer)[:up_to_timing] == header[:up_to_timing]


def test_a_header_that_could_break_its_limit_is_refused_beforehand() -> None:
    """A form is only made where every header from it fits."""
    outputs = tuple(make_spec(name=f"{at:03}" + "y" * 240) for at in range(MAX_TENSORS))
    with pytest.raises(TooLarge):
        ResultForm("m", "1", 1, outputs)


@pytest.mark.parametrize(
    ("outputs", "line"),
    [
        ((make_spec("y"), make_spec("y")), "same name"),
        ((make_spec("y", shape=(1,) * 17),), "17 dimensions"),
        ((make_spec("y", shape=(2**62,)),), "more than"),
    ],
)
def test_a_header_that_nobody_could_read_is_refused_beforehand(outputs, line) -> None:
    """A client that cannot read its answer would wait until its time is up."""
    with pytest.raises(Malformed, match=line):
        ResultForm("m", "1", 1, outputs)
