"""A hostile peer at every socket of the daemon, while three tenants are asked and their answers checked.

What it sends is bounded in bytes, so that a daemon that kept all of it would show it in its memory, not in ours.
"""

from __future__ import annotations

import math
import multiprocessing
import random
import socket
import struct
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from typing import Any

import msgpack
import numpy as np
import zmq

from tests.chaos.figures import Report
from tests.chaos.load import PAUSE_S, Load
from tests.chaos.stage import PATIENT, RESTART_AT_ONCE, Stage, stage
from tests.support import daemon as harness
from tests.support import fuzz, zmtp
from trtd.errors import ErrorCode, TrtdError
from trtd.wire import addresses, codec
from trtd.wire.messages import MAX_HEADER_BYTES, ErrorAnswer

TARGET = "target"
ENDLESS_BYTES = 64 << 20
ENDLESS_PARTS = 200_000
MUTANTS = 5_000
SILENT_CONNECTIONS = 200
LEAST_TAKEN = 0.9
"""Part of the raw connections that must have got in, or else they proved nothing."""
MAX_GROWTH_BYTES = ENDLESS_BYTES + (64 << 20)
"""Most that the router may have grown once it is over: the C library may keep one endless message's worth for reuse."""


def _fields(**changes: Any) -> dict[str, Any]:
    inputs = [["x", "float32", [1, 4], "frame"]]
    return {"v": 1, "type": "infer", "id": uuid.uuid4().bytes, "model": "echo", "inputs": inputs, **changes}


def bad_headers() -> dict[str, bytes]:
    """Headers that must be refused with a typed error."""
    tables: dict[str, dict[str, Any]] = {
        "too long": _fields(model="m" * MAX_HEADER_BYTES),
        "string dtype": _fields(inputs=[["x", "string", [1], "frame"]]),
        "unknown dtype": _fields(inputs=[["x", "float7", [1], "frame"]]),
        "other dtype": _fields(inputs=[["x", "float64", [1, 2], "frame"]]),
        "NaN shape": _fields(inputs=[["x", "float32", [math.nan, 4], "frame"]]),
        "infinite shape": _fields(inputs=[["x", "float32", [math.inf, 4], "frame"]]),
        "negative shape": _fields(inputs=[["x", "float32", [-1, 4], "frame"]]),
        "huge shape": _fields(inputs=[["x", "float64", [2**62, 2**62], "frame"]]),
        "other rank": _fields(inputs=[["x", "float32", [1, 2, 2], "frame"]]),
        "other name": _fields(inputs=[["y", "float32", [1, 4], "frame"]]),
        "NaN timeout": _fields(timeout_s=math.nan),
        "other model": _fields(model="nobody"),
        "other version": _fields(v=2),
        "worker's type": _fields(type="attach"),
        "unknown key": _fields(surprise=1),
        "short id": _fields(id=b"short"),
    }
    whole = msgpack.packb(_fields())
    return {
        **{name: msgpack.packb(table) for name, table in tables.items()},
        "empty": b"",
        "garbage": b"\xc1" * 100,
        "truncated": whole[:-3],
        "trailing": whole + b"\0",
        "deep": b"\x91" * 4000,
        "deeper maps": b"\x81\xa1a" * 1300,
        "huge array": b"\xdd\xff\xff\xff\xff",
        "huge map": b"\xdf\xff\xff\xff\xff",
        "no map": msgpack.packb([1, 2, 3]),
    }


def storm(paths: list[str], count: int, seed: int) -> Counter[str]:
    """Connections that say something and go, one after the other; how they went."""
    rng = random.Random(seed)
    outcomes: Counter[str] = Counter()
    for number in range(count):
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Blocking, because a socket with a timeout does not wait where the daemon's backlog is full.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 10, 0))
        try:
            raw.connect(paths[number % len(paths)])
            raw.sendall(_noise(rng))
            outcomes["sent"] += 1
        except OSError as error:
            outcomes[f"refused_{type(error).__name__}"] += 1
        finally:
            raw.close()
    return outcomes


def _noise(rng: random.Random) -> bytes:
    """Random bytes, as they are or behind the beginning of a right conversation."""
    garbage = rng.randbytes(rng.randrange(200))
    kind = rng.randrange(6)
    if kind == 0:
        return garbage
    if kind == 1:
        return zmtp.GREETING[: rng.randrange(64)]
    if kind == 2:
        return zmtp.GREETING + garbage
    if kind == 3:
        return zmtp.GREETING + zmtp.ready() + garbage
    if kind == 4:
        return zmtp.GREETING + zmtp.ready() + zmtp.frame(garbage, zmtp.MORE) + garbage
    return zmtp.GREETING + zmtp.ready() + zmtp.frame(garbage) * 3


def run(connections: int = 100_000, seed: int = 0, pause_s: float = PAUSE_S) -> Report:
    """Do everything that a peer should not, one thing after the other."""
    report = Report("hostile")
    others = {TARGET: harness.tenant(restart=RESTART_AT_ONCE, health=PATIENT)}
    with stage(others) as daemon:
        pid, pids, before = daemon.pid, daemon.pids(), _router(daemon)
        with Load(daemon, daemon.questions, pause_s=pause_s) as load:
            path = addresses.tenant_address(str(daemon.runtime_dir), TARGET).removeprefix("ipc://")
            steps: dict[str, Callable[[], Any]] = {
                "bad_headers_refused": lambda: _send_bad_headers(daemon, report),
                "wrong_inputs_refused": lambda: _send_wrong_inputs(daemon, report),
                "mutated_headers": lambda: _send_mutants(path, seed),
                "frames_that_claim_too_much_cut_off": lambda: _claim_too_much(path),
                "endless_message_mib_taken": lambda: _endless(path, bytes(65_536), ENDLESS_BYTES // 65_536) >> 20,
                "endless_message_empty_parts_taken": lambda: _endless(path, b"", ENDLESS_PARTS) // 2,
            }
            silent = [zmtp.connect(path) for _ in range(SILENT_CONNECTIONS)]
            for name, step in steps.items():
                report.figures[name] = step()
            for raw in silent:
                raw.close()
            outcomes = _storm(daemon, path, connections, seed)
            report.figures["raw_connections"] = dict(outcomes)
            if outcomes["sent"] < connections * LEAST_TAKEN:
                report.broken.append(f"of {connections} raw connections only {outcomes['sent']} were taken")
        with daemon.client(TARGET) as client:
            client.infer("echo", {"x": np.ones((1, 4), np.float32)}, timeout=30)
        after = _router(daemon)
        if (daemon.pid, daemon.pids()) != (pid, pids):
            report.broken.append(f"workers were {pids}, are {daemon.pids()}")
        report.broken += daemon.account_problems()
    judgement = load.judge()
    report.broken += judgement.broken()
    growth = after["rss_bytes"] - before["rss_bytes"]
    if growth > MAX_GROWTH_BYTES:
        report.broken.append(f"the router grew by {growth >> 20} MiB")
    report.figures = {
        **report.figures,
        **judgement.figures(),
        "router_restarts": after["restarts"],
        "router_rss_before_mib": before["rss_bytes"] >> 20,
        "router_rss_after_mib": after["rss_bytes"] >> 20,
        "router_rss_peak_mib": after["peak_rss_bytes"] >> 20,
    }
    return report


def _router(daemon: Stage) -> dict[str, Any]:
    """The router's status, once its memory was told."""
    status = daemon.wait_status(lambda status: status["router"]["rss_bytes"] > 0, "a beat of the router")
    return dict(status["router"])


def _send_bad_headers(daemon: Stage, report: Report) -> dict[str, int]:
    codes: Counter[str] = Counter()
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.set(zmq.LINGER, 0)
        dealer.connect(daemon.address(TARGET))
        for name, header in bad_headers().items():
            dealer.send_multipart([header, bytes(16)])
            if not dealer.poll(10_000):
                report.broken.append(f"a header that is {name} got no answer")
                continue
            frames = dealer.recv_multipart()
            answer = codec.decode_router_message(frames[0], frames[1:])
            if not isinstance(answer, ErrorAnswer):
                report.broken.append(f"a header that is {name} was answered with {type(answer).__name__}")
            else:
                codes[answer.code] += 1
    return dict(codes)


def _send_wrong_inputs(daemon: Stage, report: Report) -> dict[str, int]:
    codes: Counter[str] = Counter()
    wrong = (
        {"x": np.ones((1, 5), np.float32)},
        {"x": np.ones((1, 4), np.int8)},
        {"x": np.ones((0,), np.float32)},
        {"x": np.array(1.0, np.float32)},
        {"z": np.ones((1, 4), np.float32)},
        {"x": np.ones((1, 4), np.float32), "y": np.ones((1,), np.float32)},
        {},
    )
    with daemon.client(TARGET) as client:
        for inputs in wrong:
            try:
                client.infer("echo", inputs, timeout=10)
                report.broken.append(f"wrong inputs were taken: {inputs}")
            except TrtdError as error:
                codes[error.code] += 1
                if error.code not in {ErrorCode.INVALID_INPUT, ErrorCode.MALFORMED}:
                    report.broken.append(f"wrong inputs: {error}")
        nan = client.infer("echo", {"x": np.full((1, 4), np.nan, np.float32)}, timeout=10)
        if not np.isnan(np.asarray(nan["x"])).all():
            report.broken.append("NaN values did not come back as they are")
    return dict(codes)


def _send_mutants(path: str, seed: int) -> dict[str, int]:
    """Mutated headers of all kinds, through the socket and not only through the decoder; how many were answered."""
    rng = random.Random(seed)
    answered = 0
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.set(zmq.LINGER, 0)
        dealer.connect(f"ipc://{path}")
        for index in range(MUTANTS):
            dealer.send_multipart(
                [fuzz.mutant(seed, index), *(rng.randbytes(rng.randrange(64)) for _ in range(index % 4))]
            )
            while dealer.poll(0):
                dealer.recv_multipart()
                answered += 1
        while dealer.poll(2000):
            dealer.recv_multipart()
            answered += 1
    return {"sent": MUTANTS, "answered": answered}


def _claim_too_much(path: str) -> int:
    """Frames that claim to be far longer than the limit: how many connections were ended for it."""
    ended = 0
    for size in (1 << 31, 1 << 40, 1 << 63, (1 << 64) - 1):
        with zmtp.shake_hands(path) as raw:
            raw.sendall(bytes([zmtp.LONG]) + size.to_bytes(8) + bytes(1000))
            ended += zmtp.is_closed_by_peer(raw)
    return ended


def _endless(path: str, part: bytes, count: int) -> int:
    """A message without an end: how many bytes were taken, all of them or up to where the daemon had enough."""
    frame = zmtp.frame(part, zmtp.MORE)
    taken = 0
    with zmtp.shake_hands(path) as raw, suppress(OSError):
        for _ in range(count):
            raw.sendall(frame)
            taken += len(frame)
    return taken


def _storm(daemon: Stage, path: str, count: int, seed: int) -> Counter[str]:
    """The raw connections, from a process of their own: nine of ten at a tenant, the rest at the inner sockets."""
    inner = [
        addresses.workers_path(str(daemon.runtime_dir)),
        addresses.operator_path(str(daemon.runtime_dir)),
    ]
    paths = [*[path] * 18, *inner]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(storm, paths, count, seed).result()
