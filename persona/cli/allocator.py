"""Memory that is freed stays with the process, so that the next batch need not fetch it again.

glibc gives blocks above 32 MB back to the system at once, and the logits of one batch are larger.
Fetching them anew costs a page fault every 4 KB: a million in scoring 16 questions, a tenth of the
time.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks; does nothing where there is no glibc."""
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, LARGEST_INT)
