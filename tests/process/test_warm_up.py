"""Models and what they are run on before they are ready: a daemon that tries nothing twice that ends its workers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.support.daemon import script, tenant
from tests.support.graphs import graph, node, value

MIXING = graph([node("Softmax", ["x"], ["y"], axis=0)], [value("x", ("seq", 4))], [value("y", ("seq", 4))])


@pytest.mark.parametrize("behaviour", ["crash", "hang"])
def test_a_model_that_dies_of_what_is_made_up_serves_from_its_second_start(make_daemon, behaviour):
    """The successor of a worker that died in its warm-up leaves that out, and so do all later ones."""
    health = {"warmup_s": 2.0} if behaviour == "hang" else {}
    daemon = make_daemon({"a": tenant(script(behaviour, when=0.0), health=health, restart={"base_s": 0.01})}).start()
    daemon.wait_ready()
    daemon.wait_event("worker.died_of_trial", tenant="a", generation=1)
    assert daemon.worker("a")["generation"] == 2
    with daemon.client() as client:
        np.testing.assert_array_equal(client.infer("echo", {"x": np.ones((1, 4), np.float32)})["x"], np.ones((1, 4)))
    daemon.kill_worker("a")
    daemon.wait_status(lambda status: status["tenants"][0]["workers"][0]["generation"] == 3, "generation 3")
    daemon.wait_ready()
    assert daemon.worker("a")["generation"] == 3


def test_requests_that_would_mix_are_not_joined(make_daemon, tmp_path):
    """Equal requests at once to a softmax over all rows each get one half, and status says why they run alone."""
    path = tmp_path / "m.onnx"
    path.write_bytes(MIXING)
    daemon = make_daemon({"a": {"runtime": "onnxruntime", "models": {"m": {"path": str(path)}}}}).start()
    status = daemon.wait_ready()
    (model,) = status["tenants"][0]["models"]
    assert (model["is_batched"], model["max_batch"]) == (False, 0)
    assert model["batching"].startswith("alone: output 'y' of joined requests")
    daemon.wait_event("worker.joins_nothing", model="m 1")
    x = np.ones((2, 4), np.float32)
    with daemon.client() as client, ThreadPoolExecutor(8) as pool:
        for answer in pool.map(lambda _: client.infer("m", {"x": x}), range(200)):
            np.testing.assert_array_equal(answer["y"], np.full((2, 4), 0.5, np.float32))


def test_a_proof_is_given_once(make_daemon, tmp_path):
    """What one worker has shown, its successor knows: nothing is tried again for the same file."""
    path = tmp_path / "m.onnx"
    path.write_bytes(MIXING)
    daemon = make_daemon({"a": {"runtime": "onnxruntime", "models": {"m": {"path": str(path)}}}}).start()
    first = daemon.wait_ready()["tenants"][0]["models"]
    generation = daemon.kill_worker("a")
    daemon.wait_status(
        lambda status: status["tenants"][0]["workers"][0]["generation"] == generation + 1, "the successor"
    )
    assert daemon.wait_ready()["tenants"][0]["models"] == first
