"""How the inputs of a batch reach the device: large ones in pinned memory from where they lie, others by the staging.

No CUDA here: what starts a copy is an argument. Each part is read once, by a copy that the end of the run waits for; so
a client that rewrites its shared memory meanwhile gets a wrong answer to its own request, and nobody else does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from trtd.runtime.inputs import Inputs
from trtd.runtime.protocol import Arrays
from trtd.runtime.tensorrt.pinned import PinnedMemory

CHUNK_BYTES = 1024 * 1024
"""Large inputs go to the device in such parts, each while the next one is written into the staging."""
MIN_DIRECT_BYTES = 64 * 1024
"""Smaller inputs are staged wherever they lie: a copy of their own takes longer than to gather them."""

SMALL_BYTES = 4096
"""Up to this size the quickest way is the interpreter's own."""

StartCopy = Callable[[int, int, int], None]
"""Starts a copy to the device: address there, address here, bytes."""


def parts_of(requests: Sequence[Arrays], number: int, name: str) -> list[Any]:
    """The bytes of one input in each request, without a copy; `number` is its place in the model."""
    return [
        request.frames[number] if type(request) is Inputs else request[name].reshape(-1).view(np.uint8).data
        for request in requests
    ]


def upload(
    parts: Sequence[Any],
    padded_bytes: int,
    staging: np.ndarray,
    device_address: int,
    pinned: PinnedMemory,
    start_copy: StartCopy,
) -> None:
    """Start the copies of one input of a batch, one part behind the other.

    Args:
        parts: bytes of the requests.
        padded_bytes: of the whole input; what the parts do not fill becomes zeros.
        staging: pinned bytes that this input has for itself, at least as many.
        device_address: where the input begins.
        pinned: other memory that may be copied from.
        start_copy: see above.
    """
    staging_address = int(staging.ctypes.data)
    room = staging.data
    end = sent = 0

    def send() -> None:
        if end > sent:
            start_copy(device_address + sent, staging_address + sent, end - sent)

    for part in parts:
        size = len(part)
        if size >= MIN_DIRECT_BYTES and len(pinned):
            address = int(np.frombuffer(part, np.uint8).ctypes.data)
            if pinned.holds(address, size):
                send()
                start_copy(device_address + end, address, size)
                end += size
                sent = end
                continue
        if size <= SMALL_BYTES:
            room[end : end + size] = part
            end += size
        else:
            # Through numpy, which lets other threads run meanwhile.
            source = np.frombuffer(part, np.uint8)
            for start in range(0, size, CHUNK_BYTES):
                piece = source[start : start + CHUNK_BYTES]
                staging[end : end + piece.nbytes] = piece
                end += piece.nbytes
                if end - sent >= CHUNK_BYTES:
                    send()
                    sent = end
    if padded_bytes > end:
        staging[end:padded_bytes] = 0
        end = padded_bytes
    send()
