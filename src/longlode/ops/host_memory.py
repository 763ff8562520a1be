"""Freed memory of the process, kept for the next step in place of being returned to the system."""

import ctypes
import os
import sys

_KEPT_BLOCK = 128 << 20
"""Largest block that is kept, in bytes: a tensor of a step of 8,192 tokens of a small model. Larger ones are returned,
so that a long row's memory is not held for the rest of the run."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_SETTINGS = ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_")


def keep_freed_memory(in_all: int = 1 << 30) -> bool:
    """Let glibc's malloc keep freed blocks of up to 128 MiB, `in_all` bytes of them; return True if it will.

    By default blocks above 32 MiB, at first above 128 KiB, come fresh from the system each time, and each of their
    pages is cleared when first touched. False on other systems, and where the environment sets malloc itself.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in _SETTINGS):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    # Both: setting either ends the adjustment of both by malloc itself.
    return bool(mallopt(_MMAP_THRESHOLD, _KEPT_BLOCK) and mallopt(_TRIM_THRESHOLD, in_all))
