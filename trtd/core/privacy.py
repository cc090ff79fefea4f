"""What keeps the packages that trtd's processes import from telling others what runs here."""

from __future__ import annotations

TELEMETRY_OFF = {
    # ONNX Runtime from 1.29 on: an identifier and a queue of events below ~/.cache/Microsoft, and uploads. It reads the
    # variable when it is imported; its function that switches telemetry off comes too late.
    "ORT_DISABLE_TELEMETRY": "1",
    # pydantic imports whatever other installed packages offer as its plugins, some of which report what is validated.
    "PYDANTIC_DISABLE_PLUGINS": "__all__",
}
"""Variables that have to be in the environment before these packages are imported. An operator's own values for them
do not count: no process of trtd sends anything to anybody but its clients."""
