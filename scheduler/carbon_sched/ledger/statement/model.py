"""What a statement holds: rows of exact integers in the ledger's own units, one field for each row of the checklist.

Every total is a sum of `lines`, so that any grouping adds up to the whole. None means "not known" or "not computed",
never zero. Field names carry the unit: `_uj` microjoules, `_ug` micrograms CO2e, `_ppm` parts per million, `_us`
microseconds. Times are RFC 3339 in UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from carbon_sched.ledger.selection import Selection


@dataclass(frozen=True)
class Line:
    """What one attempt used from one kind of device and source, under one series of intensities.

    `covered_uj` has a known intensity, and `co2e_ug` is that of it (life cycle). Of that, `separated_ug` belongs to
    energy whose direct intensity is known too: `direct_ug` of it was emitted where the electricity was made. `error_uj`
    bounds the meter's error.
    """

    job: str
    name: str
    team: str
    project: str
    model: str
    phase: str
    stage: str
    attempt: str
    outcome: str
    cluster: str
    zone: str
    pue_ppm: int
    component: str
    source: str
    reporter: str
    rule: str
    provider: str
    grade: str
    energy_uj: int = 0
    facility_uj: int = 0
    covered_uj: int = 0
    co2e_ug: int = 0
    separated_ug: int = 0
    direct_ug: int = 0
    error_uj: int = 0


@dataclass(frozen=True)
class Boundary:
    """Row 1 and 3: what was declared last, by whom (a pseudonym) and when; empty where nobody declared anything.

    `config_sha256` covers the declaration, the registered clusters and every policy that was applied, as the ledger
    holds them.
    """

    organisation: str
    accountable: str
    contact: str
    statement: str
    declared_by: str
    declared_at: str
    tool: str
    method: str
    config_sha256: str


@dataclass(frozen=True)
class Period:
    """Row 2: the period asked for, and the first and last moment energy was used in it."""

    since: str | None
    until: str | None
    first_use: str | None
    last_use: str | None


@dataclass(frozen=True)
class JobRow:
    """Row 4: one job, also when it used nothing. `owner` is a pseudonym.

    Of `energy_uj`, `overhead_uj` went into its suspensions: state saved, restarts, and work that was done again.
    """

    job: str
    name: str
    owner: str
    team: str
    project: str
    model: str
    phase: str
    stage: str
    clusters: str
    zones: str
    submitted: str
    start: str | None
    end: str | None
    state: str
    settled: bool
    attempts: int
    energy_uj: int
    co2e_ug: int
    suspensions: int = 0
    overhead_uj: int = 0


@dataclass(frozen=True)
class Gap:
    """Row 6: something that is not known. `energy_uj` None: not even the energy.

    `what` is `no intensity` (its CO2e is in no figure), `no energy` (nobody metered the attempt then), a PUE that was
    stated while the attempt ran and is not in its figures, or what the service found missing, in its words.
    """

    job: str
    attempt: str
    what: str
    start: str | None
    end: str | None
    energy_uj: int | None


@dataclass(frozen=True)
class Pue:
    """Row 8 and 9: energy that was multiplied by one PUE of one cluster."""

    cluster: str
    pue_ppm: int
    period: str
    source: str
    energy_uj: int
    facility_uj: int


@dataclass(frozen=True)
class Series:
    """Row 10: readings of one zone that agree in all but time and value. `use` is `booked` or `direct`.

    `sha256` is the hash of the provider's answers they were read from, or, of more than one, the hash of the sorted
    list of those.
    """

    use: str
    zone: str
    provider: str
    signal: str
    basis: str
    perimeter: str
    kind: str
    grade: str
    model_version: str
    licence: str
    readings: int
    since: str
    until: str
    first_issued: str
    last_issued: str
    low_mg_per_kwh: int
    high_mg_per_kwh: int
    answers: int
    sha256: str
    energy_uj: int


@dataclass(frozen=True)
class Instrument:
    """Row 12: a declared contract for electricity of a cluster, for a share of what it used in a period."""

    cluster: str
    kind: str
    name: str
    share_ppm: int
    mg_per_kwh: int
    since: str
    until: str
    source: str
    energy_uj: int
    co2e_ug: int


@dataclass(frozen=True)
class Market:
    """Row 12: the electricity of all clusters, market-based; `co2e_ug` None with the reason in `problem`: not computed.

    Scope 2 it is for clusters of the organisation's own (row 15), as row 11 is.
    """

    co2e_ug: int | None
    problem: str
    instruments: tuple[Instrument, ...]
    uncovered_uj: int


@dataclass(frozen=True)
class Embodied:
    """Row 14: share of the manufacture of hardware that was reserved for an attempt, for the time it was."""

    job: str
    attempt: str
    cluster: str
    hardware: str
    reserved_us: int
    life_us: int
    low_ug: int
    central_ug: int
    high_ug: int
    source: str


@dataclass(frozen=True)
class ScopeClass:
    """Row 15: who runs a cluster (`own`, `colocation`, `cloud`, or `not declared`), and where its figures belong.

    The categories are those of the GHG Protocol for the organisation whose jobs these are.
    """

    cluster: str
    kind: str
    direct_category: str
    upstream_category: str
    embodied_category: str
    direct_ug: int
    upstream_ug: int
    unseparated_ug: int
    embodied_ug: int

    @property
    def separable(self) -> bool:
        """Whether direct and upstream are known apart for any of its electricity (or it emitted nothing)."""
        return self.direct_ug + self.upstream_ug > 0 or not self.unseparated_ug

    @property
    def purchased(self) -> bool:
        """Whether its electricity is the organisation's own purchase, or may be: nobody declared who runs it."""
        return self.direct_category.startswith("scope 2")

    @property
    def one_category(self) -> bool:
        """Whether all of its electricity belongs to one category, as a cloud's does, though not told apart."""
        return self.direct_category == self.upstream_category


@dataclass(frozen=True)
class Score:
    """Row 16: (E x I + M) per R. `boundary` is that of SCI for AI: `provider`, `consumer`, or none.

    `amount_millionths` of `unit` were done by the attempts whose `co2e_ug` and `embodied_ug` stand here, whole.
    """

    unit: str
    boundary: str
    phases: str
    attempts: int
    amount_millionths: int
    energy_uj: int
    co2e_ug: int
    embodied_ug: int

    @property
    def total_ug(self) -> int:
        """Operation and manufacture."""
        return self.co2e_ug + self.embodied_ug


@dataclass(frozen=True)
class Inference:
    """Row 17: what a model's inference used so far, and how many of a unit it answered."""

    model: str
    unit: str
    amount_millionths: int
    jobs: int
    energy_uj: int
    co2e_ug: int


@dataclass(frozen=True)
class DecisionRow:
    """Row 18: the decision that placed a job, or its newest one. Expectations as they were when it was made."""

    job: str
    decided_at: str
    verdict: str
    cluster: str | None
    start: str | None
    policy: str
    expected_energy_uj: int | None
    expected_co2e_ug: int | None
    co2e_ug: int
    estimate_source: str
    candidates: int
    reason: str


@dataclass(frozen=True)
class AmendmentRow:
    """Row 18: what a person (`by`, a pseudonym) changed of what a job had asked for, as it was and as it became."""

    job: str
    at: str
    by: str
    field: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class CandidateRow:
    """Row 18: one cluster that was considered, at its best start, with what was expected there."""

    job: str
    cluster: str
    zone: str
    feasible: bool
    start: str | None
    co2e_ug: int | None
    now_co2e_ug: int | None
    reason: str


@dataclass(frozen=True)
class Compared:
    """Row 19: one job against one reference choice by the identical method; `problem` says why it cannot be."""

    job: str
    role: str
    cluster: str
    ours_ug: int
    theirs_ug: int
    saved_ug: int
    problem: str


@dataclass(frozen=True)
class Comparison:
    """Our choices against one reference, over the `jobs` for which both have every intensity."""

    role: str
    jobs: int
    co2e_ug: int
    ours_ug: int

    @property
    def saved_ug(self) -> int:
        """What our choices saved; negative where they cost more."""
        return self.co2e_ug - self.ours_ug


@dataclass(frozen=True)
class Unowned:
    """Energy of a machine, metered beside jobs, that no attempt owns: its pot is `idle` or `unattributed`."""

    machine: str
    pot: str
    energy_uj: int


@dataclass(frozen=True)
class Hindsight:
    """Row 19: of what the best allowed choice, known only afterwards, would have saved, how much ours did.

    Over `jobs` for which all three are known. Both against starting at once on the home cluster.
    """

    jobs: int
    saved_ug: int
    best_ug: int


@dataclass(frozen=True)
class Assumed:
    """Row 20: one factor and the relative error it may have, with where that comes from."""

    factor: str
    of: str
    error_ppm: int
    source: str


@dataclass(frozen=True)
class Uncertainty:
    """Row 20: of `co2e_ug` of the statement. `low` and `high` are bounds with every error at its worst at once.

    `p5` and `p95` are of `draws` draws in which every factor errs by itself, evenly within its bounds.
    """

    low_ug: int
    p5_ug: int
    p95_ug: int
    high_ug: int
    draws: int
    assumed: tuple[Assumed, ...]


@dataclass(frozen=True)
class Restatement:
    """Row 21: a figure of an attempt that was booked, and booked again with another result."""

    job: str
    attempt: str
    at: str
    why: str
    energy_before_uj: int
    energy_uj: int
    co2e_before_ug: int
    co2e_ug: int


@dataclass(frozen=True)
class Reconciled:
    """Row 22: one cluster's own list of jobs against the ledger.

    `coverage_ppm` is the share of the listed jobs that came through us; None where nothing was listed. `unknown` are
    attempts by their names ours that the ledger does not know, `unlisted` ours that ran and the cluster never showed.
    """

    cluster: str
    listings: int
    since: str | None
    until: str | None
    ours: int
    past_us: int
    past_us_us: int
    unknown: int
    unlisted: int
    coverage_ppm: int | None


@dataclass(frozen=True)
class Completeness:
    """Row 22: every job and attempt of the selection by how it ended: `states` and `outcomes` are (word, count)."""

    states: tuple[tuple[str, int], ...]
    outcomes: tuple[tuple[str, int], ...]
    retried: int
    without_energy: int
    clusters: tuple[Reconciled, ...]


@dataclass(frozen=True)
class Offset:
    """Row 23: certificates or offsets that were declared: shown apart, in no figure."""

    kind: str
    name: str
    co2e_ug: int | None
    energy_uj: int | None
    source: str


@dataclass(frozen=True)
class Imported:
    """A run that another tool measured: shown apart, in no other figure. `facility_uj` is with that tool's PUE."""

    run: str
    name: str
    team: str
    project: str
    model: str
    phase: str
    stage: str
    tool: str
    tool_version: str
    by: str
    start: str
    end: str
    facility_uj: int
    co2e_ug: int
    pue_ppm: int | None


@dataclass(frozen=True)
class Day:
    """For charts: one UTC day."""

    day: str
    energy_uj: int
    co2e_ug: int


@dataclass(frozen=True)
class Statement:
    """A statement as of the ledger's entry `ledger_size` with hash `ledger_head`."""

    selection: Selection
    boundary: Boundary
    period: Period
    jobs: tuple[JobRow, ...]
    lines: tuple[Line, ...]
    gaps: tuple[Gap, ...]
    unowned: tuple[Unowned, ...]
    pues: tuple[Pue, ...]
    series: tuple[Series, ...]
    market: Market
    embodied: tuple[Embodied, ...]
    embodied_unknown: tuple[str, ...]
    scope_classes: tuple[ScopeClass, ...]
    scores: tuple[Score, ...]
    inference: tuple[Inference, ...]
    decisions: tuple[DecisionRow, ...]
    amendments: tuple[AmendmentRow, ...]
    candidates: tuple[CandidateRow, ...]
    compared: tuple[Compared, ...]
    comparisons: tuple[Comparison, ...]
    hindsight: Hindsight
    uncertainty: Uncertainty
    restatements: tuple[Restatement, ...]
    completeness: Completeness
    offsets: tuple[Offset, ...]
    imported: tuple[Imported, ...]
    days: tuple[Day, ...]
    licences: tuple[str, ...]
    ledger_size: int
    ledger_head: str

    def total(self, field: str) -> int:
        """The sum over all lines of one of their integers, such as `co2e_ug`."""
        return sum(getattr(line, field) for line in self.lines)

    @property
    def unbooked(self) -> set[str]:
        """Jobs that used energy, and no intensity is known for any of it: their CO2e is not known, rather than zero."""
        return {line.job for line in self.lines} - {line.job for line in self.lines if line.covered_uj}

    def by(self, *fields: str) -> list[tuple[tuple[str, ...], Line]]:
        """Lines summed for each combination of values of these fields, in their order.

        The sum is the group's first line with its integers added up: only the grouped fields mean anything beside them.
        """
        from carbon_sched.ledger.statement.lines import summed  # noqa: PLC0415 - lines are made of this module's rows

        return summed(self.lines, fields)

    @property
    def upstream_ug(self) -> int:
        """Scope 3, category 3: life cycle minus direct, of the energy for which both are known."""
        return self.total("separated_ug") - self.total("direct_ug")

    @property
    def separable(self) -> bool:
        """Whether direct and upstream are known apart for any of the energy: where they are not, zero is no figure."""
        return self.total("separated_ug") > 0 or not self.total("co2e_ug")

    @property
    def unseparated_ug(self) -> int:
        """Life-cycle CO2e of energy whose direct part nobody publishes."""
        return self.total("co2e_ug") - self.total("separated_ug")
