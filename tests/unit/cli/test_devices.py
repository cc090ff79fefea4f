"""Waiting for the GPU's device nodes, in a directory that stands for /dev."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.config import make_config
from trtd.cli import devices


class Time:
    """A clock that moves when somebody sleeps; at some instants nodes appear."""

    def __init__(self, directory: Path, **appear_at: float) -> None:
        self.now = 50.0
        self._directory = directory
        self._appear_at = {name.replace("_", "-"): self.now + after for name, after in appear_at.items()}
        self.sleep(0.0)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for name, at in self._appear_at.items():
            if at <= self.now:
                (self._directory / name).touch()


def wait(directory: Path, patience_s: float = 5.0, device: int = 0, **appear_at: float) -> tuple[dict[str, str], float]:
    """The finding, and how long it took."""
    time = Time(directory, **appear_at)
    began_at = time.now
    config = make_config(a={}, b={"runtime": "tensorrt", "tensorrt": {"device": device}})
    found = devices.wait(config, patience_s, directory, lambda: time.now, time.sleep)
    return found, time.now - began_at


def test_without_gpu_tenants_nothing_is_waited_for(tmp_path):
    """A configuration for the CPU needs no node."""
    found = devices.wait(make_config(a={}), 5.0, tmp_path, sleep=lambda _: pytest.fail("waited"))
    assert found["level"] == "ok"


def test_nodes_that_come_late_are_waited_for(tmp_path):
    """The wait is over when the last of them is there."""
    found, took_s = wait(tmp_path, nvidiactl=0, nvidia0=1, nvidia_uvm=2)
    assert found["level"] == "ok"
    assert 2.0 <= took_s < 3.0


@pytest.mark.parametrize(
    ("nodes", "device", "text"),
    [
        ({}, 0, "has no nvidiactl, no nvidia-uvm, no 1 of 1 nvidia0"),
        ({"nvidiactl": 0, "nvidia0": 0}, 0, "has no nvidia-uvm after 5 s"),
        ({"nvidiactl": 0, "nvidia_uvm": 0, "nvidia_caps": 0}, 0, "has no 1 of 1 nvidia0"),
        ({"nvidiactl": 0, "nvidia_uvm": 0, "nvidia0": 0}, 1, "has no 1 of 2 nvidia0"),
    ],
)
def test_what_does_not_come_is_named(tmp_path, nodes, device, text):
    """When the time is up, one finding says which nodes are missing and what to do."""
    found, took_s = wait(tmp_path, device=device, **nodes)
    assert found["level"] == "problem"
    assert text in found["text"]
    assert "nvidia-modprobe" in found["advice"]
    assert 5.0 <= took_s < 6.0


def test_a_node_that_may_not_be_opened_is_named(tmp_path, monkeypatch):
    """A node is of use to those who may open it."""
    monkeypatch.setattr(os, "access", lambda path, _: path.name != "nvidia0")
    found, _ = wait(tmp_path, nvidiactl=0, nvidia_uvm=0, nvidia0=0)
    assert "nvidia0 may not be opened by uid" in found["text"]
