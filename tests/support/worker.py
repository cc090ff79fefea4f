"""Builders of what a worker is told, with defaults, and of model files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trtd.wire.settings import ModelSettings, ProbeSettings, WorkerSettings


def write_script(path: Path, **fields: Any) -> Path:
    """A script for the scripted runtime: by default the identity from `x` to `y`, float32 [N, 4]."""
    script = {"inputs": [{"name": "x", "dtype": "float32", "shape": [None, 4]}], "outputs": ["y"], **fields}
    path.write_text(json.dumps(script))
    return path


def make_model_settings(
    path: Path | str,
    *,
    name: str = "m",
    version: str = "1",
    max_batch: int = 8,
    max_delay_s: float = 0.0,
    probe: ProbeSettings | None = None,
    **fields: Any,
) -> ModelSettings:
    """Settings of one model."""
    return ModelSettings(name, version, str(path), max_batch, max_delay_s, probe, **fields)


def make_worker_settings(*models: ModelSettings, **fields: Any) -> WorkerSettings:
    """Settings of one worker of the scripted runtime."""
    defaults: dict[str, Any] = {
        "tenant": "a",
        "replica": 0,
        "generation": 1,
        "runtime": "scripted",
        "models": models,
        "slots": 1,
        "threads": 1,
        "router_path": "/nonexistent/workers.sock",
        "beat_every_s": 0.05,
        "memory_limit_bytes": 0,
        "log_format": "console",
        "log_level": "info",
    }
    return WorkerSettings(**{**defaults, **fields})
