"""The table of the proofs that need a GPU."""

from __future__ import annotations

from tests.chaos.gpu import damage, faults, refusals
from tests.chaos.proofs import PAUSE, SEED, Option, Proof

GPU_PROOFS: dict[str, Proof] = {
    "faults": Proof(
        "real faults and endless kernels in TensorRT workers under load",
        lambda options: faults.run(
            options["faults"], options["endless"], options["hit"], options["baseline-s"], options["pause-ms"] / 1e3
        ),
        (
            Option("faults", 200, "how many, illegal accesses and traps in turn"),
            Option("endless", 5, "kernels that never end"),
            Option("hit", 1, "tenants that are hit: 1 or 2, each at its own pace"),
            Option("baseline-s", 10.0, "seconds without faults, to compare with"),
            PAUSE,
        ),
    ),
    "damage": Proof(
        "truncated and damaged plans offered to a running daemon",
        lambda options: damage.run(options["count"], options["together"], options["seed"], options["pause-ms"] / 1e3),
        (Option("count", 1000, "how many"), Option("together", 25, "offered by one reload"), SEED, PAUSE),
    ),
    "refusals": Proof(
        "each allocation of a worker refused once",
        lambda options: refusals.run(options["most"], options["pause-ms"] / 1e3),
        (Option("most", 32, "numbers tried for each plan"), PAUSE),
    ),
}
