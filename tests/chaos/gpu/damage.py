"""Truncated and damaged plans offered to a running daemon: refused with a reason, or accepted, and what they answer.

Each is offered as a tenant of its own, some at a time, by reloads, while others serve. TensorRT checks no integrity:
what it accepts and answers wrong is why plans are signed and known answers are asked for.
"""

from __future__ import annotations

import random
import re
import struct
from collections import Counter
from pathlib import Path
from typing import Any

from tests.chaos.figures import Report
from tests.chaos.gpu.stage import GpuStage, assets, gpu_stage, gpu_tenant, model_of, questions_for
from tests.chaos.load import PAUSE_S, Load
from tests.support.daemon import wait_until
from trtd.demo.plans import unpack_plan
from trtd.errors import TrtdError

ONE_DEATH = {"budget": 0, "probe_after_s": 0}
"""What cannot serve is given up at its first death, whatever the cause."""
QUICK = {"beat_s": 5.0, "hello_s": 30.0, "warmup_s": 10.0, "progress_s": 5.0, "stop_s": 1.0}
PATIENCE_S = 45.0
PLANS = ("two_io.vc", "two_io.vc", "nonzero.vc", "mlp.plain")
"""Small ones more often: more of their bytes are structure, less are weights."""
HEADER_BYTES = 80
SIZE_AT = 16


def run(count: int = 1000, together: int = 25, seed: int = 0, pause_s: float = PAUSE_S) -> Report:
    """Offer so many, some at a time."""
    rng = random.Random(seed)
    report = Report("damage")
    tally = _Tally()
    with gpu_stage({"b": ("squeezenet_fp16.plain", {}), "c": ("mlp_two_profiles.vc", {})}) as daemon:
        good = {plan: _read(daemon, plan) for plan in PLANS}
        with Load(daemon, daemon.questions, pause_s=pause_s) as load:
            generations = daemon.generations()
            for start in range(0, count, together):
                offers = {}
                for number in range(start, min(start + together, count)):
                    plan = rng.choice(PLANS)
                    kind, damaged = damage_plan(good[plan], rng)
                    path = daemon.place / f"{model_of(plan)}.{number}.plan"
                    path.write_bytes(damaged)
                    offers[f"p{number}"] = (plan, kind, path)
                _offer(daemon, offers, tally)
            found = {tenant: generation for tenant, generation in daemon.generations().items() if tenant in generations}
        report.broken += daemon.account_problems()
        if found != generations:
            report.broken.append(f"bystanders were restarted: generations {found}, not {generations}")
        if daemon.status()["router"]["generation"] != 1:
            report.broken.append("the router was replaced")
    judgement = load.judge()
    report.broken += judgement.broken() + tally.broken
    report.figures = {"offered": count, **judgement.figures(), **tally.figures()}
    return report


class _Tally:
    """What became of the offers."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.broken: list[str] = []

    def figures(self) -> dict[str, Any]:
        return {
            "kinds": dict(self.kinds),
            "outcomes": dict(self.outcomes.most_common()),
            "accepted": dict(self.accepted.most_common()),
            "reasons": dict(self.reasons.most_common(30)),
        }


def _read(daemon: GpuStage, plan: str) -> bytes:
    return unpack_plan(assets(), plan, daemon.place).read_bytes()


def damage_plan(plan: bytes, rng: random.Random) -> tuple[str, bytes]:
    """One kind of damage, chosen at random."""
    kind = rng.choice(("cut", "cut", "cut and told", "header", "header", "flipped", "flipped", "blocks"))
    if kind.startswith("cut"):
        end = rng.choice((rng.randrange(HEADER_BYTES), rng.randrange(len(plan)), len(plan) - rng.randrange(1, 64)))
        cut = bytearray(plan[:end])
        if kind == "cut and told" and end >= SIZE_AT + 8:
            # The header agrees, so that only TensorRT can find out.
            struct.pack_into("<Q", cut, SIZE_AT, end)
        return kind, bytes(cut)
    damaged = bytearray(plan)
    if kind == "blocks":
        for _ in range(rng.randrange(1, 5)):
            at = rng.randrange(HEADER_BYTES, len(plan))
            end = min(at + rng.choice((64, 512, 4096)), len(plan))
            damaged[at:end] = rng.choice((bytes(end - at), rng.randbytes(end - at)))
        return kind, bytes(damaged)
    reach = HEADER_BYTES if kind == "header" else len(plan)
    for _ in range(rng.randrange(1, 5 if kind == "header" else 33)):
        damaged[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return kind, bytes(damaged)


def _offer(daemon: GpuStage, offers: dict[str, tuple[str, str, Path]], tally: _Tally) -> None:
    """Let the daemon take these tenants in, wait for what becomes of each, and ask those that serve."""
    tenants = {
        tenant: gpu_tenant(path, restart=ONE_DEATH, health=QUICK, queue={"default_timeout_s": 10.0})
        for tenant, (_, _, path) in offers.items()
    }
    daemon.configure({**daemon.tenants, **tenants})
    daemon.call("reload")
    waiting = set(offers)
    workers: dict[str, dict[str, Any]] = {}

    def is_settled() -> bool:
        for entry in daemon.status()["tenants"]:
            worker = entry["workers"][0]
            if entry["name"] in waiting and worker["state"] in ("ready", "quarantined"):
                waiting.discard(entry["name"])
                workers[entry["name"]] = worker
        return not waiting

    try:
        wait_until(is_settled, "an end of all offers", PATIENCE_S)
    except AssertionError:
        tally.broken += [f"{tenant} was neither accepted nor refused within {PATIENCE_S:g} s" for tenant in waiting]
    for tenant, (plan, kind, path) in offers.items():
        tally.kinds[kind] += 1
        worker = workers.get(tenant)
        if worker is None:
            continue
        if worker["state"] == "ready":
            answer = _ask(daemon, tenant, plan)
            tally.outcomes[f"accepted, {answer}"] += 1
            tally.accepted[f"{kind}, {answer}"] += 1
        else:
            fault = worker["last_fault"]
            tally.outcomes[fault["kind"]] += 1
            tally.reasons[f"{fault['kind']}: {reason(fault['message'], path)}"] += 1
            if not fault["message"]:
                tally.broken.append(f"{tenant} was refused without a reason")
        path.unlink()


def _ask(daemon: GpuStage, tenant: str, plan: str) -> str:
    """Whether a plan that was accepted answers right, wrong, or with an error."""
    with daemon.client(tenant, timeout=20.0) as client:
        for question in questions_for(plan):
            try:
                answer = client.infer(question.model, question.inputs)
            except TrtdError as error:
                return f"then {error.code}"
            if not question.is_answered_by(answer.outputs.get(question.output)):
                return "answers wrong"
    return "answers right"


def reason(message: str, path: Path) -> str:
    """A message without what differs from plan to plan."""
    told = message.partition(str(path))[2].lstrip(": ") or message
    return re.sub(r"0x[0-9a-f]+|\d+|b'[^']*'|b\"[^\"]*\"", "N", told)[:90]
