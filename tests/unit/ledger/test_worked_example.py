"""examples/audit: its statement against the numbers that its README derives by hand."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path

import pytest

from carbon_sched.ledger.account import Period
from carbon_sched.ledger.book import read_book
from carbon_sched.ledger.copy import entry_of
from carbon_sched.ledger.selection import Selection
from carbon_sched.ledger.statement import statement
from carbon_sched.ledger.statement.document import document
from carbon_sched.ledger.statement.formats import render
from tests.fakes.ledger import at

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "audit"
LEDGER = EXAMPLE / "ledger.jsonl"
KWH_TENTH = 360_000_000_000
GRAM = 1_000_000


@pytest.fixture(scope="module")
def book():
    return read_book(map(entry_of, LEDGER.read_bytes().splitlines()))


@pytest.fixture(scope="module")
def whole(book):
    return statement(book, Selection())


def test_the_ledger_is_what_the_script_writes():
    made = subprocess.run([sys.executable, EXAMPLE / "write.py"], check=True, capture_output=True, timeout=60)
    assert made.stdout == LEDGER.read_bytes()


def test_energy_and_co2e(whole):
    assert whole.total("energy_uj") == 41 * KWH_TENTH
    assert whole.total("facility_uj") * 100 == 4950 * KWH_TENTH
    assert whole.total("covered_uj") == 38 * KWH_TENTH
    assert [(job.job, job.co2e_ug) for job in whole.jobs] == [
        ("train", 108 * GRAM), ("evaluate", 180 * GRAM), ("tune", 66 * GRAM)
    ]  # fmt: skip
    assert whole.total("co2e_ug") == 354 * GRAM


def test_the_hour_border_cuts_the_span_in_two(book):
    before = statement(book, Selection(("train",), period=Period(until=whole_hour(11))))
    after = statement(book, Selection(("train",), period=Period(since=whole_hour(11))))
    assert (before.total("co2e_ug"), after.total("co2e_ug")) == (36 * GRAM, 72 * GRAM)


def whole_hour(hour):
    from carbon_sched.domain.time import from_rfc3339

    return from_rfc3339(at(f"{hour}:00"))


def test_scopes(whole):
    assert whole.total("direct_ug") == 60_750_000
    assert whole.upstream_ug == 113_250_000
    assert whole.unseparated_ug == 180 * GRAM
    assert whole.market.co2e_ug == 875_250_000
    assert [(one.cluster, one.kind, one.co2e_ug) for one in whole.market.instruments] == [
        ("north", "ppa", 20_250_000), ("north", "residual-mix", 405 * GRAM), ("south", "residual-mix", 450 * GRAM)
    ]  # fmt: skip
    assert [(one.cluster, one.kind, one.direct_category) for one in whole.scope_classes] == [
        ("north", "own", "scope 2"), ("south", "cloud", "scope 3, category 1")
    ]  # fmt: skip


def test_in_an_inventory_all_of_a_clouds_electricity_is_category_1(whole):
    rows = {
        row["GHG Protocol"]: row["value"] for row in csv.DictReader(io.StringIO(render(whole, "inventory").decode()))
    }
    assert rows["Scope 2 activity data"] == "0.004050000"
    assert rows["Scope 3, category 1 activity data"] == "0.000900000"
    assert rows["Scope 2, market-based"] == "0.000425250"
    assert rows["Scope 3, category 1"] == "0.000180000"
    assert rows["Scope 2 and scope 3, category 3"] == "0.000000000"


def test_the_statement_says_what_of_the_market_based_figure_is_a_clouds(whole):
    (said,) = (section.said for section in document(whole).sections if section.title.startswith("12 "))
    assert said[0] == "875.250 g."
    assert said[1].startswith("450.000 g below are on clouds of others: scope 3, category 1")


def test_both_pues_of_north_are_shown_with_their_periods(whole):
    assert [(one.cluster, one.pue_ppm, one.period) for one in whole.pues] == [
        ("north", 1_100_000, "2026"), ("north", 1_200_000, "2025"), ("south", 1_500_000, "")
    ]  # fmt: skip


def test_the_revision_and_the_gaps(whole):
    (row,) = whole.restatements
    assert (row.attempt, row.why, row.co2e_before_ug, row.co2e_ug) == (
        "cs-train-a1", "readings were revised", 96 * GRAM, 108 * GRAM
    )  # fmt: skip
    assert [(gap.attempt, gap.what, gap.start, gap.end, gap.energy_uj) for gap in whole.gaps] == [
        ("cs-evaluate-a1", "no intensity", at("10:20"), at("10:40"), 3 * KWH_TENTH),
        ("cs-tune-a1", "no energy", at("14:00"), at("14:10"), None),
    ]


def test_evidence(whole):
    assert [(key, line.energy_uj) for key, line in whole.by("source")] == [
        (("counter",), 36 * KWH_TENTH), (("estimated",), 5 * KWH_TENTH)
    ]  # fmt: skip
    assert dict(whole.by("reporter"))["independent",].energy_uj == 35 * KWH_TENTH


def test_embodied_and_score(whole):
    (row,) = whole.embodied
    assert (row.low_ug, row.central_ug, row.high_ug) == (3 * GRAM, 6_500_000, 10 * GRAM)
    assert whole.embodied_unknown == ("cs-evaluate-a1", "cs-tune-a1")
    (score,) = whole.scores
    assert (score.unit, score.amount_millionths, score.total_ug) == ("GPU-hour", 1_000_000, 114_500_000)


def test_savings_and_hindsight(whole):
    assert [(one.role, one.co2e_ug, one.saved_ug) for one in whole.comparisons] == [
        ("best-fixed", 72 * GRAM, -36 * GRAM),
        ("best-in-hindsight", 48 * GRAM, -60 * GRAM),
        ("run-now-home", 1200 * GRAM, 1092 * GRAM),
    ]
    assert (whole.hindsight.saved_ug, whole.hindsight.best_ug) == (1092 * GRAM, 1152 * GRAM)


def test_completeness(whole):
    north, south = whole.completeness.clusters
    assert (north.ours, north.past_us, north.past_us_us, north.coverage_ppm) == (2, 1, 1_800_000_000, 666_666)
    assert (south.ours, south.past_us, south.coverage_ppm) == (1, 0, 1_000_000)
    assert [row.unlisted for row in (north, south)] == [0, 0]


def test_bounds(whole):
    assert whole.uncertainty.high_ug == pytest.approx(431_755_800, abs=100)
    assert whole.uncertainty.low_ug == pytest.approx(285_338_200, abs=100)
    assert whole.uncertainty.low_ug < whole.uncertainty.p5_ug < 354 * GRAM < whole.uncertainty.p95_ug
