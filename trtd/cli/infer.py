"""`trtd infer`: one request, and its answer for people or as a file."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from trtd.cli import tensors
from trtd.cli.operator import find_runtime_dir
from trtd.cli.values import duration
from trtd.client import Answer
from trtd.client.values import Tensor
from trtd.errors import ExitCode, Usage
from trtd.files import create
from trtd.wire.tensors import Bits, bits_of

SHOWN_VALUES = 8
"""Values printed from the beginning of each output."""


def infer(args: argparse.Namespace) -> Answer:
    """Send one request, with inputs from files or generated ones."""
    with tensors.open_client(args.tenant, find_runtime_dir(args.runtime_dir), args.timeout) as client:
        description = tensors.describe(client, args.model, args.version)
        inputs = tensors.make_inputs(description, args.input, args.shape)
        return client.infer(args.model, inputs, outputs=args.output, version=args.version)


def show(answer: Answer, args: argparse.Namespace) -> int:
    """Print the answer, and save its outputs when asked."""
    timing = answer.timing
    print(
        f"model {answer.model} version {answer.version}, worker generation {answer.generation}, "
        f"{duration(timing.total_s)} in all (queue {duration(timing.queue_s)}, batch {duration(timing.batch_s)}, "
        f"compute {duration(timing.compute_s)})"
    )
    for name, output in answer.outputs.items():
        print(describe_output(name, output))
    if args.save:
        _save(Path(args.save), answer)
    return ExitCode.OK


def describe_output(name: str, output: Tensor) -> str:
    """One line: name, dtype, shape, and the first values."""
    dtype = str(output.dtype)
    values = output.to_float32() if isinstance(output, Bits) else output
    shape = "x".join(str(dim) for dim in values.shape) or "scalar"
    first = " ".join(_number(value) for value in values.reshape(-1)[:SHOWN_VALUES])
    more = " ..." if values.size > SHOWN_VALUES else ""
    return f"{name}: {dtype} {shape}: {first}{more}".rstrip(": ")


def _number(value: np.generic) -> str:
    return f"{value:.6g}" if np.issubdtype(value.dtype, np.inexact) else str(value)


def _save(path: Path, answer: Answer) -> None:
    arrays = {name: bits_of(out) for name, out in answer.outputs.items()}
    try:
        with create(str(path)) as file:
            np.savez(file, allow_pickle=False, **arrays)
    except OSError as error:
        raise Usage(f"--save: {path} cannot be written: {error.strerror}", hint="") from None
    print(f"saved to {path}")
