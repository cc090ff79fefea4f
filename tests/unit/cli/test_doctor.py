"""The doctor says what is there and what to do, on any host, and survives what it examines."""

from __future__ import annotations

import argparse
import json
import subprocess

import pytest

from trtd.cli import doctor
from trtd.config.model import Config
from trtd.errors import ExitCode
from trtd.runtime.examination import Finding, Order, examine
from trtd.wire.tensorrt import TensorRTSettings


def outcome_of(monkeypatch, **result):
    monkeypatch.setattr(
        subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], **{"stdout": "", "stderr": "", **result})
    )
    return doctor.examine("tensorrt", TensorRTSettings(), [], "a: ")


def test_this_host_is_examined_for_real():
    """Whatever this host has, the examination ends with findings that each have a level, a text and an area."""
    found = doctor.examine("tensorrt", TensorRTSettings(), [("a/m 1", "/nonexistent.plan")], "a: ")
    assert found
    for finding in found:
        assert finding["area"].startswith("a: ")
        assert finding["level"] in doctor.MARKS
        assert finding["text"]


def test_a_crash_is_a_finding(monkeypatch):
    """A library that ends the examination with a signal is told as a problem, by the signal's name."""
    (finding,) = outcome_of(monkeypatch, returncode=-11, stderr="Fatal Python error\n")
    assert (finding["level"], finding["text"]) == ("problem", "crashed with SIGSEGV: Fatal Python error")


def test_a_hang_is_a_finding(monkeypatch):
    """A device that never answers is told as a problem."""

    def hang(*_, **__):
        raise subprocess.TimeoutExpired("x", 60)

    monkeypatch.setattr(subprocess, "run", hang)
    (finding,) = doctor.examine("tensorrt", TensorRTSettings(), [], "")
    assert "no end of the examination" in finding["text"]


@pytest.mark.parametrize(
    ("level", "code"), [("ok", ExitCode.OK), ("warning", ExitCode.OK), ("problem", ExitCode.UNAVAILABLE)]
)
def test_the_exit_code_is_for_scripts(capsys, level, code):
    """Only a problem fails; the JSON says the same."""
    found = [{"area": "MPS", "level": level, "text": "there.", "advice": "Do this."}]
    assert doctor.show(found, argparse.Namespace(json=False)) == code
    assert capsys.readouterr().out == f"{doctor.MARKS[level]}  MPS: there. Do this.\n"
    assert doctor.show(found, argparse.Namespace(json=True)) == code
    assert json.loads(capsys.readouterr().out) == {"v": 1, "ok": code == ExitCode.OK, "findings": found}


def test_without_the_bindings_the_first_finding_says_so(monkeypatch):
    """Where cuda-bindings are missing, that is the one finding, with what to install."""
    import sys

    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.delitem(sys.modules, "trtd.runtime.cuda", raising=False)
    (finding,) = examine(Order("tensorrt", TensorRTSettings(), ()))
    assert isinstance(finding, Finding)
    assert (finding.level, finding.advice) == ("problem", "Install trtd[gpu].")


def test_a_host_without_a_gpu_has_no_problem(monkeypatch):
    """Where no tenant asks for TensorRT, what is missing for it is a note, and the exit code is 0."""
    missing = [{"area": "driver", "level": "problem", "text": "none", "advice": "Install one."}]
    monkeypatch.setattr(doctor, "examine", lambda *_: missing)
    found = doctor.examine_host(Config())
    assert [finding["level"] for finding in found] == ["ok", "note"]
    assert doctor.show(found, argparse.Namespace(json=False)) == ExitCode.OK
