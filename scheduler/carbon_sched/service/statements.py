"""Receipts, reports, verification: follows the ledger with an index, books what is asked for, computes in `ledger/`.

No book outlives its question: what a server keeps of a job that is over are a few hundred bytes.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from carbon_sched.ledger.account import ALWAYS
from carbon_sched.ledger.book import read_book
from carbon_sched.ledger.index import Index
from carbon_sched.ledger.receipt import receipt
from carbon_sched.ledger.report import report
from carbon_sched.ledger.service import service_history
from carbon_sched.ledger.uncollected import uncollected
from carbon_sched.ledger.verify import Verification, verify_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from carbon_sched.domain.facts import Entry
    from carbon_sched.ledger.account import Period
    from carbon_sched.ledger.book import Book
    from carbon_sched.ledger.index import Job, Needed
    from carbon_sched.ledger.records import AttemptRecord
    from carbon_sched.ledger.report import Report
    from carbon_sched.ledger.selection import Selection
    from carbon_sched.ledger.service import ServiceHistory
    from carbon_sched.ports import Store
    from carbon_sched.wire import Receipt

Answer = TypeVar("Answer")
PAGE = 2_000
GAP = 32
"""So many entries that are not needed are read along rather than left out by a query of their own."""


class Statements:
    """What the ledger says, computed from its facts alone. Between questions only the index is kept."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._index = Index()

    def receipt(self, job_id: str) -> Receipt:
        """The job's receipt as the ledger stands; `state` is the job's own, which moves between facts too."""
        with self._store.transaction(write=False) as tx:
            state = tx.job(job_id).state.value
        return {**self.of([job_id], lambda book: receipt(book, job_id)), "state": state}

    def attempt(self, attempt_id: str) -> AttemptRecord:
        """One attempt as its facts tell; NotFound where none does."""
        with self._followed() as index:
            known = index.attempts.get(attempt_id)
            needed = index.about([] if known is None else [known[0]])
        return self._book(needed).attempt(attempt_id)

    def report(self, selection: Selection) -> Report:
        """A report over the selected jobs."""
        return self.over(selection.period, lambda book: report(book, selection))

    def service(self, name: str, sees: Callable[[str], bool]) -> ServiceHistory:
        """Where an online service ran; NotFound where nothing is known of it, or where `sees(team)` forbids a look."""
        jobs = self.look(lambda index: list(index.services.get(name, [])))
        return self.of(jobs, lambda book: service_history(book, name, sees), others=True)

    def look(self, question: Callable[[Index], Answer]) -> Answer:
        """What the index knows by itself, as the ledger stands; quick, for nobody else may look meanwhile."""
        with self._followed() as index:
            return question(index)

    def jobs(self, wanted: Callable[[Job], bool]) -> list[str]:
        """Ids of the jobs that were accepted like this, oldest first."""
        return self.look(lambda index: [job.job_id for job in index.jobs if wanted(job)])

    def of(
        self,
        jobs: Iterable[str],
        question: Callable[[Book], Answer],
        *,
        since: datetime | None = None,
        others: bool = False,
    ) -> Answer:
        """A pure function of the book about some jobs, as the ledger stands (`Index.about`)."""
        return self._answer(
            self.look(lambda index: index.about(index.numbers(jobs), since=since, others=others)), question
        )

    def over(self, period: Period, question: Callable[[Book], Answer]) -> Answer:
        """A pure function of the book about a period, as the ledger stands."""
        if period == ALWAYS:
            return self.ask(question)
        return self._answer(self.look(lambda index: index.needed(period)), question)

    def ask(self, question: Callable[[Book], Answer]) -> Answer:
        """Any pure function of the whole book, as the ledger stands: all of it is read for this."""
        with uncollected():
            return question(read_book(self._entries(after=0)))

    def verify(self) -> Verification:
        """Walk the whole chain, from its first entry."""
        return verify_entries(self._entries(after=0))

    @contextmanager
    def _followed(self) -> Iterator[Index]:
        with self._lock:
            for entry in self._entries(after=self._index.size):
                self._index.add(entry)
            yield self._index

    def _answer(self, needed: Needed, question: Callable[[Book], Answer]) -> Answer:
        with uncollected():
            return question(self._book(needed))

    def _book(self, needed: Needed) -> Book:
        return needed.book(
            entry for first, last in needed.runs(gap=GAP) for entry in self._entries(after=first - 1, until=last)
        )

    def _entries(self, *, after: int, until: int | None = None) -> Iterator[Entry]:
        """Those behind `after`, to `until` or the end."""
        while until is None or after < until:
            with self._store.transaction(write=False) as tx:
                page = tx.entries(after_seq=after, limit=PAGE if until is None else min(PAGE, until - after))
            if not page:
                return
            yield from page
            after = page[-1].seq
