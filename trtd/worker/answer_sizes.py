"""How large an answer may be: known from the model's own shapes before it runs, or from its outputs right after.

An answer passes through the router, which every tenant shares. Outputs in the client's shared memory do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from trtd.errors import TooLarge
from trtd.wire.messages import ITEM_BYTES

if TYPE_CHECKING:
    from trtd.runtime.inputs import Layout
    from trtd.worker.validate import ServedModel


def too_large(model: ServedModel, sizes: Iterable[tuple[str, int]], max_answer_bytes: int) -> TooLarge:
    """The refusal of an answer whose outputs have these sizes in frames."""
    sizes = list(sizes)
    name, most = max(sizes, key=lambda one: one[1])
    whole = sum(size for _, size in sizes)
    return TooLarge(
        f"model {model}: the answer has {whole} bytes, {most} of them in output {name!r}; an answer may have "
        f"{max_answer_bytes} (queue.max_answer_bytes), what lies in the client's shared memory not counted"
    )


def refuse_before(model: ServedModel, layout: Layout, max_answer_bytes: int) -> None:
    """Refuse what will be too large whatever the sizes are that the model does not tell.

    Args:
        model: that is asked.
        layout: what it is asked for, with all outputs in frames.
        max_answer_bytes: what an answer may have.

    Raises:
        trtd.errors.TooLarge: it will.
    """
    sizes = []
    for name in model.output_names if layout.outputs is None else layout.outputs:
        contract = model.outputs[name]
        if contract.shape is None:
            continue
        shape = list(contract.shape)
        if model.description.is_batched and shape and shape[0] is None:
            shape[0] = layout.items
        known = [0 if size is None else size for size in shape]
        sizes.append((name, math.prod(known) * ITEM_BYTES[contract.dtype]))
    if sum(size for _, size in sizes) > max_answer_bytes:
        raise too_large(model, sizes, max_answer_bytes)
