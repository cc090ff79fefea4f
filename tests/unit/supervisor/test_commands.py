"""The handlers of operators' commands against the table that names them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

from trtd.supervisor.commands import Commands
from trtd.wire.operator import OPERATOR_COMMANDS


def test_each_row_has_a_handler_and_each_handler_a_row():
    """The table of commands and the handlers name the same commands."""

    async def names() -> set[str]:
        async def reload() -> dict[str, Any]:
            return {}

        return set(Commands(None, reload).handlers())  # type: ignore[arg-type]

    assert asyncio.run(names()) == {row.name for row in OPERATOR_COMMANDS}


def test_the_supervisor_loads_no_zeromq_and_no_runtime():
    """The process that owns the workers imports no libzmq, NumPy, ONNX Runtime or CUDA, and nothing for metrics."""
    program = "import json, sys, trtd.supervisor.main, trtd.config.load; print(json.dumps(sorted(sys.modules)))"
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    loaded = {name.split(".")[0] for name in json.loads(outcome.stdout)}
    assert not loaded & {"zmq", "numpy", "onnxruntime", "tensorrt", "cuda", "prometheus_client"}
