"""In-process wake-ups, so that loops and long-polling readers act at once instead of sleeping through news."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Signals:
    """Who must look again: one event per loop, one condition for everybody who waits for a job to change."""

    def __init__(self) -> None:
        self.decide = threading.Event()
        self.dispatch = threading.Event()
        self.follow = threading.Event()
        self.collect = threading.Event()
        self.poll = threading.Event()
        self.rayjobs = threading.Event()
        self.readings = threading.Event()
        self._zones: list[threading.Event] = []
        self._changed = threading.Condition()
        self._generation = 0
        self._listeners: list[Callable[[], object]] = []

    def wake_for_zones(self) -> threading.Event:
        """An event for one more loop that must look again when a cluster brings a new zone."""
        self._zones.append(threading.Event())
        return self._zones[-1]

    def zones_changed(self) -> None:
        """Tell those loops."""
        for event in self._zones:
            event.set()

    def lead(self) -> None:
        """This server begins or ends to lead: every loop that only a leader runs looks again."""
        for event in (self.decide, self.dispatch, self.follow, self.collect, self.rayjobs):
            event.set()

    def news_elsewhere(self) -> None:
        """Another server on the same database accepted, stopped or changed a job."""
        self.decide.set()
        self.dispatch.set()
        self.job_changed()

    def job_changed(self) -> None:
        """Tell every waiting reader that some job changed."""
        with self._changed:
            self._generation += 1
            self._changed.notify_all()
            for tell in self._listeners:
                tell()

    @contextmanager
    def heard_by(self, tell: Callable[[], object]) -> Iterator[None]:
        """Inside, every change calls `tell`, from whatever thread it happens in: for those who must not block one."""
        with self._changed:
            self._listeners.append(tell)
        try:
            yield
        finally:
            with self._changed:
                self._listeners.remove(tell)

    @property
    def generation(self) -> int:
        """Counts changes; read it before looking, then pass it to `wait_for_change`."""
        return self._generation

    def wait_for_change(self, seen: int, timeout_s: float) -> None:
        """Return once something changed after generation `seen`, or after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._generation != seen, timeout=timeout_s)
