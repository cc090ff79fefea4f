"""The whole of trtd's core under a virtual clock: seeded, deterministic, and checked after every event.

The real `Fleet`, `Dispatcher` and `Batcher` make every decision. Modelled are the things that only the shells touch:
processes that start, hang and die, channels that delay, and clients that resend. `scenario` builds one seed's world,
`promises` says what must never happen, `bugs` proves that it would be noticed.
"""
