"""The C library's heaps, of which a server with many threads wants few."""

from __future__ import annotations

import ctypes
import os

M_ARENA_MAX = -8
"""The name of the option in glibc's malloc.h."""
ARENAS = 2


def few_arenas() -> None:
    """To be called before threads start; MALLOC_ARENA_MAX in the environment goes first.

    glibc gives nearly each thread a heap of its own, up to eight a core, and what one of them has free the others
    cannot use: a server, whose threads come and go, kept some twenty MiB for nothing after a thousand jobs. Other C
    libraries have one heap, or know no such option.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(M_ARENA_MAX, ARENAS)
