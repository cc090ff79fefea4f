"""Real faults in the worker of a tenant under load: the others see nothing of it but a stall of the device.

The tenant is hit again when its successor has answered; two others serve undisturbed. After that, kernels that never
end: their worker is replaced when it makes no progress. With two victims, two faults may fall together.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from tests.chaos.figures import Report, quantile, spread_ms
from tests.chaos.gpu.stage import GpuStage, gpu_stage
from tests.chaos.history import RIGHT, History
from tests.chaos.load import PAUSE_S, Load
from tests.chaos.stage import Log, instant_of
from tests.support.daemon import wait_until

VICTIMS = ("a", "d")
BYSTANDERS = ("b", "c")
FAULTS = ("illegal_address", "trap")
PROGRESS_S = 2.0
PATIENCE_S = 60.0


class Victim(threading.Thread):
    """Has faults made in one tenant's worker, one after the other, and measures what follows.

    Attributes:
        not_ready_s: from the order to the instant at which the worker counts as lost.
        answered_s: from the order to the first right answer of the successor.
        failure: what ended it early.
    """

    def __init__(self, daemon: GpuStage, load: Load, tenant: str, faults: Sequence[str]) -> None:
        super().__init__(name=f"faults of {tenant}")
        self.tenant = tenant
        self.not_ready_s: list[float] = []
        self.answered_s: list[float] = []
        self.failure: Exception | None = None
        self._daemon = daemon
        self._load = load
        self._faults = faults
        self._log = Log(daemon.log_file)

    def run(self) -> None:
        """Make all of them."""
        try:
            for fault in self._faults:
                self._make(fault)
        except Exception as error:
            self.failure = error

    def _make(self, fault: str) -> None:
        generation = self._daemon.worker(self.tenant)["generation"]
        life = {"tenant": self.tenant, "generation": generation}
        ordered_at = time.monotonic()
        self._daemon.call("fault", tenant=self.tenant, fault=fault)
        lost = wait_until(
            lambda: self._log.find("worker.stop_begun", **life) or self._log.find("worker.exited", **life),
            f"the end of generation {generation} of {self.tenant}",
            PATIENCE_S,
        )
        self.not_ready_s.append(instant_of(lost) - ordered_at)
        self._load.wait_answered([self.tenant], ordered_at, generation + 1)
        answers = [one.first_right_after(ordered_at, generation + 1) for one in self._load.histories_of(self.tenant)]
        self.answered_s.append(min(at for at in answers if at is not None) - ordered_at)


def run(
    faults: int = 200, endless: int = 5, hit: int = 1, baseline_s: float = 10.0, pause_s: float = PAUSE_S
) -> Report:
    """Serve undisturbed for a while, then with faults, then with kernels that never end."""
    report = Report("faults")
    drills: dict[str, Any] = {"debug": {"allow_faults": True}, "health": {"beat_s": 5.0, "progress_s": PROGRESS_S}}
    serving = {
        "a": ("mlp.plain", drills),
        "b": ("squeezenet_fp16.plain", {}),
        "c": ("mlp_two_profiles.vc", {}),
        "d": ("encoder_fp16.plain", drills),
    }
    with gpu_stage(serving) as daemon, Load(daemon, daemon.questions, pause_s=pause_s) as load:
        generations = {tenant: daemon.generations()[tenant] for tenant in BYSTANDERS}
        calm = _Window(load, daemon)
        wait_until(lambda: calm.age_s >= baseline_s, "the time without faults", baseline_s + PATIENCE_S)
        calm.close()
        storm = _Window(load, daemon)
        each = [FAULTS[number % len(FAULTS)] for number in range(faults // hit)]
        victims = [Victim(daemon, load, tenant, each) for tenant in VICTIMS[:hit]]
        _run_all(victims)
        storm.close()
        hang = _Window(load, daemon)
        hung = Victim(daemon, load, VICTIMS[0], ["endless_kernel"] * endless)
        _run_all([hung])
        hang.close()
        found = {tenant: daemon.generations()[tenant] for tenant in BYSTANDERS}
        kinds = [line["cause"] for line in daemon.log.all("worker.exited") if "cause" in line]
        report.broken += daemon.account_problems()
    for victim in (*victims, hung):
        if victim.failure is not None:
            report.broken.append(f"{victim.name}: {type(victim.failure).__name__}: {victim.failure}")
    if found != generations:
        report.broken.append(f"bystanders were restarted: generations {found}, not {generations}")
    judgement = load.judge()
    report.broken += judgement.broken(allowed=["poisonous"])
    report.broken += [f"{tenant}: {count} requests not answered right" for tenant, count in _failed(load).items()]
    report.figures = {
        "faults": sum(len(victim.answered_s) for victim in victims),
        "tenants_hit": hit,
        **judgement.figures(),
        "bystanders_restarted": found != generations,
        "fault_to_not_ready": spread_ms([value for victim in victims for value in victim.not_ready_s]),
        "fault_to_next_good_answer": spread_ms([value for victim in victims for value in victim.answered_s]),
        **{f"{tenant}_without": calm.figures[tenant] for tenant in BYSTANDERS},
        **{f"{tenant}_with_faults": storm.figures[tenant] for tenant in BYSTANDERS},
        **{f"{tenant}_p99_ratio": _ratio(storm, calm, tenant) for tenant in BYSTANDERS},
        "endless_kernels": len(hung.answered_s),
        "endless_to_lost": spread_ms(hung.not_ready_s),
        "endless_to_next_good_answer": spread_ms(hung.answered_s),
        **{f"{tenant}_with_endless_kernels": hang.figures[tenant] for tenant in BYSTANDERS},
        "causes": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        "faults_took_s": round(storm.age_s, 1),
    }
    return report


class _Window:
    """Latencies of the bystanders between its making and its closing."""

    def __init__(self, load: Load, daemon: GpuStage) -> None:
        self._load = load
        self._began_at = time.monotonic()
        self._ended_at = 0.0
        self.figures: dict[str, dict[str, float]] = {}
        self.p99_s: dict[str, float] = {}

    @property
    def age_s(self) -> float:
        return (self._ended_at or time.monotonic()) - self._began_at

    def close(self) -> None:
        self._ended_at = time.monotonic()
        for tenant in BYSTANDERS:
            latencies = [
                latency
                for history in self._load.histories_of(tenant)
                for latency in _latencies(history, self._began_at, self._ended_at)
            ]
            self.figures[tenant] = spread_ms(latencies)
            self.p99_s[tenant] = quantile(latencies, 0.99)


def _latencies(history: History, since: float, until: float) -> list[float]:
    return [
        history.answered_at[number] - history.sent_at[number]
        for number in range(len(history))
        if since <= history.sent_at[number] < until and history.outcome(number) == RIGHT
    ]


def _ratio(storm: _Window, calm: _Window, tenant: str) -> float:
    return round(storm.p99_s[tenant] / calm.p99_s[tenant], 2) if calm.p99_s[tenant] else 0.0


def _failed(load: Load) -> dict[str, int]:
    counts = {
        tenant: sum(
            history.outcome(number) != RIGHT for history in load.histories_of(tenant) for number in range(len(history))
        )
        for tenant in BYSTANDERS
    }
    return {tenant: count for tenant, count in counts.items() if count}


def _run_all(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
