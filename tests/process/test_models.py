"""Models as people have them, through the whole daemon: they answer rightly, or are refused before they serve."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest

from tests.support import onnx_models
from trtd.client import Float8
from trtd.errors import InvalidInput
from trtd.wire.messages import Dtype, TensorContract, Unserved

LAYERS = 48
ROW = np.arange(4, dtype=np.float32).reshape(1, 4)


@pytest.fixture
def serve(make_daemon, tmp_path):
    """Start a daemon that serves these models to one tenant."""

    def serve(**models: bytes):
        tables = {}
        for name, data in models.items():
            (tmp_path / f"{name}.onnx").write_bytes(data)
            tables[name] = {"path": str(tmp_path / f"{name}.onnx")}
        return make_daemon({"a": {"models": tables}}).start()

    return serve


def test_models_that_could_answer_nobody_answer(serve):
    """An output that is listed twice, inputs of any rank, and outputs beside those that do not travel."""
    daemon = serve(twice=onnx_models.listed_twice(), any=onnx_models.of_any_rank(), words=onnx_models.with_words())
    daemon.wait_ready()
    with daemon.client(timeout=10.0) as client:
        assert client.infer("twice", {"x": ROW})["y"].tolist() == (-ROW).tolist()
        for x in (ROW, ROW[0], np.float32(3).reshape(()), np.ones((2, 1, 3), np.float32)):
            np.testing.assert_array_equal(client.infer("any", {"x": x})["y"], -x, strict=True)
        (described,) = client.describe("words")
        assert described.unserved[0] == Unserved("label", "is a tensor(string), which does not travel")
        assert client.infer("words", {"x": ROW})["y"].tolist() == (-ROW).tolist()
        with pytest.raises(InvalidInput, match="output 'label' is a tensor"):
            client.infer("words", {"x": ROW}, outputs=["y", "label"])


def test_a_decoder_with_its_past(serve):
    """Nearly a hundred tensors go in and out, from step to step, in frames and by name; several callers at once."""
    daemon = serve(decoder=onnx_models.decoder(LAYERS, name_bytes=40))
    daemon.wait_ready()
    with daemon.client(timeout=20.0) as client:
        (described,) = client.describe("decoder")
        names = [one.name for one in described.inputs if one.name != "x"]
        assert len(names) == 2 * LAYERS
        for length in (1, 2, 300):
            past = {name: np.full((length, 8), number, np.float32) for number, name in enumerate(names)}
            steps = [client.submit("decoder", {"x": np.full(1, step, np.float32), **past}) for step in range(70)]
            for step, answer in enumerate(steps):
                outputs = answer.result().outputs
                assert outputs["logits"].tolist() == [-step]
                for number, name in enumerate(names):
                    present = outputs[name.replace("past", "present")]
                    assert present.shape == (length, 8)
                    assert (present == number + step).all()
            one = client.infer("decoder", {"x": np.zeros(1, np.float32), **past}, outputs=["logits"])
            assert list(one.outputs) == ["logits"]


def test_wanted_outputs_and_given_defaults(serve):
    """Requests that differ in what they want or give run side by side, and each gets its own."""
    nodes = [onnx_models.node("Neg", ["x"], ["y"]), onnx_models.node("Abs", ["x"], ["z"])]
    value = onnx_models.value
    both = onnx_models.make_model(nodes, [value("x", ["n", 4])], [value("y", ["n", 4]), value("z", ["n", 4])])
    daemon = serve(both=both, scaled=onnx_models.scaled())
    daemon.wait_ready()
    with daemon.client(timeout=10.0) as client:
        wanted = [None, ["y"], ["z"], ["z", "y"]] * 16
        answers = [client.submit("both", {"x": ROW + n}, outputs=names) for n, names in enumerate(wanted)]
        for n, (names, handle) in enumerate(zip(wanted, answers, strict=True)):
            outputs = handle.result().outputs
            assert list(outputs) == (names or ["y", "z"])
            expected = {"y": -ROW - n, "z": ROW + n}
            assert all(array.tolist() == expected[name].tolist() for name, array in outputs.items())
        with pytest.raises(InvalidInput, match="it has no outputs 'nope'; there are 'y', 'z'"):
            client.infer("both", {"x": ROW}, outputs=["nope", "y"])
        for names in ([], ["y", "y"], "y", [1]):
            with pytest.raises(InvalidInput):
                client.infer("both", {"x": ROW}, outputs=names)  # type: ignore[arg-type]  # wrong on purpose
        infer = [sys.executable, "-m", "trtd.cli.main", "infer", "a", "both", "--runtime-dir", str(daemon.runtime_dir)]
        shown = subprocess.run([*infer, "--output", "z"], capture_output=True, text=True, check=True, timeout=30).stdout
        assert "\nz: float32 1x4: " in shown
        assert "\ny:" not in shown
        (described,) = client.describe("scaled")
        assert described.optional_inputs == (TensorContract("w", Dtype.FLOAT32, (4,)),)
        given = [{}, {"w": np.full(4, 3, np.float32)}] * 16
        answers = [client.submit("scaled", {"x": ROW, **more}) for more in given]
        for more, handle in zip(given, answers, strict=True):
            assert handle.result()["y"].tolist() == ((3 if more else 2) * ROW).tolist()
        with pytest.raises(InvalidInput, match=r"wanted 'x' and, where wanted, 'w'"):
            client.infer("scaled", {"w": np.ones(4, np.float32)})


def test_float8(serve):
    """A model of float8 takes and gives its bits."""
    daemon = serve(m=onnx_models.through(onnx.TensorProto.FLOAT8E4M3FN))
    daemon.wait_ready()
    sent = Float8.from_float32([[1.0, -2.0, 0.4375, 448.0]], Dtype.FLOAT8_E4M3FN)
    with daemon.client(timeout=10.0) as client:
        answer = client.infer("m", {"x": sent})
    assert answer["wide"].tolist() == [[1.0, -2.0, 0.4375, 448.0]]
    back = answer["y"]
    assert isinstance(back, Float8)
    assert back.bits.tolist() == sent.bits.tolist()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (onnx_models.decoder(127, name_bytes=240), "not every answer of it travels: the header needs"),
        (onnx_models.decoder(128), "257 inputs, of which 256 travel at most"),
        (onnx_models.only_words(), "no output travels"),
        (onnx_models.from_words(), "input 'words' is a tensor(string), which does not travel"),
    ],
    ids=["names", "tensors", "outputs", "inputs"],
)
def test_models_that_cannot_answer_are_refused_before_they_serve(serve, data, reason):
    """The status tells why; nobody waits for an answer that cannot come."""
    daemon = serve(m=data)
    daemon.wait_listening()
    status = daemon.wait_status(lambda status: "quarantined" in str(status["tenants"]), "a quarantined worker")
    assert reason in str(status["tenants"])


def test_what_onnx_runtime_is_told_and_what_it_does_not_have(make_daemon, tmp_path):
    """Options count; a provider that the package lacks keeps its own tenant from serving, and the status says why."""
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_models.scaled())
    options = {"execution_mode": "parallel", "inter_threads": 2, "shrink_arena": True}
    entries = {"session_entries": {"session.set_denormal_as_zero": "1"}}
    daemon = make_daemon(
        {
            "a": {"models": {"m": {"path": str(path)}}, "onnxruntime": {**options, **entries}},
            "b": {"models": {"m": {"path": str(path)}}, "onnxruntime": {"providers": ["CUDAExecutionProvider"]}},
        }
    ).start()
    daemon.wait_listening()
    daemon.wait_status(lambda _: "has no CUDAExecutionProvider; it has" in str(daemon.tenant("b")), "the reason")
    daemon.wait_status(lambda _: daemon.worker("a")["state"] == "ready", "a ready worker")
    with daemon.client() as client:
        assert client.infer("m", {"x": ROW})["y"].tolist() == (2 * ROW).tolist()
