"""The heap of this process, where glibc keeps it."""

import ctypes
import platform
from functools import cache

_ARENA_MAX = -8  # of mallopt(3)


@cache
def glibc() -> ctypes.CDLL | None:
    """The C library, if it is glibc."""
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def share() -> None:
    """Threads that begin from now on share the heap of the main one, if none has begun before. With glibc alone.

    Those of their own are small: large tensors would have new pages each time, whatever `memory.kept` asks for.
    """
    if libc := glibc():
        libc.mallopt(_ARENA_MAX, 1)
