"""The statement, against figures worked out by hand. examples/audit/ is the worked example for people."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon_sched.domain.facts import FactKind
from carbon_sched.domain.time import from_rfc3339
from carbon_sched.ledger.account import Period
from carbon_sched.ledger.book import read_book
from carbon_sched.ledger.selection import Selection
from carbon_sched.ledger.statement import statement
from carbon_sched.ledger.statement.model import Comparison, Gap, Hindsight, Instrument, Restatement
from tests.fakes.ledger import WrittenLedger, at, reading, span

KWH = 3_600_000_000_000
GRAM = 1_000_000
GPU = {
    "hardware": "GPU H100", "share_ppm": 2_000_000, "low_g": 164_000, "high_g": 164_000, "life_s": 4 * 365 * 86_400,
    "source": "the maker",
}  # fmt: skip


def whole(ledger, **selection):
    return statement(read_book(ledger.entries), Selection(**selection))


@pytest.fixture
def ledger():
    """One attempt: 1 kWh in the hour from 10:00 on, at PUE 1.2 and 100 g/kWh, 60 of them direct until 10:45."""
    written = WrittenLedger()
    written.cluster("north", "SE", 1_200_000)
    written.job("jobaaaaaaa", team="ml", model="m", phase="pretraining")
    written.decided("jobaaaaaaa", expected_co2e_ug=100 * GRAM)
    written.opened("jobaaaaaaa", reserved={"gpus_milli": 2000, "parts": [GPU]})
    attempt = "cs-jobaaaaaaa-a1"
    written.energy(attempt, span(at("10:00"), at("11:00"), KWH))
    written.ended(attempt, start="10:00", end="11:10")
    written.job_ended("jobaaaaaaa")
    lifecycle = reading(at("10:00"), at("11:00"), 100)
    direct = reading(at("10:00"), at("10:45"), 60, basis="direct")
    written.used(attempt, "actual", "north", "SE", 1_200_000, lifecycle, direct=[direct])
    written.collected(attempt)
    return written


def test_direct_and_upstream_are_separated_where_both_are_known(ledger):
    got = whole(ledger)
    assert got.total("co2e_ug") == 120 * GRAM  # 1 kWh x 1.2 x 100
    assert got.total("direct_ug") == 54 * GRAM  # 0.75 kWh x 1.2 x 60
    assert got.upstream_ug == 36 * GRAM  # 0.75 kWh x 1.2 x (100 - 60)
    assert got.unseparated_ug == 30 * GRAM  # 0.25 kWh x 1.2 x 100
    assert got.total("facility_uj") == 12 * KWH // 10


def test_manufacture_counts_for_the_time_that_was_reserved(ledger):
    (row,) = whole(ledger).embodied
    # 2 GPUs x 164 kg x 70 min / 4 years = 10.92 g
    assert row.central_ug == 2 * 164_000 * GRAM * 70 * 60 // (4 * 365 * 86_400)
    assert row.reserved_us == 70 * 60 * 1_000_000
    assert 10.9 < row.central_ug / GRAM < 11


def test_the_score_is_emissions_and_manufacture_per_gpu_hour(ledger):
    got = whole(ledger)
    (score,) = got.scores
    assert (score.unit, score.boundary) == ("GPU-hour", "provider")
    assert score.amount_millionths == 2_333_333  # 2 GPUs x 70 / 60 hours
    assert score.total_ug == 120 * GRAM + got.embodied[0].central_ug


def test_time_without_energy_is_a_gap(ledger):
    assert whole(ledger).gaps == (Gap("jobaaaaaaa", "cs-jobaaaaaaa-a1", "no energy", at("11:00"), at("11:10"), None),)


def test_time_without_an_intensity_is_a_gap_with_its_energy(ledger):
    attempt = "cs-jobaaaaaaa-a1"
    ledger.used(attempt, "actual", "north", "SE", 1_200_000, reading(at("10:00"), at("10:30"), 100))
    got = whole(ledger)
    assert got.gaps[0] == Gap("jobaaaaaaa", attempt, "no intensity", at("10:30"), at("11:00"), KWH // 2)
    assert (got.total("covered_uj"), got.total("co2e_ug")) == (KWH // 2, 60 * GRAM)


def test_a_pue_that_is_stated_during_a_run_is_named_and_not_guessed_into_its_figures():
    written = WrittenLedger()
    written.cluster("north", "SE", 1_200_000)
    written.job("jobaaaaaaa")
    attempt = written.opened("jobaaaaaaa")
    written.cluster("north", "SE", 1_200_000, pue_period="2026")
    written.cluster("north", "SE", 1_100_000, pue_period="2026")
    written.energy(attempt, span(at("10:00"), at("11:00"), KWH))
    written.ended(attempt, start="10:00", end="11:00")
    written.cluster("north", "SE", 1_300_000)
    got = whole(written)
    stated = [gap for gap in got.gaps if "PUE" in gap.what]
    what = "PUE 1.100 was stated then; booked is 1.200, as at its opening"
    assert stated == [Gap("jobaaaaaaa", attempt, what, "2026-03-01T09:00:04Z", None, None)]
    assert got.total("facility_uj") == 12 * KWH // 10


@given(st.randoms(use_true_random=False))
def test_late_and_revised_evidence_gives_the_same_figures_in_whatever_order_it_is_read(chance):
    def told(order):
        written = WrittenLedger()
        written.cluster("north", "SE", 1_200_000)
        names = ["jobaaaaaaa", "jobbbbbbbb"]
        attempts = []
        for name in names:
            written.job(name)
            attempts.append(written.opened(name))
        known = [reading(at(f"1{hour}:00"), at(f"1{hour + 1}:00"), 50 + 10 * hour) for hour in range(4)]
        direct = [reading(at(f"1{hour}:30"), at(f"1{hour + 1}:00"), 20 + hour, basis="direct") for hour in range(4)]
        evidence = [
            (attempt, span(at(f"1{hour}:10"), at(f"1{hour + 1}:10"), KWH + hour, reporter=reporter))
            for attempt in attempts
            for hour in range(3)
            for reporter in ("self-reported", "ray")
        ]
        early = [(attempt, reading(at("10:00"), at("14:00"), grams)) for attempt in attempts for grams in (300, 200)]
        for lot in (evidence, early, known, direct):
            order(lot)
        for attempt, row in evidence:
            written.energy(attempt, row)
        for attempt, row in early:  # each a booking that is revised in the end
            written.used(attempt, "actual", "north", "SE", 1_200_000, row)
        order(attempts)
        for attempt in attempts:
            written.used(attempt, "actual", "north", "SE", 1_200_000, *known, direct=direct)
            written.ended(attempt, start="10:10", end="13:10")
            written.collected(attempt)
        return whole(written)

    got, straight = told(chance.shuffle), told(lambda lot: None)
    apart = {"restatements": (), "ledger_size": 0, "ledger_head": ""}
    assert replace(got, **apart) == replace(straight, **apart)


def test_a_revised_reading_and_late_energy_are_restatements_with_both_figures(ledger):
    attempt = "cs-jobaaaaaaa-a1"
    revised = reading(at("10:00"), at("11:00"), 110)
    ledger.used(attempt, "actual", "north", "SE", 1_200_000, revised)
    ledger.energy(attempt, span(at("10:00"), at("10:30"), KWH, "gpu-1"))
    ledger.used(attempt, "actual", "north", "SE", 1_200_000, revised)
    ledger.collected(attempt)
    first, second = whole(ledger).restatements
    times = [first.at, second.at]
    assert times == sorted(times)
    assert first == Restatement(
        "jobaaaaaaa", attempt, first.at, "readings were revised", KWH, KWH, 120 * GRAM, 132 * GRAM
    )
    assert second == Restatement(
        "jobaaaaaaa", attempt, second.at, "energy came late", KWH, 2 * KWH, 132 * GRAM, 264 * GRAM
    )


def test_booking_the_same_again_is_no_restatement(ledger):
    ledger.used("cs-jobaaaaaaa-a1", "actual", "north", "SE", 1_200_000, reading(at("10:00"), at("11:00"), 100))
    assert whole(ledger).restatements == ()


def test_savings_and_the_share_of_what_hindsight_would_have_saved(ledger):
    attempt = "cs-jobaaaaaaa-a1"
    for role, grams in (("run-now-home", 200), ("best-fixed", 90), ("best-in-hindsight", 50)):
        ledger.used(attempt, role, "north", "SE", 1_000_000, reading(at("10:00"), at("11:00"), grams))
    got = whole(ledger)
    assert got.comparisons == (
        Comparison("best-fixed", 1, 90 * GRAM, 120 * GRAM),  # we lost 30 g
        Comparison("best-in-hindsight", 1, 50 * GRAM, 120 * GRAM),
        Comparison("run-now-home", 1, 200 * GRAM, 120 * GRAM),
    )
    assert got.comparisons[0].saved_ug == -30 * GRAM
    assert got.hindsight == Hindsight(1, 80 * GRAM, 150 * GRAM)


# ------------------------------------------------------------------------------------ what is declared


def declare(ledger, *instruments, scope="own"):
    clusters = {"north": {"scope": scope, "instruments": list(instruments)}}
    ledger.add(
        FactKind.DECLARATION_MADE, by="person-1", organisation="Org", accountable="A", contact="a@b", boundary="all",
        clusters=clusters, offsets=[{"kind": "offset", "name": "trees", "co2e_ug": 5 * GRAM, "energy_uj": None,
                                     "source": "registry"}],
    )  # fmt: skip


def instrument(kind="ppa", share_ppm=500_000, mg_per_kwh=0, until="2027-01-01T00:00:00Z"):
    return {
        "kind": kind, "name": kind, "share_ppm": share_ppm, "mg_per_kwh": mg_per_kwh, "since": "2026-01-01T00:00:00Z",
        "until": until, "source": "contract",
    }  # fmt: skip


def test_without_instruments_the_market_based_figure_is_not_computed(ledger):
    market = whole(ledger).market
    assert (market.co2e_ug, market.problem) == (None, "no instruments are declared")


def test_instruments_cover_their_share_and_the_residual_mix_the_rest(ledger):
    declare(ledger, instrument("residual-mix", 1_000_000, 500_000), instrument("ppa", 250_000, 20_000))
    market = whole(ledger).market
    ppa, rest = market.instruments
    assert isinstance(ppa, Instrument)
    assert (ppa.energy_uj, ppa.co2e_ug) == (3 * KWH // 10, 6 * GRAM)  # a quarter of 1.2 kWh, at 20 g
    assert (rest.energy_uj, rest.co2e_ug) == (9 * KWH // 10, 450 * GRAM)
    assert market.co2e_ug == 456 * GRAM


def test_what_no_instrument_covers_leaves_no_total(ledger):
    declare(ledger, instrument(share_ppm=1_000_000, until="2026-03-01T10:30:00Z"))
    market = whole(ledger).market
    assert market.co2e_ug is None
    assert market.uncovered_uj == 6 * KWH // 10  # the half hour after it ended


@pytest.mark.parametrize(
    ("scope", "category"), [("own", "scope 2"), ("colocation", "scope 2"), ("cloud", "scope 3, category 1")]
)
def test_the_scope_class_of_a_cluster_says_where_its_figures_belong(ledger, scope, category):
    declare(ledger, scope=scope)
    got = whole(ledger)
    assert [(row.kind, row.direct_category) for row in got.scope_classes] == [(scope, category)]
    assert (got.boundary.organisation, got.boundary.declared_by) == ("Org", "person-1")
    assert [one.co2e_ug for one in got.offsets] == [5 * GRAM]
    assert got.total("co2e_ug") == 120 * GRAM  # offsets are in no figure


# ---------------------------------------------------------------------------------------- completeness


def test_jobs_past_us_lower_the_coverage(ledger):
    past = {"job": "1234", "kind": "SUBMISSION", "state": "SUCCEEDED", "seen_at": at("11:30"), "lasted_us": 60_000_000}
    listing = {"cluster": "north", "since": at("09:00"), "until": at("12:00")}
    ledger.add(FactKind.CLUSTER_JOBS_LISTED, **listing, ours=["cs-jobaaaaaaa-a1", "cs-jobzzzzzzz-a1"], others=[past])
    (row,) = whole(ledger).completeness.clusters
    assert (row.ours, row.past_us, row.past_us_us, row.unknown) == (1, 1, 60_000_000, 1)
    assert row.coverage_ppm == 333_333


def test_a_cluster_that_was_never_listed_has_no_coverage(ledger):
    (row,) = whole(ledger).completeness.clusters
    assert (row.listings, row.coverage_ppm) == (0, None)


def test_an_attempt_that_the_cluster_should_have_listed_is_told(ledger):
    ledger.add(FactKind.CLUSTER_JOBS_LISTED, cluster="north", since=at("08:00"), until=at("12:00"), ours=[], others=[])
    (row,) = whole(ledger).completeness.clusters
    assert (row.ours, row.unlisted) == (0, 1)


def test_every_job_is_counted_by_how_it_ended(ledger):
    ledger.job("jobbbbbbbb")
    ledger.job("jobccccccc")
    for number in (1, 2):
        ledger.ended(ledger.opened("jobccccccc", number), "failed", start="11:00", end="11:01")
    ledger.job_ended("jobccccccc", "failed", attempts=2)
    found = whole(ledger).completeness
    assert found.states == (("failed", 1), ("live", 1), ("succeeded", 1))
    assert found.outcomes == (("failed", 2), ("succeeded", 1))
    assert (found.retried, found.without_energy) == (1, 2)


# ----------------------------------------------------------------------------------------- uncertainty


def test_bounds_take_every_error_at_its_worst_and_draws_lie_within(ledger):
    found = whole(ledger).uncertainty
    # meter 5 %, PUE stated 3 %, intensity graded A 5 %
    assert found.low_ug == 120 * GRAM * 95 * 97 * 95 // 100**3
    assert found.high_ug == 120 * GRAM * 105 * 103 * 105 // 100**3
    assert found.low_ug < found.p5_ug < 120 * GRAM < found.p95_ug < found.high_ug


# ---------------------------------------------------------------------------------------- conservation

DAY = from_rfc3339("2026-03-01T00:00:00Z")
SECONDS = st.integers(0, 7200)


@st.composite
def stretches(draw, most):
    """Ordered, not overlapping stretches of seconds, with holes."""
    borders = sorted(draw(st.sets(SECONDS, min_size=2, max_size=2 * most)))
    return [pair for pair in pairwise(borders) if draw(st.booleans())]


@st.composite
def ledgers(draw):
    written = WrittenLedger()
    written.cluster("north", "SE", 1_200_000)
    for number in range(draw(st.integers(1, 3))):
        job = f"job{number:07d}"
        written.job(job, team=draw(st.sampled_from(["a", "b"])))
        attempt = written.opened(job)
        for start, end in draw(stretches(4)):
            energy_uj = draw(st.integers(0, 10**16))
            written.energy(attempt, span(DAY + timedelta(seconds=start), DAY + timedelta(seconds=end), energy_uj))
        for_basis = {basis: _readings(draw, basis) for basis in ("lifecycle", "direct")}
        pue_ppm = draw(st.integers(1_000_000, 5_000_000))
        written.used(attempt, "actual", "north", "SE", pue_ppm, *for_basis["lifecycle"], direct=for_basis["direct"])
    return written


def _readings(draw, basis):
    return [
        reading(DAY + timedelta(seconds=start), DAY + timedelta(seconds=end), draw(st.integers(0, 2500)), basis=basis)
        for start, end in draw(stretches(6))
    ]


FIELDS = ("energy_uj", "facility_uj", "covered_uj", "co2e_ug", "separated_ug", "direct_ug")


@given(ledgers(), st.sampled_from(["team", "job", "component", "provider", "grade", "cluster", "pue_ppm"]))
@settings(max_examples=40, deadline=None)
def test_parts_sum_to_the_whole_whichever_way_they_are_grouped(written, grouping):
    book = read_book(written.entries)
    got = statement(book, Selection())
    recorded = sum(s.energy_uj for job in book.jobs.values() for a in job.attempts.values() for s in a.spans)
    assert got.total("energy_uj") == recorded
    for field in FIELDS:
        assert sum(getattr(line, field) for _, line in got.by(grouping)) == got.total(field)
    assert got.total("co2e_ug") == got.total("direct_ug") + got.upstream_ug + got.unseparated_ug
    assert sum(s.energy_uj for s in got.series if s.use == "booked") == got.total("covered_uj")
    unknown_uj = sum(gap.energy_uj for gap in got.gaps if gap.what == "no intensity")
    assert unknown_uj == recorded - got.total("covered_uj")
    teams = [statement(book, Selection(team=team)) for team in ("a", "b")]
    assert sum(one.total("co2e_ug") for one in teams) == got.total("co2e_ug")


@given(ledgers(), st.lists(SECONDS, max_size=3, unique=True))
@settings(max_examples=40, deadline=None)
def test_adjoining_periods_sum_to_the_whole(written, borders):
    book = read_book(written.entries)
    cuts = [None, *(DAY + timedelta(seconds=border) for border in sorted(borders)), None]
    parts = [statement(book, Selection(period=Period(*cut))) for cut in pairwise(cuts)]
    energy = statement(book, Selection()).total("energy_uj")
    assert sum(one.total("energy_uj") for one in parts) == energy


@given(ledgers(), st.integers(0, 500_000))
@settings(max_examples=25, deadline=None)
def test_more_energy_pue_or_intensity_never_means_less_co2e(written, more_mg):
    book = read_book(written.entries)
    before = statement(book, Selection()).total("co2e_ug")
    for job in book.jobs.values():
        for attempt in job.attempts.values():
            (used,) = attempt.readings["actual"]
            higher = tuple(replace(r, intensity_mg_per_kwh=min(2_500_000, r.intensity_mg_per_kwh + more_mg))
                           for r in used.readings)  # fmt: skip
            attempt.readings["actual"] = [replace(used, pue_ppm=used.pue_ppm + more_mg, readings=higher)]
            attempt.recorded = [
                s._replace(energy_uj=tuple(uj + more_mg for uj in s.energy_uj)) for s in attempt.recorded
            ]
    assert statement(book, Selection()).total("co2e_ug") >= before
