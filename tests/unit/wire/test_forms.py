"""Headers from a form are the headers of the encoder."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.wire import make_spec
from trtd.core.ids import RequestId
from trtd.errors import TooLarge
from trtd.wire.codec import encode_router_message
from trtd.wire.forms import ResultForm
from trtd.wire.messages import InferAnswer, Timing

uints = st.integers(0, 2**63 - 1)


@settings(deadline=None)
@given(
    model=st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=60),
    request_id=st.binary(min_size=16, max_size=16).map(RequestId),
    generation=uints,
    shapes=st.lists(st.lists(uints, max_size=4).map(tuple), max_size=4),
    timing=st.builds(Timing, uints, uints, uints),
)
def test_a_form_writes_what_the_encoder_writes(model, request_id, generation, shapes, timing) -> None:
    """Whatever names, ids and numbers are, the bytes are the same."""
    outputs = tuple(make_spec(name=f"y{at}", shape=shape) for at, shape in enumerate(shapes))
    expected = encode_router_message(InferAnswer(request_id, model, "1", generation, outputs, timing))
    form = ResultForm(model, "1", generation, outputs)
    assert form.header(request_id, timing.queue_us, timing.batch_us, timing.compute_us) == expected


def test_a_header_that_could_break_its_limit_is_refused_beforehand() -> None:
    """A form is only made where every header from it fits."""
    outputs = tuple(make_spec(name=f"{at:02}" + "y" * 118) for at in range(32))
    with pytest.raises(TooLarge):
        ResultForm("m", "1", 1, outputs)
