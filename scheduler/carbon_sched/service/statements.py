"""Receipts, reports and verification: follows the ledger with a book in memory, computes in `ledger/`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

from carbon_sched.ledger.book import Book
from carbon_sched.ledger.receipt import receipt
from carbon_sched.ledger.report import report
from carbon_sched.ledger.verify import Verification, verify_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from carbon_sched.domain.facts import Entry
    from carbon_sched.ledger.records import AttemptRecord
    from carbon_sched.ledger.report import Report
    from carbon_sched.ledger.selection import Selection
    from carbon_sched.ports import Store
    from carbon_sched.wire import Receipt

Answer = TypeVar("Answer")
PAGE = 2_000


class Statements:
    """What the ledger says, computed from its facts alone. The book is read on from where it was left."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._book = Book()

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
        with self._lock:
            return report(self._read_on(), selection)

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

    def _entries(self, *, after: int) -> Iterator[Entry]:
        while True:
            with self._store.transaction(write=False) as tx:
                page = tx.entries(after_seq=after, limit=PAGE)
            if not page:
                return
            yield from page
            after = page[-1].seq
