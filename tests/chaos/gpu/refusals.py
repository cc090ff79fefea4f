"""Each allocation of a worker refused once, in the running daemon: typed, given back, and nobody else's loss.

Each n is a tenant of its own whose TensorRT comes from a front package of ours (`tensorrt.package_path`) that lets the
n-th allocation of device or pinned memory fail in that process as the driver does. A worker whose load or warm-up meets
it leaves with a typed fault; one that meets it in a run refuses that request alone, with a typed error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.chaos.figures import Report
from tests.chaos.gpu.damage import ONE_DEATH, QUICK
from tests.chaos.gpu.stage import GpuStage, assets, gpu_stage, gpu_tenant, model_of, questions_for
from tests.chaos.load import PAUSE_S, Load
from tests.support.daemon import wait_until
from trtd.demo import plans
from trtd.errors import OutOfMemory

PLANS = ("mlp.plain", "encoder_fp16.plain", "nonzero.vc")
PATIENCE_S = 60.0
CONTEXT_BYTES = 128 * 1024 * 1024
"""Less than any process on the device takes; what the bystander loads while it serves is less, too."""
ROUNDS = 6
"""How often each question is asked: enough for every number to come."""
FRONT = '''"""TensorRT, in a process where allocation number {number} is refused."""

from itertools import count

import tensorrt_bindings
from tensorrt_bindings import *
from trtd.runtime import cuda

__version__ = tensorrt_bindings.__version__
_numbers = count(1)


def _refusing(function):
    def call(*args):
        if next(_numbers) == {number}:
            raise cuda.CudaError(2, "the front package of the proof")
        return function(*args)

    return call


cuda.MemoryPool.allocate = _refusing(cuda.MemoryPool.allocate)
cuda.PinnedBuffer.__init__ = _refusing(cuda.PinnedBuffer.__init__)
'''


def run(most: int = 16, pause_s: float = PAUSE_S) -> Report:
    """Refuse each of the first allocations of each plan."""
    from trtd.runtime import cuda

    report = Report("refusals")
    cuda.open_device(0, is_spinning=False, is_lazy=True)
    with gpu_stage({"b": ("squeezenet_fp16.plain", {})}) as daemon:
        with Load(daemon, daemon.questions, pause_s=pause_s) as load:
            pid = daemon.pids()["b"]
            free_bytes = cuda.memory_info()[0]
            for plan in PLANS:
                report.figures[plan] = _refuse_each(daemon, plan, most, report)
            daemon.configure(daemon.tenants)
            daemon.call("reload")
            wait_until(lambda: len(daemon.status()["tenants"]) == 1, "the end of the offered tenants")
            wait_until(
                lambda: free_bytes - cuda.memory_info()[0] < CONTEXT_BYTES, "the device's memory back", PATIENCE_S
            )
            not_back_bytes = free_bytes - cuda.memory_info()[0]
            if daemon.pids()["b"] != pid:
                report.broken.append("the bystander was restarted")
        report.broken += daemon.account_problems()
    judgement = load.judge()
    report.broken += judgement.broken()
    report.figures |= {"device_bytes_free": free_bytes, "not_back_bytes": not_back_bytes, **judgement.figures()}
    return report


def _refuse_each(daemon: GpuStage, plan: str, most: int, report: Report) -> dict[str, Any]:
    """One tenant for each number; how many were refused, and what those hold that serve."""
    path = plans.unpack_plan(assets(), plan, daemon.place)
    tenants = {
        f"n{number}": gpu_tenant(
            path,
            restart=ONE_DEATH,
            health=QUICK,
            # A graph that does not get its memory is done without, and nobody would notice.
            tensorrt={"package_path": str(_front(daemon.place, number)), "max_graphs": 0},
        )
        for number in range(1, most + 1)
    }
    # Tenants of the same names with another plan would be replaced one after the other: these start at once.
    daemon.configure(daemon.tenants)
    daemon.call("reload")
    wait_until(lambda: len(daemon.status()["tenants"]) == len(daemon.tenants), "the end of former tenants", PATIENCE_S)
    daemon.configure({**daemon.tenants, **tenants})
    daemon.call("reload")
    workers: dict[str, dict[str, Any]] = {}

    def is_settled() -> bool:
        for entry in daemon.status()["tenants"]:
            worker = entry["workers"][0]
            if worker["state"] == "quarantined" or (worker["state"] == "ready" and worker["device"] is not None):
                workers[entry["name"]] = worker
        return tenants.keys() <= workers.keys()

    wait_until(is_settled, f"an end of all that load {plan}", PATIENCE_S)
    refused = [number for number in range(1, most + 1) if workers[f"n{number}"]["state"] == "quarantined"]
    if refused != list(range(1, len(refused) + 1)) or not 0 < len(refused) < most:
        report.broken.append(f"{plan}: refused were the allocations {refused}")
    for number in refused:
        fault = workers[f"n{number}"]["last_fault"]
        if fault["kind"] != "out_of_memory" or model_of(plan) not in fault["message"]:
            report.broken.append(f"{plan}: allocation {number}: {fault['kind']}: {fault['message']}")
    serving = [f"n{number}" for number in range(len(refused) + 1, most + 1)]
    held = {workers[tenant]["device"]["live_bytes"] for tenant in serving}
    if len(held) != 1:
        report.broken.append(f"{plan}: those that serve hold {sorted(held)} bytes")
    in_runs = sum(_ask(daemon, tenant, plan, report) for tenant in serving)
    restarts = {tenant: daemon.worker(tenant)["restarts"] for tenant in serving}
    report.broken += [f"{plan}: {tenant} was restarted" for tenant, count in restarts.items() if count]
    return {
        "refused_before_ready": len(refused),
        "refused_in_a_run": in_runs,
        "served": len(serving),
        "live_bytes": max(held, default=0),
    }


def _ask(daemon: GpuStage, tenant: str, plan: str, report: Report) -> int:
    """Ask each question some times; how many were refused for want of memory. All others have to be right."""
    refused = 0
    with daemon.client(tenant, timeout=20.0) as client:
        for question in questions_for(plan) * ROUNDS:
            try:
                answer = client.infer(question.model, question.inputs)
            except OutOfMemory:
                refused += 1
                continue
            if not question.is_answered_by(answer.outputs[question.output]):
                report.broken.append(f"{plan}: {tenant} answers wrong")
    if refused > 1:
        report.broken.append(f"{plan}: {tenant} refused {refused} requests")
    return refused


def _front(place: Path, number: int) -> Path:
    """A directory with a package `tensorrt` that refuses one allocation."""
    directory = place / f"front-{number}"
    package = directory / "tensorrt"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text(FRONT.format(number=number), encoding="utf-8")
    return directory
