"""The reader's seat: whoever holds the machine's lock meters it, at 1 Hz, and answers those who ask for a row.

Shared by the two that may sit there: a job's wrapper (`attend`) and the machine meter (`meter`).
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from typing import TYPE_CHECKING

from carbon_sched_runtime.machine import boot_clock_ns
from carbon_sched_runtime.reader import Reader

if TYPE_CHECKING:
    from carbon_sched_runtime.machine import Machine
    from carbon_sched_runtime.reader import Observe, Sign
    from carbon_sched_runtime.sources import Sources

PERIOD_S = 1.0
JITTER = 0.1  # of the period, so as not to keep step with a load that repeats every second
FLUSH_GAP_S = 0.2  # requests for a row are answered at most this often


class Seat:
    """One holder's time as the reader. Make it only while holding `Machine.lock`; `leave` before letting go of it."""

    def __init__(
        self,
        machine: Machine,
        sources: Sources,
        sign: Sign | None = None,
        period_s: float = PERIOD_S,
        observe: Observe | None = None,
    ) -> None:
        self.reader = Reader(machine, sources, sign, observe)
        self.period_s = period_s
        self._pipe = machine.open_pipe()
        if not machine.shared:
            self.reader.note("not-shared", "another user holds the meeting place: their attempts are not seen")
        self._next = self._after_now()

    def wait(self, wake: int) -> bool:
        """Sleep until the next beat, a byte on the descriptor `wake`, or somebody's wish for a row (then True)."""
        ready, _, _ = select.select([wake, self._pipe], [], [], max(0.0, self._next - time.monotonic()))
        if self._pipe not in ready:
            return False
        if boot_clock_ns() - self.reader.sealed_to_ns < FLUSH_GAP_S * 1_000_000_000:
            # Attempts that end together are answered together.
            select.select([wake], [], [], FLUSH_GAP_S)
        drain(self._pipe)
        return True

    def beat(self, *, seal: bool) -> None:
        """Book a row if one is due or asked for; OSError when it cannot be written (tried again at the next)."""
        if seal or time.monotonic() >= self._next:
            self._next = self._after_now()
            self.reader.tick(seal=seal)

    def leave(self) -> None:
        """Close in good order."""
        try:
            self.reader.end()
        finally:
            os.close(self._pipe)

    def _after_now(self) -> float:
        return time.monotonic() + self.period_s * (1 + JITTER * (os.urandom(1)[0] / 127.5 - 1))


def drain(pipe: int) -> None:
    """Take what wakers wrote; the bytes mean nothing."""
    with contextlib.suppress(BlockingIOError):
        os.read(pipe, 4096)
