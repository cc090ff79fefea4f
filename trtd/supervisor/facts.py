"""What was seen of the children and told to the router, beside the fleet's own state: for status, metrics and logs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from trtd.core.histogram import Histogram
from trtd.supervisor.totals import TenantTotals
from trtd.wire.control import TrialBegun
from trtd.wire.headers import one_line
from trtd.wire.messages import ModelDescription
from trtd.wire.settings import Trial
from trtd.wire.tensorrt import DeviceReport

MAX_TRIALS = 1024
"""Most outcomes that are remembered for a tenant."""
MAX_KEY_LENGTH = 64


@dataclass(slots=True)
class ChildFacts:
    """About one child, worker or router.

    Attributes:
        spawned_at: when the present process was started; None when there is none.
        death_at: when the former process ended and a successor is expected; None otherwise.
        has_waited: whether that successor was held back (backoff, quarantine), or was asked for.
        recovery_s: last time from a death to the successor's main().
        rss_bytes: resident memory, as the child last said.
        peak_rss_bytes: highest so far.
        limit_bytes: memory limit of the present process; 0 for none.
        enforcement: what holds the limit: `cgroup`, `rss` or `none`.
        runtime: name and version of the runtime of a worker that became ready.
        models: what that worker serves.
        load_s: seconds that it needed to become ready.
        progress: batches completed by the present process (for the router: turns of its loop).
        device: device memory of the present process, None for a runtime without a device.
        trial: what it tries at the moment and may die of, None when nothing.
    """

    spawned_at: float | None = None
    death_at: float | None = None
    has_waited: bool = False
    recovery_s: float | None = None
    rss_bytes: int = 0
    peak_rss_bytes: int = 0
    limit_bytes: int = 0
    enforcement: str = "none"
    runtime: str = ""
    models: tuple[ModelDescription, ...] = ()
    load_s: float | None = None
    progress: int = 0
    device: DeviceReport | None = None
    trial: TrialBegun | None = None

    def begin(self, now: float, limit_bytes: int, enforcement: str) -> None:
        """A new process fills the place."""
        self.spawned_at = now
        self.rss_bytes = self.peak_rss_bytes = self.progress = 0
        self.limit_bytes = limit_bytes
        self.enforcement = enforcement
        self.load_s = None
        self.device = None
        self.trial = None

    def end(self, at: float) -> None:
        """The process is gone."""
        self.spawned_at = None
        self.death_at = at
        self.rss_bytes = 0
        self.device = None

    def greet(self, main_at: float) -> float | None:
        """Our code runs in the successor: how long after the death, None without one before it."""
        if self.death_at is None:
            return None
        self.recovery_s = max(0.0, main_at - self.death_at)
        self.death_at = None
        return self.recovery_s


class Trials:
    """Outcomes of running models on inputs that nobody sent, for workers to come; the oldest is forgotten first."""

    def __init__(self) -> None:
        self._known: dict[str, Trial] = {}

    @property
    def known(self) -> tuple[Trial, ...]:
        """All of it."""
        return tuple(self._known.values())

    def note(self, trial: Trial) -> None:
        """Remember an outcome; one without a key is told in vain."""
        if not trial.key:
            return
        self._known.pop(trial.key, None)
        # What a worker says is bounded: it runs code that came with a model.
        batching = one_line(trial.batching)
        self._known[trial.key[:MAX_KEY_LENGTH]] = Trial(trial.key[:MAX_KEY_LENGTH], batching, trial.is_harmful)
        if len(self._known) > MAX_TRIALS:
            del self._known[next(iter(self._known))]


@dataclass(slots=True)
class TenantFacts:
    """About one tenant.

    Attributes:
        totals: the router's numbers.
        is_open: what the router was last told of its gate.
        is_available: what the router was last told of its workers.
        reason: why it is not available.
        restarts: deaths of workers that were followed by a restart, by the kind of their fault and who is blamed.
        excused: deaths of workers that a client's input caused, so that nobody was charged.
        recoveries: times from a death to the successor's main(), of successors that were started at once.
        trials: what its workers have found out about their models.
    """

    totals: TenantTotals
    is_open: bool = False
    is_available: bool = False
    reason: str = ""
    restarts: Counter[tuple[str, str]] = field(default_factory=Counter)
    excused: int = 0
    recoveries: Histogram = field(default_factory=Histogram)
    trials: Trials = field(default_factory=Trials)


@dataclass(slots=True)
class Facts:
    """Everything that was seen."""

    children: dict[str, ChildFacts] = field(default_factory=dict)
    tenants: dict[str, TenantFacts] = field(default_factory=dict)

    def child(self, name: str) -> ChildFacts:
        """The facts of a child; new where nothing was seen yet."""
        return self.children.setdefault(name, ChildFacts())

    def tenant(self, name: str, now: float) -> TenantFacts:
        """The facts of a tenant; new where nothing was seen yet."""
        found = self.tenants.get(name)
        if found is None:
            found = self.tenants[name] = TenantFacts(TenantTotals(now))
        return found

    def forget_tenant(self, name: str) -> None:
        """A tenant is no longer served: nothing is kept of it, so that names that come and go use no memory."""
        self.tenants.pop(name, None)
        for child in [child for child in self.children if child.startswith(f"{name}/")]:
            self.forget_child(child)

    def forget_child(self, name: str) -> None:
        """A worker's place is gone; one with the same number starts with nothing known."""
        self.children.pop(name, None)
