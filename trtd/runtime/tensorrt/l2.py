"""L2 cache that is set apart: the limits of all contexts of a process together stay within what its device was told.

Pure arithmetic. `tensorrt.persistent_l2_bytes` is the part of one slot, whatever models it has; only one of its
contexts runs at a time, but TensorRT counts the limits of all that exist.
"""

from __future__ import annotations

GRAPHS_OF_PROFILE = 3
"""Runs of a profile that are captured while a slot opens: its smallest, best and largest shapes."""


class L2Share:
    """The part of one slot and model, in equal pieces for the contexts that run most."""

    def __init__(self, slot_bytes: int, models: int, pieces: int) -> None:
        """Divide it.

        Args:
            slot_bytes: of the slot; 0 for none.
            models: among which the slot's part is divided.
            pieces: contexts of this model that get one.
        """
        self._piece_bytes = slot_bytes // max(1, models) // max(1, pieces)
        self._left = pieces

    def take(self) -> int:
        """A piece for another context, in bytes; 0 where none is left."""
        if not self._left or not self._piece_bytes:
            return 0
        self._left -= 1
        return self._piece_bytes

    def give_back(self, size_bytes: int) -> None:
        """A context is gone that had a piece, or none."""
        self._left += bool(size_bytes)
