"""What processes hold, as the kernel counts it, and what of it clients have left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from tests.support.daemon import Daemon, wait_until

OWN_PAGE = "/memfd:trtd-flight"
"""Each router has it mapped for its whole life."""
MEMFDS = ("memfds", "mapped memfds")


def held(pid: int) -> Counter[str]:
    """What a process holds, by kind: descriptors of each kind, and mapped memfds."""
    maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
    found = Counter({"mapped memfds": maps.count("/memfd:") - maps.count(OWN_PAGE)})
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            name = str(link.readlink())
            if name.startswith(OWN_PAGE):
                continue
            found["memfds" if name.startswith("/memfd:") else name.partition(":")[0]] += 1
    return +found


def kept(pids: Mapping[str, int], before: Mapping[str, Counter[str]]) -> list[str]:
    """Waits until these processes hold no more than before; which of them do in the end, in words."""
    problems = []
    for name, pid in pids.items():
        with suppress(AssertionError):
            wait_until(lambda name=name, pid=pid: held(pid) <= before[name], f"the {name} without what clients left")
        if not held(pid) <= before[name]:
            problems.append(f"the {name} keeps {held(pid) - before[name]}")
    return problems


def wait_until_empty(daemon: Daemon, tenants: Iterable[str]) -> None:
    """Wait until tenants have neither requests nor shared memory of clients."""
    names = set(tenants)

    def is_empty() -> bool:
        return all(
            (shown["arena_bytes"], shown["arena_count"], shown["leased"], shown["queued"]) == (0, 0, 0, 0)
            for shown in daemon.status()["tenants"]
            if shown["name"] in names
        )

    wait_until(is_empty, "tenants without requests and shared memory")


def left_behind(daemon: Daemon) -> list[str]:
    """Shared memory in router or workers after all clients have gone, in words."""
    status = daemon.status()
    wait_until_empty(daemon, [shown["name"] for shown in status["tenants"]])
    pids = {"router": status["router"]["pid"]}
    pids |= {f"worker of {shown['name']}": shown["workers"][0]["pid"] for shown in status["tenants"]}

    def memfds() -> list[str]:
        counts = {name: held(pid) for name, pid in pids.items()}
        return [f"the {name} keeps {count[kind]} {kind}" for name, count in counts.items() for kind in MEMFDS
                if count[kind]]  # fmt: skip

    with suppress(AssertionError):
        wait_until(lambda: not memfds(), "processes without shared memory")
    return memfds()
