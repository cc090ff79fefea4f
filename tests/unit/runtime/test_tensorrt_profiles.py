"""Which profile a batch runs in, and how far it is padded. No TensorRT is needed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtd.runtime.tensorrt.profiles import (
    Profile,
    Range,
    choose,
    largest_shapes,
    most_items,
    optimal_shapes,
    show_ranges,
    smallest_shapes,
)


def make_profile(index: int, low: int, best: int, high: int, width: int = 4) -> Profile:
    return Profile(index, {"x": Range((low, width), (best, width), (high, width))})


TWO = [make_profile(0, 1, 1, 4), make_profile(1, 8, 32, 128)]


@pytest.mark.parametrize(
    ("items", "index", "run_items"), [(1, 0, 1), (4, 0, 4), (5, 1, 8), (7, 1, 8), (8, 1, 8), (128, 1, 128)]
)
def test_a_batch_runs_in_the_profile_that_takes_it(items, index, run_items):
    """What fits runs as it is; what lies between two profiles is padded to the smallest batch of the next one."""
    shapes = {"x": (items, 4)}
    choice = choose(TWO, shapes, is_batched=True)
    assert choice is not None
    assert (choice.profile.index, choice.shapes["x"]) == (index, (run_items, 4))
    assert (choice.shapes is shapes) == (items == run_items)


def test_the_tighter_profile_is_preferred():
    """Of two profiles that take a batch, the smaller one was tuned for it."""
    wide, tight = make_profile(0, 1, 64, 128), make_profile(1, 1, 2, 4)
    choice = choose([wide, tight], {"x": (3, 4)}, is_batched=True)
    assert choice is not None
    assert choice.profile is tight


@pytest.mark.parametrize("shape", [(129, 4), (2, 5), (2,), (2, 4, 1)])
def test_what_no_profile_takes_is_refused(shape):
    """Too many items, another width, another number of dimensions."""
    assert choose(TWO, {"x": shape}, is_batched=True) is None


@pytest.mark.parametrize(("shape", "most"), [((1, 4), 128), ((500, 4), 128), ((1, 5), 0), ((1,), 0), ((1, 4, 1), 0)])
def test_the_largest_batch_of_a_shape(shape, most):
    """The profile that takes most says how many, whatever number is asked with; of other shapes none do."""
    assert most_items(TWO, {"x": shape}) == most


def test_the_largest_batch_follows_the_other_dimensions():
    """Where one profile takes many short items and another a few long ones, long ones are few; each such batch runs."""
    profiles = [
        Profile(0, {"x": Range((1, 1), (8, 512), (8, 512))}),
        Profile(1, {"x": Range((1, 1), (32, 128), (32, 128))}),
    ]
    for length, most in ((1, 32), (128, 32), (129, 8), (512, 8), (513, 0)):
        assert most_items(profiles, {"x": (1, length)}) == most
        for items in range(1, most + 1):
            assert choose(profiles, {"x": (items, length)}, is_batched=True) is not None
        assert choose(profiles, {"x": (most + 1, length)}, is_batched=True) is None


def test_inputs_bound_the_batch_together():
    """A batch is no larger than the input that takes the fewest items."""
    two = Profile(0, {"x": Range((1, 4), (1, 4), (64, 4)), "mask": Range((1, 2), (1, 2), (16, 2))})
    assert most_items([two], {"x": (1, 4), "mask": (1, 2)}) == 16
    assert most_items([two], {"x": (1, 4), "mask": (1, 3)}) == 0


def test_nothing_is_added_to_a_model_that_is_not_batched():
    """Where the first dimension does not count items, a shape between two profiles is refused."""
    assert choose(TWO, {"x": (5, 4)}, is_batched=False) is None


def test_shapes_within_the_bound_of_the_configuration():
    """The largest and best shapes follow max_batch, but never leave the profile."""
    assert largest_shapes(TWO[1], 64) == {"x": (64, 4)}
    assert largest_shapes(TWO[1], 2) == {"x": (8, 4)}
    assert largest_shapes(TWO[1], None) == {"x": (128, 4)}
    assert optimal_shapes(TWO[1], 16) == {"x": (16, 4)}
    assert optimal_shapes(TWO[1], None) == {"x": (32, 4)}
    assert smallest_shapes(TWO[1]) == {"x": (8, 4)}


def test_ranges_in_words():
    """A refusal tells what is taken; a fixed shape is told once."""
    fixed = Profile(0, {"n": Range((1,), (1,), (1,))})
    assert show_ranges([*TWO, fixed]) == "x [1, 4] to [4, 4] or x [8, 4] to [128, 4] or n [1]"


bounds = st.lists(st.integers(1, 64), min_size=2, max_size=2).map(sorted)


@given(st.lists(bounds, min_size=1, max_size=4), st.integers(0, 70))
@settings(deadline=None)
def test_a_choice_always_fits(ranges, items):
    """Whatever is chosen lies in its profile, holds every item, and changes nothing but their number."""
    profiles = [make_profile(index, low, low, high) for index, (low, high) in enumerate(ranges)]
    choice = choose(profiles, {"x": (items, 4)}, is_batched=True)
    if choice is None:
        assert items > max(high for _, high in ranges) or all(
            not low <= items <= high and items >= low for low, high in ranges
        )
    else:
        assert choice.profile.admits(choice.shapes)
        assert choice.shapes["x"][0] >= items
        assert choice.shapes["x"][1:] == (4,)
