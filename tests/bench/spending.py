"""Processor time for each request: by process and thread as the scheduler counts it, by function as py-spy sees it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.bench import loads
from tests.bench.comparisons import SIZES
from tests.bench.loads import Measurement
from tests.support.daemon import Daemon

REPOSITORY = Path(__file__).parents[2]
SAMPLES_PER_S = 400
STAGES_SHOWN = 12
LEAST_SHOWN_US = 0.5


class Ask(NamedTuple):
    """What is asked for while processor time is counted: a size, one of `loads.LOADS`, requests in flight."""

    size: str
    load: str
    in_flight: int

    def __str__(self) -> str:
        return f"{self.size}, {self.load}, {self.in_flight}"


ASKS = (
    Ask("1 KiB", "sockets", 1),
    Ask("1 KiB", "sockets", 8),
    Ask("1 KiB", "sockets", 32),
    Ask("1 KiB", "pipelined", 64),
    Ask("4 MiB", "arenas", 1),
    Ask("4 MiB", "arenas", 8),
    Ask("4 MiB", "arenas", 32),
)

ThreadTimes = dict[str, float]
"""Microseconds of processor time by kind of thread."""


@dataclass(frozen=True)
class Spending:
    """One run.

    Attributes:
        per_s: requests.
        us: microseconds for each request by process, and there by kind of thread.
    """

    per_s: float
    us: dict[str, ThreadTimes]


def thread_times(pid: int) -> ThreadTimes:
    """What the threads of a process have used so far; those of libzmq are named so by it, others have no names."""
    times: Counter[str] = Counter()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            used_us = int((task / "schedstat").read_text(encoding="ascii").split()[0]) / 1e3
            is_libzmq = (task / "comm").read_text(encoding="utf-8").startswith("ZMQbg")
            times["main" if task.name == str(pid) else "libzmq" if is_libzmq else "others"] += used_us
    return dict(times)


@contextlib.contextmanager
def asking(daemon: Daemon, tree: Path, ask: Ask, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """A load in a process of its own, from when it is warm; its line of figures is still to be read."""
    argv = [sys.executable, loads.__file__, ask.load, daemon.address()]
    argv += [str(SIZES[ask.size]), str(ask.in_flight), str(seconds)]
    environ = {**os.environ, "PYTHONPATH": str(tree)}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            if process.stdout.readline() != "go\n":
                raise SystemExit("the load ended before it was warm")
            yield process
            process.stdin.close()
        except BaseException:
            process.kill()
            raise


def spend(daemon: Daemon, tree: Path, ask: Ask, seconds: float) -> Spending:
    """Run a load and count."""
    with asking(daemon, tree, ask, seconds) as process:
        pids = {"client": process.pid, **children(daemon)}
        before = {name: thread_times(pid) for name, pid in pids.items()}
        assert process.stdout is not None
        done = Measurement(**json.loads(process.stdout.readline()))
        after = {name: thread_times(pid) for name, pid in pids.items()}
    us = {
        name: {kind: (used - before[name].get(kind, 0.0)) / done.count for kind, used in times.items()}
        for name, times in after.items()
    }
    return Spending(done.per_s, us)


def children(daemon: Daemon) -> dict[str, int]:
    """Router and worker."""
    return {"router": daemon.status()["router"]["pid"], "worker": daemon.worker("a")["pid"]}


def median(runs: Sequence[Spending]) -> Spending:
    """Of each figure by itself."""
    us = {
        name: {kind: statistics.median(run.us[name].get(kind, 0.0) for run in runs) for kind in times}
        for name, times in runs[0].us.items()
    }
    return Spending(statistics.median(run.per_s for run in runs), us)


HEAD = f"{'SIZE, LOAD, IN FLIGHT':<24} {'PER S':>8} {'US':>6}  {'CLIENT':<32} {'ROUTER':<28} WORKER"


def line(ask: Ask, spending: Spending) -> str:
    """For people; `HEAD` stands above."""
    shown = [_text(spending.us[name]) for name in ("client", "router", "worker")]
    total = sum(sum(times.values()) for times in spending.us.values())
    return f"{ask!s:<24} {spending.per_s:>8.0f} {total:>6.0f}  {shown[0]:<32} {shown[1]:<28} {shown[2]}"


def _text(times: ThreadTimes) -> str:
    parts = [f"{kind} {us:.0f}" for kind, us in times.items() if us >= LEAST_SHOWN_US]
    return f"{sum(times.values()):.0f}: {', '.join(parts)}"


def find_py_spy() -> str | None:
    """The program, where it is installed."""
    return shutil.which("py-spy", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def stages(
    py_spy: str, daemon: Daemon, tree: Path, ask: Ask, seconds: int, spending: Spending
) -> dict[str, list[tuple[str, float]]]:
    """Microseconds for each request by function of trtd, the dearest first, of router and worker.

    py-spy slows what it looks at. So it gives the parts, and a run without it, `spending`, the whole.

    Raises:
        RuntimeError: py-spy may not look, or fails otherwise; with its own words.
    """
    found = {}
    for name, pid in children(daemon).items():
        with tempfile.TemporaryDirectory() as directory, asking(daemon, tree, ask, seconds + 1.0) as process:
            output = Path(directory) / "stacks"
            argv = [py_spy, "record", "--pid", str(pid), "--duration", str(seconds), "--rate", str(SAMPLES_PER_S)]
            argv += ["--threads", "--format", "raw", "--output", str(output)]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 60, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr.strip())
            found[name] = stages_of(output.read_text(encoding="utf-8"), pid, spending.us[name])[:STAGES_SHOWN]
            assert process.stdout is not None
            process.stdout.readline()
    return found


def stages_of(stacks: str, pid: int, us: ThreadTimes) -> list[tuple[str, float]]:
    """The time of each kind of thread, shared out to functions of trtd with what they call outside of it.

    py-spy takes some threads that wait for busy. By kind of thread these get no more than the kernel says they used.

    Args:
        stacks: with a count each, as py-spy writes them.
        pid: of the process, and so of its main thread.
        us: for each request, by kind of thread.
    """
    counts: dict[str, Counter[str]] = {}
    for stack in stacks.splitlines():
        frames, _, count = stack.rpartition(" ")
        thread, *calls = frames.split(";")
        kind = "main" if thread.startswith(f"thread ({pid})") else "others"
        own = next(filter(None, map(_own, reversed(calls))), "outside of trtd")
        counts.setdefault(kind, Counter())[own] += int(count)
    spent: Counter[str] = Counter()
    for kind, each in counts.items():
        for function, count in each.items():
            spent[function] += us.get(kind, 0.0) * count / each.total()
    return spent.most_common()


def _own(frame: str) -> str | None:
    """`router/loop.py run` of a frame `run (trtd/router/loop.py:70)`; None of one that is not trtd's."""
    function, _, place = frame.partition(" (")
    _, is_ours, path = place.rpartition("trtd/")
    return f"{path.partition(':')[0]} {function}" if is_ours else None
