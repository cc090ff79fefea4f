"""SIGKILL of the router under load: clients come back by themselves, workers do not notice."""

from __future__ import annotations

import os
import random
import signal
import time

from tests.chaos.crowd import Crowd
from tests.chaos.figures import Report, spread_ms
from tests.chaos.holdings import left_behind
from tests.chaos.load import PAUSE_S, Load, second_answers
from tests.chaos.stage import MODELS, instant_of, stage

MOST_REQUESTS_BETWEEN = 60
CROWDED = "ranking"
"""The tenant that threads and tasks ask besides."""


def run(kills: int = 100, seed: int = 0, pause_s: float = PAUSE_S, *, arenas: bool = False) -> Report:
    """Kill the router, wait until each client connection has an answer from its successor, and so on.

    Args:
        kills: how many.
        seed: when.
        pause_s: of the callers.
        arenas: whether tensors are large enough for shared memory.
    """
    rng = random.Random(seed)
    report = Report("router")
    reconnected_s: list[float] = []
    ready_s: list[float] = []
    with stage(is_large=arenas) as daemon, second_answers() as count_second_answers:
        crowd = Crowd(daemon.address(CROWDED), daemon.questions[CROWDED], pause_s)
        with Load(daemon, daemon.questions, pause_s=pause_s) as load, crowd.asking():
            pids, generations = daemon.pids(), daemon.generations()
            for _ in range(kills):
                load.wait_more(rng.choice(list(MODELS)), rng.randrange(MOST_REQUESTS_BETWEEN))
                router = daemon.status()["router"]
                seen = len(daemon.log.lines)
                killed_at = time.monotonic()
                os.kill(router["pid"], signal.SIGKILL)
                successor = router["generation"] + 1
                # Until its hello the successor knows no tenant: what clients read before is from the one that died.
                greeted_at = instant_of(daemon.log.wait("router.greeted", seen, generation=successor))
                ready = daemon.log.wait("router.became_ready", seen, generation=successor)
                load.wait_answered(list(MODELS), greeted_at)
                ready_s.append(instant_of(ready) - killed_at)
                for history in load.histories:
                    answered_at = history.first_right_after(greeted_at)
                    assert answered_at is not None, "the wait above is for these answers"
                    reconnected_s.append(answered_at - killed_at)
            after = daemon.wait_ready()
        if (daemon.pids(), daemon.generations()) != (pids, generations):
            report.broken.append(f"workers were {pids} {generations}, now {daemon.pids()} {daemon.generations()}")
        if after["router"]["restarts"] != kills:
            report.broken.append(f"the router was restarted {after['router']['restarts']} times")
        report.broken += daemon.account_problems() + left_behind(daemon)
        recovered = [float(line["recovery_s"]) for line in daemon.log.all("router.recovered")]
        counters = [entry["counters"] for entry in daemon.status()["tenants"]]
    judgement = load.judge()
    report.broken += judgement.broken() + load.sharing_problems() + crowd.broken()
    report.figures = {
        "kills": kills,
        "callers": len(load.histories),
        **judgement.figures(),
        **load.sharing(),
        **crowd.figures(),
        "second_answers_dropped_by_clients": count_second_answers(),
        "resent": sum(each["resent"] for each in counters),
        "abandoned_by_dead_routers": sum(each["abandoned"] for each in counters),
        "death_to_main": spread_ms(recovered),
        "kill_to_ready": spread_ms(ready_s),
        "kill_to_answer_per_client": spread_ms(reconnected_s),
    }
    return report
