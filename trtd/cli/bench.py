"""`trtd bench`: a closed loop against one model. Each of N callers sends its next request when it has its answer.

One caller is a plain blocking loop, which is the fastest way to wait; more are tasks of one event loop, so that the
interpreter's lock is not what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trtd.cli import tensors
from trtd.cli.exits import EXIT_CODES
from trtd.cli.operator import find_runtime_dir
from trtd.cli.values import duration
from trtd.client import Client, aio
from trtd.client.sync import address_of
from trtd.client.values import Tensor
from trtd.errors import ErrorCode, ExitCode, TrtdError, Usage

DEFAULT_SECONDS = 5.0
QUANTILES = {"p50_s": 0.5, "p90_s": 0.9, "p99_s": 0.99, "max_s": 1.0}


@dataclass(slots=True)
class Loop:
    """What one closed loop is to do, and what it saw.

    Attributes:
        ends_at: instant after which nothing is sent.
        requests_left: how many may still be sent.
        latencies_s: of answers, in the order of their arrival.
        errors: by code.
    """

    ends_at: float
    requests_left: float = float("inf")
    latencies_s: list[float] = field(default_factory=list)
    errors: Counter[ErrorCode] = field(default_factory=Counter)

    def takes_turn(self) -> bool:
        """Whether one more request is to be sent; counts it."""
        if self.requests_left < 1 or time.monotonic() >= self.ends_at:
            return False
        self.requests_left -= 1
        return True


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one run. Latencies are those of answers; errors are counted apart."""

    model: str
    concurrency: int
    batch: int
    elapsed_s: float
    latencies_s: list[float]
    errors: dict[ErrorCode, int]

    def figures(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        answered = len(self.latencies_s)
        ordered = sorted(self.latencies_s)
        return {
            "v": 1,
            "model": self.model,
            "concurrency": self.concurrency,
            "batch": self.batch,
            "elapsed_s": round(self.elapsed_s, 6),
            "answered": answered,
            "failed": sum(self.errors.values()),
            "errors": {str(code): count for code, count in sorted(self.errors.items())},
            "answers_per_s": round(answered / self.elapsed_s, 3),
            "items_per_s": round(answered * self.batch / self.elapsed_s, 3),
            **{name: quantile(ordered, part) for name, part in QUANTILES.items()},
        }


def quantile(ordered: list[float], part: float) -> float | None:
    """The smallest value that `part` of all values do not exceed; None without any."""
    if not ordered:
        return None
    return round(ordered[math.ceil(part * len(ordered)) - 1], 9)


def bench(args: argparse.Namespace) -> Report:
    """Warm up, then measure."""
    if args.seconds is not None and args.requests is not None:
        raise Usage("trtd bench: give --seconds or --requests, not both")
    if args.bare:
        from trtd.cli.bare import bench_bare

        return bench_bare(args)
    runtime_dir = find_runtime_dir(args.runtime_dir)
    with tensors.open_client(args.tenant, runtime_dir, args.timeout) as client:
        description = tensors.describe(client, args.model, args.version)
        inputs = tensors.make_inputs(description, args.input, args.shape, batch=args.batch)
        if args.concurrency == 1:
            elapsed_s, loop = _measure_one(client, args, inputs)
        else:
            elapsed_s, loop = asyncio.run(_measure_many(address_of(args.tenant, runtime_dir), args, inputs))
    return Report(args.model, args.concurrency, args.batch, elapsed_s, loop.latencies_s, dict(loop.errors))


def _new_loop(args: argparse.Namespace) -> Loop:
    if args.requests is not None:
        return Loop(ends_at=float("inf"), requests_left=args.requests)
    return Loop(ends_at=time.monotonic() + (args.seconds or DEFAULT_SECONDS))


def _measure_one(client: Client, args: argparse.Namespace, inputs: Mapping[str, Tensor]) -> tuple[float, Loop]:
    def run(loop: Loop) -> Loop:
        while loop.takes_turn():
            began_at = time.perf_counter()
            try:
                client.infer(args.model, inputs, version=args.version)
            except TrtdError as error:
                loop.errors[error.code] += 1
            else:
                loop.latencies_s.append(time.perf_counter() - began_at)
        return loop

    run(Loop(ends_at=time.monotonic() + args.warmup))
    began_at = time.monotonic()
    loop = run(_new_loop(args))
    return time.monotonic() - began_at, loop


async def _measure_many(address: str, args: argparse.Namespace, inputs: Mapping[str, Tensor]) -> tuple[float, Loop]:
    async with aio.Client(address, timeout=args.timeout) as client:

        async def call(loop: Loop) -> None:
            while loop.takes_turn():
                began_at = time.perf_counter()
                try:
                    await client.infer(args.model, inputs, version=args.version)
                except TrtdError as error:
                    loop.errors[error.code] += 1
                else:
                    loop.latencies_s.append(time.perf_counter() - began_at)

        async def run(loop: Loop) -> Loop:
            await asyncio.gather(*(call(loop) for _ in range(args.concurrency)))
            return loop

        await run(Loop(ends_at=time.monotonic() + args.warmup))
        began_at = time.monotonic()
        loop = await run(_new_loop(args))
        return time.monotonic() - began_at, loop


def show(report: Report, args: argparse.Namespace) -> int:
    """Print the figures. Without a single answer the exit code is that of the most frequent error."""
    figures = report.figures()
    if args.json:
        print(json.dumps(figures, indent=2))
    else:
        print(
            f"{figures['answered']} answers in {duration(report.elapsed_s)} from {report.concurrency} callers, "
            f"batch {report.batch}"
        )
        print(f"throughput  {figures['answers_per_s']:.1f} answers/s, {figures['items_per_s']:.1f} items/s")
        print("latency     " + ", ".join(f"{name[:-2]} {duration(figures[name])}" for name in QUANTILES))
        told = ", ".join(f"{code} {count}" for code, count in figures["errors"].items())
        print(f"errors      {told or 'none'}")
    if not report.latencies_s and report.errors:
        return EXIT_CODES[max(report.errors, key=lambda code: report.errors[code])]
    return ExitCode.OK
