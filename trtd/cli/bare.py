"""`trtd bench --bare`: the model that a tenant serves, driven in this process, so that the daemon's price can be seen.

The tenant's runtime, settings and slots, without router, sockets and batching: each slot is a thread that runs the same
batch again and again.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import Counter
from collections.abc import Callable

from trtd.cli import tensors
from trtd.cli.bench import DEFAULT_SECONDS, Loop, Report
from trtd.cli.serve import sources
from trtd.config import load as loading
from trtd.core.faults import ProcessFault
from trtd.errors import ErrorCode, ModelFailed, TrtdError, UnknownModel, Usage
from trtd.runtime import open_runtime
from trtd.runtime.protocol import Arrays, Model, Slot
from trtd.supervisor.settings import worker_settings
from trtd.wire.settings import ModelSettings, WorkerSettings
from trtd.wire.tensors import bits_of


def bench_bare(args: argparse.Namespace) -> Report:
    """Load the tenant's model here, warm up, then measure.

    Raises:
        trtd.errors.TrtdError: there is no such tenant or model, or it cannot be loaded here.
    """
    settings = _settings(args)
    wanted = _find(settings, args.model, args.version)
    try:
        runtime = open_runtime(
            settings.runtime,
            threads=settings.threads,
            slots=settings.slots,
            tensorrt=settings.tensorrt,
            onnxruntime=settings.onnxruntime,
        )
        model = runtime.load(wanted)
        inputs = tensors.make_inputs(model.description, args.input, args.shape, batch=args.batch)
        arrays = {name: bits_of(tensor) for name, tensor in inputs.items()}
    except ProcessFault as error:
        raise ModelFailed(error.fault.message, hint="") from error
    caller = _Callers(model, arrays, settings.slots)
    caller.run(lambda _: Loop(time.monotonic() + args.warmup))
    elapsed_s, loops = caller.run(lambda index: _share(args, index, settings.slots))
    latencies_s = [latency for loop in loops for latency in loop.latencies_s]
    errors = sum((loop.errors for loop in loops), Counter[ErrorCode]())
    return Report(args.model, settings.slots, args.batch, elapsed_s, latencies_s, dict(errors))


class _Callers:
    """One thread for each slot; a slot stays with its thread's index from one run to the next."""

    def __init__(self, model: Model, inputs: Arrays, slots: int) -> None:
        self._model = model
        self._inputs = inputs
        self._slots: list[Slot | None] = [None] * slots
        self._failures: list[BaseException] = []

    def run(self, make_loop: Callable[[int], Loop]) -> tuple[float, list[Loop]]:
        """Run all slots, each until its own loop has ended; seconds, and what each saw."""
        loops = [make_loop(index) for index in range(len(self._slots))]
        began_at = time.monotonic()
        threads = [threading.Thread(target=self._call, args=item) for item in enumerate(loops)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failures:
            raise self._failures[0]
        return time.monotonic() - began_at, loops

    def _call(self, index: int, loop: Loop) -> None:
        try:
            slot = self._slots[index] = self._slots[index] or self._model.open_slot()
            while loop.takes_turn():
                began_at = time.perf_counter()
                try:
                    slot.run([self._inputs])
                except TrtdError as error:
                    loop.errors[error.code] += 1
                else:
                    loop.latencies_s.append(time.perf_counter() - began_at)
        except ProcessFault as error:
            self._failures.append(ModelFailed(error.fault.message))
        except TrtdError as error:
            self._failures.append(error)


def _share(args: argparse.Namespace, index: int, slots: int) -> Loop:
    """The part of the whole measurement that falls to one slot."""
    if args.requests is None:
        return Loop(ends_at=time.monotonic() + (args.seconds or DEFAULT_SECONDS))
    return Loop(ends_at=float("inf"), requests_left=args.requests // slots + (index < args.requests % slots))


def _settings(args: argparse.Namespace) -> WorkerSettings:
    # `args.model` is the model to measure, not a flag of `serve`.
    config = loading.load(sources(argparse.Namespace(config=args.config))).config
    if args.tenant not in config.tenants:
        raise Usage(f"no tenant {args.tenant!r} is configured; there are: {', '.join(config.tenants) or 'none'}")
    return worker_settings(config, args.tenant, replica=0, generation=0, log_format="console")


def _find(settings: WorkerSettings, name: str, version: str | None) -> ModelSettings:
    found = [model for model in settings.models if model.name == name and version in (None, model.version)]
    if not found:
        names = ", ".join(f"{model.name} {model.version}" for model in settings.models)
        raise UnknownModel(f"no model {name!r}{f' version {version!r}' if version else ''}; there are: {names}")
    return found[-1]
