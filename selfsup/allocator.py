"""What becomes of freed memory."""

import ctypes
import sys
from contextlib import suppress

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
LARGEST = 32 << 20  # bytes; glibc takes no more


def keep_freed_memory() -> None:
    """Keep what tensors give back for the next ones, instead of handing it to the system.

    glibc otherwise returns blocks of some megabytes at once, and the next step pays for each of
    their pages anew: twice the time of a batch of small crops on a CPU. Elsewhere nothing is done.
    """
    if sys.platform != "linux":
        return
    with suppress(AttributeError, OSError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_THRESHOLD, LARGEST)
        mallopt(TRIM_THRESHOLD, 1 << 30)
