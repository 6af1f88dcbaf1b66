"""The book: what the ledger's facts say of jobs, attempts, energy and readings, read once from the first entry on.

Only the chain's facts go in, so whoever holds the entries computes the same figures. A fact that contradicts an earlier
one is an error with its seq, never a guess.
"""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from itertools import chain, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.energy import QUALITY, IndependentCover, Reporter, Window
from carbon_sched.domain.errors import LedgerBroken, NotFound
from carbon_sched.domain.facts import FactKind
from carbon_sched.domain.intensity import Basis, Grade, Kind, Perimeter, Reading, Signal
from carbon_sched.domain.time import from_rfc3339, to_rfc3339
from carbon_sched.ledger.chain import GENESIS, continues, covers
from carbon_sched.ledger.encoding import decode_fact
from carbon_sched.ledger.energy_fact import energy_in, energy_of, instant, spans_in
from carbon_sched.ledger.records import Amendment, AttemptRecord, Body, Change, JobRecord, Listing, ReadingsUsed
from carbon_sched.ledger.uncollected import uncollected
from carbon_sched.ledger.variant import uses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from carbon_sched.domain.energy import EnergySpan, Stretch
    from carbon_sched.domain.facts import Entry, Fact
    from carbon_sched.ledger.energy_fact import Energy


class Book:
    """Jobs by id, in the order of their acceptance; `size` and `head` say how far the ledger was read.

    `clusters` holds the newest registration of each cluster that is registered now, `policies` every application of a
    policy, `machine_energy_uj` what no attempt owns, by machine and pot (`idle`, `unattributed`). `declarations` are
    what people said of the clusters and of the organisation, oldest first, `listings` the clusters' own lists of jobs.
    `services` holds what was said of each online service, in its order, with `kind` and `at`.
    Of a book over a period, `left_out` holds the cluster of every attempt that stands in the ledger and not here.
    """

    def __init__(self) -> None:
        self.size, self.head = 0, GENESIS
        self.jobs: dict[str, JobRecord] = {}
        self.clusters: dict[str, Body] = {}
        self.policies: list[Body] = []
        self.declarations: list[tuple[datetime, Body]] = []
        self.imports: list[Body] = []
        self.imported_runs: set[str] = set()
        self.listings: list[Listing] = []
        self.services: dict[str, list[Body]] = {}
        self.left_out: dict[str, str] = {}
        self.machine_segments: set[str] = set()
        self._machine_uj: dict[tuple[str, str], int] = {}
        self._contestable: list[EnergySpan] = []
        self._watched = IndependentCover()
        self._attempts: dict[str, AttemptRecord] = {}

    @property
    def machine_energy_uj(self) -> dict[tuple[str, str], int]:
        """What no attempt owns."""
        pots = dict(self._machine_uj)
        for span in self._contestable:
            if not self._watched.supersedes(span):
                _put(pots, span)
        return pots

    def add(self, entry: Entry) -> None:
        """Read the next entry. Raises LedgerBroken when it does not continue the chain or contradicts the book."""
        continues(entry, self.size, self.head)
        self._read(entry, self._energy)

    def add_apart(self, entry: Entry) -> None:
        """Read a later entry, of which those between are left out (`index.py`). Raises LedgerBroken as `add` does."""
        self._require_later(entry)
        self._read(entry, self._energy)

    def overhear(self, entry: Entry) -> None:
        """Of a later entry of energy, take only what it says of others': of whose it is nothing is known here."""
        self._require_later(entry)
        self._read(entry, self._heard)

    def _require_later(self, entry: Entry) -> None:
        if entry.seq <= self.size or not covers(entry):
            raise LedgerBroken(entry.seq, "its hash does not cover its content")

    def _read(self, entry: Entry, take: Callable[[Energy], None]) -> None:
        try:
            energy = energy_of(entry.payload)
            if energy is not None:
                take(energy)
            else:
                fact = decode_fact(entry.payload)
                if fact.kind is FactKind.ENERGY_RECORDED:
                    take(energy_in(fact.body))
                else:
                    _READERS[fact.kind](self, fact, fact.body)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LedgerBroken(entry.seq, f"the fact cannot be booked ({error!r})") from error
        self.size, self.head = entry.seq, entry.hash

    def attempt(self, attempt_id: str) -> AttemptRecord:
        """One attempt, or NotFound."""
        if attempt_id not in self._attempts:
            raise NotFound(f"the ledger knows no attempt {attempt_id!r}")
        return self._attempts[attempt_id]

    # one reader per kind of fact -----------------------------------------------------------------

    def _cluster_registered(self, fact: Fact, body: Mapping[str, Any]) -> None:
        before = self.clusters.get(body["name"])
        self.clusters[body["name"]] = dict(body)
        if before is not None and before["pue_ppm"] != body["pue_ppm"]:
            for attempt in self._attempts.values():
                if attempt.cluster == body["name"] and not attempt.outcome:
                    attempt.pue_changes.append((fact.at, body["pue_ppm"]))

    def _cluster_removed(self, _fact: Fact, body: Mapping[str, Any]) -> None:
        self.clusters.pop(body["name"], None)

    def _policy_applied(self, _fact: Fact, body: Mapping[str, Any]) -> None:
        self.policies.append(dict(body))

    def _budget_approved(self, _fact: Fact, body: Mapping[str, Any]) -> None:
        self.jobs[body["job"]].approvals.append(dict(body))

    def _job_accepted(self, _fact: Fact, body: Mapping[str, Any]) -> None:
        _refuse(body["job"] in self.jobs, f"job {body['job']} is accepted twice")
        self.jobs[body["job"]] = JobRecord(
            job_id=body["job"],
            name=body["name"],
            phase=body["phase"],
            stage=body["stage"],
            model=body["model"],
            project=body["project"],
            team=body["team"],
            submitter=body["submitter"],
            submitted_at=from_rfc3339(body["submitted_at"]),
            policy=body["policy"],
        )

    def _job_amended(self, fact: Fact, body: Mapping[str, Any]) -> None:
        """From then on the job asks for something else; what it asked before stays beside it."""
        changes = tuple(Change(one["field"], one["before"], one["after"]) for one in body["changes"])
        self.jobs[body["job"]].amendments.append(Amendment(fact.at, body["by"], changes))

    def _job_decided(self, fact: Fact, body: Mapping[str, Any]) -> None:
        job = self.jobs[body["job"]]
        job.decision = {**body, "at": to_rfc3339(fact.at)}
        if body["verdict"] == "place":
            job.placed = job.decision

    def _job_ended(self, fact: Fact, body: Mapping[str, Any]) -> None:
        job = self.jobs[body["job"]]
        job.state, job.reason, job.exit_code = body["state"], body["reason"], body["exit_code"]
        job.ended_at = fact.at

    def _attempt_opened(self, fact: Fact, body: Mapping[str, Any]) -> None:
        job = self.jobs[body["job"]]
        _refuse(body["attempt"] in self._attempts, f"attempt {body['attempt']} is opened twice")
        attempt = AttemptRecord(
            attempt_id=body["attempt"],
            job_id=body["job"],
            number=body["number"],
            cluster=body["cluster"],
            zone=body["zone"],
            pue_ppm=body["pue_ppm"],
            pue_source=body["pue_source"],
            opened_at=fact.at,
            pue_period=self.clusters.get(body["cluster"], {}).get("pue_period", ""),
            reserved=body.get("reserved"),
            watched=self._watched,
        )
        job.attempts[attempt.attempt_id] = self._attempts[attempt.attempt_id] = attempt

    def _attempt_ended(self, _fact: Fact, body: Mapping[str, Any]) -> None:
        """How it ended; of a lost one that was found again the newest end holds, and its journal is read anew."""
        attempt = self._attempts[body["attempt"]]
        if attempt.outcome:
            attempt.collected, attempt.missing = False, []
        attempt.outcome, attempt.exit_code = body["outcome"], body["exit_code"]
        attempt.started_at, attempt.ended_at = _time(body["started_at"]), _time(body["ended_at"])
        attempt.missing += body["missing"]
        attempt.missing_at_end = tuple(attempt.missing)

    def _attempt_collected(self, _fact: Fact, body: Mapping[str, Any]) -> None:
        """What its journal held; collected again, after energy that came late, the newest word on it holds."""
        attempt = self._attempts[body["attempt"]]
        attempt.collected = True
        known = attempt.missing_at_end
        attempt.missing = [*known, *(text for text in body["missing"] if text not in known)]
        attempt.notes += [text for text in body.get("notes", ()) if text not in attempt.notes]
        windows = [_window(item) for item in body.get("windows", ())]
        windows, attempt.variants = uses(windows)
        attempt.windows = [window for window in windows if window.name != QUALITY]
        attempt.overhead = [_window(item) for item in body.get("overhead", ())]
        attempt.quality = {}
        for told in sorted((window for window in windows if window.name == QUALITY), key=lambda one: one.end):
            attempt.quality.update(told.units)

    def _heard(self, energy: Energy) -> None:
        self._note(energy.stretches({}))

    def _note(self, stretches: Iterable[Stretch]) -> None:
        for channels, start, end, *_ in stretches:
            self._watched.add_read(channels, start, end)

    def _energy(self, energy: Energy) -> None:
        attempt, segment = self._attempts[energy.attempt], energy.segment
        known = len(attempt.channels)
        stretches = energy.stretches(attempt.channels)
        if segment in attempt.segments:
            raise ValueError(f"segment {segment} of {attempt.attempt_id} is booked twice")
        met = chain.from_iterable(attempt.channels.values()) if len(attempt.channels) > known else ()
        if any(channel.owner != attempt.attempt_id for channel in met):
            raise ValueError(f"segment {segment} holds others' energy")
        attempt.segments.add(segment)
        if told := energy.compared:
            counter_uj, integral_uj = attempt.compared.get(told.machine, (0, 0))
            attempt.compared[told.machine] = counter_uj + told.counter_uj, integral_uj + told.integral_uj
        self._note(stretches)
        attempt.recorded += stretches
        attempt.collected = False  # energy that comes late wants its readings too, which are booked with it

    def _machine_energy_recorded(self, _fact: Fact, body: Mapping[str, Any]) -> None:
        """Energy that belongs to no attempt: idle and unattributed, so that a machine's rows add up to its counters."""
        segment = body["segment"]
        _refuse(segment in self.machine_segments, f"segment {segment} of machine {body['machine']} is booked twice")
        self.machine_segments.add(segment)
        for span in spans_in(body):
            self._watched.add_read([span], span.start, span.end)
            # Where no meter is vouched for, no independent word can follow: the sum is all that is needed.
            vouched = self.clusters.get(span.cluster, {}).get("meter_keys")
            if vouched and span.reporter is Reporter.SELF_REPORTED:
                self._contestable.append(span)
            else:
                _put(self._machine_uj, span)
        watched = body.get("watched")
        if watched is not None:
            start, end = from_rfc3339(watched["start"]), from_rfc3339(watched["end"])
            self._watched.add(body["machine"], watched["kinds"], start, end)

    def _readings_used(self, fact: Fact, body: Mapping[str, Any]) -> None:
        attempt = self._attempts[body["attempt"]]
        used = _readings_used(body, fact.at, len(attempt.recorded))
        attempt.readings.setdefault(body["role"], []).append(used)

    def _cluster_jobs_listed(self, _fact: Fact, body: Mapping[str, Any]) -> None:
        until = from_rfc3339(body["until"])
        listing = Listing(body["cluster"], _time(body["since"]), until, tuple(body["ours"]), tuple(body["others"]))
        self.listings.append(listing)

    def _emissions_imported(self, _fact: Fact, body: Mapping[str, Any]) -> None:
        """What another tool said: kept apart from all that was metered."""
        runs = {run["run"] for run in body["runs"]}
        twice = self.imported_runs & runs
        _refuse(bool(twice) or len(runs) < len(body["runs"]), f"runs are imported twice: {sorted(twice)}")
        self.imported_runs |= runs
        self.imports.append(dict(body))

    def _declaration_made(self, fact: Fact, body: Mapping[str, Any]) -> None:
        self.declarations.append((fact.at, dict(body)))

    def _job_resolved(self, _fact: Fact, _body: Mapping[str, Any]) -> None:
        """A person's word about a lost job; what follows from it is said by the job's end, or its next attempt."""

    def _job_suspended(self, _fact: Fact, body: Mapping[str, Any]) -> None:
        """Why an attempt was stopped; what it used and how it ended is said by the attempt's own facts."""
        self.jobs[body["job"]].suspensions += 1

    def _service_told(self, fact: Fact, body: Mapping[str, Any]) -> None:
        """Where an online service was, and why; what it used there is said by the facts of its jobs."""
        told = {**body, "kind": fact.kind.value, "at": to_rfc3339(fact.at)}
        self.services.setdefault(body["service"], []).append(told)

    def _statement_issued(self, _fact: Fact, _body: Mapping[str, Any]) -> None:
        """Statements are computed from facts, not from statements."""


_READERS: dict[FactKind, Callable[[Book, Fact, Mapping[str, Any]], None]] = {
    FactKind.CLUSTER_REGISTERED: Book._cluster_registered,  # noqa: SLF001 - the class's own table
    FactKind.CLUSTER_REMOVED: Book._cluster_removed,  # noqa: SLF001
    FactKind.POLICY_APPLIED: Book._policy_applied,  # noqa: SLF001
    FactKind.BUDGET_APPROVED: Book._budget_approved,  # noqa: SLF001
    FactKind.JOB_ACCEPTED: Book._job_accepted,  # noqa: SLF001
    FactKind.JOB_AMENDED: Book._job_amended,  # noqa: SLF001
    FactKind.JOB_DECIDED: Book._job_decided,  # noqa: SLF001
    FactKind.JOB_ENDED: Book._job_ended,  # noqa: SLF001
    FactKind.ATTEMPT_OPENED: Book._attempt_opened,  # noqa: SLF001
    FactKind.ATTEMPT_ENDED: Book._attempt_ended,  # noqa: SLF001
    FactKind.ATTEMPT_COLLECTED: Book._attempt_collected,  # noqa: SLF001
    FactKind.MACHINE_ENERGY_RECORDED: Book._machine_energy_recorded,  # noqa: SLF001
    FactKind.READINGS_USED: Book._readings_used,  # noqa: SLF001
    FactKind.CLUSTER_JOBS_LISTED: Book._cluster_jobs_listed,  # noqa: SLF001
    FactKind.EMISSIONS_IMPORTED: Book._emissions_imported,  # noqa: SLF001
    FactKind.DECLARATION_MADE: Book._declaration_made,  # noqa: SLF001
    FactKind.JOB_RESOLVED: Book._job_resolved,  # noqa: SLF001
    FactKind.JOB_SUSPENDED: Book._job_suspended,  # noqa: SLF001
    FactKind.SERVICE_DEPLOYED: Book._service_told,  # noqa: SLF001
    FactKind.SERVICE_PLACED: Book._service_told,  # noqa: SLF001
    FactKind.SERVICE_ANSWERS: Book._service_told,  # noqa: SLF001
    FactKind.SERVICE_LEFT: Book._service_told,  # noqa: SLF001
    FactKind.SERVICE_DELETED: Book._service_told,  # noqa: SLF001
    FactKind.STATEMENT_ISSUED: Book._statement_issued,  # noqa: SLF001
}


def read_book(entries: Iterable[Entry]) -> Book:
    """The book of a ledger, from its first entry on. Raises LedgerBroken, naming the entry that cannot be booked."""
    book = Book()
    with uncollected():
        for entry in entries:
            book.add(entry)
    return book


def _put(pots: dict[tuple[str, str], int], span: EnergySpan) -> None:
    pot = (span.machine, span.owner)
    pots[pot] = pots.get(pot, 0) + span.energy_uj


def _refuse(wrong: bool, problem: str) -> None:  # noqa: FBT001
    if wrong:
        raise ValueError(problem)


def _time(text: str | None) -> datetime | None:
    return None if text is None else instant(text)


def _window(item: Mapping[str, Any]) -> Window:
    start, end = from_rfc3339(item["start"]), from_rfc3339(item["end"])
    return Window(item["name"], start, end, dict(item["units_millionths"]))


def _readings_used(body: Mapping[str, Any], at: datetime, evidence: int) -> ReadingsUsed:
    return ReadingsUsed(
        role=body["role"],
        cluster=body["cluster"],
        zone=body["zone"],
        pue_ppm=body["pue_ppm"],
        pue_source=body["pue_source"],
        shift=timedelta(microseconds=body["shift_us"]),
        readings=_ordered(body["readings"], body["zone"]),
        at=at,
        direct=_ordered(body.get("direct", ()), body["zone"]),
        evidence=evidence,
    )


def _ordered(items: Iterable[Mapping[str, Any]], zone: str) -> tuple[Reading, ...]:
    read = (_reading(zone, item.get("model_version", ""), *_in_order(item)) for item in items)
    readings = tuple(sorted(read, key=lambda reading: reading.start))
    for left, right in pairwise(readings):
        _refuse(left.end > right.start, f"readings of {zone} overlap at {right.start.isoformat()}")
    return readings


_in_order = itemgetter(
    "start", "end", "mg_per_kwh", "signal", "basis", "perimeter", "kind", "grade", "provider", "issued_at",
    "fetched_at", "sha256", "licence",
)  # fmt: skip


@lru_cache(maxsize=4096)
def _reading(
    zone: str,
    model_version: str,
    start: str,
    end: str,
    mg_per_kwh: int,
    signal: str,
    basis: str,
    perimeter: str,
    kind: str,
    grade: str,
    provider: str,
    issued_at: str,
    fetched_at: str,
    sha256: str,
    licence: str,
) -> Reading:
    """One reading is used by many attempts: it is made, and kept, once."""
    return Reading(
        zone=zone,
        start=instant(start),
        end=instant(end),
        intensity_mg_per_kwh=mg_per_kwh,
        signal=Signal(signal),
        basis=Basis(basis),
        perimeter=Perimeter(perimeter),
        kind=Kind(kind),
        grade=Grade(grade),
        provider=provider,
        issued_at=instant(issued_at),
        fetched_at=instant(fetched_at),
        model_version=model_version,
        payload_sha256=sha256,
        licence=licence,
    )
