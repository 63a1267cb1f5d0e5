"""How the C library hands out large arrays, in processes that are ours."""

import ctypes
import sys

# of mallopt(3), glibc
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


def reuse_large_arrays() -> None:
    """Keep freed memory for the next array of its size, where the C library is glibc.

    By default glibc maps every array above 32 MiB anew and gives it back at once, so that each
    convolution waits for the kernel to fill its pages with zeros: up to half of the time of REC on
    a CPU. To be called before threads start; programs that import this package decide themselves.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_MMAP_THRESHOLD, 2**30)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_ARENA_MAX, 1)
