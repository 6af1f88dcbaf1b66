"""Which entries a statement over a period rests on, so that the rest of a long ledger need not be booked for it.

Made by one walk over the chain, from its first entry on: every hash is checked on the way, nothing is taken on trust.
It takes 20 bytes for each entry and some hundred for each job. What it chooses is closed: the figures of a period come
out the same, to the last digit, as from the whole book. The entries chosen are checked again when they are booked.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from carbon_sched.domain.errors import LedgerBroken
from carbon_sched.domain.facts import FactKind
from carbon_sched.domain.time import EPOCH, US, from_rfc3339
from carbon_sched.ledger.book import Book
from carbon_sched.ledger.chain import GENESIS, continues
from carbon_sched.ledger.json_bytes import parsed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from carbon_sched.domain.facts import Entry
    from carbon_sched.ledger.account import Period

    Flags = NDArray[np.bool_]

ALWAYS_READ, MACHINE = -1, -2
"""In place of a job's number: facts about no job, which are few; and energy beside jobs."""
LEAST, MOST = -(2**63), 2**63 - 1


class Index:
    """For each entry the job it is about and a time in microseconds since 1970, half-open.

    That of energy is from its first span to its last. Of a job's acceptance and an attempt's opening it is an instant,
    which is an empty interval; all other facts have none. `attempts` holds the cluster of every attempt.
    """

    def __init__(self) -> None:
        self.size, self.head = 0, GENESIS
        self.attempts: dict[str, tuple[int, str]] = {}
        self._numbers: dict[str, int] = {}
        self._job, self._since, self._until = array("i"), array("q"), array("q")

    def add(self, entry: Entry) -> None:
        """Read the next entry. Raises LedgerBroken when it does not continue the chain or cannot be read."""
        continues(entry, self.size, self.head)
        try:
            fact = parsed(entry.payload)
            job, since, until = self._place(fact["kind"], fact["at"], fact["body"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LedgerBroken(entry.seq, f"the fact cannot be booked ({error!r})") from error
        self._job.append(job)
        self._since.append(since)
        self._until.append(until)
        self.size, self.head = entry.seq, entry.hash

    def _place(self, kind: str, at: str, body: Mapping[str, Any]) -> tuple[int, int, int]:
        if kind == FactKind.ENERGY_RECORDED.value:
            return self.attempts[body["attempt"]][0], *_extent(body["spans"])
        if kind == FactKind.MACHINE_ENERGY_RECORDED.value:
            watched = body.get("watched")
            return MACHINE, *_extent([*body["spans"], *([watched] if watched else [])])
        if kind == FactKind.JOB_ACCEPTED.value:
            number = self._numbers[body["job"]] = len(self._numbers)
            return number, *(2 * (_us(body["submitted_at"]),))
        if kind == FactKind.ATTEMPT_OPENED.value:
            number = self._numbers[body["job"]]
            self.attempts[body["attempt"]] = number, body["cluster"]
            return number, *(2 * (_us(at),))
        return (self._numbers[body["job"]] if "job" in body else ALWAYS_READ), LEAST, LEAST

    def needed(self, period: Period) -> Needed:
        """What statements over `period` rest on, as the ledger stands.

        That is: facts about no job; the facts of every job that used energy, was submitted or opened an attempt in the
        period; all energy of the time from the first energy of those jobs to the last, since another's word may go
        before theirs; and the facts of the jobs to which that energy belongs.
        """
        job, since, until = np.asarray(self._job), np.asarray(self._since), np.asarray(self._until)
        first = LEAST + 1 if period.since is None else (period.since - EPOCH) // US
        last = MOST if period.until is None else (period.until - EPOCH) // US
        instants, energy = (since == until) & (since >= first) & (since < last), until > since
        chosen = self._jobs_of(job, instants | (energy & (since < last) & (until > first)))
        theirs = energy & chosen[job]
        if theirs.any():
            first, last = since[theirs].min(), until[theirs].max()
        beside = energy & (since < last) & (until > first)
        chosen |= self._jobs_of(job, beside)
        left_out = {name: cluster for name, (number, cluster) in self.attempts.items() if not chosen[number]}
        return Needed((job == ALWAYS_READ) | beside | chosen[job], self.size, self.head, left_out)

    def _jobs_of(self, job: NDArray[np.int32], entries: Flags) -> Flags:
        """Which jobs these entries are about; ALWAYS_READ and MACHINE reach the last two places, and are none."""
        found = np.zeros(len(self._numbers) + 2, dtype=np.bool_)
        found[job[entries]] = True
        found[[ALWAYS_READ, MACHINE]] = False
        return found


@dataclass(frozen=True)
class Needed:
    """Which entries of a ledger of `size` and `head` are needed; `left_out` are attempts that are not (`book.py`)."""

    entries: Flags
    size: int
    head: str
    left_out: dict[str, str]

    def runs(self, *, gap: int) -> Iterator[tuple[int, int]]:
        """First and last `seq` of stretches that hold all needed entries; no longer gap than `gap` is in one."""
        places = np.flatnonzero(self.entries) + 1
        if places.size:
            ends = np.flatnonzero(np.diff(places) > gap + 1)
            yield from zip(places[np.r_[0, ends + 1]].tolist(), places[np.r_[ends, -1]].tolist(), strict=True)

    def book(self, entries: Iterable[Entry]) -> Book:
        """The book of those of `entries` that are needed; they are given in their order."""
        book = Book()
        for entry in entries:
            if entry.seq <= self.size and self.entries[entry.seq - 1]:
                book.add_apart(entry)
        book.size, book.head, book.left_out = self.size, self.head, self.left_out
        return book


def _extent(stretches: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    times = [(_us(one["start"]), _us(one["end"])) for one in stretches]
    if not times:
        return LEAST, LEAST
    return min(start for start, _ in times), max(end for _, end in times)


@lru_cache(maxsize=4096)
def _us(text: str) -> int:
    return (from_rfc3339(text) - EPOCH) // US
