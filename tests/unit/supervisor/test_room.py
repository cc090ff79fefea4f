"""Whether there is room for a second worker, by the host's count and by the cgroups above us."""

from __future__ import annotations

import pytest

from tests.unit.supervisor.test_cgroup import make_tree
from trtd.errors import OutOfMemory
from trtd.supervisor import room

GIB = 1024**3


def tell(root, available_kib=8 * 1024**2, swap_kib=0):
    (root / "proc").mkdir(exist_ok=True)
    lines = [
        "MemTotal: 16777216 kB",
        f"MemAvailable:  {available_kib} kB",
        f"SwapFree: {swap_kib} kB",
        "HugePages_Free: 0",
    ]
    (root / "proc/meminfo").write_text("\n".join(lines), encoding="ascii")


def limit(group, most, used, inactive=0, active=0):
    (group / "cgroup.controllers").write_text("memory", encoding="ascii")
    (group / "memory.max").write_text(f"{most}\n", encoding="ascii")
    (group / "memory.current").write_text(f"{used}\n", encoding="ascii")
    (group / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\nactive_file {active}\n", encoding="ascii")


def test_the_hosts_own_count(tmp_path):
    """Available memory and free swap, where no cgroup limits anything."""
    tell(tmp_path, available_kib=1024**2, swap_kib=1024**2)
    assert room.free_bytes(tmp_path) == 2 * GIB


def test_a_limit_on_our_cgroup_counts(tmp_path):
    """What is left below it, with the caches that the kernel would let go of."""
    tell(tmp_path)
    limit(make_tree(tmp_path), 4 * GIB, 3 * GIB, inactive=GIB // 4, active=GIB // 4)
    assert room.free_bytes(tmp_path) == GIB + GIB // 2


def test_the_narrowest_limit_above_us_counts(tmp_path):
    """A slice around the daemon may be narrower than its own cgroup; `max` is no limit."""
    tell(tmp_path)
    own = make_tree(tmp_path)
    limit(own, "max", 3 * GIB)
    limit(own.parent, 4 * GIB, 3 * GIB)
    assert room.free_bytes(tmp_path) == GIB


def test_swap_of_a_cgroup_is_room(tmp_path):
    """As far as its own limit on swap allows."""
    tell(tmp_path)
    own = make_tree(tmp_path)
    limit(own, 4 * GIB, 4 * GIB)
    (own / "memory.swap.max").write_text(str(GIB), encoding="ascii")
    (own / "memory.swap.current").write_text("0", encoding="ascii")
    assert room.free_bytes(tmp_path) == GIB


def test_where_nobody_tells_nothing_is_known(tmp_path):
    """Without /proc there is no figure, and this machine has one."""
    assert room.free_bytes(tmp_path) is None
    assert room.free_bytes() > 0


@pytest.mark.parametrize(("need", "free"), [(GIB, None), (GIB, GIB), (0, 0)])
def test_only_what_is_known_not_to_fit_is_refused(need, free):
    """Without a figure, with enough, and for a worker of unknown size nothing is refused."""
    room.require("a", need, free)


def test_the_refusal_says_what_to_do():
    """Both figures, that nothing was stopped, and the key that helps."""
    with pytest.raises(OutOfMemory) as refused:
        room.require("vision", 3 * GIB, GIB)
    assert refused.value.message == (
        "no memory for two: the worker that serves has 3072 MiB, 1024 MiB are free;"
        ' nothing was stopped, and tenants.vision.replace = "stop-first" needs no second one'
    )
