"""Inputs as arrays: the frames as they are, wherever they lie, and never to be written to."""

from __future__ import annotations

import pytest

from trtd.errors import Malformed
from trtd.runtime.inputs import Inputs, Layout
from trtd.wire.messages import Dtype, TensorSpec
from trtd.wire.tensors import to_numpy

BITS = bytes([0, 1, 1, 0] * 8)


@pytest.mark.parametrize("dtype", list(Dtype))
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("holder", [bytes, bytearray])
def test_arrays_are_aligned_and_read_only(dtype, offset, holder):
    """Every dtype is read right from memory of any kind and at any address, into an array that nobody can write to."""
    count = len(BITS) // to_numpy(dtype).itemsize
    frame = memoryview(holder(bytes(offset) + BITS))[offset:]
    layout = Layout((TensorSpec("x", dtype, (1, count)),), 1)
    array = Inputs(layout, [frame])["x"]
    assert array.tobytes() == BITS
    assert (array.dtype, array.shape) == (to_numpy(dtype), (1, count))
    assert array.flags.aligned
    assert not array.flags.writeable


def test_a_bool_that_is_none_is_refused():
    """Bytes other than 0 and 1 never become a bool, also beside inputs of other dtypes."""
    layout = Layout((TensorSpec("a", Dtype.INT8, (1, 2)), TensorSpec("b", Dtype.BOOL, (1, 2))), 1)
    with pytest.raises(Malformed, match="'b'"):
        _ = Inputs(layout, [b"\x02\x02", b"\x01\x02"]).arrays
