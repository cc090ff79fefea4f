"""`trtd doctor`: what a GPU host has, what each TensorRT tenant needs of it, and what to do about the difference.

Each tenant's runtime is examined in a process of its own (`trtd.runtime.examination`), because a wrong library can
crash and a sick device can hang whoever asks it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from typing import Any

from trtd.cli import devices
from trtd.cli.serve import sources
from trtd.cli.terminal import ProgressLine
from trtd.config import load as loading
from trtd.config.model import Config
from trtd.core.faults import ExitStatus, classify_exit
from trtd.errors import ExitCode
from trtd.supervisor.settings import worker_settings
from trtd.wire.settings import WorkerSettings
from trtd.wire.tensorrt import TensorRTSettings

PATIENCE_S = 60.0
MARKS = {"ok": "ok     ", "note": "note   ", "warning": "WARNING", "problem": "PROBLEM"}

Finding = dict[str, str]


def doctor(args: argparse.Namespace) -> list[Finding]:
    """Examine the host for the configuration, or wait for its devices."""
    config = loading.load(sources(args)).config
    if args.wait_for_devices is not None:
        return [devices.wait(config, args.wait_for_devices)]
    return examine_host(config)


def examine_host(config: Config) -> list[Finding]:
    """Examine the host for every tenant of the configuration; without any that uses TensorRT, for its defaults.

    What is missing for TensorRT is no problem then: whoever serves ONNX models on the processor needs none of it.
    """
    workers = list(_workers(config))
    if not workers:
        return [_cpu(), *map(_needed_by_nobody, examine("tensorrt", TensorRTSettings(), [], ""))]
    found = []
    with ProgressLine() as line:
        for index, worker in enumerate(workers):
            line.show({"examining": worker.tenant, "left": len(workers) - index})
            plans = [(f"{worker.tenant}/{model.name} {model.version}", model.path) for model in worker.models]
            found += examine(worker.runtime, worker.tensorrt or TensorRTSettings(), plans, f"{worker.tenant}: ")
    return found


def _workers(config: Config) -> Iterator[WorkerSettings]:
    for name, tenant in config.tenants.items():
        if tenant.runtime.startswith("tensorrt"):
            yield worker_settings(config, name, replica=0, generation=0, log_format="console")


def examine(flavour: str, settings: TensorRTSettings, plans: list[tuple[str, str]], where: str) -> list[Finding]:
    """The findings of one examination; one that crashes or hangs is a finding itself."""
    order = json.dumps({"flavour": flavour, "settings": asdict(settings), "plans": plans})
    try:
        outcome = subprocess.run(
            [sys.executable, "-P", "-m", "trtd.runtime.examination"],
            input=order,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        found: list[Finding] = json.loads(outcome.stdout) if outcome.returncode == 0 else [_crash(outcome)]
    except subprocess.TimeoutExpired:
        advice = "The device or its driver hangs: look at `dmesg` for Xid, and at `nvidia-smi`."
        found = [_problem(flavour, f"no end of the examination within {PATIENCE_S:g} s", advice)]
    return [{**finding, "area": where + finding["area"]} for finding in found]


def _cpu() -> Finding:
    """The runtime that needs no device."""
    try:
        return _finding("onnxruntime", "ok", f"ONNX Runtime {metadata.version('onnxruntime')} serves ONNX models here")
    except metadata.PackageNotFoundError:
        return _problem("onnxruntime", "the package is missing", "Install trtd with its dependencies.")


def _needed_by_nobody(finding: Finding) -> Finding:
    if finding["level"] != "problem":
        return finding
    return {**finding, "level": "note", "advice": "No tenant of the configuration needs it."}


def _crash(outcome: subprocess.CompletedProcess[str]) -> Finding:
    code = outcome.returncode
    fault = classify_exit(ExitStatus(signal=-code) if code < 0 else ExitStatus(code=code))
    last = outcome.stderr.strip().splitlines()[-1:] or [""]
    return _problem("examination", f"{fault.message}: {last[0]}", "The library may not fit the driver.")


def _problem(area: str, text: str, advice: str) -> Finding:
    return _finding(area, "problem", text, advice)


def _finding(area: str, level: str, text: str, advice: str = "") -> Finding:
    return {"area": area, "level": level, "text": text, "advice": advice}


def show(found: list[Finding], args: argparse.Namespace) -> int:
    """Print the findings; 69 where one of them is a problem."""
    has_problem = any(finding["level"] == "problem" for finding in found)
    if args.json:
        verdict: dict[str, Any] = {"v": 1, "ok": not has_problem, "findings": found}
        print(json.dumps(verdict, indent=2))
    else:
        for finding in found:
            advice = f" {finding['advice']}" if finding["advice"] else ""
            print(f"{MARKS[finding['level']]}  {finding['area']}: {finding['text'].rstrip('.')}.{advice}")
    return ExitCode.UNAVAILABLE if has_problem else ExitCode.OK
