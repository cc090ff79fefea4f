"""Work that may never end, and files that never come."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.config import make_config
from trtd import files
from trtd.errors import Unavailable
from trtd.supervisor import settings
from trtd.supervisor.aside import Aside, Attempts
from trtd.supervisor.model_files import Watch

PATIENCE_S = 20.0
ENDS = """
import asyncio, threading
from trtd.supervisor.aside import Aside, Attempts
async def run():
    asyncio.create_task(Aside(threading.Event().wait).result())
    await asyncio.sleep(0)
asyncio.run(run())
"""


@pytest.fixture
def away():
    """Set when a file that was away is there again."""
    back = threading.Event()
    yield back
    back.set()


def told(tenant: str):
    config = make_config(**{tenant: {}})
    return settings.worker_settings(config, tenant, 0, 0, "json")


def test_results_and_errors_come_back():
    """With a loop and without one."""
    assert Aside(lambda: 1).wait(PATIENCE_S) == 1
    assert asyncio.run(_result(lambda: 2)) == 2
    with pytest.raises(ZeroDivisionError):
        asyncio.run(_result(lambda: 1 // 0))


async def _result(work):
    return await Aside(work).result(PATIENCE_S)


def test_who_waits_in_vain_knows_for_what(away):
    """The file that the thread is at is named, until it has come."""
    entered = threading.Event()

    def read() -> None:
        with files.under_way("/srv/away"):
            entered.set()
            away.wait()

    reading = Aside(read)
    entered.wait(PATIENCE_S)
    with pytest.raises(TimeoutError):
        reading.wait(0.0)
    assert (reading.waits_for, reading.has_ended) == ("/srv/away", False)
    away.set()
    reading.wait(PATIENCE_S)
    assert (reading.waits_for, reading.has_ended) == ("", True)


def test_a_process_ends_without_its_hanging_threads():
    """Neither the loop nor the interpreter waits for them."""
    subprocess.run([sys.executable, "-c", ENDS], check=True, timeout=60)


def test_while_one_hangs_no_other_is_begun(away):
    """Whoever comes later is told at once what is waited for; when it has come, all goes on."""

    def read() -> None:
        with files.under_way("/srv/away"):
            away.wait()

    async def attempts() -> None:
        reading = Attempts("reading", 0.05)
        with pytest.raises(Unavailable, match=r"reading waited 0\.05 s for /srv/away in vain; nothing"):
            await reading.make(read)
        for _ in range(2):
            with pytest.raises(Unavailable, match="reading still waits for /srv/away, as before"):
                await reading.make(pytest.fail)
        away.set()
        while True:
            try:
                assert await reading.make(lambda: 3) == 3
            except Unavailable:
                await asyncio.sleep(0)
            else:
                return

    asyncio.run(attempts())


def test_files_that_do_not_come_are_what_they_were(away):
    """Their tenant keeps its identity, is not waited for twice by further threads, and the others are looked at."""
    is_away = False
    looks = []

    def look(settings):
        looks.append(settings.tenant)
        if is_away and settings.tenant == "a":
            away.wait()
        return [(settings.tenant, len(looks))]

    watch = Watch(look, patience_s=0.05)
    before = watch.look()(told("a"))
    is_away = True
    for _ in range(3):
        once = watch.look()
        assert once(told("a")) == before
        assert once(told("b"))[0][0] == "b"
    assert looks == ["a", "a", "b", "b", "b"]
    away.set()
    is_away = False
    settled = watch.look()
    while settled(told("a")) == before:
        pass


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (os.mkfifo, "is a named pipe"),
        (Path.mkdir, "is a directory"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device"),
    ],
)
def test_only_regular_files_are_opened(tmp_path, make, kind):
    """Anything else is told by its kind, and nobody waits for it."""
    path = str(tmp_path / "it")
    make(tmp_path / "it")
    with pytest.raises(files.NotRegular) as refused:
        files.open_regular(path)
    assert refused.value.strerror == kind


def test_no_more_is_read_than_was_agreed(tmp_path):
    """A file of just so many bytes is read, a longer one refused."""
    path = tmp_path / "it"
    path.write_bytes(b"12345")
    assert files.read_regular(str(path), 5) == b"12345"
    with pytest.raises(files.TooLong, match="more than 4 bytes"):
        files.read_regular(str(path), 4)
