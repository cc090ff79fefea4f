"""Clients that nobody closes: dropped, forgotten in a cycle, alive at the end of the process, inherited over a fork."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

LONGEST_S = 30.0
"""A process that is frozen is told apart from one on a busy machine by this."""

PREAMBLE = """
import asyncio, gc, os, resource, sys, threading, warnings
import numpy as np
import trtd
from trtd.client import shared
from trtd.errors import TrtdError, Usage
from tests.support.leaks import count_descriptors

shared.LINGER_S = 0.01
warnings.simplefilter("always")
address = sys.argv[1]
x = {"x": np.zeros((1, 4), np.float32)}

def end_of_threads():
    for thread in threading.enumerate():
        if thread.name == "trtd-client":
            thread.join()

trtd.Client(address).close()
before = count_descriptors()
"""

EPILOGUE = """
gc.collect()
left = count_descriptors() - before
assert left == 0, f"{left} descriptors left"
"""

DROPPED = {
    "without a call": """
        client = trtd.Client(address)
        del client
    """,
    "in a cycle": """
        client = trtd.Client(address)
        client.self = client
        del client
    """,
    "in a cycle with its error": """
        def call():
            client = trtd.Client(address)
            try:
                client.infer("m", x, timeout=0.01)
            except TrtdError as error:
                kept = error
        call()
    """,
    "with requests that nobody waits for": """
        client = trtd.Client(address)
        handles = [client.submit("m", x, timeout=0.01) for _ in range(3)]
        del client
        # A handle keeps what it needs.
        assert handles[0].exception().code == "unreachable"
        del handles
        end_of_threads()
    """,
    "with a request on its way in an event loop": """
        async def main():
            client = trtd.aio.Client(address)
            client.submit("m", x)
            await asyncio.sleep(0)
        asyncio.run(main())
    """,
    "in an event loop that goes on": """
        async def main():
            client = trtd.aio.Client(address)
            try:
                await client.infer("m", x, timeout=0.01)
            except TrtdError:
                pass
            del client
            while not gc.collect() and count_descriptors() > with_loop:
                await asyncio.sleep(0.001)
            # What has the same numbers now is not touched.
            reader, writer = os.pipe()
            asyncio.get_running_loop().add_reader(reader, lambda: None)
            await asyncio.sleep(0)
            assert asyncio.get_running_loop().remove_reader(reader)
            os.close(reader)
            os.close(writer)
        async def outer():
            global with_loop
            with_loop = count_descriptors()
            await main()
        asyncio.run(outer())
    """,
}


def run(script: str, tmp_path: Path, *, epilogue: str = "") -> str:
    """What a process with this script writes to stderr; it has to end well, and soon."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(script) + epilogue, f"ipc://{tmp_path}/a.sock"],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("script", DROPPED.values(), ids=DROPPED)
def test_a_client_that_is_dropped_is_closed(script, tmp_path):
    """It freezes nothing, leaves no descriptor and no thread, and one ResourceWarning names its address."""
    told = run(script, tmp_path, epilogue=EPILOGUE)
    warnings = [line for line in told.splitlines() if "ResourceWarning: " in line and "tracemalloc" not in line]
    assert len(warnings) == 1, told
    assert f"a client of ipc://{tmp_path}/a.sock was dropped without close()" in warnings[0]


@pytest.mark.parametrize(
    "script",
    [
        "client = trtd.Client(address); client.submit('m', x)",
        """
        client = trtd.Client(address)
        for _ in range(3):
            threading.Thread(target=client.infer, args=("m", x), daemon=True).start()
        client.submit("m", x, timeout=0.01).exception()
        """,
        """
        async def main():
            global client
            client = trtd.aio.Client(address)
            client.submit("m", x)
            await asyncio.sleep(0)
        asyncio.run(main())
        """,
    ],
    ids=["with a request", "with threads inside", "of a closed event loop"],
)
def test_a_client_does_not_hold_up_the_end_of_its_process(script, tmp_path):
    """A process ends, and well, while a client of it is open."""
    run(script, tmp_path)


def test_a_fork_leaves_the_client_to_the_parent(tmp_path):
    """The child may close, drop or ask the client: nothing blocks there, and the parent's goes on as it was."""
    run(
        """
        client = trtd.Client(address)
        handle = client.submit("m", x)
        waits = threading.Thread(target=handle.exception, daemon=True)
        waits.start()
        child = os.fork()
        if not child:
            calls = [lambda: client.infer("m", x), handle.result, lambda: handle.add_done_callback(print)]
            for call in calls:
                try:
                    call()
                except Usage as error:
                    assert "forked" in error.message
                else:
                    os._exit(1)
            client.close()
            del client, handle, calls, call
            gc.collect()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        client.close()
        assert handle.exception().code == "unreachable"
        """,
        tmp_path,
    )


def test_a_client_of_a_closed_event_loop_can_be_closed(tmp_path):
    """From another event loop, with requests that nobody can await any more: they have ended, nothing is left."""
    told = run(
        """
        async def main():
            client = trtd.aio.Client(address)
            future = client.submit("m", x)
            future.add_done_callback(print)
            return client, future
        client, future = asyncio.run(main())
        asyncio.run(client.close())
        assert future.exception().code == "unreachable"
        del client, future
        """,
        tmp_path,
        epilogue=EPILOGUE,
    )
    assert not told


def test_a_process_without_descriptors_is_told_so(tmp_path):
    """Instead of the end of the process that libzmq would make of it, one line; nothing of the failed client stays."""
    run(
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for room in range(1, 64):
            resource.setrlimit(resource.RLIMIT_NOFILE, (before + room, hard))
            try:
                trtd.Client(address).close()
                break
            except Usage as error:
                assert "Too many open files" in error.message
        assert room > 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        """,
        tmp_path,
        epilogue=EPILOGUE,
    )
