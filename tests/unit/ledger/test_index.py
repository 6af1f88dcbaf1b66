"""What an index chooses for a period gives the same figures as the whole book, whatever the ledger holds."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon_sched.domain.errors import LedgerBroken
from carbon_sched.domain.facts import FactKind
from carbon_sched.domain.time import from_rfc3339, to_rfc3339
from carbon_sched.ledger.account import Period
from carbon_sched.ledger.book import read_book
from carbon_sched.ledger.chargeback import chargeback
from carbon_sched.ledger.index import Index
from carbon_sched.ledger.receipt import receipt
from carbon_sched.ledger.report import report
from carbon_sched.ledger.selection import Selection
from carbon_sched.ledger.statement import statement
from tests.fakes.ledger import WrittenLedger, reading, span

DAY = from_rfc3339("2026-03-01T00:00:00Z")
HOUR = timedelta(hours=1)
STATES = ["succeeded", "failed", None]


def clock(hours):
    return to_rfc3339(DAY + hours * HOUR)


class Shift:
    """One job of a drawn ledger: when it was submitted and used energy, on which machine, and who says so."""

    def __init__(self, number, draw):
        self.job = f"job{number:07d}"
        self.submitted = draw(st.integers(0, 20))
        self.start = self.submitted + draw(st.integers(0, 3))
        self.hours = draw(st.integers(0, 5))
        self.machine = draw(st.sampled_from(["m1", "m2"]))
        self.cluster = draw(st.sampled_from(["north", "south"]))
        self.reporter = draw(st.sampled_from(["self-reported", "independent", "ray"]))
        self.state = draw(st.sampled_from(STATES))
        self.booked = draw(st.booleans())
        self.recorded_start = draw(st.booleans())

    def begin(self, ledger):
        ledger.add(
            FactKind.JOB_ACCEPTED, job=self.job, submitter="person-1", submitted_at=clock(self.submitted),
            spec_sha256="0" * 64, policy="balanced", name="train", phase="other", stage="", model="", project="",
            team=self.machine,
        )  # fmt: skip
        return ledger.opened(self.job, cluster=self.cluster)

    def segment(self, ledger, attempt, hour):
        rows = span(
            clock(self.start + hour), clock(self.start + hour + 1), 10**12 + hour, "gpu-0", machine=self.machine,
            reporter=self.reporter,
        )  # fmt: skip
        ledger.energy(attempt, rows, cluster=self.cluster)

    def end(self, ledger, attempt):
        if self.state:
            started = clock(self.start) if self.recorded_start else None
            ledger.add(
                FactKind.ATTEMPT_ENDED, attempt=attempt, job=self.job, outcome=self.state, started_at=started,
                ended_at=clock(self.start + self.hours) if started and self.hours else None, exit_code=0, reason="",
                missing=[],
            )  # fmt: skip
            ledger.job_ended(self.job, self.state)
        if self.booked and self.hours:
            known = [reading(clock(hour), clock(hour + 1), 30 + 7 * hour) for hour in range(30)]
            for role in ("actual", "run-now-home"):
                ledger.used(attempt, role, self.cluster, "SE", 1_200_000, *known)
            ledger.collected(attempt)


@st.composite
def ledgers(draw):
    """Jobs over a day, their facts mingled: late energy, meters of the machines beside, lists of the clusters."""
    ledger = WrittenLedger()
    for name in ("north", "south"):
        ledger.cluster(name, "SE", 1_200_000)
    shifts = [Shift(number, draw) for number in range(draw(st.integers(1, 5)))]
    attempts = [shift.begin(ledger) for shift in shifts]
    steps = [
        lambda shift=shift, attempt=attempt, hour=hour: shift.segment(ledger, attempt, hour)
        for shift, attempt in zip(shifts, attempts, strict=True)
        for hour in range(shift.hours)
    ]
    hours = draw(st.lists(st.integers(0, 27), max_size=3))
    lists = draw(st.lists(st.lists(st.sampled_from([*attempts, "cs-unknown-a1"]), unique=True), max_size=2))
    steps += [lambda hour=hour: _watched(ledger, hour) for hour in hours]
    steps += [lambda listed=listed: _listed(ledger, listed) for listed in lists]
    for step in draw(st.permutations(steps)):
        step()
    for shift, attempt in zip(shifts, attempts, strict=True):
        shift.end(ledger, attempt)
    return ledger


def _watched(ledger, hour):
    idle = span(clock(hour), clock(hour + 1), 10**11, "gpu-0", owner="idle", reporter="independent")
    start, end = clock(hour), clock(hour + 1)
    ledger.segments += 1
    ledger.add(
        FactKind.MACHINE_ENERGY_RECORDED, machine="m1", cluster="north", segment=f"segment-{ledger.segments}",
        sha256="1" * 64, spans=[idle], watched={"start": start, "end": end, "kinds": ["gpu"]},
    )  # fmt: skip


def _listed(ledger, names):
    ledger.add(
        FactKind.CLUSTER_JOBS_LISTED, cluster="north", since=clock(0), until=clock(30), ours=names, others=[],
    )  # fmt: skip


def part(ledger, period):
    index = Index()
    for entry in ledger.entries:
        index.add(entry)
    return index.needed(period).book(ledger.entries)


PERIODS = st.builds(
    lambda first, hours: Period(DAY + first * HOUR / 2, DAY + (first + hours) * HOUR / 2),
    st.integers(0, 50),
    st.integers(1, 20),
)


@settings(max_examples=100, deadline=None)
@given(ledgers(), PERIODS)
def test_a_period_comes_out_the_same_from_what_it_needs_as_from_everything(ledger, period):
    book, whole = part(ledger, period), read_book(ledger.entries)
    for selection in (
        Selection(period=period),
        Selection(period=period, team="m1"),
        Selection(cluster="north", period=period),
    ):
        assert statement(book, selection) == statement(whole, selection)
        assert report(book, selection) == report(whole, selection)
    assert chargeback(book, "team", period) == chargeback(whole, "team", period)


@settings(max_examples=100, deadline=None)
@given(ledgers())
def test_a_job_comes_out_the_same_from_what_it_needs_as_from_everything(ledger):
    index, whole = Index(), read_book(ledger.entries)
    for entry in ledger.entries:
        index.add(entry)
    for job_id in whole.jobs:
        book = index.about(index.numbers([job_id])).book(ledger.entries)
        assert receipt(book, job_id) == receipt(whole, job_id)
        selection = Selection(jobs=(job_id,))
        assert statement(book, selection).lines == statement(whole, selection).lines


def test_what_a_period_does_not_need_is_not_read():
    ledger = WrittenLedger()
    ledger.cluster("north", "SE", 1_200_000)
    for number, hour in enumerate((1, 5, 20)):
        job = f"job{number:07d}"
        ledger.job(job, f"{hour:02}:00")
        ledger.energy(ledger.opened(job), span(clock(hour), clock(hour + 1), 10**12))
    index = Index()
    for entry in ledger.entries:
        index.add(entry)
    needed = index.needed(Period(DAY + 4 * HOUR, DAY + 8 * HOUR))
    assert list(needed.runs(gap=0)) == [(1, 1), (5, 7)]
    assert list(needed.runs(gap=3)) == [(1, 7)]
    assert needed.left_out == {"cs-job0000000-a1": "north", "cs-job0000002-a1": "north"}


def test_a_chain_that_does_not_hold_is_refused():
    ledger = WrittenLedger()
    ledger.cluster("north", "SE", 1_200_000)
    ledger.job("jobaaaaaaa")
    first, second = ledger.entries
    index = Index()
    with pytest.raises(LedgerBroken, match="entry 2 does not continue"):
        index.add(second)
    index.add(first)
    index.add(second)
    with pytest.raises(LedgerBroken, match="does not cover"):
        index.needed(Period(DAY)).book([first._replace(payload=first.payload.replace(b"SE", b"PL"))])
