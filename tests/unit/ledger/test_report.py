"""Statements, against figures worked out by hand.

job A, on `north` (zone SE, PUE 1.2), submitted 09:30                     1 kWh = 3.6e12 uJ
  gpu-0   10:50 - 11:10   1.0 kWh, half of it before 11:00
  cpu-0   10:50 - 11:30   0.4 kWh: 10 min before 11:00, 15 min to 11:15, 15 min in the gap
  SE      10-11: 20 g/kWh    11-11:15: 50 g/kWh    after 11:15: not known

  gpu     0.5 x 1.2 x 20 + 0.5 x 1.2 x 50    = 12 + 30  = 42   g
  cpu     0.1 x 1.2 x 20 + 0.15 x 1.2 x 50   = 2.4 + 9  = 11.4 g, and 0.15 kWh without intensity
  all     53.4 g over 1.25 of 1.4 kWh; with the building's share 1.4 x 1.2 = 1.68 kWh

job B, on `north`, submitted 09:30: gpu-0 1.0 kWh as above, every reading known
  ours            42 g
  run-now-home    the same 20 minutes from 09:30 on, in DE at 400 g/kWh and PUE 1.5: 1 x 1.5 x 400 = 600 g
  best-fixed      the same from 09:30 on, on north itself at 10 g/kWh: 1 x 1.2 x 10 = 12 g, so we lost 30 g
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon_sched.domain.errors import LedgerBroken, NotFound
from carbon_sched.domain.facts import FactKind
from carbon_sched.domain.time import from_rfc3339
from carbon_sched.ledger.account import Period
from carbon_sched.ledger.book import read_book
from carbon_sched.ledger.export import MEDIA_TYPES, render, safe_cell
from carbon_sched.ledger.receipt import receipt
from carbon_sched.ledger.report import GROUPINGS, Totals, report
from carbon_sched.ledger.selection import Selection
from tests.fakes.ledger import WrittenLedger, at, reading, span

KWH = 3_600_000_000_000
GRAM = 1_000_000
SE_10 = reading(at("10:00"), at("11:00"), 20)
SE_11 = reading(at("11:00"), at("12:00"), 50)


def gpu():
    return span(at("10:50"), at("11:10"), KWH)


def write_job_a(ledger):
    ledger.job("jobaaaaaaa", team="ml", project="llm", phase="pretraining", name="pretrain")
    attempt = ledger.opened("jobaaaaaaa")
    cpu = span(at("10:50"), at("11:30"), 4 * KWH // 10, "cpu-0", kind="cpu", source="estimated", error_ppm=300_000)
    ledger.energy(attempt, gpu(), cpu)
    ledger.ended(attempt, start="10:49", end="11:30")
    ledger.job_ended("jobaaaaaaa")
    ledger.used(attempt, "actual", "north", "SE", 1_200_000, SE_10, reading(at("11:00"), at("11:15"), 50))
    ledger.used(
        attempt, "run-now-home", "home", "DE", 1_500_000, reading(at("09:00"), at("11:00"), 400), shift_s=-80 * 60
    )
    ledger.collected(attempt)


def write_job_b(ledger):
    ledger.job("jobbbbbbbb", team="ml", phase="evaluation", name="evaluate")
    ledger.decided("jobbbbbbbb", "delay", expected_co2e_ug=50 * GRAM)
    ledger.decided("jobbbbbbbb", "place", expected_co2e_ug=40 * GRAM)
    attempt = ledger.opened("jobbbbbbbb")
    ledger.energy(attempt, gpu())
    ledger.ended(attempt, start="10:49", end="11:12")
    ledger.job_ended("jobbbbbbbb")
    ledger.used(attempt, "actual", "north", "SE", 1_200_000, SE_10, SE_11)
    shift = {"shift_s": -80 * 60}
    home = reading(at("09:00"), at("10:00"), 400, grade="D-zone-year")
    ledger.used(attempt, "run-now-home", "home", "DE", 1_500_000, home, **shift)
    north = reading(at("09:00"), at("10:00"), 10)
    ledger.used(attempt, "best-fixed", "north", "SE", 1_200_000, north, **shift)
    ledger.collected(attempt)


@pytest.fixture
def ledger():
    written = WrittenLedger()
    written.cluster("home", "DE", 1_500_000, home=True)
    written.cluster("north", "SE", 1_200_000)
    write_job_a(written)
    write_job_b(written)
    return written


@pytest.fixture
def book(ledger):
    return read_book(ledger.entries)


# ------------------------------------------------------------------------------------------------------------ receipts


def test_the_receipt_with_a_gap(book):
    got = receipt(book, "jobaaaaaaa")
    assert got["co2e_ug"] == 53_400_000
    assert got["co2e_g"] == 53.4
    assert got["energy_kwh"] == pytest.approx(1.4)
    assert got["facility_kwh"] == pytest.approx(1.68)
    assert got["energy_by_source_j"] == {"counter": 3.6e6, "estimated": 1.44e6}
    # (0.6 kWh x 20 + 0.65 kWh x 50) / 1.25 kWh
    assert got["intensity_g_per_kwh"] == pytest.approx(35.6)
    assert (got["cluster"], got["zone"], got["pue"], got["pue_source"]) == ("north", "SE", 1.2, "measured")
    assert (got["intensity_provider"], got["intensity_basis"]) == ("grid", "lifecycle")
    assert got["intensity_grade"] == "A-live"
    assert (got["started_at"], got["ended_at"], got["duration_s"]) == (at("10:49"), at("11:30"), 41 * 60)
    assert (got["state"], got["final"], got["missing"]) == ("succeeded", True, [])
    assert got["references"] == []
    assert got["notes"] == [
        "10.7 % of the energy has no known intensity; its CO2e is not in the figure",
        "28.6 % of the energy is estimated, not measured",
        "100 % of the energy was reported by the job's own side, not by an independent meter",
        "no comparison with run-now-home: part of the job's own energy has no intensity",
    ]
    assert got["ledger_head"] == book.head
    cpu, gpu_0 = got["devices"]
    assert (gpu_0["device"], gpu_0["energy_j"], gpu_0["error_pct"]) == ("gpu-0", 3.6e6, 5.0)
    assert (cpu["device"], cpu["energy_j"], cpu["error_pct"]) == ("cpu-0", 1.44e6, 30.0)


def test_the_receipt_with_references_one_of_them_better_than_ours(book):
    got = receipt(book, "jobbbbbbbb")
    assert got["co2e_ug"] == 42 * GRAM
    assert got["expected_co2e_g"] == 40.0
    best, home = got["references"]
    assert (home["name"], home["cluster"], home["zone"]) == ("run-now-home", "home", "DE")
    assert (home["start"], home["co2e_g"], home["saved_g"]) == (at("09:30"), 600.0, 558.0)
    assert "D-zone-year" in home["note"]
    assert (best["name"], best["cluster"]) == ("best-fixed", "north")
    assert (best["start"], best["co2e_g"], best["saved_g"]) == (at("09:30"), 12.0, -30.0)


def test_an_unknown_job_has_no_receipt(book):
    with pytest.raises(NotFound, match="nobody"):
        receipt(book, "nobody")


def test_the_receipt_grows_with_the_ledger():
    ledger = WrittenLedger()

    def now():
        got = receipt(read_book(ledger.entries), "jobccccccc")
        return got["state"], got["final"], got["energy_kwh"], got["co2e_ug"], got["intensity_g_per_kwh"]

    ledger.job("jobccccccc")
    assert now() == ("queued", False, 0, 0, None)
    attempt = ledger.opened("jobccccccc")
    assert now() == ("running", False, 0, 0, None)
    ledger.energy(attempt, gpu())
    assert now() == ("running", False, 1.0, 0, None)  # nothing is booked before the readings are known
    ledger.ended(attempt, start="10:50", end="11:10")
    ledger.job_ended("jobccccccc")
    assert now() == ("succeeded", False, 1.0, 0, None)
    ledger.used(attempt, "actual", "north", "SE", 1_200_000, SE_10, SE_11)
    ledger.collected(attempt, "one segment was torn")
    assert now() == ("succeeded", True, 1.0, 42 * GRAM, 35.0)
    assert receipt(read_book(ledger.entries), "jobccccccc")["missing"] == ["one segment was torn"]


def test_an_attempt_that_never_ran_leaves_nothing_to_wait_for():
    ledger = WrittenLedger()
    ledger.job("jobccccccc")
    withdrawn = ledger.opened("jobccccccc", 1)
    ledger.ended(withdrawn, "withdrawn", end="10:00")
    second = ledger.opened("jobccccccc", 2, cluster="home", zone="DE", pue_ppm=1_500_000)
    ledger.ended(second, "failed", missing=("the wrapper left no record",))
    ledger.job_ended("jobccccccc", "failed", attempts=2)
    assert not receipt(read_book(ledger.entries), "jobccccccc")["final"]
    ledger.collected(second, "the wrapper left no record", "no energy was recorded")
    got = receipt(read_book(ledger.entries), "jobccccccc")
    assert got["final"]
    assert got["missing"] == ["the wrapper left no record", "no energy was recorded"]
    assert (got["cluster"], got["started_at"], got["duration_s"], got["pue"]) == ("home", None, None, None)


def test_two_attempts_are_both_booked_each_at_its_own_pue():
    ledger = WrittenLedger()
    ledger.job("jobccccccc")
    for number, (cluster, pue_ppm) in enumerate([("home", 2_000_000), ("north", 1_000_000)], start=1):
        attempt = ledger.opened("jobccccccc", number, cluster, "DE", pue_ppm)
        ledger.energy(attempt, span(at("10:00"), at("10:30"), KWH), cluster=cluster)
        ledger.ended(attempt, "lost" if number == 1 else "succeeded", start="10:00", end="10:30")
        ledger.used(attempt, "actual", cluster, "DE", pue_ppm, reading(at("10:00"), at("11:00"), 100))
        ledger.collected(attempt)
    got = receipt(read_book(ledger.entries), "jobccccccc")
    assert got["co2e_ug"] == 300 * GRAM  # 1 x 2.0 x 100 + 1 x 1.0 x 100
    assert (got["energy_kwh"], got["facility_kwh"], got["pue"]) == (2.0, 3.0, 1.5)
    assert (got["cluster"], got["duration_s"]) == ("north", 3600)
    assert "2 attempts used energy; all of it is booked" in got["notes"]


def test_revised_readings_hold_and_the_revision_is_told(ledger):
    ledger.used("cs-jobbbbbbbb-a1", "actual", "north", "SE", 1_200_000, SE_10, {**SE_11, "mg_per_kwh": 60_000})
    got = receipt(read_book(ledger.entries), "jobbbbbbbb")
    assert got["co2e_ug"] == 48 * GRAM  # 0.5 x 1.2 x 20 + 0.5 x 1.2 x 60
    assert "the readings of cs-jobbbbbbbb-a1 were revised; the newest hold here" in got["notes"]


def test_a_marginal_signal_is_never_booked(ledger):
    ledger.used("cs-jobbbbbbbb-a1", "actual", "north", "SE", 1_200_000, SE_10, {**SE_11, "signal": "marginal"})
    got = receipt(read_book(ledger.entries), "jobbbbbbbb")
    assert got["co2e_ug"] == 12 * GRAM
    assert got["notes"][0].startswith("50 % of the energy has no known intensity")


def test_zero_intensity_is_a_measurement_not_a_gap():
    ledger = WrittenLedger()
    ledger.job("jobccccccc")
    attempt = ledger.opened("jobccccccc")
    ledger.energy(attempt, gpu())
    ledger.used(attempt, "actual", "north", "SE", 1_200_000, reading(at("10:00"), at("12:00"), 0))
    got = receipt(read_book(ledger.entries), "jobccccccc")
    assert (got["co2e_ug"], got["intensity_g_per_kwh"]) == (0, 0.0)
    assert not any("intensity" in note for note in got["notes"])


# ------------------------------------------------------------------------------------------------------------- reports


def test_the_report_adds_up_by_every_grouping(book):
    got = report(book, Selection())
    assert got.totals == Totals(24 * KWH // 10, 288 * KWH // 100, 225 * KWH // 100, 95_400_000)
    for grouping in GROUPINGS:
        assert sum((totals for _, totals in got.by(grouping)), Totals()) == got.totals
    assert [(value, totals.co2e_ug) for value, totals in got.by("phase")] == [
        ("evaluation", 42 * GRAM),
        ("pretraining", 53_400_000),
    ]
    assert [(value, totals.energy_uj) for value, totals in got.by("source")] == [
        ("counter", 2 * KWH),
        ("estimated", 4 * KWH // 10),
    ]
    assert [(job.job, job.state, job.settled) for job in got.jobs] == [
        ("jobaaaaaaa", "succeeded", True),
        ("jobbbbbbbb", "succeeded", True),
    ]
    assert (got.ledger_size, got.ledger_head) == (book.size, book.head)


def test_savings_are_summed_over_comparable_jobs_and_negative_ones_shown(book):
    best, home = report(book, Selection()).comparisons
    assert (home.role, home.jobs, home.co2e_ug, home.ours_ug, home.saved_ug) == (
        "run-now-home", 1, 600 * GRAM, 42 * GRAM, 558 * GRAM,
    )  # fmt: skip
    assert (best.role, best.jobs, best.saved_ug) == ("best-fixed", 1, -30 * GRAM)
    assert report(book, Selection()).not_compared == (
        "jobaaaaaaa with run-now-home: part of the job's own energy has no intensity",
    )


@pytest.mark.parametrize(
    ("selection", "jobs"),
    [
        ({"jobs": ("jobbbbbbbb",)}, ["jobbbbbbbb"]),
        ({"team": "ml"}, ["jobaaaaaaa", "jobbbbbbbb"]),
        ({"team": "other"}, []),
        ({"project": "llm"}, ["jobaaaaaaa"]),
        ({"project": ""}, ["jobbbbbbbb"]),
        ({"phase": "evaluation"}, ["jobbbbbbbb"]),
        ({"model": "m"}, []),
        ({"period": Period(until=from_rfc3339(at("09:30")))}, []),
        ({"period": Period(since=from_rfc3339(at("11:10")))}, ["jobaaaaaaa"]),
        ({"period": Period(since=from_rfc3339(at("12:00")))}, []),
    ],
)
def test_selections(book, selection, jobs):
    assert [line.job for line in report(book, Selection(**selection)).jobs] == jobs


def test_a_period_takes_its_share_of_what_crosses_its_border(book):
    border = from_rfc3339(at("11:00"))
    before = report(book, Selection(jobs=("jobbbbbbbb",), period=Period(until=border)))
    after = report(book, Selection(jobs=("jobbbbbbbb",), period=Period(since=border)))
    assert (before.totals.co2e_ug, after.totals.co2e_ug) == (12 * GRAM, 30 * GRAM)
    # the reference's half: 0.5 kWh x 1.5 x 400
    assert [one.co2e_ug for one in before.comparisons if one.role == "run-now-home"] == [300 * GRAM]


def test_a_cluster_selection_takes_only_the_attempts_there():
    ledger = WrittenLedger()
    ledger.job("jobccccccc")
    for number, cluster in enumerate(["home", "north"], start=1):
        attempt = ledger.opened("jobccccccc", number, cluster)
        ledger.energy(attempt, span(at("10:00"), at("10:30"), number), cluster=cluster)
    book = read_book(ledger.entries)
    assert report(book, Selection(cluster="north")).totals.energy_uj == 2
    assert report(book, Selection()).totals.energy_uj == 3


def test_jobs_that_used_nothing_are_in_the_report_too():
    ledger = WrittenLedger()
    ledger.job("jobccccccc")
    ledger.job_ended("jobccccccc", "refused", attempts=0)
    (line,) = report(read_book(ledger.entries), Selection()).jobs
    assert (line.job, line.state, line.totals) == ("jobccccccc", "refused", Totals())


def test_what_no_attempt_owns_is_shown_apart_and_only_beside_everything(ledger):
    for minute in ("10:50", "11:00"):
        rows = [{**span(at(minute), at("11:30"), 7), "owner": owner} for owner in ("idle", "unattributed", "idle")]
        ledger.machine_energy("m1", *rows)
    book = read_book(ledger.entries)
    everything = report(book, Selection())
    assert [(one.machine, one.pot, one.energy_uj) for one in everything.unowned] == [
        ("m1", "idle", 28),
        ("m1", "unattributed", 14),
    ]
    assert everything.totals.energy_uj == 24 * KWH // 10
    assert "owned by none" in render(everything, "text")
    assert report(book, Selection(team="ml")).unowned == ()


DAY = datetime(2026, 3, 1, tzinfo=timezone.utc)
minutes = st.integers(0, 24 * 60)
borders = st.lists(minutes, min_size=2, max_size=8, unique=True).map(sorted)


@st.composite
def booked(draw):
    """A job with any spans, readings with gaps, and cuts of the time into periods."""
    ledger = WrittenLedger()
    ledger.job("jobccccccc")
    attempt = ledger.opened("jobccccccc", pue_ppm=draw(st.integers(1_000_000, 3_000_000)))
    spans = draw(st.lists(st.tuples(minutes, st.integers(1, 300), st.integers(0, 10**13)), min_size=1, max_size=6))
    when = [(DAY + timedelta(minutes=start), timedelta(minutes=length), uj) for start, length, uj in spans]
    ledger.energy(attempt, *[span(start, start + length, uj) for start, length, uj in when])
    edges = draw(borders)
    readings = [
        reading(DAY + timedelta(minutes=left), DAY + timedelta(minutes=right), draw(st.integers(0, 1500)))
        for left, right in itertools.pairwise(edges)
        if draw(st.booleans())
    ]
    ledger.used(attempt, "actual", "north", "SE", draw(st.integers(1_000_000, 3_000_000)), *readings)
    cuts = [None, *(DAY + timedelta(minutes=cut, microseconds=7) for cut in draw(borders)), None]
    return ledger.entries, sum(uj for *_, uj in when), cuts


@settings(max_examples=60, deadline=None)
@given(booked())
def test_periods_add_up_to_the_whole_to_the_microjoule(case):
    entries, energy_uj, cuts = case
    book = read_book(entries)
    whole = report(book, Selection()).totals
    parts = [report(book, Selection(period=Period(*cut))).totals for cut in itertools.pairwise(cuts)]
    summed = sum(parts, Totals())
    assert whole.energy_uj == summed.energy_uj == energy_uj
    assert 0 <= whole.covered_uj <= whole.energy_uj
    # every part is rounded once to a microgram (or microjoule), half up
    pieces = 6 * 9 * len(cuts)
    assert abs(whole.co2e_ug - summed.co2e_ug) <= pieces
    assert abs(whole.facility_uj - summed.facility_uj) <= pieces


# ------------------------------------------------------------------------------------------- facts that contradict


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda w: w.job("jobaaaaaaa"), "accepted twice"),
        (lambda w: w.opened("jobaaaaaaa"), "opened twice"),
        (lambda w: w.opened("nobody"), "KeyError"),
        (lambda w: w.energy("cs-nobody-a1", gpu()), "KeyError"),
        (lambda w: w.energy("cs-jobaaaaaaa-a1", {**gpu(), "owner": "idle"}), "others' energy"),
        (lambda w: w.energy("cs-jobaaaaaaa-a1", {**gpu(), "energy_uj": -1}), "not an energy span"),
        (lambda w: w.used("cs-jobaaaaaaa-a1", "actual", "n", "SE", 1_200_000, SE_10, SE_10), "overlap"),
        (lambda w: w.add(FactKind.JOB_ENDED, job="jobaaaaaaa"), "KeyError"),
    ],
)
def test_a_fact_that_contradicts_the_book_is_named(ledger, spoil, message):
    spoil(ledger)
    with pytest.raises(LedgerBroken, match=message) as told:
        read_book(ledger.entries)
    assert told.value.first_bad_seq == len(ledger.entries)


def test_the_same_segment_is_not_booked_twice(ledger):
    ledger.segments -= 1  # the writer gives the last segment's name again
    ledger.energy("cs-jobbbbbbbb-a1", gpu())
    with pytest.raises(LedgerBroken, match="segment segment-2 of cs-jobbbbbbbb-a1 is booked twice"):
        read_book(ledger.entries)


def test_a_book_reads_the_chain_only_in_order(ledger):
    with pytest.raises(LedgerBroken, match="does not continue the chain"):
        read_book(ledger.entries[1:])
    with pytest.raises(LedgerBroken, match="does not continue the chain"):
        read_book([*ledger.entries[:3], *ledger.entries[4:]])


# -------------------------------------------------------------------------------------------------------------- forms


def test_the_text_form_in_full(book):
    assert render(report(book, Selection(team="ml")), "text") == TEXT.format(head=book.head)


TEXT = """\
Energy and emissions of jobs
Selection: team ml, from the beginning to now
Jobs: 2
Energy: 2.400 kWh IT, 2.880 kWh with the building's share (PUE)
CO2e: 95.400 g, location-based
Intensity known for 93.7 % of the energy; the rest is not in the CO2e
Ledger: 21 entries
Head: {head}

Jobs
job         name      state      IT energy  facility   CO2e      covered
jobaaaaaaa  pretrain  succeeded  1.400 kWh  1.680 kWh  53.400 g  89.2 %
jobbbbbbbb  evaluate  succeeded  1.000 kWh  1.200 kWh  42.000 g  100.0 %

By project
project  IT energy  facility   CO2e      covered
(none)   1.000 kWh  1.200 kWh  42.000 g  100.0 %
llm      1.400 kWh  1.680 kWh  53.400 g  89.2 %

By phase
phase        IT energy  facility   CO2e      covered
evaluation   1.000 kWh  1.200 kWh  42.000 g  100.0 %
pretraining  1.400 kWh  1.680 kWh  53.400 g  89.2 %

By source
source     IT energy  facility   CO2e      covered
counter    2.000 kWh  2.400 kWh  84.000 g  100.0 %
estimated  0.400 kWh  0.480 kWh  11.400 g  62.5 %

Against other choices
choice        jobs  ours      theirs     saved
best-fixed    1     42.000 g  12.000 g   -30.000 g
run-now-home  1     42.000 g  600.000 g  558.000 g

not compared: jobaaaaaaa with run-now-home: part of the job's own energy has no intensity
"""


def test_csv_holds_the_exact_integers(book):
    rows = list(csv.DictReader(io.StringIO(render(report(book, Selection()), "csv"), newline="")))
    assert [(row["job"], row["source"], int(row["co2e_ug"])) for row in rows] == [
        ("jobaaaaaaa", "counter", 42 * GRAM),
        ("jobaaaaaaa", "estimated", 11_400_000),
        ("jobbbbbbbb", "counter", 42 * GRAM),
    ]
    assert (rows[1]["energy_kwh"], rows[1]["facility_kwh"], rows[1]["co2e_g"]) == (
        "0.400000000",
        "0.480000000",
        "11.400000000",
    )


def test_json_holds_everything(book):
    document = json.loads(render(report(book, Selection(period=Period(since=DAY))), "json"))
    assert document["selection"]["since"] == "2026-03-01T00:00:00Z"
    assert document["totals"]["co2e_ug"] == 95_400_000
    assert document["comparisons"][0]["saved_ug"] == -30 * GRAM
    assert document["ledger"] == {"size": book.size, "head": book.head}
    assert sum(line["co2e_ug"] for line in document["lines"]) == 95_400_000


HOSTILE = '=HYPERLINK("http://x")|<script>\x1b[2J\n`_*'


@pytest.fixture
def hostile_book():
    ledger = WrittenLedger()
    ledger.job("jobaaaaaaa", name=HOSTILE, team=HOSTILE)
    attempt = ledger.opened("jobaaaaaaa")
    ledger.ended(attempt, HOSTILE, missing=(HOSTILE,))
    ledger.job("jobbbbbbbb", name="b", team="@b")
    ledger.energy(ledger.opened("jobbbbbbbb"), gpu())
    return read_book(ledger.entries)


def test_names_cannot_steer_spreadsheets_terminals_or_browsers(hostile_book):
    got = report(hostile_book, Selection())
    for form in ("text", "md"):
        assert "\x1b" not in render(got, form)
        assert not [line for line in render(got, form).split("\n") if line.startswith("`_*")]
    assert "<" not in render(got, "md")
    rows = list(csv.reader(io.StringIO(render(got, "csv"), newline="")))
    assert len(rows) == 3
    assert not [cell for row in rows for cell in row if cell[:1] in ("=", "+", "@", "\t", "\r")]
    assert json.loads(render(got, "json"))["jobs"][0]["name"] == HOSTILE


@pytest.mark.parametrize(
    ("cell", "safe"),
    [
        ("=1+1", "'=1+1"),
        ("-cmd", "'-cmd"),
        ("+1", "'+1"),
        ("@x", "'@x"),
        (" =1", "' =1"),
        ("--1", "'--1"),
        ("\t=1", "\ufffd=1"),
        ("-1.5", "-1.5"),
        (-1, -1),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_cells(cell, safe):
    assert safe_cell(cell) == safe


@pytest.mark.parametrize("form", MEDIA_TYPES)
def test_every_form_renders_an_empty_report_and_is_reproducible(form, ledger):
    empty = render(report(read_book([]), Selection()), form)
    assert empty.endswith("\n")
    once, again = (render(report(read_book(ledger.entries), Selection()), form) for _ in range(2))
    assert once == again
