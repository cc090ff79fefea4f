"""Which optimization profile a batch runs in, and how far it has to be padded for that. Pure: shapes in, choice out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trtd.runtime.protocol import Shapes

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The shapes that one input may have in a profile; also the values of a shape tensor, in the order they lie."""

    minimum: Shape
    optimum: Shape
    maximum: Shape

    def admits(self, shape: Shape) -> bool:
        """Whether a shape lies between minimum and maximum."""
        return len(shape) == len(self.minimum) and all(
            low <= size <= high for low, size, high in zip(self.minimum, shape, self.maximum, strict=True)
        )

    def admits_items_of(self, shape: Shape) -> bool:
        """The same for all dimensions but the first."""
        return len(shape) == len(self.minimum) and self.admits((*self.minimum[:1], *shape[1:]))


@dataclass(frozen=True, slots=True)
class Profile:
    """One optimization profile.

    Attributes:
        index: TensorRT's.
        ranges: shapes of all inputs, by name.
        values: of the shape tensors among them, as far as TensorRT tells.
    """

    index: int
    ranges: Mapping[str, Range]
    values: Mapping[str, Range] = field(default_factory=dict)

    def admits(self, shapes: Shapes) -> bool:
        """Whether a batch of these shapes can run in it."""
        return all(self.ranges[name].admits(shape) for name, shape in shapes.items())

    def admits_values(self, values: Shapes) -> bool:
        """Whether shape tensors with these values can run in it."""
        return all(one.admits(values[name]) for name, one in self.values.items() if name in values)

    @property
    def least_items(self) -> int:
        """Items of the smallest batch, where the first dimension counts them."""
        return max((one.minimum[0] for one in self.ranges.values() if one.minimum), default=1)

    @property
    def most_items(self) -> int:
        """Items of the largest batch, likewise."""
        return min((one.maximum[0] for one in self.ranges.values() if one.maximum), default=1)

    def admits_items_of(self, shapes: Shapes) -> bool:
        """Whether a batch of some number of such items can run in it."""
        return all(self.ranges[name].admits_items_of(shape) for name, shape in shapes.items())

    @property
    def volume(self) -> int:
        """Elements of its largest inputs: the tighter a profile, the better it was tuned."""
        return sum(math.prod(one.maximum) for one in self.ranges.values())


@dataclass(frozen=True, slots=True)
class Choice:
    """A profile, and the shapes to run in it; larger than the batch's own where that is padded."""

    profile: Profile
    shapes: Shapes


def choose(profiles: Sequence[Profile], shapes: Shapes, *, is_batched: bool) -> Choice | None:
    """The tightest profile that takes a batch; else, for a batched model, the one that needs the least padding.

    Args:
        profiles: of the engine.
        shapes: of the batch's inputs.
        is_batched: whether the first dimension counts items, so that more of them may be added.

    Returns:
        None when no profile takes it.
    """
    fitting = [profile for profile in profiles if profile.admits(shapes)]
    if fitting:
        return Choice(min(fitting, key=lambda profile: profile.volume), shapes)
    if not is_batched or len({shape[:1] for shape in shapes.values()}) != 1:
        return None
    padded = [
        Choice(profile, {name: (profile.least_items, *shape[1:]) for name, shape in shapes.items()})
        for profile in profiles
        if all(shape and shape[0] < profile.least_items for shape in shapes.values())
    ]
    taken = [choice for choice in padded if choice.profile.admits(choice.shapes)]
    return min(taken, key=lambda choice: choice.profile.least_items, default=None)


def most_items(profiles: Sequence[Profile], shapes: Shapes) -> int:
    """Items of the largest batch that some profile takes; the first dimensions of the shapes do not matter.

    Returns:
        0 where no profile takes such items.
    """
    return max((profile.most_items for profile in profiles if profile.admits_items_of(shapes)), default=0)


def largest_shapes(profile: Profile, most_items: int | None) -> Shapes:
    """The largest shapes that a profile is used with.

    Args:
        profile: which.
        most_items: most items of a batch; None where the first dimension does not count them.
    """
    if most_items is None:
        return {name: one.maximum for name, one in profile.ranges.items()}
    items = max(min(most_items, profile.most_items), profile.least_items)
    return {name: (items, *one.maximum[1:]) for name, one in profile.ranges.items()}


def optimal_shapes(profile: Profile, most_items: int | None) -> Shapes:
    """The shapes that a profile was tuned for, within the same bound."""
    if most_items is None:
        return {name: one.optimum for name, one in profile.ranges.items()}
    return {
        name: (max(min(one.optimum[0], most_items), profile.least_items), *one.optimum[1:])
        for name, one in profile.ranges.items()
    }


def smallest_shapes(profile: Profile) -> Shapes:
    """The smallest shapes of a profile."""
    return {name: one.minimum for name, one in profile.ranges.items()}


def smallest_values(profile: Profile) -> Shapes:
    """The smallest values of the shape tensors."""
    return {name: one.minimum for name, one in profile.values.items()}


def optimal_values(profile: Profile) -> Shapes:
    """The values that a profile was tuned for."""
    return {name: one.optimum for name, one in profile.values.items()}


def largest_values(profile: Profile) -> Shapes:
    """The largest values of the shape tensors."""
    return {name: one.maximum for name, one in profile.values.items()}


def show_values(profiles: Sequence[Profile]) -> str:
    """The values that shape tensors may have, in one line, for a refusal: `size [1, 1] to [64, 64]`."""
    return " or ".join(
        ", ".join(f"{name} {list(one.minimum)} to {list(one.maximum)}" for name, one in profile.values.items())
        for profile in profiles
    )


def show_ranges(profiles: Sequence[Profile]) -> str:
    """All profiles in one line, for a refusal: `x [1, 512] to [64, 512]`."""
    return " or ".join(
        ", ".join(
            f"{name} {list(one.minimum)} to {list(one.maximum)}"
            if one.minimum != one.maximum
            else f"{name} {list(one.minimum)}"
            for name, one in profile.ranges.items()
        )
        for profile in profiles
    )
