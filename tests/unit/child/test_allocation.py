"""Freed memory of large messages is kept for the next ones."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource, sys
from trtd.child.allocation import keep_freed
if sys.argv[1] == "kept":
    keep_freed()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    block = [bytearray(600 * 1024), bytearray(900 * 1024), bytearray(1200 * 1024)]
    del block
before = faults()
for _ in range(50):
    block = [bytearray(600 * 1024), bytearray(900 * 1024), bytearray(1200 * 1024)]
    del block
print(faults() - before)
"""


def faults(how: str) -> int:
    """Page faults of fifty rounds of large blocks, after some to get warm."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, timeout=60, check=True)
    return int(done.stdout)


def test_large_blocks_are_not_given_back_each_time():
    """With it, blocks as large as messages with tensors come from memory that was used before."""
    given_back, kept = faults("as it is"), faults("kept")
    assert kept < 500
    assert kept <= given_back
