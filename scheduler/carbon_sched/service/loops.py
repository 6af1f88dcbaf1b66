"""Threads that repeat a step until told to stop: at once when woken, else after the time the step asked for."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import CarbonSchedError, Internal

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

AFTER_ERROR_S = 2.0


@dataclass(frozen=True)
class Step:
    """One loop: its name, what to repeat (returns seconds until the next time), and what wakes it early.

    `rest` is for one that computes much: for each second that it held a processor, nothing wakes it for so many.
    """

    name: str
    run: Callable[[], float]
    wake: threading.Event
    rest: float = 0.0


class Loops:
    """Runs every step in a thread of its own; `stop` waits for the steps under way."""

    def __init__(self, steps: list[Step], done: Callable[[str, float, str], None] = lambda *_: None) -> None:
        """`done` is told of every step: the loop's name, the seconds it took, and the code of its error, if any."""
        self._steps, self._done = steps, done
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(step,), name=step.name, daemon=True) for step in steps
        ]

    def start(self) -> None:
        """Start all threads."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Have every step done again now."""
        for step in self._steps:
            step.wake.set()

    def dead(self) -> list[str]:
        """Loops whose thread has ended although nobody asked it to."""
        return [] if self._stopping.is_set() else [t.name for t in self._threads if t.ident and not t.is_alive()]

    def stop(self, timeout_s: float) -> list[str]:
        """Ask all to stop and wait for them; returns the names of those that did not end in time."""
        self._stopping.set()
        self.wake()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return [thread.name for thread in self._threads if thread.is_alive()]

    def _repeat(self, step: Step) -> None:
        while not self._stopping.is_set():
            step.wake.clear()
            if self._stopping.is_set():  # the wake-up just cleared may have been the one that says stop
                return
            worked = time.thread_time()
            pause_s = self._once(step)
            self._stopping.wait(step.rest * (time.thread_time() - worked))
            step.wake.wait(pause_s)

    def _once(self, step: Step) -> float:
        start, code, pause_s = time.monotonic(), "", AFTER_ERROR_S
        try:
            pause_s = step.run()
        except CarbonSchedError as error:
            code = error.code
            log.warning("step failed loop=%s code=%s: %s", step.name, error.code, error)
        except Exception:
            code = Internal().code
            log.exception("step failed with a bug loop=%s", step.name)
        self._done(step.name, time.monotonic() - start, code)
        return pause_s
