"""The header of a plan is read without TensorRT, and whatever is no plan is refused with a reason."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.plans import make_plan
from trtd.engine.header import PlanKind, read_header
from trtd.errors import InvalidConfig


def test_what_a_header_says():
    """Kind, version, platform, size and parts are read as they stand."""
    plan = make_plan()
    header = read_header(plan)
    assert (header.kind, header.version, header.release) == (PlanKind.TENSORRT, (10, 6, 0, 26), "10.6.0")
    assert (header.platform, header.size_bytes) == (b"rtrt", len(plan))
    assert [part.tag for part in header.parts] == ["ENGN", "WGHT"]
    assert header.weights_bytes == 200
    assert not header.has_host_code


def test_host_code_is_seen():
    """A plan that brings a lean runtime is known by its first part."""
    assert read_header(make_plan(parts=(("LEAN", 10), ("ENGN", 20), ("WGHT", 5)))).has_host_code


def test_another_family_is_known_by_its_magic():
    """A plan of TensorRT-RTX is told apart."""
    assert read_header(make_plan(magic=b"vtrt")).kind is PlanKind.RTX


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda plan: plan[:0], "it is empty"),
        (lambda plan: plan[:31], "the header of a plan has 32"),
        (lambda plan: plan[:-1], "truncated"),
        (lambda plan: plan + b"x", "followed by other bytes"),
        (lambda plan: b"ONNX" + plan[4:], "no TensorRT plan"),
        (lambda plan: plan[:8] + bytes(8) + plan[16:], "names 0 parts"),
        (lambda plan: plan[:8] + b"\xff" * 8 + plan[16:], "parts"),
        (lambda plan: plan[:48] + b"\xff" * 8 + plan[56:], "part 1 lies outside"),
    ],
)
def test_damage_is_refused_with_a_reason(damage, reason):
    """Each kind of damage that a header can show is refused, and the line says what is wrong."""
    with pytest.raises(InvalidConfig, match=reason):
        read_header(damage(make_plan()))


@given(st.binary(max_size=200), st.integers(0, 150))
@settings(deadline=None, max_examples=300)
def test_no_bytes_break_it(noise, at):
    """Whatever the bytes are, the answer is a header or a typed refusal."""
    plan = make_plan()
    with contextlib.suppress(InvalidConfig):
        read_header(plan[:at] + noise + plan[at + len(noise) :])
