"""How a status record looks, at every width."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.status import make_child, make_status, make_tenant
from trtd.cli import picture
from trtd.wire.status import TenantStatus

GIB = 1024**3
KILLED = {"kind": "killed", "message": "killed by SIGKILL", "blame": "tenant", "permanent": False}
DEVICE = {
    "live_bytes": GIB, "peak_bytes": GIB, "hard_bytes": 4 * GIB, "refused_count": 0, "refused_bytes": 0,
    "is_high": False, "pool_bytes": GIB, "driver_bytes": 2 * GIB, "unaccounted_bytes": GIB // 2, "verdict": "ok",
    "is_hard_derived": False, "allocations": 0, "allocated_bytes": 0, "largest_bytes": 0, "models": [],
}  # fmt: skip


def lines(*tenants: TenantStatus, colour: bool = False, width: int | None = None) -> list[str]:
    return picture.status_lines(make_status(*tenants), colour=colour, width=width)


def test_a_ready_tenant():
    """One row with everything an operator looks for; then what is unsigned, the whole in one line, and the daemon."""
    head, row, unsigned, summary, daemon = lines(make_tenant())
    assert " ".join(head.split()) == (
        "TENANT STATE SINCE PID GEN RESTARTS LAST CAUSE QUEUE IN FLIGHT REQ/S P50 P99 MEMORY PLACEMENT ENGINE"
    )
    assert row.split() == [
        "a", "ready", "12s", "4242", "3", "2", "-", "4", "5", "1234", "1.2ms", "-", "64M", "cpu,", "process", "m.onnx",
    ]  # fmt: skip
    assert unsigned == "Engines are not signed: who can write their files decides what runs."
    assert summary == "1 of 1 tenants ready, 1234 requests/s"
    assert daemon == "daemon pid 7, up 2m; router ready, pid 8, generation 1, 1M"


def test_a_tenant_in_trouble():
    """The worker's own state, when it is tried again, its last cause, its limit and the reason stand there."""
    worker = make_child(state="backoff", restart_in_s=0.8, pid=None, last_fault=KILLED, memory_limit_bytes=GIB)
    _, row, reason, *_ = lines(make_tenant(health="waiting", reason="no worker yet", workers=[worker]))
    assert "waiting: backoff 800ms" in row
    assert "killed by SIGKILL" in row
    assert "64M/1G" in row
    assert reason == "a: no worker yet"


def test_models_that_run_alone():
    """What is not joined stands there with the reason; what is, or was switched off, does not."""
    words = {"m": "proven", "n": "alone: output 'y' differs", "o": "off", "p": "forced"}
    models = [
        {"name": name, "version": "1", "max_batch": 0, "is_batched": False, "batching": word}
        for name, word in words.items()
    ]
    told = [line for line in lines(make_tenant(models=models)) if "alone" in line]
    assert told == ["a: requests of n 1 run alone: output 'y' differs"]


def test_a_worker_that_somebody_stopped():
    """Why a live worker does not serve, and what lets it go on, stands there at every width."""
    worker = make_child("a/1", pid=9, is_stopped=True)
    told = lines(make_tenant(health="degraded", workers=[make_child("a/0"), worker]), width=200)
    assert [line for line in told if "stopped" in line] == [
        "a/1: stopped by a signal or a debugger; `kill -CONT 9` lets it go on"
    ]


def test_several_workers():
    """Each further worker has its own row, without repeating what belongs to the tenant."""
    workers = [make_child("a/0"), make_child("a/1", state="warming", pid=9)]
    _, first, second, *_ = lines(make_tenant(health="degraded", workers=workers))
    assert first.split()[:2] == ["a", "degraded"]
    assert second.split()[:2] == ["a/1", "warming"]
    assert second.split()[-8:] == ["-"] * 5 + ["64M"] + ["-"] * 2


def test_a_replacement_under_way():
    """A worker beside those that the tenant is to have says what it is there for."""
    workers = [make_child("a/0"), make_child("a/1", state="warming", role="successor")]
    replacement = {"state": "running", "left": ["a/0", "a/1"], "reason": ""}
    _, _, second, unsigned, *_ = lines(make_tenant(workers=workers, replacement=replacement))
    assert second.split()[:3] == ["a/1", "warming", "(successor)"]
    assert unsigned.startswith("Engines are not signed")


def test_a_replacement_that_failed():
    """The reason has a line of its own, and the line about the whole names the tenant."""
    replacement = {"state": "failed", "left": ["a/0"], "reason": "successor a/1 did not become ready: truncated"}
    _, _, failed, _, summary, _ = lines(make_tenant(replacement=replacement))
    assert failed == "a: not replaced: successor a/1 did not become ready: truncated"
    assert summary == "1 of 1 tenants ready, 1234 requests/s; a was not replaced"


def test_a_tenant_without_workers():
    """A drained tenant has a row too."""
    head, row, *_ = lines(make_tenant(health="drained", workers=[]))
    assert row.split()[:3] == ["a", "drained", "-"]
    assert len(head.split()) - len(row.split()) == 2 - 1


def test_device_memory_beside_its_watermark():
    """What the ledger holds, the watermark, and what the driver counts beside it, only where a tenant has a device."""
    assert "GPU MEMORY" not in lines(make_tenant())[0]
    on_gpu = make_tenant(workers=[make_child(device=DEVICE)], placement="gpu 0")
    head, row, *_ = lines(on_gpu, make_tenant("b"))
    assert "GPU MEMORY  UNACCOUNTED" in head
    assert "1G/4G         512M" in row
    assert "gpu 0, process" in row


def test_what_the_driver_does_not_say_is_a_question_mark():
    """Unknown is not nothing."""
    unknown = DEVICE | {"driver_bytes": None, "unaccounted_bytes": None, "verdict": "unknown"}
    _, row, *_ = lines(make_tenant(workers=[make_child(device=unknown)], placement="gpu 0"))
    assert "1G/4G            ?" in row


def test_a_watermark_that_nobody_configured_is_marked():
    """A derived one has a star, and a line says what the star means."""
    star = "* watermark derived from what the models need; tensorrt.hard_bytes sets one"
    shown = lines(make_tenant(workers=[make_child(device=DEVICE | {"is_hard_derived": True})], placement="gpu 0"))
    assert "1G/4G*" in shown[1]
    assert star in shown
    assert star not in lines(make_tenant(workers=[make_child(device=DEVICE)], placement="gpu 0"))


def test_plugin_libraries_are_named():
    """Whose code runs in a tenant's workers besides TensorRT's stands below the table."""
    shown = lines(make_tenant(plugin_libraries=["/opt/libone.so", "/opt/libtwo.so"]), make_tenant("b"))
    told = [line for line in shown if "plugin" in line]
    assert told == ["a: plugin libraries run in its workers: /opt/libone.so, /opt/libtwo.so"]


@pytest.mark.parametrize(
    ("width", "shown", "hidden"),
    [
        (80, "TENANT STATE RESTARTS QUEUE IN_FLIGHT REQ/S P99 MEMORY", "LAST CAUSE"),
        (120, "TENANT STATE SINCE PID RESTARTS LAST_CAUSE QUEUE IN_FLIGHT REQ/S P50 P99 MEMORY", "PLACEMENT"),
        (200, None, None),
    ],
)  # fmt: skip
def test_the_common_widths(width, shown, hidden):
    """At 80, 120 and 200 columns the most important columns are there, the others are named, and every line fits."""
    worker = make_child("forecast/0", state="backoff", restart_in_s=3.1, last_fault=KILLED)
    waiting = make_tenant("forecast", health="waiting", workers=[worker])
    picture_lines = lines(waiting, make_tenant("ranking"), width=width)
    assert max(map(len, picture_lines)) <= width
    if shown is not None:
        assert " ".join(picture_lines[0].split()) == shown.replace("_", " ")
        (note,) = [line for line in picture_lines if line.startswith("not shown at this width")]
        assert hidden in note
    else:
        assert not any("not shown" in line for line in picture_lines)


def test_nothing_is_lost_with_a_column():
    """A cause that is cut or has no column stands in full below, unless a tenant's reason has it already."""
    fault = KILLED | {"message": "the device reported an illegal address at " + "x" * 90}
    down = make_tenant("b", reason=f"worker b/0 is quarantined: {fault['message']}", workers=[make_child("b/0")])
    down["workers"][0]["last_fault"] = fault  # type: ignore[typeddict-item]
    text = " ".join(lines(make_tenant(workers=[make_child(last_fault=fault)]), down, width=100)).replace("  ", " ")
    assert "a/0: last cause: the device reported an illegal address" in text
    assert "b/0: last cause" not in text


def test_a_long_cause_does_not_push_the_others_away():
    """Where nothing limits the lines, a cause is cut all the same, and stands in full below."""
    fault = KILLED | {"message": "x" * 300}
    _, row, cause, *_ = lines(make_tenant(workers=[make_child(last_fault=fault)]))
    assert len(row) < 200
    assert cause == f"a/0: last cause: {'x' * 300}"


@pytest.mark.parametrize("width", [40, 57, 80, 97, 120, 163, 200])
def test_every_line_fits(width):
    """Long names, long causes and many workers break no line at any width."""
    workers: list[Any] = [make_child(f"{'x' * 63}/{index}", state="backoff", last_fault=KILLED) for index in range(3)]
    tenant = make_tenant("x" * 63, health="waiting", reason="r" * 300, workers=workers)
    assert max(map(len, lines(tenant, make_tenant(workers=[]), width=width))) <= width


def test_rows_have_the_colour_of_their_state():
    """Each row is coloured by what it says of its worker, the head never, and a pipe sees no colour."""
    head, good, bad, unsigned, *_ = lines(make_tenant("a"), make_tenant("b", health="unavailable"), colour=True)
    assert "\x1b" not in head
    assert good.startswith(picture.COLOURS["ready"])
    assert bad.startswith(picture.OTHER_COLOUR)
    assert unsigned.startswith(picture.FAINT)
    assert not any("\x1b" in line for line in lines(make_tenant()))
