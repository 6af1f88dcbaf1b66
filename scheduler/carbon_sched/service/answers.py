"""Answers of the book that are kept: computed beside the requests, given as the ledger stood when they were computed.

A question over a large ledger takes seconds. Whoever asks waits a moment for the newest answer, and otherwise gets the
last one, which says of how many entries it is; None before the first is there. What takes long to compute is computed
anew less often, so that open pages of a busy fleet, which ask every second, leave time for everything else.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from carbon_sched.ledger.book import Book
    from carbon_sched.ports import Clock

Value = TypeVar("Value")
KEPT, KEPT_FACTS = 64, 4_096
PATIENCE_S = 0.1
"""How long a reader waits for an answer that is being computed."""
SOON = 0.2
"""Of that time, for a newer answer where an older one is there."""
REST = 10.0
"""An answer that took longer than readers wait is good for so many times the time it took."""


@dataclass(frozen=True)
class Answer(Generic[Value]):
    """A value, as of so many entries of the ledger."""

    value: Value
    size: int


@dataclass(frozen=True)
class _Known:
    """An answer that is good until a moment of the monotonic clock, however the ledger grows."""

    answer: Answer[Any]
    until_s: float


class Answers:
    """One thread computes; every other only looks."""

    def __init__(self, clock: Clock, *, patience_s: float = PATIENCE_S) -> None:
        self._clock, self._patience_s = clock, patience_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="answers")
        self._lock = threading.Lock()
        self._known: OrderedDict[Hashable, _Known] = OrderedDict()
        self._coming: dict[Hashable, Future[Answer[Any]]] = {}
        self._facts: OrderedDict[Hashable, Any] = OrderedDict()

    def of(
        self,
        key: Hashable,
        read: Callable[[Callable[[Book], Any]], Any],
        question: Callable[[Book], Value],
        *,
        size: int,
    ) -> Answer[Value] | None:
        """The answer as of `size` entries or more where it comes soon and is not rested from, else the last one.

        `key` says which question it is, and `read` asks it of a book that holds enough. What either raises is raised.
        """
        with self._lock:
            known = self._known.get(key)
            if known is not None and (known.answer.size >= size or self._clock.monotonic() < known.until_s):
                self._known.move_to_end(key)
                return known.answer
            if key not in self._coming:
                self._coming[key] = self._thread.submit(self._compute, key, read, question)
            coming = self._coming[key]
        patience_s = self._patience_s if known is None else SOON * self._patience_s
        if not wait([coming], patience_s).done:
            return None if known is None else known.answer
        with self._lock:
            if self._coming.get(key) is coming:  # it failed, and nobody was told yet
                del self._coming[key]
        return coming.result()

    def once(self, key: Hashable, look: Callable[[], Value]) -> Value:
        """What never changes once it is there: looked up at the first asking, then kept for a while."""
        with self._lock:
            if key in self._facts:
                self._facts.move_to_end(key)
                return cast("Value", self._facts[key])
        found = look()
        with self._lock:
            self._facts[key] = found
            while len(self._facts) > KEPT_FACTS:
                self._facts.popitem(last=False)
        return found

    def close(self) -> None:
        """Compute nothing more."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _compute(
        self, key: Hashable, read: Callable[[Callable[[Book], Any]], Any], question: Callable[[Book], Value]
    ) -> Answer[Value]:
        begin = self._clock.monotonic()
        answer: Answer[Value] = read(lambda book: Answer(question(book), book.size))
        end = self._clock.monotonic()
        rest_s = REST * (end - begin) if end - begin > self._patience_s else 0.0
        with self._lock:
            del self._coming[key]
            self._known[key] = _Known(answer, end + rest_s)
            self._known.move_to_end(key)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return answer
