"""The picture of a status record: one row for each worker, then what is wrong, what it means, and the daemon itself."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, cast

from trtd.cli.table import Column, fit
from trtd.cli.values import NOTHING, UNKNOWN, duration, size
from trtd.wire.status import Status, summary

RESET = "\x1b[0m"
FAINT = "\x1b[2m"
COLOURS = {"ready": "\x1b[32m", "degraded": "\x1b[33m", "waiting": "\x1b[33m", "draining": "\x1b[33m"}
MEMBER = "member"
"""Role of the workers that a tenant is to have."""
OTHER_COLOUR = "\x1b[31m"

COLUMNS = (
    Column("TENANT", 0, is_text=True, least=8),
    Column("STATE", 0, is_text=True, least=28),
    Column("SINCE", 7),
    Column("PID", 8),
    Column("GEN", 10),
    Column("RESTARTS", 2),
    Column("LAST CAUSE", 6, is_text=True, least=16, most=40),
    Column("QUEUE", 1),
    Column("IN FLIGHT", 5),
    Column("REQ/S", 1),
    Column("P50", 9),
    Column("P99", 3),
    Column("MEMORY", 4),
    Column("GPU MEMORY", 4, is_rare=True),
    Column("UNACCOUNTED", 11, is_rare=True),
    Column("PLACEMENT", 12, is_text=True),
    Column("ENGINE", 14, is_text=True, least=12, most=40),
)


def status_lines(record: Mapping[str, Any], *, colour: bool, width: int | None = None) -> list[str]:
    """The picture.

    Args:
        record: a status record.
        colour: whether rows have the colour of their state.
        width: most characters of a line; None for no limit.
    """
    tenants = record["tenants"]
    states = [state for tenant in tenants for state in _states(tenant)]
    table = fit(COLUMNS, [row for tenant in tenants for row in _tenant_rows(tenant)], width)
    lines = table.lines
    if colour:
        lines = [lines[0], *(_coloured(line, state) for line, state in zip(lines[1:], states, strict=True))]
    lines += _wrapped((f"{tenant['name']}: {tenant['reason']}" for tenant in tenants if tenant["reason"]), width)
    lines += _wrapped(_stopped(record), width)
    lines += _wrapped(_replacements(record), width)
    if "LAST CAUSE" in {*table.hidden, *table.cut}:
        lines += _wrapped(_causes(record), width)
    lines += _wrapped(_lonely(record), width)
    lines += [_faint(line, colour=colour) for line in _wrapped(unsigned(record), width)]
    lines += _wrapped(_plugins(record), width)
    if any(
        worker["device"] and worker["device"]["is_hard_derived"] for tenant in tenants for worker in tenant["workers"]
    ):
        lines += _wrapped(["* watermark derived from what the models need; tensorrt.hard_bytes sets one"], width)
    if table.hidden:
        lines += _wrapped([f"not shown at this width: {', '.join(table.hidden)} (--wide)"], width)
    return lines + _wrapped([summary(cast("Status", record)), _daemon(record)], width)


def _tenant_rows(tenant: Mapping[str, Any]) -> Iterator[list[str]]:
    recent = tenant["recent"]
    queue = [str(tenant["queued"]), str(tenant["leased"])]
    traffic = [f"{recent['per_s']:.4g}", duration(recent["p50_s"]), duration(recent["p99_s"])]
    what = [f"{tenant['placement']}, {tenant['isolation']}", _engine(tenant)]
    workers = tenant["workers"]
    if not workers:
        yield [tenant["name"], tenant["health"], *[NOTHING] * 5, *queue, *traffic, *[NOTHING] * 3, *what]
        return
    for index, (worker, state) in enumerate(zip(workers, _states(tenant), strict=True)):
        is_first = index == 0
        yield [
            tenant["name"] if is_first else worker["name"],
            state,
            duration(worker["since_s"]),
            str(worker["pid"] or NOTHING),
            str(worker["generation"]),
            str(worker["restarts"]),
            _cause(worker) or NOTHING,
            *(queue if is_first else [NOTHING] * len(queue)),
            *(traffic if is_first else [NOTHING] * len(traffic)),
            _used(worker["rss_bytes"], worker["memory_limit_bytes"]),
            *_device(worker["device"]),
            *(what if is_first else [NOTHING] * len(what)),
        ]


def _states(tenant: Mapping[str, Any]) -> list[str]:
    """What each row of the tenant says about its state; the first one speaks for the tenant."""
    health, workers = tenant["health"], tenant["workers"]
    if not workers:
        return [health]
    first = workers[0]
    if first["state"] in {health, "ready"} or health in {"drained", "draining"}:
        word = health
    else:
        wait = first["restart_in_s"]
        word = f"{health}: {first['state']}" + (f" {duration(wait)}" if wait else "")
    return [word, *(_other_state(worker) for worker in workers[1:])]


def _other_state(worker: Mapping[str, Any]) -> str:
    state, role = str(worker["state"]), worker.get("role", MEMBER)
    return state if role == MEMBER else f"{state} ({role})"


def _replacements(record: Mapping[str, Any]) -> Iterator[str]:
    for tenant in record["tenants"]:
        replacement = tenant.get("replacement")
        if replacement and replacement["state"] == "failed":
            yield f"{tenant['name']}: not replaced: {replacement['reason']}"


def _stopped(record: Mapping[str, Any]) -> Iterator[str]:
    for tenant in record["tenants"]:
        for worker in tenant["workers"]:
            if worker.get("is_stopped"):
                yield f"{worker['name']}: stopped by a signal or a debugger; `kill -CONT {worker['pid']}` lets it go on"


def _cause(worker: Mapping[str, Any]) -> str:
    fault = worker["last_fault"]
    return "" if fault is None else str(fault["message"] or fault["kind"])


def _causes(record: Mapping[str, Any]) -> Iterator[str]:
    for tenant in record["tenants"]:
        for worker in tenant["workers"]:
            # The reason of a tenant that cannot serve has the cause in it.
            if _cause(worker) and _cause(worker) not in tenant["reason"]:
                yield f"{worker['name']}: last cause: {_cause(worker)}"


def _used(used_bytes: int, limit_bytes: int) -> str:
    if not used_bytes:
        return NOTHING
    return size(used_bytes) + (f"/{size(limit_bytes)}" if limit_bytes else "")


def _device(report: Mapping[str, Any] | None) -> tuple[str, str]:
    if report is None:
        return NOTHING, NOTHING
    unaccounted = report["unaccounted_bytes"]
    # A watermark that nobody configured is marked.
    mark = "*" if report["is_hard_derived"] else ""
    beside = UNKNOWN if unaccounted is None else size(unaccounted) if unaccounted else NOTHING
    return _used(report["live_bytes"], report["hard_bytes"]) + mark, beside


def _engine(tenant: Mapping[str, Any]) -> str:
    return ", ".join(sorted({PurePath(engine["file"]).name for engine in tenant["engines"]})) or NOTHING


def _plugins(record: Mapping[str, Any]) -> Iterator[str]:
    for tenant in record["tenants"]:
        if tenant["plugin_libraries"]:
            yield f"{tenant['name']}: plugin libraries run in its workers: {', '.join(tenant['plugin_libraries'])}"


def unsigned(record: Mapping[str, Any]) -> list[str]:
    """That nobody vouches for engines, said once: there is no way to sign one yet, and so nothing to do about it."""
    signatures = {engine["signature"] for tenant in record["tenants"] for engine in tenant["engines"]}
    return ["Engines are not signed: who can write their files decides what runs."] if "unsigned" in signatures else []


def _lonely(record: Mapping[str, Any]) -> Iterator[str]:
    """Models whose requests are not joined, and why; not those for which the configuration says so."""
    for tenant in record["tenants"]:
        for model in tenant["models"]:
            if model["batching"].startswith("alone"):
                reason = model["batching"].partition(": ")[2]
                yield f"{tenant['name']}: requests of {model['name']} {model['version']} run alone: {reason}"


def _daemon(record: Mapping[str, Any]) -> str:
    daemon, router = record["daemon"], record["router"]
    return (
        f"daemon pid {daemon['pid']}, up {duration(daemon['uptime_s'])}; router {router['state']}, "
        f"pid {router['pid'] or NOTHING}, generation {router['generation']}, {size(router['rss_bytes'])}"
    )


def _wrapped(texts: Iterator[str] | list[str], width: int | None) -> list[str]:
    if width is None:
        return list(texts)
    return [line for text in texts for line in textwrap.wrap(text, width, subsequent_indent="  ")]


def _coloured(line: str, state: str) -> str:
    return f"{COLOURS.get(state, OTHER_COLOUR)}{line}{RESET}"


def _faint(line: str, *, colour: bool) -> str:
    return f"{FAINT}{line}{RESET}" if colour else line
