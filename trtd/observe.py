"""What trtd says about itself: structured log lines on stderr, and the names of its metrics.

Entry points call `configure` once; everything else receives or makes a `Logger` by `get_logger`. An event is named
`area.past_tense` and carries values as fields, never inside its name:
`log.info("worker.exited", generation=3, cause="killed")`. Children write to the stderr that they inherit, so that one
stream has the daemon, its children and their native crash texts.

Where that stream is the journal's, each line begins with `<N>`, which journald takes off and keeps as the priority. Its
native protocol would make fields of ours into fields of its own, but through a second socket: beside the crash texts,
out of order with them, and lost when journald is restarted. `journalctl -o cat | jq` finds the fields in the JSON.

structlog is imported by the first line that is written, because its import takes longer than the start of a child: a
child should be ready before it logs. What the metrics count is decided in `trtd.health.exposition`.
"""

from __future__ import annotations

import os
import select
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal, TextIO

Level = Literal["debug", "info", "warning", "error"]

LEVELS: dict[str, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
PRIORITIES: dict[str, int] = {"debug": 7, "info": 6, "warning": 4, "error": 3}
"""The same as syslog numbers them."""
JOURNAL_VARIABLE = "JOURNAL_STREAM"

METRIC_REQUESTS = "trtd_requests_total"
METRIC_REQUEST_DURATION = "trtd_request_duration_seconds"
METRIC_QUEUE_DURATION = "trtd_queue_duration_seconds"
METRIC_QUEUE_DEPTH = "trtd_queue_depth"
METRIC_QUEUE_LIMIT = "trtd_queue_limit"
METRIC_IN_FLIGHT = "trtd_in_flight"
METRIC_HELD_BYTES = "trtd_held_bytes"
METRIC_ARENA_BYTES = "trtd_arena_bytes"
METRIC_ARENAS = "trtd_arenas"
METRIC_ARENA_LIMIT = "trtd_arena_limit_bytes"
METRIC_CONNECTIONS = "trtd_connections"
METRIC_CONNECTIONS_REFUSED = "trtd_connections_refused_total"
METRIC_ACCEPTED = "trtd_accepted_total"
METRIC_ANSWERED = "trtd_answered_total"
METRIC_FAILED = "trtd_failed_total"
METRIC_REFUSED = "trtd_refused_total"
METRIC_REPLAYED = "trtd_replayed_total"
METRIC_EXPIRED = "trtd_expired_total"
METRIC_ABANDONED = "trtd_abandoned_total"
METRIC_TENANT_READY = "trtd_tenant_ready"
METRIC_NOT_REPLACED = "trtd_tenant_replacement_failed"
METRIC_TENANT_INFO = "trtd_tenant_info"
METRIC_WORKER_RESTARTS = "trtd_worker_restarts_total"
METRIC_CONVICTED = "trtd_inputs_convicted_total"
METRIC_EXCUSED = "trtd_worker_deaths_excused_total"
METRIC_BARRED = "trtd_clients_barred"
METRIC_POISONS = "trtd_poisons"
METRIC_WORKER_RECOVERY = "trtd_worker_recovery_duration_seconds"
METRIC_WORKER_READY = "trtd_worker_ready"
METRIC_WORKER_STATE = "trtd_worker_state"
METRIC_WORKER_MEMORY = "trtd_worker_memory_bytes"
METRIC_GPU_MEMORY = "trtd_gpu_memory_bytes"
METRIC_GPU_REFUSED = "trtd_gpu_allocation_refused_total"
METRIC_GPU_MODEL_MEMORY = "trtd_gpu_model_memory_bytes"
METRIC_GPU_ALLOCATIONS = "trtd_gpu_allocations_total"
METRIC_GPU_ALLOCATED = "trtd_gpu_allocated_bytes_total"
METRIC_GPU_MODEL_REFUSED = "trtd_gpu_model_allocation_refused_total"
METRIC_ROUTER_READY = "trtd_router_ready"
METRIC_ROUTER_RESTARTS = "trtd_router_restarts_total"
METRIC_ROUTER_MEMORY = "trtd_router_memory_bytes"
METRIC_READY = "trtd_ready"
METRIC_UPTIME = "trtd_uptime_seconds"
METRIC_BUILD_INFO = "trtd_build_info"


MAX_LINE_BYTES = select.PIPE_BUF - 1
"""Longest line without its end. A pipe takes so much whole, never between two lines of others, or says beforehand that
it cannot."""
_ELLIPSIS = "..."


class _Output:
    """Writes lines to one stream without ever blocking or failing its caller.

    A log reader that stands still must not stand the daemon still, and one that is gone must not end it.

    Attributes:
        stream: where they go.
        dropped: events that could not be written and of which no line has told yet.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.dropped = 0
        self._is_torn = False

    def write(self, line: str) -> bool:
        """Write one line in one system call; False when it was dropped."""
        try:
            if not self._would_take():
                return False
            return self._put(f"\n{line}\n" if self._is_torn else f"{line}\n")
        except (OSError, ValueError):
            return False

    def _put(self, text: str) -> bool:
        """Write past the buffers of the stream, which keep what a full disk refuses; False when a part was written.

        The line after such a part begins on a line of its own.
        """
        try:
            fd = self.stream.fileno()
        except (OSError, ValueError):
            self.stream.write(text)
            return True
        self.stream.flush()
        data = text.encode("utf-8", "backslashreplace")
        self._is_torn = os.write(fd, data) < len(data)
        return not self._is_torn

    def _would_take(self) -> bool:
        """Whether the stream takes a line now. A pipe that polls writable has room for 4,096 bytes."""
        try:
            fd = self.stream.fileno()
        except (OSError, ValueError):
            return True
        poller = select.poll()
        poller.register(fd, select.POLLOUT)
        return bool(poller.poll(0))


@dataclass(frozen=True, slots=True)
class _Configuration:
    output: _Output
    is_json: bool
    is_journal: bool
    least: int
    fields: dict[str, Any]


_configuration: _Configuration | None = None
_line: Callable[[str, str, dict[str, Any]], str] | None = None


def configure(
    log_format: str = "auto", level: str = "info", *, stream: TextIO | None = None, fields: dict[str, Any] | None = None
) -> _Configuration:
    """Decide once per process how log lines look and where they go.

    Args:
        log_format: `console` for people, `json` for one JSON object per line, `auto` for `console` on a terminal only.
        level: least level that is written: `debug`, `info`, `warning` or `error`.
        stream: stderr where it is not given.
        fields: bound to every line of this process.

    Raises:
        ValueError: an unknown format or level.
    """
    global _configuration, _line
    if log_format not in {"auto", "console", "json"}:
        raise ValueError(f"log format is {log_format!r}, not auto, console or json")
    if level not in LEVELS:
        raise ValueError(f"log level is {level!r}, not one of {', '.join(LEVELS)}")
    target = stream if stream is not None else sys.stderr
    is_json = log_format == "json" or (log_format == "auto" and not target.isatty())
    journal = is_journal(target, os.environ)
    _configuration = _Configuration(_Output(target), is_json, journal, LEVELS[level], dict(fields or {}))
    _line = None
    return _configuration


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether the stream goes to journald: the variable names the device and inode of a stream that does."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get(JOURNAL_VARIABLE) == f"{status.st_dev}:{status.st_ino}"


def _render(level: str, event: str, fields: dict[str, Any]) -> None:
    """Send one event through structlog's processors and write the line."""
    global _line
    configuration = _configuration or configure()
    if LEVELS[level] < configuration.least:
        return
    if _line is None:
        _line = _build(configuration)
    output = configuration.output
    dropped = output.dropped
    if dropped and output.write(_line("warning", "log.lines_dropped", {"count": dropped})):
        output.dropped -= dropped
    if not output.write(_line(level, event, fields)):
        output.dropped += 1


def prepare() -> None:
    """Import now what the first line will need. For a process whose loop must not stand still for that; thread-safe."""
    global _line
    if _line is None:
        _line = _build(_configuration or configure())


def _build(configuration: _Configuration) -> Callable[[str, str, dict[str, Any]], str]:
    """The function from level, event and fields to one line of text."""
    import structlog

    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True, key="at")
    is_colored = configuration.output.stream.isatty() and not os.environ.get("NO_COLOR")
    console = structlog.dev.ConsoleRenderer(
        colors=is_colored, timestamp_key="at", exception_formatter=structlog.dev.plain_traceback
    )
    json = structlog.processors.JSONRenderer(default=str)

    def line(level: str, event: str, fields: dict[str, Any]) -> str:
        entry: MutableMapping[str, Any] = {
            **stamp(None, level, {}),
            "level": level,
            "event": event,
            **configuration.fields,
            **fields,
        }
        entry = structlog.processors.format_exc_info(None, level, entry)
        prefix = f"<{PRIORITIES[level]}>" if configuration.is_journal else ""
        most = MAX_LINE_BYTES - len(prefix)
        text = rendered(level, entry)
        while (excess := len(text.encode(errors="backslashreplace")) - most) > 0 and _shorten(entry, excess):
            text = rendered(level, entry)
        return prefix + text

    def rendered(level: str, entry: MutableMapping[str, Any]) -> str:
        # Renderers take the entry apart.
        if configuration.is_json:
            return str(json(None, level, {**entry}))
        return str(console(None, level, {**entry})).replace("\n", " ")

    return line


def _shorten(entry: MutableMapping[str, Any], excess: int) -> bool:
    """Cut at least so many characters out of the longest value, or what it has; False when nothing is left to cut."""
    key = max(entry, key=lambda one: len(str(entry[one])))
    value = str(entry[key])
    kept = max(0, len(value) - excess - len(_ELLIPSIS))
    # The end of a traceback says what happened.
    cut = _ELLIPSIS + value[len(value) - kept :] if key == "exception" else value[:kept] + _ELLIPSIS
    entry[key] = cut
    return len(cut) < len(value)


@dataclass(frozen=True, slots=True)
class Logger:
    """A logger with bound fields. Immutable: `bind` returns a new one. Safe in several threads."""

    fields: tuple[tuple[str, Any], ...] = ()

    def bind(self, **fields: Any) -> Logger:
        """A logger that adds these fields to every line."""
        return Logger(tuple({**dict(self.fields), **fields}.items()))

    def debug(self, event: str, **fields: Any) -> None:
        """Something that helps while looking for a defect."""
        _render("debug", event, {**dict(self.fields), **fields})

    def info(self, event: str, **fields: Any) -> None:
        """Something that happened as it should."""
        _render("info", event, {**dict(self.fields), **fields})

    def warning(self, event: str, **fields: Any) -> None:
        """Something went wrong and trtd deals with it."""
        _render("warning", event, {**dict(self.fields), **fields})

    def error(self, event: str, **fields: Any) -> None:
        """Something went wrong and somebody has to act."""
        _render("error", event, {**dict(self.fields), **fields})


def get_logger(**fields: Any) -> Logger:
    """A logger with these fields bound."""
    return Logger(tuple(fields.items()))


class RateLimit:
    """Lets one event per key through in an interval, and says how many it held back, so that a flood fills no log.

    Keys are bounded too: the one that was seen longest ago is forgotten first.
    """

    def __init__(self, every_s: float, *, max_keys: int = 1024) -> None:
        self._every_s = every_s
        self._max_keys = max_keys
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def take(self, key: str, now: float) -> int | None:
        """None when the event is to be held back, else how many were held back since the last one that was not."""
        passed_at, held = self._seen.get(key, (-float("inf"), 0))
        if now - passed_at < self._every_s:
            self._seen[key] = (passed_at, held + 1)
            return None
        self._seen[key] = (now, 0)
        self._seen.move_to_end(key)
        if len(self._seen) > self._max_keys:
            self._seen.popitem(last=False)
        return held
