"""Element types of the wire as NumPy knows them. bfloat16, which NumPy lacks, is handled as its 16 bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from trtd.wire.messages import Dtype

NUMPY_DTYPES: dict[Dtype, np.dtype[Any]] = {
    dtype: np.dtype("uint16" if dtype is Dtype.BFLOAT16 else dtype.value) for dtype in Dtype
}
