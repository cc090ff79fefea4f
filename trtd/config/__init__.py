"""The configuration: frozen, versioned models (`model`), how they are read and where each value came from (`load`)."""

from __future__ import annotations

import os

from trtd.core.privacy import TELEMETRY_OFF

# Before pydantic is imported, which is imported below this package and nowhere else.
os.environ.update(TELEMETRY_OFF)
