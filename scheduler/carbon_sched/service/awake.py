"""Notice that the machine slept, or that its wall clock was set, and have everything looked at again at once.

Waiting is done on a clock that stands still while a machine sleeps: without this, a job whose planned start was slept
through would wait for the rest of the time that was left when the lid was closed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from carbon_sched.ports import Clock

log = logging.getLogger(__name__)

JUMP_S = 5.0


class Awake:
    """Compares wall time with time that never steps; `moved` is called when they went apart."""

    def __init__(self, clock: Clock, moved: Callable[[], None]) -> None:
        self._clock, self._moved = clock, moved
        self._ahead = self._difference()

    def look(self) -> None:
        """Call this every second or so."""
        ahead = self._difference()
        jump_s, self._ahead = ahead - self._ahead, ahead
        if abs(jump_s) >= JUMP_S:
            log.info("the wall clock moved by %+.0f s: the machine slept, or its time was set", jump_s)
            self._moved()

    def _difference(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()
