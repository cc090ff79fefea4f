"""Where an ONNX model keeps its weights, read from its bytes; and what hostile bytes cost."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from trtd.core import onnx_files
from trtd.core.onnx_files import Unreadable, external_locations, shaped_names
from trtd.demo.models import mlp


def locations(content: bytes) -> tuple[str, ...]:
    """What the reader finds in these bytes."""
    return external_locations(lambda at, count: content[at : at + count], len(content))


def outside(name: str, location: str) -> TensorProto:
    """A tensor whose data are in another file."""
    tensor = numpy_helper.from_array(np.ones(4, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("offset", "0"), ("location", location), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def inside(name: str, count: int = 4) -> TensorProto:
    return numpy_helper.from_array(np.ones(count, np.float32), name)


def make_model(*tensors: TensorProto, nodes: tuple[onnx.NodeProto, ...] = ()) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "g", [], [], list(tensors))
    return helper.make_model(graph, producer_name="test")


def test_a_model_without_other_files():
    """A model that has all its weights inside names no file."""
    assert locations(mlp(1)) == ()


def test_weights_in_other_files():
    """Each file is named once, however many tensors are in it, beside tensors that are inside."""
    model = make_model(outside("a", "w.data"), inside("b", 100_000), outside("c", "w.data"), outside("d", "dir/é.bin"))
    assert locations(model.SerializeToString()) == ("dir/é.bin", "w.data")


def test_what_the_library_writes_is_found():
    """A model that the onnx package itself saved with external data."""
    model = onnx.load_from_string(mlp(1, features=64))
    onnx.external_data_helper.convert_model_to_external_data(model, location="all.data", size_threshold=0)
    assert locations(model.SerializeToString()) == ("all.data",)


def test_tensors_of_nodes_subgraphs_and_functions():
    """Constants of nodes, branches, sparse tensors and functions may be outside too."""
    constant = helper.make_node("Constant", [], ["c"], value=outside("", "constant.data"))
    branch = helper.make_graph([constant], "branch", [], [], [outside("x", "branch.data")])
    either = helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch)
    model = make_model(nodes=(either,))
    model.graph.sparse_initializer.add(values=outside("v", "values.data"), indices=outside("i", "indices.data"))
    inner = helper.make_node("Constant", [], ["c"], value=outside("", "function.data"))
    model.functions.append(helper.make_function("d", "F", [], ["c"], [inner], [helper.make_opsetid("", 17)]))
    assert locations(model.SerializeToString()) == (
        "branch.data", "constant.data", "function.data", "indices.data", "values.data",
    )  # fmt: skip


def test_large_weights_are_stepped_over():
    """A model with 40 MB inside is looked through with a few reads."""
    content = make_model(inside("a", 10_000_000), outside("b", "w.data")).SerializeToString()
    reads = []

    def read(at: int, count: int) -> bytes:
        reads.append(count)
        return content[at : at + count]

    assert external_locations(read, len(content)) == ("w.data",)
    assert sum(reads) < 1_000_000


@pytest.mark.parametrize("cut", [1, 10, 50, 200])
def test_a_truncated_model_is_unreadable(cut):
    """A length that leads beyond the end is noticed."""
    content = make_model(outside("a", "w.data"), inside("b", 100)).SerializeToString()
    with pytest.raises(Unreadable):
        locations(content[:-cut])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 400), st.integers(0, 255))
def test_no_bytes_cost_more_than_an_answer(noise, place, byte):
    """Random bytes, and a model with one byte changed, are read or refused, and nothing else."""
    model = bytearray(make_model(outside("a", "w.data"), inside("b", 20)).SerializeToString())
    model[place % len(model)] = byte
    for content in (noise, bytes(model), bytes(model) + noise):
        try:
            assert isinstance(locations(content), tuple)
        except Unreadable:
            continue


def test_endless_nesting_and_endless_fields_end(monkeypatch):
    """Graphs in graphs cost no stack, and fields are counted."""
    content = b""
    for _ in range(3000):
        # ModelProto.graph, NodeProto, AttributeProto.g: each around the one before.
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            length, value = b"", len(content)
            while value > 0x7F:
                length += bytes([value & 0x7F | 0x80])
                value >>= 7
            content = tag + length + bytes([value]) + content
    assert locations(b"\x3a" + content[1:]) == ()
    monkeypatch.setattr(onnx_files, "MAX_FIELDS", 1000)
    with pytest.raises(Unreadable, match="more than 1000 fields"):
        locations(b"\x08\x01" * 2000)


def test_what_is_read_is_bounded(monkeypatch):
    """A file that has to be looked through byte by byte is given up."""
    monkeypatch.setattr(onnx_files, "MAX_READ_BYTES", 100_000)
    with pytest.raises(Unreadable, match="more than 100000 bytes"):
        locations(b"\x08\x01" * 200_000)


def test_a_long_text_is_no_path():
    """A location of many kilobytes is refused before it is read."""
    with pytest.raises(Unreadable, match="a text"):
        locations(make_model(outside("a", "x" * 5000)).SerializeToString())


def shaped(content: bytes) -> frozenset[str]:
    return shaped_names(lambda at, count: content[at : at + count], len(content))


def test_what_has_a_shape_and_what_has_none():
    """A scalar has a shape of no dimensions; an output that says nothing has none."""
    value = helper.make_tensor_value_info
    inputs = [value("x", TensorProto.FLOAT, [None, 4]), value("s", TensorProto.FLOAT, [])]
    inputs.append(value("any", TensorProto.FLOAT, None))
    outputs = [value("y", TensorProto.FLOAT, None), helper.make_tensor_sequence_value_info("z", TensorProto.FLOAT, [1])]
    model = helper.make_model(helper.make_graph([], "g", inputs, outputs, [inside("w", 100_000)]))
    assert shaped(model.SerializeToString()) == {"x", "s"}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 400), st.integers(0, 255))
def test_no_bytes_cost_more_than_names(noise, place, byte):
    """Random bytes, and a model with one byte changed, are read or refused, and nothing else."""
    model = bytearray(mlp(1, features=2, hidden=2, outputs=2))
    model[place % len(model)] = byte
    for content in (noise, bytes(model), bytes(model) + noise):
        try:
            assert isinstance(shaped(content), frozenset)
        except Unreadable:
            continue
