"""The shell of the supervisor: asyncio and pidfds, with `trtd.core.fleet` as its mind. No libzmq and no CUDA in it."""
