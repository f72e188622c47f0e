"""How the C library keeps freed memory."""

import ctypes
import sys

# mallopt's parameters (malloc.h).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks for reuse, instead of returning each large one to the system at once.

    On the CPU every activation is a large block: returned and asked for again, its pages are mapped and zeroed anew
    at each operation, which costs more than the operation. No effect elsewhere than under glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 2**26)
