"""Which entries a question rests on, so that the rest of a ledger need not be booked for it, nor kept in memory.

Made by one walk over the chain, from its first entry on: every hash is checked on the way, nothing is taken on trust.
It takes 21 bytes for each entry and some hundred for each job. What it chooses is closed: the figures of a period or of
jobs come out the same, to the last digit, as from the whole book. The entries chosen are checked again when they are
booked.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from carbon_sched.domain.energy import Reporter
from carbon_sched.domain.errors import LedgerBroken
from carbon_sched.domain.facts import FactKind
from carbon_sched.domain.time import EPOCH, US, from_rfc3339
from carbon_sched.ledger.book import Book
from carbon_sched.ledger.chain import GENESIS, continues
from carbon_sched.ledger.uncollected import uncollected

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from datetime import datetime

    from numpy.typing import NDArray

    from carbon_sched.domain.facts import Entry
    from carbon_sched.ledger.account import Period

    Flags = NDArray[np.bool_]

CLUSTER, MACHINE, OTHER = -1, -2, -3
"""In place of a job's number: registrations of clusters, which every job rests on; energy beside jobs; other facts."""
LEAST, MOST = -(2**63), 2**63 - 1
SILENT, WATCHES, GAUGED = 0, 1, 2
"""Whose word an entry's energy is: any reader's, one before which others' do not count, Ray's, which goes after all."""


class Job(NamedTuple):
    """A job as it was accepted."""

    job_id: str
    name: str
    team: str
    model: str
    submitter: str


class Index:
    """For each entry the job it is about and a time in microseconds since 1970, half-open.

    That of energy is from its first span to its last. Of a job's acceptance, an attempt's opening and a job's end it is
    an instant, which is an empty interval; all other facts have none. `attempts` holds the number of its job and the
    cluster of every attempt, `jobs` every job by number. `live` are numbers of jobs; `suspended` too, in the order of
    their first suspension, with the newest entry about each but for energy. `services` holds the ids of the jobs that
    each online service ran as.
    """

    def __init__(self) -> None:
        self.size, self.head = 0, GENESIS
        self.jobs: list[Job] = []
        self.attempts: dict[str, tuple[int, str]] = {}
        self.live: dict[int, None] = {}
        self.suspended: dict[int, int] = {}
        self.services: dict[str, list[str]] = {}
        self._numbers: dict[str, int] = {}
        self._job, self._since, self._until, self._word = array("i"), array("q"), array("q"), array("b")

    def add(self, entry: Entry) -> None:
        """Read the next entry. Raises LedgerBroken when it does not continue the chain or cannot be read."""
        continues(entry, self.size, self.head)
        try:
            fact = _READER.decode(entry.payload)
            job, since, until = self._place(fact)
        except (KeyError, TypeError, ValueError, AttributeError, msgspec.MsgspecError) as error:
            raise LedgerBroken(entry.seq, f"the fact cannot be booked ({error!r})") from error
        self._job.append(job)
        self._since.append(since)
        self._until.append(until)
        self._word.append(_word(fact.body))
        self.size, self.head = entry.seq, entry.hash

    def _place(self, fact: _Fact) -> tuple[int, int, int]:
        kind, body = fact.kind, fact.body
        if kind == FactKind.ENERGY_RECORDED:
            return self.attempts[body.attempt][0], *_extent(body.spans)
        if kind == FactKind.MACHINE_ENERGY_RECORDED:
            return MACHINE, *_extent([*body.spans, *([body.watched] if body.watched else [])])
        if kind == FactKind.JOB_ACCEPTED:
            return self._accepted(body), *(2 * (_us(body.submitted_at),))
        if body.job is None:
            registry = kind in (FactKind.CLUSTER_REGISTERED, FactKind.CLUSTER_REMOVED)
            return CLUSTER if registry else OTHER, LEAST, LEAST
        number = self._numbers[body.job]
        if kind == FactKind.JOB_SUSPENDED or number in self.suspended:
            self.suspended[number] = self.size + 1
        if kind == FactKind.SERVICE_PLACED:
            self.services.setdefault(body.service, []).append(body.job)
        if kind == FactKind.ATTEMPT_OPENED:
            self.attempts[body.attempt] = number, body.cluster
        elif kind == FactKind.JOB_ENDED:
            self.live.pop(number, None)
        else:
            return number, LEAST, LEAST
        return number, *(2 * (_us(fact.at),))

    def _accepted(self, body: _Body) -> int:
        number = self._numbers[body.job] = len(self.jobs)
        self.jobs.append(Job(body.job, *map(_kept, (body.name, body.team, body.model, body.submitter))))
        self.live[number] = None
        return number

    def numbers(self, job_ids: Iterable[str]) -> list[int]:
        """Of those that the ledger knows."""
        return [self._numbers[job_id] for job_id in job_ids if job_id in self._numbers]

    def since(self, moment: datetime) -> list[int]:
        """Jobs that used energy, came, ended or opened an attempt since then."""
        job, until = np.asarray(self._job), np.asarray(self._until)
        return np.flatnonzero(self._jobs_of(job, until > _us_of(moment))[: len(self.jobs)]).tolist()

    def about(self, jobs: Collection[int], *, since: datetime | None = None, others: bool = False) -> Needed:
        """What figures of these jobs rest on, of their energy only that since then; with `others` all about no job.

        That is: registrations of clusters, the facts of the jobs, and, of the time from their first energy to their
        last, what goes before the word of those that say it.
        """
        job, begins, ends = np.asarray(self._job), np.asarray(self._since), np.asarray(self._until)
        mine = np.zeros(len(self.jobs) + 3, dtype=np.bool_)
        mine[list(jobs)] = True
        energy = ends > begins
        theirs = mine[job] & ~(energy & (ends <= (LEAST if since is None else _us_of(since))))
        overheard = np.zeros(len(job), dtype=np.bool_)
        used = theirs & energy
        if used.any():
            beside = energy & (begins < ends[used].max()) & (ends > begins[used].min()) & ~mine[job]
            word = np.asarray(self._word)
            overheard = beside if (word[used] == GAUGED).any() else beside & (word == WATCHES)
        whole = theirs | (job == CLUSTER) | ((job == OTHER) & others)
        return Needed(whole, self.size, self.head, {}, overheard)

    def needed(self, period: Period) -> Needed:
        """What statements over `period` rest on, as the ledger stands.

        That is: facts about no job; the facts of every job that used energy, was submitted or opened an attempt in the
        period; all energy of the time from the first energy of those jobs to the last, since another's word may go
        before theirs; and the facts of the jobs to which that energy belongs.
        """
        job, since, until = np.asarray(self._job), np.asarray(self._since), np.asarray(self._until)
        first = LEAST + 1 if period.since is None else _us_of(period.since)
        last = MOST if period.until is None else _us_of(period.until)
        instants, energy = (since == until) & (since >= first) & (since < last), until > since
        chosen = self._jobs_of(job, instants | (energy & (since < last) & (until > first)))
        theirs = energy & chosen[job]
        if theirs.any():
            first, last = since[theirs].min(), until[theirs].max()
        beside = energy & (since < last) & (until > first)
        chosen |= self._jobs_of(job, beside)
        left_out = {name: cluster for name, (number, cluster) in self.attempts.items() if not chosen[number]}
        return Needed((job == CLUSTER) | (job == OTHER) | beside | chosen[job], self.size, self.head, left_out)

    def _jobs_of(self, job: NDArray[np.int32], entries: Flags) -> Flags:
        """Which jobs these entries are about; CLUSTER, MACHINE and OTHER reach the last three places, and are none."""
        found = np.zeros(len(self.jobs) + 3, dtype=np.bool_)
        found[job[entries]] = True
        found[[CLUSTER, MACHINE, OTHER]] = False
        return found


@dataclass(frozen=True)
class Needed:
    """Which entries of a ledger of `size` and `head` are needed; `left_out` are attempts that are not (`book.py`).

    Of those `overheard` only what they say of others' energy matters.
    """

    entries: Flags
    size: int
    head: str
    left_out: dict[str, str]
    overheard: Flags | None = None

    def runs(self, *, gap: int) -> Iterator[tuple[int, int]]:
        """First and last `seq` of stretches that hold all needed entries; no longer gap than `gap` is in one."""
        every = self.entries if self.overheard is None else self.entries | self.overheard
        places = np.flatnonzero(every) + 1
        if places.size:
            ends = np.flatnonzero(np.diff(places) > gap + 1)
            yield from zip(places[np.r_[0, ends + 1]].tolist(), places[np.r_[ends, -1]].tolist(), strict=True)

    def book(self, entries: Iterable[Entry]) -> Book:
        """The book of those of `entries` that are needed; they are given in their order."""
        book, needed = Book(), self.entries.tobytes()
        overheard = bytes(self.size) if self.overheard is None else self.overheard.tobytes()
        with uncollected():
            for entry in entries:
                if entry.seq > self.size:
                    break
                if needed[entry.seq - 1]:
                    book.add_apart(entry)
                elif overheard[entry.seq - 1]:
                    book.overhear(entry)
        book.size, book.head, book.left_out = self.size, self.head, self.left_out
        return book


class _Stretch(msgspec.Struct, gc=False):
    start: str
    end: str
    reporter: str = ""


class _Body(msgspec.Struct):
    """What of a body the index is made from; what bodies of other kinds hold under these names is not looked at."""

    job: Any = None
    attempt: Any = None
    cluster: Any = None
    service: Any = None
    name: Any = None
    team: Any = None
    model: Any = None
    submitter: Any = None
    submitted_at: Any = None
    spans: list[_Stretch] = []
    watched: _Stretch | None = None


class _Fact(msgspec.Struct):
    at: str
    body: _Body
    kind: str


_READER = msgspec.json.Decoder(_Fact)


def _word(body: _Body) -> int:
    if body.watched is not None:
        return WATCHES
    return GAUGED if Reporter.RAY in {span.reporter for span in body.spans} else SILENT


def _extent(stretches: Iterable[_Stretch]) -> tuple[int, int]:
    times = {(one.start, one.end) for one in stretches}
    if not times:
        return LEAST, LEAST
    return min(_us(start) for start, _ in times), max(_us(end) for _, end in times)


def _us_of(moment: datetime) -> int:
    return (moment - EPOCH) // US


@lru_cache(maxsize=4096)
def _us(text: str) -> int:
    return _us_of(from_rfc3339(text))


@lru_cache(maxsize=4096)
def _kept(text: str) -> str:
    """The same words of many jobs, once."""
    return text
