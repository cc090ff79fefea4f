"""SIGKILL of workers under load: nobody's request is lost, and no other tenant's worker notices."""

from __future__ import annotations

import os
import random
import signal
import time

from tests.chaos.crowd import Crowd
from tests.chaos.figures import Report, spread_ms
from tests.chaos.holdings import left_behind
from tests.chaos.load import PAUSE_S, Load, second_answers
from tests.chaos.stage import MODELS, Stage, instant_of, stage

MOST_REQUESTS_BETWEEN = 60
CROWDED = "ranking"
"""The tenant that threads and tasks ask besides."""


def run(kills: int = 1000, seed: int = 0, pause_s: float = PAUSE_S, *, arenas: bool = False) -> Report:
    """Kill the worker of a random tenant, wait until its successor has answered all its callers, and so on.

    Args:
        kills: how many.
        seed: which tenants, and when.
        pause_s: of the callers.
        arenas: whether tensors are large enough for shared memory.
    """
    rng = random.Random(seed)
    report = Report("workers")
    ready_s: list[float] = []
    answered_s: list[float] = []
    with stage(is_large=arenas) as daemon, second_answers() as count_second_answers:
        crowd = Crowd(daemon.address(CROWDED), daemon.questions[CROWDED], pause_s)
        with Load(daemon, daemon.questions, pause_s=pause_s) as load, crowd.asking():
            expected = daemon.generations()
            began_at = time.monotonic()
            for number in range(kills):
                tenant = rng.choice(list(MODELS))
                load.wait_more(tenant, rng.randrange(MOST_REQUESTS_BETWEEN))
                ready, answered = _kill(daemon, load, tenant, expected)
                ready_s.append(ready)
                answered_s.append(answered)
                if (found := daemon.generations()) != expected:
                    report.broken.append(f"after kill {number + 1} the generations are {found}, not {expected}")
                    expected = found
            took_s = time.monotonic() - began_at
        report.broken += daemon.account_problems() + left_behind(daemon)
        recovered = [float(line["recovery_s"]) for line in daemon.log.all("worker.recovered")]
    judgement = load.judge()
    report.broken += judgement.broken() + load.sharing_problems() + crowd.broken()
    if count_second_answers():
        report.broken.append(f"{count_second_answers()} answers came twice")
    report.figures = {
        "kills": kills,
        "callers": sum(map(len, load.callers.values())),
        **judgement.figures(),
        **load.sharing(),
        **crowd.figures(),
        "second_answers_on_the_wire": count_second_answers(),
        "requests_per_s": round(judgement.sent / took_s, 1),
        "death_to_main": spread_ms(recovered),
        "kill_to_ready": spread_ms(ready_s),
        "kill_to_next_good_answer": spread_ms(answered_s),
        "generations": expected,
        "took_s": round(took_s, 1),
    }
    return report


def _kill(daemon: Stage, load: Load, tenant: str, expected: dict[str, int]) -> tuple[float, float]:
    """Kill once; how long until the successor was ready, and until the first right answer of it."""
    pid = daemon.worker(tenant)["pid"]
    seen = len(daemon.log.lines)
    killed_at = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    expected[tenant] += 1
    ready = daemon.log.wait("worker.became_ready", seen, tenant=tenant, generation=expected[tenant])
    load.wait_answered([tenant], killed_at, expected[tenant])
    answers = [history.first_right_after(killed_at, expected[tenant]) for history in load.histories_of(tenant)]
    return instant_of(ready) - killed_at, min(at for at in answers if at is not None) - killed_at
