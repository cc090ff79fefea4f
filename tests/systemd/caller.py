"""A client inside the machine: `python -m tests.systemd.caller TENANT`, a closed loop until its stdin ends.

It checks each answer against what it sent and prints one line of JSON at the end: how many were right, wrong, refused.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter

import numpy as np

import trtd
from trtd.errors import TrtdError

TIMEOUT_S = 60.0


def main() -> None:
    """Ask until there is nothing more to read."""
    tenant = sys.argv[1]
    done = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
    counts: Counter[str] = Counter()
    with trtd.Client.for_tenant(tenant) as client:
        number = 0
        while not done.is_set():
            number += 1
            sent = np.full((1, 4), number % 1000 + 1, np.float32)
            try:
                answer = client.infer("echo", {"x": sent}, timeout=TIMEOUT_S)
            except TrtdError as error:
                counts[str(error.code)] += 1
                done.wait(0.05)
            else:
                counts["right" if np.array_equal(answer.outputs["x"], sent) else "wrong"] += 1
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
