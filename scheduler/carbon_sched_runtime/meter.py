"""The machine meter: reads a machine's energy for as long as it runs, whether jobs are there or not.

This is the plain form, without signatures or endpoints: `python -m carbon_sched_runtime.meter`. `carbon-sched meter`
runs the same `MachineMeter` with a signing key, which the standard library has no means for.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Callable

from carbon_sched_runtime.journal import Journal
from carbon_sched_runtime.machine import Machine
from carbon_sched_runtime.seat import PERIOD_S, Seat, drain
from carbon_sched_runtime.sources import Sources

if TYPE_CHECKING:
    from carbon_sched_runtime.reader import Observe, Sign


class MachineMeter:
    """Waits for the reader's lock and meters until told to stop.

    `sign` signs each segment's bytes (`wire.append_signature`), `folder` is where segments are kept (None: only
    published to the wrappers of the machine), `complain` hears of what went wrong and is tried again, `observe` sees
    every sample and what was booked from it.
    """

    def __init__(
        self,
        *,
        sign: Sign | None = None,
        folder: str | None = None,
        complain: Callable[[str], None] | None = None,
        observe: Observe | None = None,
        period_s: float = PERIOD_S,
    ) -> None:
        self._sign, self._folder, self._observe, self._period_s = sign, folder, observe, period_s
        self._complain = complain or (lambda text: print(f"carbon-sched meter: {text}", file=sys.stderr, flush=True))
        self._ends, self._wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopped = False
        self._lock: int | None = None

    def stop(self) -> None:
        """End `run` after a last row; safe in a signal handler."""
        self._stopped = True
        os.write(self._wakes, b"!")

    def run(self) -> None:
        """Meter until `stop`. OSError when the meeting place cannot be used at all."""
        machine = Machine()
        journal = Journal(machine, self._folder, time.time()) if self._folder else None
        if self._sign and not machine.owned:
            self._complain(f"{machine.root} belongs to another user, who can keep segments from jobs: start at boot")
        threading.Thread(target=self._wait_for_lock, args=(machine,), daemon=True).start()
        while self._lock is None and not self._stopped:
            select.select([self._ends], [], [])
            drain(self._ends)
        if self._lock is None:
            return
        seat = Seat(machine, Sources(), self._sign, self._period_s, self._observe)
        if seat.reader.hand_over_trouble:
            self._complain(f"what the last reader left could not be used: {seat.reader.hand_over_trouble}")
        self._complain(f"metering {machine.machine}: {seat.reader.sources.describe()}")
        while not self._stopped:
            asked = seat.wait(self._ends)
            drain(self._ends)  # a byte left in it would wake every wait at once
            self._try(seat, journal, asked=asked)
        seat.leave()
        if journal:
            journal.sync()
        os.close(self._lock)

    def _try(self, seat: Seat, journal: Journal | None, *, asked: bool) -> None:
        try:
            seat.beat(seal=asked)
            if journal:
                journal.sync()
        except OSError as error:
            self._complain(f"{type(error).__name__}: {error}")

    def _wait_for_lock(self, machine: Machine) -> None:
        self._lock = machine.lock(wait=True)
        os.write(self._wakes, b"!")


def main() -> None:
    """Meter until SIGTERM or SIGINT."""
    meter = MachineMeter(folder=os.environ.get("CARBON_SCHED_JOURNAL_DIR"))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: meter.stop())
    meter.run()


if __name__ == "__main__":
    main()
