"""Without Python's cycle collector for a while, or with little of it."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SELDOM = 100


def collected_seldom() -> None:
    """For a process that keeps hundreds of thousands of objects and answers others.

    Python walks all of them only when 700,000 more have come than gone (a hundred collections of the middle
    generation), not 70,000: that stops every thread for a tenth of a second and more, and finds next to nothing. What
    is there already is for good, modules above all, and is walked over never again.
    """
    gc.set_threshold(*gc.get_threshold()[:2], SELDOM)
    gc.freeze()


@contextmanager
def uncollected() -> Iterator[None]:
    """For code that makes millions of objects and no cycles: the collector would walk over all of them time and again.

    What else the process does meanwhile keeps its cycles until the end of it.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
