"""The client for asyncio programs, at the place where it is looked for: `import trtd.aio`."""

from __future__ import annotations

from trtd.client.aio import Client as Client
