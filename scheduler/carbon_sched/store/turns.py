"""Whose turn it is to write: first come, first served.

A plain lock goes to whoever asks at the right moment, mostly the thread that just gave it back: a loop with much to
write would keep everybody else waiting.
"""

from __future__ import annotations

import threading
from collections import deque


class Turns:
    """A lock that is handed from thread to thread in the order in which they asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Event] = deque()

    def take(self, timeout_s: float) -> bool:
        """Wait for the turn; False when it did not come in time."""
        with self._lock:
            if not self._taken:
                self._taken = True
                return True
            mine = threading.Event()
            self._waiting.append(mine)
        if mine.wait(timeout_s):
            return True
        with self._lock:
            if mine.is_set():  # handed over in this very moment
                return True
            self._waiting.remove(mine)
            return False

    def give(self) -> None:
        """Hand it to who has waited longest."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False
