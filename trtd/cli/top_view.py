"""The screen of `trtd top`: from status records to a picture that rich draws. Reads nothing and asks nobody."""

from __future__ import annotations

import textwrap
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from trtd.cli.picture import unsigned
from trtd.cli.values import NOTHING, duration, size
from trtd.wire.status import Status, summary

SPARKS = "▁▂▃▄▅▆▇█"
HISTORY = 24
SAMPLES = 4
"""Records over which throughput is measured: the router tells its counts once a second, at instants of its own."""
BAR_CELLS = 10
HIGH = 0.8
"""Part of a limit above which a bar warns."""
WIDE_COLUMNS = 100
WIDEST_COLUMNS = 130
STYLES = {"ready": "green", "degraded": "yellow", "waiting": "yellow", "draining": "yellow", "drained": "dim"}
KEYS = "q quit   s sort   r reverse"

SORT_KEYS: dict[str, Callable[[Mapping[str, Any], float], Any]] = {
    "name": lambda tenant, _: tenant["name"],
    "req/s": lambda _, rate: -rate,
    "p99": lambda tenant, _: -(tenant["recent"]["p99_s"] or 0.0),
    "queue": lambda tenant, _: -tenant["queued"],
    "memory": lambda tenant, _: -sum(worker["rss_bytes"] for worker in tenant["workers"]),
    "restarts": lambda tenant, _: -_restarts(tenant),
}
"""What rows can be sorted by; what is most in need of a look comes first."""


class _Sample(NamedTuple):
    uptime_s: float
    answers: int


@dataclass(slots=True)
class Screen:
    """What is shown, and how.

    Attributes:
        record: the newest status record, None before the first one.
        error: why there is no newer one.
        sort: key of `SORT_KEYS`.
        is_reversed: whether the last row comes first.
        rates: answers per second by tenant, measured over the last few records, newest last.
    """

    record: Mapping[str, Any] | None = None
    error: str | None = None
    sort: str = "name"
    is_reversed: bool = False
    rates: dict[str, deque[float]] = field(default_factory=dict)
    _samples: dict[str, deque[_Sample]] = field(default_factory=dict)

    def take(self, record: Mapping[str, Any]) -> None:
        """Show this record from now on, and measure what happened since those before."""
        uptime_s = record["daemon"]["uptime_s"]
        names = {tenant["name"] for tenant in record["tenants"]}
        for name in self.rates.keys() - names:
            del self.rates[name], self._samples[name]
        for tenant in record["tenants"]:
            samples = self._samples.setdefault(tenant["name"], deque(maxlen=SAMPLES))
            answers = _answers(tenant)
            if samples and (uptime_s <= samples[-1].uptime_s or answers < samples[-1].answers):
                # Another daemon counts from zero.
                samples.clear()
            samples.append(_Sample(uptime_s, answers))
            first = samples[0]
            measured = (answers - first.answers) / (uptime_s - first.uptime_s) if len(samples) > 1 else None
            rates = self.rates.setdefault(tenant["name"], deque(maxlen=HISTORY))
            rates.append(tenant["recent"]["per_s"] if measured is None else measured)
        self.record, self.error = record, None

    def press(self, key: str) -> bool:
        """Do what a key means; False when it is the end."""
        if key == "s":
            names = list(SORT_KEYS)
            self.sort = names[(names.index(self.sort) + 1) % len(names)]
        elif key == "r":
            self.is_reversed = not self.is_reversed
        return key != "q"

    def picture(self, width: int, height: int) -> RenderableType:
        """The screen in so many columns and lines."""
        if self.record is None:
            return Text(self.error or "asking the daemon", style="red" if self.error else "", overflow="ellipsis")
        head = [_line(summary(cast("Status", self.record)), "bold"), _daemon_line(self.record)]
        said = [(self.error, "bold red")] if self.error else []
        wrapped = [
            _line(line, style)
            for text, style in [*said, *_notes(self.record)]
            for line in textwrap.wrap(text, width, subsequent_indent="  ")
        ]
        notes = wrapped[: max(0, height // 3)]
        room = max(1, height - len(head) - len(notes) - 3)
        tenants = self._sorted()
        left = len(tenants) - room
        if left > 0:
            room -= 1
            notes.insert(0, _line(f"and {left + 1} more", "dim"))
        keys = _line(f"{KEYS}   sorted by {self.sort}{', reversed' if self.is_reversed else ''}", "dim")
        return Group(*head, Text(""), self._table(tenants[:room], width), *notes, keys)

    def _sorted(self) -> list[Mapping[str, Any]]:
        assert self.record is not None  # noqa: S101 - `picture` has looked
        by = SORT_KEYS[self.sort]
        return sorted(
            self.record["tenants"],
            key=lambda tenant: (by(tenant, self.rates[tenant["name"]][-1]), tenant["name"]),
            reverse=self.is_reversed,
        )

    def _table(self, tenants: list[Mapping[str, Any]], width: int) -> Table:
        is_wide, is_widest = width >= WIDE_COLUMNS, width >= WIDEST_COLUMNS
        table = Table(box=None, expand=False, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
        table.add_column("TENANT", no_wrap=True, overflow="ellipsis", max_width=24 if is_wide else 14)
        table.add_column("STATE", no_wrap=True, overflow="ellipsis", min_width=8)
        table.add_column("REQ/S", justify="right", no_wrap=True)
        if is_wide:
            table.add_column("", no_wrap=True)
            table.add_column("P50", justify="right", no_wrap=True)
        table.add_column("P99", justify="right", no_wrap=True)
        table.add_column("QUEUE", no_wrap=True)
        table.add_column("MEMORY", no_wrap=True)
        table.add_column("RST", justify="right", no_wrap=True)
        if is_widest:
            table.add_column("LAST FAULT", no_wrap=True, overflow="ellipsis")
        for tenant in tenants:
            rates, recent = self.rates[tenant["name"]], tenant["recent"]
            state = Text(tenant["health"], style=STYLES.get(tenant["health"], "bold red"))
            row: list[RenderableType] = [tenant["name"], state, f"{rates[-1]:.4g}"]
            if is_wide:
                row += [Text(sparkline(rates), style="cyan"), duration(recent["p50_s"])]
            row += [duration(recent["p99_s"]), _queue(tenant), _memory(tenant), str(_restarts(tenant))]
            if is_widest:
                row.append(_last_fault(tenant))
            table.add_row(*row)
        return table


def sparkline(values: deque[float]) -> str:
    """A line of small bars, the newest at the right, the highest one full."""
    most = max(values, default=0.0)
    return "".join(SPARKS[round(value / most * (len(SPARKS) - 1))] if most else SPARKS[0] for value in values)


def gauge(part: float, text: str) -> Text:
    """A bar of which a part is full, and the figures behind it; it warns when it is nearly full."""
    full = round(min(1.0, max(0.0, part)) * BAR_CELLS)
    style = "red" if part >= HIGH else "green"
    return Text.assemble(("█" * full, style), ("·" * (BAR_CELLS - full), "dim"), " ", text)


def _queue(tenant: Mapping[str, Any]) -> Text:
    held, limit = tenant["queued"] + tenant["leased"], tenant["queue_limit"]
    return gauge(held / limit if limit else 0.0, f"{tenant['queued']}+{tenant['leased']}")


def _memory(tenant: Mapping[str, Any]) -> Text:
    """Device memory against the watermark where there is a device, else host memory against its limit."""
    devices = [worker["device"] for worker in tenant["workers"] if worker["device"]]
    if devices:
        used, limit = sum(d["live_bytes"] for d in devices), sum(d["hard_bytes"] for d in devices)
        rests = [d["unaccounted_bytes"] for d in devices]
        more = "+? gpu" if None in rests else f"+{size(sum(rests))} gpu" if sum(rests) else " gpu"
    else:
        used = sum(worker["rss_bytes"] for worker in tenant["workers"])
        limit, more = sum(worker["memory_limit_bytes"] for worker in tenant["workers"]), ""
    if not used:
        return Text(NOTHING)
    return gauge(used / limit, f"{size(used)}/{size(limit)}{more}") if limit else Text(f"{size(used)}{more}")


def _restarts(tenant: Mapping[str, Any]) -> int:
    return sum(worker["restarts"] for worker in tenant["workers"])


def _answers(tenant: Mapping[str, Any]) -> int:
    return int(tenant["counters"]["answered"] + tenant["counters"]["failed"])


def _last_fault(tenant: Mapping[str, Any]) -> str:
    faults = [worker["last_fault"] for worker in tenant["workers"] if worker["last_fault"]]
    return str(faults[-1]["message"] or faults[-1]["kind"]) if faults else NOTHING


def _daemon_line(record: Mapping[str, Any]) -> Text:
    daemon, router = record["daemon"], record["router"]
    return _line(
        f"daemon pid {daemon['pid']}, up {duration(daemon['uptime_s'])}; router {router['state']}, "
        f"{router['restarts']} restarts, {size(router['rss_bytes'])}"
    )


def _notes(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What does not fit the table: why tenants cannot serve, what ended their workers, that nobody signs engines."""
    notes = []
    for tenant in record["tenants"]:
        if tenant["reason"]:
            notes.append((f"{tenant['name']}: {tenant['reason']}", "red"))
        elif (replacement := tenant.get("replacement")) and replacement["state"] == "failed":
            notes.append((f"{tenant['name']}: not replaced: {replacement['reason']}", "red"))
        elif _restarts(tenant) and _last_fault(tenant) != NOTHING:
            notes.append((f"{tenant['name']}: last fault: {_last_fault(tenant)}", ""))
    notes += [(line, "dim") for line in unsigned(record)]
    return notes


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
