"""Models inside packages that people install, with inputs as these packages make them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.real.cases import Case, Tensors
from trtd.runtime.ort import ort

PACKAGES = ("magika", "silero-vad", "rapidocr-onnxruntime", "basic-pitch", "swift-f0")
REQUESTS = 12
"""Requests for each model, all different."""

Rng = np.random.Generator
SAMPLE_RATE = np.array(16_000, np.int64)


def fetch(directory: Path) -> list[Path]:
    """The model files of the newest wheels of all packages; what is there already is not fetched again."""
    files: list[Path] = []
    for package in PACKAGES:
        place = directory / package
        if not place.is_dir():
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            where = ["--only-binary", ":all:", "--dest", str(directory / "wheels")]
            subprocess.run([*pip, *where, package], check=True)
            wheel = max((directory / "wheels").glob(f"{package.replace('-', '_')}-*.whl"))
            with zipfile.ZipFile(wheel) as archive:
                names = [name for name in archive.namelist() if name.endswith(".onnx")]
                archive.extractall(place, names)
        files += sorted(place.rglob("*.onnx"))
    return files


def floats(rng: Rng, *shape: int) -> np.ndarray[Any, Any]:
    """Numbers as audio and images have them, once they are prepared."""
    return rng.uniform(-1, 1, shape).astype(np.float32)


def magika(rng: Rng, items: int) -> Tensors:
    """Bytes of files, padded with 256."""
    return {"bytes": rng.integers(0, 257, (items, 2048), np.int32)}


def basic_pitch(rng: Rng, items: int) -> Tensors:
    """Two seconds of audio."""
    return {"serving_default_input_2:0": floats(rng, items, 43_844, 1)}


def swift_f0(rng: Rng, items: int) -> Tensors:
    """Audio of any length, and the range of pitches."""
    return {"audio": floats(rng, 1, 4000 * items), "fmin": _scalar(50), "fmax": _scalar(1000)}


def detection(rng: Rng, items: int) -> Tensors:
    """Pages, whose sides are multiples of 32."""
    return {"x": floats(rng, 1, 3, 32 * items, 96)}


def recognition(rng: Rng, items: int) -> Tensors:
    """Lines of text."""
    return {"x": floats(rng, items, 3, 48, 96)}


def direction(rng: Rng, items: int) -> Tensors:
    """Lines of text, of which it is asked how they are turned."""
    return {"x": floats(rng, items, 3, 48, 192)}


def voice(rng: Rng, items: int) -> Tensors:
    """Frames of audio with what was heard before."""
    return {"input": floats(rng, items, 576), "state": floats(rng, 2, items, 128), "sr": SAMPLE_RATE}


def voice_at_16k(rng: Rng, items: int) -> Tensors:
    """The same, with one rate only."""
    return {name: tensor for name, tensor in voice(rng, items).items() if name != "sr"}


def one_voice(rng: Rng, items: int) -> Tensors:
    """The same, with one frame at a time."""
    return voice_at_16k(rng, 1)


def voice_sequence(rng: Rng, items: int) -> Tensors:
    """Frames that follow one another."""
    return {"input": floats(rng, items, 576), "h": floats(rng, 1, 1, 128), "c": floats(rng, 1, 1, 128)}


MAKERS: dict[str, Callable[[Rng, int], Tensors]] = {
    "magika": magika,
    "nmp": basic_pitch,
    "swift-f0": swift_f0,
    "det_infer": detection,
    "rec_infer": recognition,
    "cls_infer": direction,
    "silero_vad_16k_sequence": voice_sequence,
    "silero_vad_openvino_16k": one_voice,
    "silero_vad_half": voice_at_16k,
    "silero_vad": voice,
}
"""By a part of the file's path; the first that occurs in it."""


def make_case(path: Path, root: Path) -> Case:
    """Different requests for a model; for one that is not known here, of the shapes that it names, with 2 for any."""
    rng = np.random.default_rng(1)
    maker = next((maker for part, maker in MAKERS.items() if part in str(path.relative_to(root))), None)
    name = f"{path.relative_to(root).parts[0]}/{path.name}"
    questions = [maker(rng, 1 + at % 3) if maker else guess(path, rng) for at in range(REQUESTS)]
    return Case(name, str(path), questions)


def guess(path: Path, rng: Rng) -> Tensors:
    """Inputs of the shapes that a model names."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    made = {}
    for node in session.get_inputs():
        shape = [size if isinstance(size, int) else 2 for size in node.shape]
        kind = (
            node.type.removeprefix("tensor(").removesuffix(")").replace("float", "float32").replace("double", "float64")
        )
        made[node.name] = rng.uniform(0, 2, shape).astype(kind)
    return made


def _scalar(number: float) -> np.ndarray[Any, Any]:
    return np.array(number, np.float32)
