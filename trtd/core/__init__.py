"""The pure core: every decision of trtd, without a socket, process, thread, clock, environment or random source.

Time comes in as `now` (monotonic seconds), random draws come in as arguments, and what shall happen goes out as
effects.
"""
