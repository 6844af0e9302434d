"""Keep freed memory for what the process needs next."""

from __future__ import annotations

import ctypes
import sys

# Parameters of glibc's mallopt: from how many bytes on memory is asked of the system and returned to it one allocation
# at a time, how many free bytes are returned, and how many more than needed are asked for. 32 MiB is the most that the
# first may be; the last keeps the memory of threads, which lies in pieces of 64 MiB.
_KEEPING = {-3: 32 * 2**20, -1: 2**30, -2: 64 * 2**20}


def keep_freed_memory() -> None:
    """Make the C library keep the memory that this process frees, for what it needs next.

    Every layer of a network takes some megabytes and frees those of the layer before. glibc would return them to the
    system, which clears each page before giving it back: with torch, a sixth of a frame's time in fp32.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        for parameter, value in _KEEPING.items():
            mallopt(parameter, value)
