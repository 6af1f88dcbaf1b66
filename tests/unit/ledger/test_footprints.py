"""Life cycles, comparisons and charges, against figures worked out by hand.

Every job runs on `north` (SE, PUE 1.2) from 10:00 to 11:00 at 50 g/kWh, so that 1 kWh is 1.2 x 50 = 60 g.
"""

from __future__ import annotations

import math

import pytest

from carbon_sched.domain.errors import InvalidInput, NotFound
from carbon_sched.domain.time import from_rfc3339
from carbon_sched.ledger.account import Period
from carbon_sched.ledger.book import read_book
from carbon_sched.ledger.chargeback import BY, chargeback
from carbon_sched.ledger.compare import compare, sides_of
from carbon_sched.ledger.lifecycle import lifecycle
from tests.fakes.ledger import KWH, Worked, at, span, window

GRAM = 1_000_000
MILLION = 1_000_000


@pytest.fixture
def ledger():
    return Worked()


# --------------------------------------------------------------------------------------------------------- life cycles


@pytest.fixture
def model(ledger):
    ledger.ran("jobpre0000", 10, phase="pretraining", model="m", team="nlp")
    ledger.ran("jobsft0000", 2, phase="finetuning", stage="sft", model="m", team="nlp")
    ledger.ran("jobrl10000", 3, phase="finetuning", stage="rlhf-1", model="m", team="nlp")
    ledger.ran("jobrl20000", 1, phase="finetuning", stage="rlhf-2", model="m", team="nlp")
    ledger.ran("jobeval000", 0.5, phase="evaluation", model="m", team="nlp")
    ledger.ran("jobserve00", 4, window("serve", queries=1000, tokens=1e6), phase="inference-online", model="m")
    ledger.ran("jobserve01", 2, window("serve", queries=500), phase="inference-batch", model="m")
    ledger.ran("jobserve02", 1, phase="inference-online", model="m")
    ledger.ran("jobother00", 7, phase="pretraining", model="other")
    return read_book(ledger.entries)


def test_a_model_from_pretraining_to_its_queries(model):
    found = lifecycle(model, "m")
    assert [(one.phase, one.stage, one.energy_uj // KWH) for one in found.stages] == [
        ("pretraining", "", 10), ("finetuning", "rlhf-1", 3), ("finetuning", "rlhf-2", 1), ("finetuning", "sft", 2),
        ("evaluation", "", 0), ("inference-batch", "", 2), ("inference-online", "", 5),
    ]  # fmt: skip
    assert (found.making.jobs, found.making.co2e_ug) == (5, round(16.5 * 60 * GRAM))
    assert (found.inference.jobs, found.inference.co2e_ug) == (3, 7 * 60 * GRAM)
    queries, tokens = found.per_unit
    # two of three jobs counted queries: 6 kWh, 360 g over 1,500 of them
    assert (queries.unit, queries.amount_millionths, queries.co2e_ug) == ("queries", 1500 * MILLION, 360 * GRAM)
    assert (tokens.unit, tokens.energy_uj) == ("tokens", 4 * KWH)
    assert queries.making_ug == tokens.making_ug == found.making.co2e_ug, "training stands beside, never in the figure"
    assert found.uncounted == ("cs-jobserve02-a1",)
    assert (found.ledger_size, found.ledger_head) == (model.size, model.head)


def test_stages_and_sums_conserve_what_was_booked(model):
    found = lifecycle(model, "m")
    for field in ("energy_uj", "co2e_ug", "facility_uj", "covered_uj"):
        assert sum(getattr(one, field) for one in found.stages) == getattr(found.making, field) + getattr(
            found.inference, field
        )


def test_a_model_of_another_team_is_not_told_of(model):
    assert lifecycle(model, "m", team="nlp").inference.jobs == 0
    for name, team in (("m", "vision"), ("nobody", None)):
        with pytest.raises(NotFound, match="no job of the ledger names the model"):
            lifecycle(model, name, team=team)


# --------------------------------------------------------------------------------------------------------- comparisons


def compared(ledger, *sides, **more):
    book = read_book(ledger.entries)
    return compare(book, sides_of(book, sides, lambda _team: True), **more)


def test_a_side_may_be_given_a_label_unless_that_is_a_jobs_own_name(ledger):
    for number, name in enumerate(("a", "a", "b", "lr=0.1")):
        ledger.ran(f"joblabel{number:02}", 1.0, name=name)
    sides = compared(ledger, "mine=joblabel00,joblabel01", "lr=0.1", "b").sides
    assert [(one.label, len(one.runs)) for one in sides] == [("mine", 2), ("lr=0.1", 1), ("b", 1)]
    with pytest.raises(InvalidInput, match="give one label twice"):
        compared(ledger, "mine=a", "mine=b")


def test_energy_per_token_by_hand(ledger):
    """fp16: 1.0, 1.1 and 0.9 kWh for a million tokens each; int8: half of it for as many."""
    for number, kwh in enumerate((1.0, 1.1, 0.9)):
        quality = window("quality", "10:58", "10:59", accuracy=0.80 + number / 1000)
        ledger.ran(f"jobfp16{number:03}", kwh, window("w", tokens=1e6), quality, name="fp16")
        worse = window("quality", "10:58", "10:59", accuracy=0.79 + number / 1000)
        ledger.ran(f"jobint8{number:03}", kwh / 2, window("w", tokens=1e6), worse, name="int8", end="10:45")
    first, second = compared(ledger, "fp16", "int8", per="token").sides
    assert first.energy_uj == pytest.approx(KWH / 1e6)
    assert first.co2e_ug == pytest.approx(60 * GRAM / 1e6)
    assert second.duration_us == pytest.approx(45 * 60 * 1e6 / 1e6)
    # Welch by hand: logs 0, ln 1.1, ln 0.9 on both sides, so 4 degrees of freedom and t = 2.776
    logs = [0.0, math.log(1.1), math.log(0.9)]
    mean = sum(logs) / 3
    half = 2.776 * math.sqrt(2 * sum((one - mean) ** 2 for one in logs) / 2 / 3)
    found = second.energy_against_first
    assert found.value == pytest.approx(-0.5)
    assert (found.low, found.high) == pytest.approx(
        (math.expm1(math.log(0.5) - half), math.expm1(math.log(0.5) + half))
    )
    assert second.quality_against_first["accuracy"].value == pytest.approx(-0.01)
    assert second.time_against_first.value == pytest.approx(-0.25)
    assert second.verdict.startswith("against fp16: 50 % less energy (95 % confidence: -")
    assert "accuracy -0.01 (95 % confidence" in second.verdict


def test_single_runs_show_nothing_and_say_so(ledger):
    ledger.ran("joba000000", 1)
    ledger.ran("jobb000000", 0.5)
    found = compared(ledger, "joba000000", "jobb000000")
    (side,) = found.sides[1:]
    assert (side.energy_against_first.low, side.energy_against_first.shown) == (None, False)
    assert "50 % less energy, from too few runs to tell from chance" in side.verdict
    assert "no quality was reported on both sides" in side.verdict
    assert "Run each side three times or more" in found.notes[0]


def test_noise_is_no_difference(ledger):
    for number, (left, right) in enumerate(((1.0, 1.05), (1.2, 0.95), (0.8, 1.1))):
        ledger.ran(f"joba00000{number}", left, name="a")
        ledger.ran(f"jobb00000{number}", right, name="b")
    verdict = compared(ledger, "a", "b").sides[1].verdict
    assert "no difference of energy is shown" in verdict
    assert "the meters alone may be off by 5 %" in verdict


def test_within_blocks_what_a_whole_block_shares_cancels(ledger):
    """The machine takes up to three times the energy for both sides alike; b's share of a's is 0.5, 0.55 and 0.45."""
    for number, (left, share) in enumerate(((1.0, 0.5), (2.0, 0.55), (3.0, 0.45))):
        ledger.ran(f"joba00000{number}", left, name="a")
        ledger.ran(f"jobb00000{number}", left * share, name="b")
    assert not compared(ledger, "a", "b").sides[1].energy_against_first.shown
    found = compared(ledger, "a", "b", paired=True)
    one = found.sides[1].energy_against_first
    logs = [math.log(share) for share in (0.5, 0.55, 0.45)]
    mean = sum(logs) / 3
    half = 4.303 * math.sqrt(sum((log - mean) ** 2 for log in logs) / 2 / 3)  # Student's t of 2 degrees of freedom
    assert found.paired
    assert (one.value, one.low, one.high) == pytest.approx([math.expm1(mean + step) for step in (0, -half, half)])
    assert one.shown
    ledger.ran("joba000003", 1.0, name="a")
    with pytest.raises(InvalidInput, match="'a 4, b 3' runs of each cannot be paired"):
        compared(ledger, "a", "b", paired=True)


def test_co2e_is_by_equal_conditions_and_may_be_given(ledger):
    ledger.ran("joba000000", 1, known=False)
    ledger.ran("jobb000000", 1)
    own = compared(ledger, "joba000000", "jobb000000")
    assert (own.conditions.pue_ppm, own.conditions.mg_per_kwh) == (1_200_000, 50_000)
    assert own.sides[0].co2e_ug == own.sides[1].co2e_ug == 60 * GRAM
    given = compared(ledger, "joba000000", "jobb000000", pue_ppm=1_000_000, mg_per_kwh=400_000)
    assert given.sides[0].co2e_ug == 400 * GRAM
    assert given.conditions.source == "PUE: given; intensity: given"


def test_what_differs_beside_the_work_is_said(ledger):
    estimated = span(at("10:00"), at("11:00"), KWH, source="estimated", error_ppm=300_000)
    ledger.ran("joba000000", 1)
    ledger.ran("jobb000000", 1, spans=[estimated])
    notes = " ".join(compared(ledger, "joba000000", "jobb000000").notes)
    assert "jobb000000: 100 % of the energy is estimated" in notes
    assert "not reported by an independent meter" in notes


@pytest.mark.parametrize(
    ("sides", "per", "message"),
    [
        (["joba000000"], "job", "are not two different sides"),
        (["joba000000", "joba000000"], "job", "are not two different sides"),
        (["joba000000", "joba000000,jobb000000"], "job", "is named more than once"),
        (["joba000000", "jobb000000"], "token", "was not counted by job jobb000000, which counted epochs"),
        (["joba000000", "jobopen000"], "job", "is not settled"),
        (["joba000000", "jobnone000"], "job", "has no energy"),
    ],
)
def test_what_cannot_be_compared(ledger, sides, per, message):
    ledger.ran("joba000000", 1, window("w", tokens=5))
    ledger.ran("jobb000000", 1, window("w", epochs=1), window("quality", accuracy=1))
    ledger.ran("jobopen000", 1, collected=False)
    ledger.ran("jobnone000", 0)
    with pytest.raises(InvalidInput, match=message):
        compared(ledger, *sides, per=per)


def test_jobs_of_other_teams_are_not_found(ledger):
    ledger.ran("joba000000", 1, name="a", team="nlp")
    book = read_book(ledger.entries)
    for text in ("joba000000", "a", "nobody"):
        with pytest.raises(NotFound, match="neither the id of a job nor the name"):
            sides_of(book, [text, "b"], lambda team: team == "vision")


# ------------------------------------------------------------------------------------------------------------- charges


@pytest.fixture
def charged(ledger):
    halves = [
        span(at("10:00"), at("11:00"), KWH, "gpu-0", reporter="independent"),
        span(at("10:00"), at("11:00"), KWH, "cpu-0", kind="cpu", source="estimated"),
        span(at("10:00"), at("11:00"), KWH, "gpu-9", reporter="ray"),
    ]
    ledger.ran("joba000000", 0, spans=halves, team="nlp", project="p")
    ledger.ran("jobb000000", 2, team="vision")
    return read_book(ledger.entries)


def test_only_independent_evidence_is_charged_and_the_rest_is_shown(charged):
    found = chargeback(charged, "team", Period())
    nlp, vision = found.rows
    assert (nlp.value, nlp.jobs, nlp.charged.energy_uj, nlp.charged.co2e_ug) == ("nlp", 1, KWH, 60 * GRAM)
    assert (nlp.self_reported.energy_uj, nlp.ray.energy_uj) == (KWH, KWH)
    assert (vision.charged.energy_uj, vision.self_reported.co2e_ug) == (0, 120 * GRAM)
    assert found.total.charged == nlp.charged
    assert found.total.jobs == 2


@pytest.mark.parametrize("by", BY)
def test_charges_of_adjoining_periods_add_up_to_the_whole(charged, by):
    border = from_rfc3339(at("10:20"))
    whole = chargeback(charged, by, Period()).total
    parts = [chargeback(charged, by, period).total for period in (Period(until=border), Period(since=border))]
    for kind in ("charged", "self_reported", "ray"):
        sums = [getattr(part, kind).energy_uj for part in parts]
        assert sum(sums) == getattr(whole, kind).energy_uj


def test_one_team_only(charged):
    assert [row.value for row in chargeback(charged, "team", Period(), team="nlp").rows] == ["nlp"]
