"""Keeps memory that was freed: every step needs it again."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Has glibc keep what this process frees; does nothing elsewhere.

    It would give large tensors back at once and ask for them again with each use. The kernel then clears page after
    page anew, which takes as long as computing what an activation function or a softmax writes there.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
