"""What an engine says of its tensors: layouts that do not travel are refused, shape tensors have values in a range."""

from __future__ import annotations

import enum
from types import SimpleNamespace

import numpy as np
import pytest

from trtd.errors import InvalidConfig, InvalidInput
from trtd.runtime.tensorrt.profiles import Profile, Range

LAYOUTS = [
    "CHW2", "HWC8", "CHW4", "CHW16", "CHW32", "DHWC8", "CDHW32", "HWC", "DLA_LINEAR", "DLA_HWC4", "HWC16", "DHWC",
]  # fmt: skip
"""Of TensorRT 10.6, besides LINEAR."""

DESCRIPTIONS = {
    "Row major linear FP32 format (kLINEAR)": True,
    "Row major Int8 format": True,
    "Channel major FP32 format": False,
    "Channel major FP32 format with 3 spatial dimensions": False,
    "Eight channel FP16 format (kHWC8) where C is padded to a multiple of 8": False,
    "Two wide channel vectorized row major FP16 format": False,
    "Row major FP16 format where column stride % 64 == 0": False,
}
"""As they stand in libnvinfer 10.6, and whether they are linear."""


class Kind(enum.Enum):
    """Of several enums of TensorRT, as far as they are used."""

    INPUT = 0
    OUTPUT = 1
    HOST = 2
    DEVICE = 3
    FLOAT = 4
    INT32 = 5


class EngineStub:
    """An engine with two inputs, of which the second is a shape tensor, and two profiles."""

    num_io_tensors = 2
    num_optimization_profiles = 2

    def __init__(self, layout="LINEAR", odd_profile=0, described="Row major linear FP32 format (kLINEAR)", vector=-1):
        self.layout, self.odd_profile, self.described, self.vector = layout, odd_profile, described, vector
        self.asked = []

    def get_tensor_name(self, index):
        return ("x", "size")[index]

    def get_tensor_dtype(self, name):
        return Kind.FLOAT if name == "x" else Kind.INT32

    def get_tensor_shape(self, name):
        return (-1, 3, -1, -1) if name == "x" else (2,)

    def get_tensor_mode(self, name):
        return Kind.INPUT

    def get_tensor_location(self, name):
        return Kind.HOST if name == "size" else Kind.DEVICE

    def get_tensor_format(self, name, profile):
        is_odd = name == "x" and profile == self.odd_profile
        return SimpleNamespace(name=self.layout if is_odd else "LINEAR")

    def get_tensor_format_desc(self, name, profile):
        return self.described if name == "x" else "Row major linear INT32 format (kLINEAR)"

    def get_tensor_vectorized_dim(self, name, profile):
        return self.vector if name == "x" else -1

    def is_shape_inference_io(self, name):
        return name == "size"

    def get_tensor_profile_shape(self, name, profile):
        assert name == "x"
        return [(1, 3, 8, 8), (2, 3, 16, 16), (4, 3, 64, 64)]

    def get_tensor_profile_values(self, profile, name):
        # As the binding has it: an int, then a text.
        assert isinstance(profile, int)
        assert name == "size"
        return [[2 + profile, 2], [8, 8], [32, 16 + profile]]


FULL = SimpleNamespace(
    TensorFormat=object(),
    TensorIOMode=SimpleNamespace(INPUT=Kind.INPUT),
    TensorLocation=SimpleNamespace(HOST=Kind.HOST),
)
LEAN = SimpleNamespace(TensorIOMode=FULL.TensorIOMode, TensorLocation=FULL.TensorLocation)


@pytest.fixture
def tensors(import_with_cuda):
    """The module."""
    return import_with_cuda("trtd.runtime.tensorrt.tensors")


@pytest.mark.parametrize("odd_profile", [0, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_that_does_not_travel_is_refused(tensors, layout, odd_profile):
    """Any layout but the linear one, in any profile, would be read wrong: it is refused by its name."""
    with pytest.raises(InvalidConfig, match=f"tensor 'x' is laid out in memory as {layout}, .*linear inputs"):
        tensors.read_tensors(FULL, EngineStub(layout, odd_profile))


def test_a_linear_tensor_is_read(tensors):
    """The linear layout is taken, and the tensor is told as it is."""
    x, size = tensors.read_tensors(FULL, EngineStub())
    assert (x.shape, x.is_host, size.is_host, size.numpy) == ((-1, 3, -1, -1), False, True, np.int32)


@pytest.mark.parametrize(("described", "is_linear"), DESCRIPTIONS.items())
def test_a_lean_runtime_describes_the_layout(tensors, described, is_linear):
    """Where the enum of layouts is missing, TensorRT's description of it decides."""
    engine = EngineStub(described=described)
    if is_linear:
        assert len(tensors.read_tensors(LEAN, engine)) == 2
    else:
        with pytest.raises(InvalidConfig, match=r"laid out in memory as .*format"):
            tensors.read_tensors(LEAN, engine)


def test_a_vector_without_words_is_refused(tensors):
    """A vectorized dimension is no linear layout, whatever is said of it."""
    with pytest.raises(InvalidConfig, match="laid out in memory as vectors"):
        tensors.read_tensors(LEAN, EngineStub(described="", vector=1))


def test_values_of_shape_tensors_are_read(tensors):
    """Each profile tells which values a shape tensor may have; its arguments are passed by position."""
    engine = EngineStub()
    profiles = tensors.read_profiles(engine, tensors.read_tensors(FULL, engine))
    assert [profile.values for profile in profiles] == [
        {"size": Range((2, 2), (8, 8), (32, 16))},
        {"size": Range((3, 2), (8, 8), (32, 17))},
    ]
    assert profiles[0].ranges["size"] == Range((2,), (2,), (2,))


def test_values_are_admitted_by_their_range():
    """A value outside of it, or another number of values, does not fit the profile."""
    profile = Profile(0, {}, {"size": Range((2, 2), (8, 8), (32, 16))})
    assert profile.admits_values({"size": (2, 16)})
    assert not profile.admits_values({"size": (1, 16)})
    assert not profile.admits_values({"size": (2, 17)})
    assert not profile.admits_values({"size": (2,)})
    assert profile.admits_values({"another": (100,)})


def test_shape_tensors_are_warmed_in_their_range(import_with_cuda, tensors):
    """Made-up inputs have the smallest, the best and the largest values of each profile, never others."""
    model = import_with_cuda("trtd.runtime.tensorrt.model")
    engine = EngineStub()
    read = tensors.read_tensors(FULL, engine)
    stub = SimpleNamespace(profiles=tensors.read_profiles(engine, read), most_items=None, inputs=read)
    made = [(one["x"].shape, one["size"].tolist(), one["size"].dtype) for one in model.made_up_inputs(stub)]
    assert made[:4] == [
        ((1, 3, 8, 8), [2, 2], np.int32),
        ((2, 3, 16, 16), [8, 8], np.int32),
        ((4, 3, 64, 64), [32, 16], np.int32),
        ((1, 3, 8, 8), [3, 2], np.int32),
    ]


def test_values_outside_of_every_profile_are_refused(import_with_cuda):
    """The caller hears what came and what may come; a profile whose range holds the values is chosen."""
    slot = import_with_cuda("trtd.runtime.tensorrt.slot").TensorRTSlot
    profiles = [
        Profile(0, {"size": Range((2,), (2,), (2,))}, {"size": Range((1, 1), (2, 2), (4, 4))}),
        Profile(1, {"size": Range((2,), (2,), (2,))}, {"size": Range((5, 5), (6, 6), (9, 9))}),
    ]
    stub = SimpleNamespace(
        _engine=SimpleNamespace(profiles=profiles, inputs=[SimpleNamespace(name="size", is_host=True)]), _what="m"
    )
    assert slot._fitting_profiles(stub, [{"size": np.array([6, 5])}]) == profiles[1:]
    with pytest.raises(
        InvalidInput, match=r"got size with the values \[4, 5\], wanted size \[1, 1\] to \[4, 4\] or size \[5, 5\]"
    ):
        slot._fitting_profiles(stub, [{"size": np.array([4, 5])}])
