"""Status records with defaults, as `trtd.supervisor.status` writes them."""

from __future__ import annotations

from typing import Any

from trtd.wire.status import ChildStatus, CounterStatus, RecentStatus, Status, TenantStatus


def make_child(name: str = "a/0", **changes: Any) -> ChildStatus:
    child: dict[str, Any] = {
        "name": name, "state": "ready", "desired": "up", "since_s": 12.0, "uptime_s": 12.5, "pid": 4242,
        "generation": 3, "restarts": 2, "deaths_in_window": 0, "device_deaths_in_window": 0, "restart_in_s": None,
        "is_stopped": False, "last_fault": None,
        "rss_bytes": 64 * 1024**2, "peak_rss_bytes": 65 * 1024**2, "memory_limit_bytes": 0,
        "memory_enforcement": "none", "progress": 1, "in_flight": 0, "recovery_s": None, "load_s": 0.5, "history": [],
        "device": None, "role": "member",
    }  # fmt: skip
    return ChildStatus(**(child | changes))  # type: ignore[typeddict-item]


def make_tenant(name: str = "a", **changes: Any) -> TenantStatus:
    tenant: dict[str, Any] = {
        "name": name, "phase": "serving", "health": "ready", "is_ready": True, "is_required": True, "gate": "open",
        "is_available": True,
        "reason": "", "runtime": "onnxruntime 1", "models": [], "workers": [make_child(f"{name}/0")],
        "replacement": None, "queued": 4,
        "leased": 5, "held_bytes": 6, "arena_bytes": 0, "arena_count": 0, "arena_limit_bytes": 1024**3,
        "connections": 3, "connections_refused": 0,
        "counters": CounterStatus(
            accepted=0, answered=0, failed=0, refused=0, resent=0, replayed=0, expired=0, stale=0, abandoned=0,
            convicted=0, excused=0,
        ), "recent": RecentStatus(per_s=1234.5, p50_s=0.0012, p99_s=None), "address": f"ipc:///run/{name}.sock",
        "poisons": 0, "barred": [],
        "tcp_address": None, "isolation": "process", "placement": "cpu", "queue_limit": 1024,
        "engines": [{"model": "m", "version": "1", "file": "/srv/models/m.onnx", "signature": "unsigned"}],
        "plugin_libraries": [],
    }  # fmt: skip
    return TenantStatus(**(tenant | changes))  # type: ignore[typeddict-item]


def make_status(*tenants: TenantStatus, health: str | None = None) -> Status:
    is_ready = all(tenant["health"] == "ready" for tenant in tenants)
    return Status(
        v=1,
        at="2026-01-01T00:00:00.000Z",
        health=health or ("ready" if is_ready else "degraded"),
        is_ready=is_ready,
        daemon={
            "pid": 7, "version": "0.1.0", "started_at": "2026-01-01T00:00:00.000Z", "uptime_s": 90.0,
            "is_stopping": False, "config_files": [], "runtime_dir": "/run/trtd", "memory_limits": "",
        },
        router=make_child("router", pid=8, generation=1, rss_bytes=1024**2),
        tenants=list(tenants),
    )  # fmt: skip
