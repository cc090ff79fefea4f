"""Versions meet: old clients and operators, newer ones, configurations of another version, at today's daemon."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from tests.support import golden, old_client
from tests.support.daemon import PATIENCE_S, Daemon, OperatorError, script

FIRST_CLIENT = """
import sys
import numpy as np
import trtd
assert trtd.__file__.startswith(sys.argv[1]), trtd.__file__
with trtd.Client(sys.argv[2]) as client:
    handles = [client.submit("echo", {"x": np.full((1, 4), n, np.float32)}) for n in range(50)]
    answers = [handle.result(20) for handle in handles]
    assert [answer.outputs["x"][0, 0] for answer in answers] == list(range(50))
    try:
        client.infer("nobody", {"x": np.zeros((1, 4), np.float32)})
    except trtd.errors.UnknownModel as error:
        print("refused as", error.code)
print("50 right answers")
"""

is_first_client_here = pytest.mark.skipif(not old_client.is_in_history(), reason="the first client is not in history")


@pytest.fixture
def mlp_daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon that has the model of the golden frames."""
    daemon = make_daemon({"a": {"runtime": "scripted", "models": {"mlp": {"script": script()}}}}).start()
    daemon.wait_ready()
    return daemon


@pytest.fixture
def dealer(mlp_daemon: Daemon) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.rcvtimeo = int(PATIENCE_S * 1000)
        socket.connect(mlp_daemon.address())
        yield socket


def frozen(name: str) -> bytes:
    """The bytes that a client of the first version 1 wrote."""
    return golden.path_of(name).read_bytes()


def ask(socket: zmq.Socket[bytes], *frames: bytes) -> tuple[dict[str, Any], list[bytes]]:
    socket.send_multipart(frames)
    header, *tensors = socket.recv_multipart()
    return msgpack.unpackb(header), tensors


def test_the_frozen_conversation(dealer):
    """Bytes that were frozen with version 1 get answers that have every key of version 1 with its old meaning."""
    request_id = bytes(range(16))
    row = np.array([[1, 2, 3, 4]], "<f4").tobytes()
    header, tensors = ask(dealer, frozen("infer-minimal"), row)
    old = msgpack.unpackb(frozen("result"))
    assert old.keys() <= header.keys()
    assert (header["v"], header["type"], header["id"], header["model"]) == (1, "result", request_id, "mlp")
    assert header["outputs"] == [["x", "float32", [1, 4], "frame"]]
    assert tensors == [row]
    assert len(header["timing"]) == len(old["timing"])
    header, tensors = ask(dealer, frozen("infer-resent"), row)
    assert (header["type"], tensors) == ("result", [row])
    header, _ = ask(dealer, frozen("health"))
    assert msgpack.unpackb(frozen("health-ready")).keys() <= header.keys()
    assert (header["is_ready"], header["state"]) == (True, "ready")
    header, (models,) = ask(dealer, frozen("describe-all"))
    assert msgpack.unpackb(frozen("models")).keys() <= header.keys()
    assert header["type"] == "models"
    assert msgpack.unpackb(models)
    header, _ = ask(dealer, frozen("infer-no-inputs"))
    assert msgpack.unpackb(frozen("error")).keys() <= header.keys()
    assert (header["type"], header["code"]) == ("error", "invalid_input")


def test_a_newer_client_is_refused_in_words(dealer):
    """A version that the daemon does not know is refused at once, typed, with the version that it does know."""
    newer = {**msgpack.unpackb(frozen("infer-minimal")), "v": 2}
    header, _ = ask(dealer, msgpack.packb(newer), bytes(16))
    assert (header["v"], header["type"], header["code"]) == (1, "error", "unsupported_version")
    assert header["message"] == "v: this side speaks wire version 1, the message has 2"
    header, _ = ask(dealer, frozen("health"))
    assert header["wire_versions"] == [1]


@is_first_client_here
def test_the_first_client_still_works(make_daemon, tmp_path):
    """The client library that landed first gets right answers and typed errors from today's daemon."""
    daemon = make_daemon().start()
    daemon.wait_ready()
    old_client.unpack(tmp_path)
    told = old_client.run(tmp_path, "-c", FIRST_CLIENT, str(tmp_path), daemon.address())
    assert told == "refused as unknown_model\n50 right answers\n"


@is_first_client_here
def test_the_first_operators_commands_still_work(make_daemon, tmp_path):
    """`trtd status`, `drain` and `resume` of the first version are understood by today's daemon."""
    daemon = make_daemon().start()
    daemon.wait_ready()
    old_client.unpack(tmp_path)

    def trtd(*argv: str) -> str:
        return old_client.run(tmp_path, "-m", "trtd.cli.main", *argv, "--runtime-dir", str(daemon.runtime_dir))

    assert json.loads(trtd("status", "--json"))["health"] == "ready"
    assert "a" in trtd("status")
    trtd("drain", "a")
    assert daemon.tenant("a")["phase"] == "drained"
    trtd("resume", "a")
    daemon.wait_ready()


def test_a_newer_operator_is_refused_in_words(make_daemon):
    """A command of another version of the operators' protocol is refused with the version that is spoken."""
    daemon = make_daemon().start()
    daemon.wait_ready()
    (answer,) = daemon.ask({"v": 2, "command": "status"})
    assert answer["error"]["code"] == "unsupported_version"
    assert answer["error"]["message"] == "operators' protocol version 2; this daemon speaks 1"


def test_a_newer_configuration_is_refused_in_words(make_daemon):
    """A file of another version starts no daemon, changes nothing in one that runs, and the line says what is read."""
    daemon = make_daemon().start()
    pid = daemon.wait_ready()["tenants"][0]["workers"][0]["pid"]
    text = daemon.config_file.read_text(encoding="utf-8").replace('"version" = 1', "version = 2")
    assert "version = 2" in text
    daemon.config_file.write_text(text, encoding="utf-8")
    line = f"{daemon.config_file}:1: version: this trtd reads version 1 of the configuration, not 2"
    with pytest.raises(OperatorError, match="invalid_config") as refused:
        daemon.call("reload")
    assert line in str(refused.value)
    assert daemon.worker("a")["pid"] == pid
    argv = [sys.executable, "-m", "trtd.cli.main", "config", "check", "--config", str(daemon.config_file)]
    checked = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (checked.returncode, checked.stdout) == (78, f"{line}\n")
