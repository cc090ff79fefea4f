"""What the daemon's log has when things go wrong: bounded, and nothing of what tenants entrusted to us."""

from __future__ import annotations

import signal
import struct

import numpy as np
import pytest
import zmq

from tests.support.daemon import script, tenant, wait_until
from tests.support.ports import free_port
from trtd.errors import TrtdError

CANARY = 8191.1875
"""A number that nobody writes by accident, with the same digits in every float type."""
ENVIRONMENT_CANARY = "canary-in-the-environment"
MAX_DEATH_BYTES = 6000
"""Of all lines about one death and the next start, Python's own report of the crash included."""
BUDGET = 3


def row(value: float) -> dict[str, np.ndarray]:
    return {"x": np.full((1, 4), value, np.float32)}


def ask(daemon, name: str, value: float) -> str:
    """What a request ends with: `answer`, or the code of its error."""
    with daemon.client(name) as client:
        try:
            client.infer("echo", row(value), timeout=20)
        except TrtdError as error:
            return str(error.code)
    return "answer"


def test_the_log_has_no_tensor_and_no_secret(make_daemon, tmp_path):
    """Neither inputs nor keys nor the environment appear in the log, at its most talkative, whatever goes wrong."""
    public, secret = zmq.curve_keypair()
    key_file = tmp_path / "curve-secret-key"
    key_file.touch(mode=0o600)
    key_file.write_bytes(secret)
    behaviours = ("identity", "raise", "model_failed", "out_of_memory", "fault", "crash", "exit")
    tenants = {f"t{number}": tenant(script(behaviour)) for number, behaviour in enumerate(behaviours)}
    tenants["t0"]["tcp"] = {"listen": f"127.0.0.1:{free_port()}", "clients": {"laptop": public.decode()}}
    daemon = make_daemon(
        tenants, log={"level": "debug"}, router={"curve_secret_key_file": str(key_file)}
    ).start(SECRET_OF_OURS=ENVIRONMENT_CANARY)  # fmt: skip
    daemon.wait_ready()
    outcomes = [ask(daemon, name, CANARY) for name in tenants]
    assert outcomes[0] == "answer"
    assert "answer" not in outcomes[1:]
    with daemon.client("t0") as client, pytest.raises(TrtdError):
        client.infer("echo", {"x": np.full((1, 5), CANARY, np.float32)}, timeout=10)
    daemon.call("reload")
    assert daemon.stop() == 0
    log = daemon.log_file.read_bytes()
    assert b"worker.exited" in log
    assert b"endpoint.opened" in log
    for canary in (
        str(CANARY).encode(),
        struct.pack("<f", CANARY),
        np.full(4, CANARY, np.float32).tobytes().hex().encode(),
        secret,
        ENVIRONMENT_CANARY.encode(),
    ):
        assert canary not in log


def test_a_crash_loop_writes_a_bounded_log(make_daemon):
    """Each death costs a few lines, and the restart budget bounds the deaths of a window, so the log has a bound."""
    restart = {"base_s": 0.01, "cap_s": 0.02, "budget": BUDGET, "window_s": 600.0, "probe_after_s": 0}
    daemon = make_daemon({"a": tenant(restart=restart)}).start()
    daemon.wait_ready()
    before = daemon.log_file.stat().st_size
    for death in range(1, BUDGET + 2):
        # Not by requests: deaths that a client's input causes are charged to nobody.
        wait_until(lambda: daemon.worker("a")["state"] == "ready", "a worker that serves")
        daemon.kill_worker("a", number=signal.SIGSEGV)
        daemon.wait_event("worker.exited", count=death)
    daemon.wait_event("worker.quarantined")
    deaths = len(daemon.events("worker.exited"))
    assert deaths == BUDGET + 1
    for value in range(100, 400):
        assert ask(daemon, "a", value) == "unavailable"
    written = daemon.log_file.stat().st_size - before
    assert len(daemon.events("worker.exited")) == deaths
    assert written < MAX_DEATH_BYTES * deaths
