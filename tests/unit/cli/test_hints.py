"""What to do about an error is what can be done about it: hints fit what was refused, and who refused it."""

from __future__ import annotations

import argparse
import json
import os
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from trtd.cli import infer, main, operator, tensors
from trtd.errors import InvalidInput, NotAllowed, TrtdError, Unavailable, Usage
from trtd.supervisor.control import error_line
from trtd.wire.messages import Dtype, ModelDescription, TensorContract

MODEL = ModelDescription("m", "1", (TensorContract("x", Dtype.FLOAT32, (None, 4)),), (), 1, False)


@pytest.mark.parametrize(
    ("argv", "code", "wanted", "unwanted"),
    [
        (["status", "--runtime-dir", "{file}"], 4, "--runtime-dir takes the directory", "trtd --help"),
        (["infer", "a", "m", "--runtime-dir", "{dir}"], 69, "Start it with `trtd serve`", "allow"),
        (["drain", "--runtime-dir", "{dir}"], 64, "See `trtd drain --help`", "docstring"),
        (["support-bundle", "--output", "{dir}", "--config", "{file}"], 64, "Is a directory", "Ask the operator"),
        (["support-bundle", "--output", "{dir}/no/x", "--config", "{file}"], 64, "No such file", "Ask the operator"),
        (["support-bundle", "--output", "{pipe}", "--config", "{file}"], 74, "No such device", "Ask the operator"),
        (["bench", "a", "m", "--concurrency", "100000000"], 64, "whole number from 1 to", "docstring"),
    ],
)
def test_hints_of_commands(tmp_path, capsys, argv, code, wanted, unwanted):
    """Each misuse is one line that says what to do, and nothing that would not help."""
    (tmp_path / "file").touch()
    (tmp_path / "dir").mkdir()
    os.mkfifo(tmp_path / "pipe")
    places = {name: str(tmp_path / name) for name in ("file", "dir", "pipe")}
    assert main.main([word.format(**places) for word in argv]) == code
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert wanted in told
    assert unwanted not in told


def test_an_errors_own_hint_wins_and_travels(tmp_path, capsys, monkeypatch):
    """What the daemon says of its own refusal is what the operator reads; an empty one says nothing more."""
    for error, end in ((Unavailable("it stops", hint="Wait."), "it stops. Wait.\n"), (Usage("no", hint=""), "no.\n")):
        with socket.socket(socket.AF_UNIX) as listener:
            (tmp_path / "operator.sock").unlink(missing_ok=True)
            listener.bind(str(tmp_path / "operator.sock"))
            listener.listen()
            line = json.dumps(error_line(error)).encode() + b"\n"

            def answer(listener: socket.socket = listener, line: bytes = line) -> None:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(line)

            thread = threading.Thread(target=answer)
            thread.start()
            main.main(["reload", "--runtime-dir", str(tmp_path)])
            thread.join()
        assert capsys.readouterr().err == f"trtd: {error.code}: {end}"


@pytest.mark.parametrize("name", ["text.npy", "archive.npz", "gone.npy", "dir", "pipe"])
def test_files_that_are_no_input(tmp_path, name):
    """Whoever gives one is told what to give, and waits for nothing."""
    (tmp_path / "text.npy").write_text("text", encoding="utf-8")
    np.savez(tmp_path / "archive.npz", x=np.ones(1))
    (tmp_path / "dir").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput) as refused:
        tensors.make_inputs(MODEL, [f"x={tmp_path / name}"], [])
    assert refused.value.hint == tensors.FILE_HINT


@pytest.mark.parametrize("shape", ["x=1000000000000,4", "x=99999999999999999999,4", "x=4294967296,4294967296"])
def test_arrays_that_no_host_can_make(shape):
    """They are no defect of trtd's."""
    with pytest.raises(InvalidInput, match="this host cannot make an array of"):
        tensors.make_inputs(MODEL, [], [shape])


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("gone/x")])
def test_outputs_that_cannot_be_saved(tmp_path, make):
    """A directory, a pipe that nobody reads, a place that is not there: one line, and no waiting."""
    make(tmp_path / "it")
    with pytest.raises(Usage, match="cannot be written"):
        infer._save(tmp_path / "it", argparse.Namespace(outputs={}))


def test_closed_sockets_are_told_as_what_they_are(tmp_path, monkeypatch):
    """A tenant that exists and whose socket is closed to this user is not called missing, nor the daemon stopped."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "a.sock"))
        monkeypatch.setattr(os, "access", lambda *_: False)
        with pytest.raises(NotAllowed, match=r"permissions of .*a\.sock keep this user out") as refused:
            tensors.open_client("a", str(tmp_path), 1.0)
    assert refused.value.hint == operator.PERMISSIONS_HINT


def test_every_error_takes_a_hint():
    """Also those with arguments of their own; without one the hint is that of the code."""
    for kind in _kinds(TrtdError):
        if kind.__init__ is TrtdError.__init__ or kind.__name__ == "InvalidConfig":
            assert kind("text", hint="Do it.").hint == "Do it."
            assert kind("text").hint is None


def _kinds(kind: type[TrtdError]) -> list[type[TrtdError]]:
    return [one for sub in kind.__subclasses__() for one in (sub, *_kinds(sub))]
