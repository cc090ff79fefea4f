"""The verdict before loading names what a plan needs and what is there."""

from __future__ import annotations

import pytest

from tests.support.plans import make_plan
from trtd.engine.compatibility import LINUX_X86_64, Flavour, Installed, incompatibility
from trtd.engine.header import read_header


def make_installed(**fields):
    return Installed(**{"flavour": Flavour.FULL, "version": "10.6.0", "platform": LINUX_X86_64, **fields})


def verdict(installed, **plan):
    return incompatibility(read_header(make_plan(**plan)), installed)


LEAN_INSIDE = (("LEAN", 10), ("ENGN", 20), ("WGHT", 5))


@pytest.mark.parametrize(
    ("installed", "plan"),
    [
        ({}, {}),
        ({"version": "10.6.0.26"}, {}),
        ({"version": "10.6.0.282"}, {}),
        ({"flavour": Flavour.LEAN}, {}),
        ({"flavour": Flavour.RTX, "version": "1.7.1"}, {"magic": b"vtrt", "version": (1, 7, 1, 116)}),
        ({"version": "11.4.0", "allows_host_code": True}, {"parts": LEAN_INSIDE}),
        ({"flavour": Flavour.DISPATCH, "version": "11.4.0", "has_lean_library": True}, {}),
        ({"platform": None}, {"platform": b"else"}),
    ],
)
def test_what_may_run_is_not_refused(installed, plan):
    """Same family, same version or a way around it, and permission for code inside: nothing to say."""
    assert verdict(make_installed(**installed), **plan) is None


@pytest.mark.parametrize(
    ("installed", "plan", "words"),
    [
        ({}, {"magic": b"vtrt", "version": (1, 7, 1, 116)}, ["TensorRT-RTX 1.7.1", "tensorrt 10.6.0 is there"]),
        ({"flavour": Flavour.RTX, "version": "1.7.1"}, {}, ["plan of TensorRT 10.6.0", "tensorrt_rtx 1.7.1 is there"]),
        ({"version": "11.4.0"}, {}, ["built by TensorRT 10.6.0 (build 26)", "tensorrt 11.4.0 is there"]),
        ({"version": "10.6.1"}, {}, ["built by TensorRT 10.6.0", "10.6.1"]),
        ({"version": "10.6.0.27"}, {}, ["build 26", "10.6.0.27"]),
        ({"flavour": Flavour.LEAN, "version": "10.16.1"}, {}, ["10.6.0", "tensorrt_lean 10.16.1"]),
        ({}, {"platform": b"else"}, ["b'else'", "b'rtrt'"]),
        ({}, {"serialization": 1}, ["layout has version 1", "version 0"]),
        ({}, {"parts": LEAN_INSIDE}, ["code that would run on this host", "allow_host_code"]),
        ({"flavour": Flavour.DISPATCH, "version": "11.4.0"}, {}, ["lean runtime 10.6.0", "tensorrt.lean_library"]),
    ],
)
def test_a_refusal_names_both_sides(installed, plan, words):
    """What the plan needs and what is there stand in one line."""
    text = verdict(make_installed(**installed), **plan)
    assert text is not None
    for word in words:
        assert word in text
