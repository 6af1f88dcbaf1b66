"""What the ledger says of one job, one attempt, one list of a cluster: what the book fills from facts."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.energy import IndependentCover

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from carbon_sched.domain.energy import EnergySpan, Stretch, Window
    from carbon_sched.domain.intensity import Reading
    from carbon_sched.ledger.energy_fact import Known
    from carbon_sched.ledger.variant import VariantUse

Body = dict[str, Any]
ACTUAL = "actual"
"""The role of the readings that book an attempt; every other role is a reference choice."""
HOME, BEST_FIXED, ORACLE = "run-now-home", "best-fixed", "best-in-hindsight"
"""The reference choices: at once on the home cluster, on the best of the 28 days before, and the best allowed one."""


@dataclass(frozen=True)
class ReadingsUsed:
    """Which intensities and PUE apply to an attempt's energy, moved in time by `shift`, on a cluster (for a `role`).

    `direct` are combustion-only readings beside the life-cycle ones, with holes where nobody publishes them. It was
    booked `at`, over the first `evidence` stretches that were recorded of the attempt.
    """

    role: str
    cluster: str
    zone: str
    pue_ppm: int
    pue_source: str
    shift: timedelta
    readings: tuple[Reading, ...]
    at: datetime
    direct: tuple[Reading, ...] = ()
    evidence: int = 0


@dataclass(frozen=True)
class Change:
    """One thing that a job asks for, as it was and as it became: a time, a length of time, yes or no; None: nothing."""

    field: str
    before: str | None
    after: str | None

    @property
    def said(self) -> str:
        """In words."""
        return f"{self.field} {self.after or 'none'} instead of {self.before or 'none'}"


@dataclass(frozen=True)
class Amendment:
    """What a person (`by`, a pseudonym) changed of a job after it was accepted."""

    at: datetime
    by: str
    changes: tuple[Change, ...]

    @property
    def said(self) -> str:
        """In words, without the moment."""
        return f"{self.by} changed what was asked: {'; '.join(one.said for one in self.changes)}"


@dataclass(frozen=True)
class Listing:
    """What a cluster's own list of jobs showed since the listing before: ids of ours, and those that came past us."""

    cluster: str
    since: datetime | None
    until: datetime
    ours: tuple[str, ...]
    others: tuple[Body, ...]


@dataclass
class AttemptRecord:
    """One attempt as the ledger knows it. `readings` by role, oldest first: the last holds, earlier were restated.

    `recorded` is all evidence of its energy; `stretches` is what of it is booked, and `spans` the same one by one.
    `channels` are those that were met until now, by what told of them. `reserved` is the hardware that was kept
    for it and the footprint of its manufacture, None in ledgers of before. `overhead` are the stretches that
    suspensions took beside its work, named as `domain.energy.Overhead` does. `pue_changes` are when another PUE of its
    cluster was stated while it was open, and which. `compared` holds, by machine, what counters said and
    what power that was read beside them came to, in microjoules: of all of the machine, in segments delivered for it.
    """

    attempt_id: str
    job_id: str
    number: int
    cluster: str
    zone: str
    pue_ppm: int
    pue_source: str
    opened_at: datetime
    pue_period: str = ""
    pue_changes: list[tuple[datetime, int]] = field(default_factory=list)
    reserved: Body | None = None
    outcome: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    collected: bool = False
    missing: list[str] = field(default_factory=list)
    missing_at_end: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    overhead: list[Window] = field(default_factory=list)
    quality: dict[str, int] = field(default_factory=dict)
    variants: tuple[VariantUse, ...] = ()
    recorded: list[Stretch] = field(default_factory=list)
    channels: Known = field(default_factory=dict)
    segments: set[str] = field(default_factory=set)
    compared: dict[str, tuple[int, int]] = field(default_factory=dict)
    readings: dict[str, list[ReadingsUsed]] = field(default_factory=dict)
    watched: IndependentCover = field(default_factory=IndependentCover)
    _stretches: tuple[tuple[int, int], list[Stretch]] = field(default=((0, 0), []), init=False, repr=False)

    @property
    def stretches(self) -> list[Stretch]:
        """The evidence that counts: without what an independent meter of the machine says itself."""
        known = (len(self.recorded), self.watched.notes)
        if self._stretches[0] != known:
            self._stretches = known, self.counting(len(self.recorded))
        return self._stretches[1]

    def counting(self, evidence: int) -> list[Stretch]:
        """The same of the first `evidence` stretches that were recorded."""
        return self.watched.counting(self.recorded[:evidence], chain.from_iterable(self.channels.values()))

    @property
    def spans(self) -> list[EnergySpan]:
        """The spans that count."""
        return [span for stretch in self.stretches for span in stretch.spans]

    @property
    def superseded(self) -> list[EnergySpan]:
        """The spans that do not."""
        recorded = (span for stretch in self.recorded for span in stretch.spans)
        return [span for span in recorded if self.watched.supersedes(span)]

    @property
    def settled(self) -> bool:
        """Whether nothing more is to come: it ended, and its journal was read, or there is none to read."""
        ran = bool(self.started_at or self.missing or self.recorded)
        return bool(self.outcome) and (self.collected or not ran)

    def newest(self, role: str) -> ReadingsUsed | None:
        """The readings that hold now for this role."""
        history = self.readings.get(role)
        return history[-1] if history else None


@dataclass
class JobRecord:
    """One job as the ledger knows it.

    `decision` is the body of its newest decision, `placed` that of the newest one that placed it. It was suspended
    `suspensions` times. `amendments` say what became of what was asked, oldest first.
    """

    job_id: str
    name: str
    phase: str
    stage: str
    model: str
    project: str
    team: str
    submitter: str
    submitted_at: datetime
    policy: str
    attempts: dict[str, AttemptRecord] = field(default_factory=dict)
    approvals: list[Body] = field(default_factory=list)
    amendments: list[Amendment] = field(default_factory=list)
    decision: Body | None = None
    placed: Body | None = None
    suspensions: int = 0
    state: str = ""
    reason: str = ""
    exit_code: int | None = None
    ended_at: datetime | None = None

    @property
    def settled(self) -> bool:
        """Whether the job ended and every attempt is settled."""
        return bool(self.state) and all(attempt.settled for attempt in self.attempts.values())
