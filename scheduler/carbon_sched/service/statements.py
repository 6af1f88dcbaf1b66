"""Receipts, reports and verification: follows the ledger with a book in memory, computes in `ledger/`.

Of a long ledger, a question about a period books anew what it needs, found by an index that follows the ledger, too.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

from carbon_sched.ledger.book import Book
from carbon_sched.ledger.index import Index
from carbon_sched.ledger.receipt import receipt
from carbon_sched.ledger.report import report
from carbon_sched.ledger.verify import Verification, verify_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from carbon_sched.domain.facts import Entry
    from carbon_sched.ledger.account import Period
    from carbon_sched.ledger.records import AttemptRecord
    from carbon_sched.ledger.report import Report
    from carbon_sched.ledger.selection import Selection
    from carbon_sched.ports import Store
    from carbon_sched.wire import Receipt

Answer = TypeVar("Answer")
PAGE = 2_000
LONG = 200_000
"""From so many entries on, a question about a period is answered from the entries that it needs."""


class Statements:
    """What the ledger says, computed from its facts alone. The book is read on from where it was left."""

    def __init__(self, store: Store, *, long: int = LONG) -> None:
        self._store, self._long = store, long
        self._lock = threading.Lock()
        self._book = Book()
        self._index_lock = threading.Lock()
        self._index = Index()

    def receipt(self, job_id: str) -> Receipt:
        """The job's receipt as the ledger stands; `state` is the job's own, which moves between facts too."""
        with self._store.transaction(write=False) as tx:
            state = tx.job(job_id).state.value
        with self._lock:
            return {**receipt(self._read_on(), job_id), "state": state}

    def attempt(self, attempt_id: str) -> AttemptRecord:
        """One attempt as its facts tell; NotFound where none does."""
        with self._lock:
            return self._read_on().attempt(attempt_id)

    def report(self, selection: Selection) -> Report:
        """A report over the selected jobs."""
        return self.over(selection.period, lambda book: report(book, selection))

    def over(self, period: Period, question: Callable[[Book], Answer]) -> Answer:
        """A pure function of the book about a period, as the ledger stands."""
        with self._store.transaction(write=False) as tx:
            size, _ = tx.ledger_head()
        if period.since is None or size < self._long:
            return self.ask(question)
        with self._index_lock:
            for entry in self._entries(after=self._index.size):
                self._index.add(entry)
            needed = self._index.needed(period)
        return question(needed.book(self._stretches(needed.runs(gap=PAGE))))

    def ask(self, question: Callable[[Book], Answer]) -> Answer:
        """Any pure function of the book, as the ledger stands."""
        with self._lock:
            return question(self._read_on())

    def verify(self) -> Verification:
        """Walk the whole chain, from its first entry."""
        return verify_entries(self._entries(after=0))

    def _read_on(self) -> Book:
        for entry in self._entries(after=self._book.size):
            self._book.add(entry)
        return self._book

    def _stretches(self, runs: Iterable[tuple[int, int]]) -> Iterator[Entry]:
        for first, last in runs:
            yield from self._entries(after=first - 1, until=last)

    def _entries(self, *, after: int, until: int | None = None) -> Iterator[Entry]:
        """Those behind `after`, to `until` or the end."""
        while until is None or after < until:
            with self._store.transaction(write=False) as tx:
                page = tx.entries(after_seq=after, limit=PAGE if until is None else min(PAGE, until - after))
            if not page:
                return
            yield from page
            after = page[-1].seq
