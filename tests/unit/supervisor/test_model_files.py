"""Which files a worker reads, and when one of them is another file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support.config import make_config
from trtd.demo.models import mlp
from trtd.supervisor import model_files, settings
from trtd.supervisor.model_files import identities


def told(path: Path, **table):
    """What a worker with this model is told."""
    config = make_config(a={"models": {"m": {"path": str(path), **table.pop("model", {})}}, **table})
    return settings.worker_settings(config, "a", 0, 0, "json")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(mlp(1))
    return path


def save_outside(path: Path, seed: int) -> Path:
    """A model at `path` that has its weights in `w.data` beside it."""
    model = onnx.load_from_string(mlp(seed))
    onnx.save(model, path, save_as_external_data=True, location="w.data", size_threshold=0)
    return path.parent / "w.data"


def replaced(path: Path, content: bytes) -> None:
    """Another file of this content under the name, with the times of the former one, as `cp -p` and `mv` leave it."""
    seen = path.stat()
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    os.utime(fresh, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    fresh.replace(path)


def test_the_same_files_are_the_same(file):
    """Looking, reading and time change nothing."""
    before = identities(told(file))
    file.read_bytes()
    assert identities(told(file)) == before


def test_new_weights_of_the_same_size_and_time_are_another_file(file):
    """A file that was moved there with the former size and time is noticed."""
    before = identities(told(file))
    replaced(file, mlp(2))
    assert identities(told(file)) != before


def test_weights_written_in_place_are_noticed_though_the_time_was_set_back(file):
    """The same inode with the same size and time, and another content."""
    before = identities(told(file))
    seen = file.stat()
    # Instants of a file are those of the kernel's clock, which stands still between its ticks.
    while file.stat().st_ctime_ns == seen.st_ctime_ns:
        file.write_bytes(mlp(2))
        os.utime(file, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    after = file.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (seen.st_ino, seen.st_size, seen.st_mtime_ns)
    assert identities(told(file)) != before


def test_weights_beside_the_model_count(tmp_path):
    """A replaced file of external data is noticed, and so is one that is gone; its neighbours do not count."""
    model = tmp_path / "m.onnx"
    weights = save_outside(model, 1)
    before = identities(told(model))
    assert any(str(weights) == name for name, *_ in before)
    (tmp_path / "other.data").write_bytes(b"x")
    assert identities(told(model)) == before
    replaced(weights, weights.read_bytes())
    after = identities(told(model))
    assert after != before
    weights.unlink()
    assert identities(told(model)) not in (before, after)


def test_probes_and_libraries_count(tmp_path, file):
    """Each of them is a file that the worker reads."""
    probe, plugin, lean = tmp_path / "p.npz", tmp_path / "plugin.so", tmp_path / "lean.so"
    for path in (probe, plugin, lean):
        path.write_bytes(b"1")
    np.savez(probe, **{"in.x": np.zeros(1)})
    table = {
        "model": {"probe": {"path": str(probe)}},
        "runtime": "tensorrt_dispatch",
        "tensorrt": {"plugin_libraries": (str(plugin),), "lean_library": str(lean), "allow_host_code": True},
    }
    for path in (probe, plugin, lean):
        before = identities(told(file, **dict(table)))
        replaced(path, path.read_bytes())
        assert identities(told(file, **dict(table))) != before


def test_a_model_is_looked_through_once(tmp_path, monkeypatch):
    """As long as the model is the same file, only its weights are looked at."""
    model = tmp_path / "m.onnx"
    save_outside(model, 1)
    identities(told(model))
    monkeypatch.setattr(model_files, "external_locations", None)
    assert len(identities(told(model))) == 2


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "device", "no model", "empty"])
def test_what_is_no_model_holds_nobody_up(tmp_path, kind):
    """Its name and what can be seen of it is all; a FIFO is not waited for, an endless device not read."""
    path = tmp_path / "m.onnx"
    match kind:
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "no model":
            path.write_bytes(os.urandom(1000))
        case "empty":
            path.touch()
    (found,) = identities(told(path))
    assert found[0] == str(path)
    assert len(found) == (1 if kind == "missing" else 6)


def test_a_link_stands_for_the_file_behind_it(tmp_path):
    """A link that points to another version is another file, with the weights beside it."""
    for seed, version in enumerate(("v1", "v2")):
        (tmp_path / version).mkdir()
        save_outside(tmp_path / version / "m.onnx", seed)
    shutil.copystat(tmp_path / "v1" / "w.data", tmp_path / "v2" / "w.data")
    current = tmp_path / "current"
    current.symlink_to("v1")
    before = identities(told(current / "m.onnx"))
    current.unlink()
    current.symlink_to("v2")
    after = identities(told(current / "m.onnx"))
    assert len(after) == 2
    assert not set(before) & set(after)
