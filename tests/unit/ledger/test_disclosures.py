"""A statement in others' forms: by hand, and read back by the parsers that others use where they are at hand.

Every job runs for an hour on `north` (SE, PUE 1.2) at 50 g/kWh, so that 1 kWh is 60 g and 1.2 kWh of the facility.
"""

from __future__ import annotations

import csv
import io
from datetime import datetime

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from carbon_sched.domain.errors import InvalidInput, LedgerBroken
from carbon_sched.domain.facts import FactKind
from carbon_sched.domain.time import UTC
from carbon_sched.ledger.account import Period
from carbon_sched.ledger.book import read_book
from carbon_sched.ledger.imported import read_codecarbon
from carbon_sched.ledger.lifecycle import lifecycle
from carbon_sched.ledger.selection import Selection
from carbon_sched.ledger.statement import statement
from carbon_sched.ledger.statement.formats import MEDIA_TYPES, render
from carbon_sched_runtime.codecarbon import COLUMNS
from tests.fakes.ledger import KWH, Worked, at, span


def made(ledger, form, **where):
    return render(statement(read_book(ledger.entries), Selection(**where)), form).decode()


@pytest.fixture
def ledger():
    written = Worked()
    cpu = span(at("10:00"), at("11:00"), KWH // 2, "cpu-0", kind="cpu", source="estimated", error_ppm=300_000)
    gpu = span(at("10:00"), at("11:00"), 2 * KWH)
    written.ran("jobpre0000", 0, spans=[gpu, cpu], model="m", phase="pretraining", name="pretrain", project="llm")
    written.ran("jobsft0000", 1, model="m", phase="finetuning", stage="sft", name="=HYPERLINK()", team='a"\\\nb')
    written.ran("jobserve00", 4, model="m", phase="inference-online")
    written.ran("jobgap0000", 1, known=False, model="n", phase="other")
    return written


def test_codecarbons_file_has_its_columns_and_units(ledger):
    rows = list(csv.DictReader(io.StringIO(made(ledger, "codecarbon"))))
    assert tuple(rows[0]) == COLUMNS
    first, second, _, gap = rows
    assert (first["project_name"], first["run_id"], first["experiment_id"]) == ("llm", "jobpre0000", "pretrain")
    assert (first["timestamp"], float(first["duration"])) == ("2026-03-01T11:00:00", 3600.0)
    assert float(first["emissions"]) == pytest.approx(2.5 * 0.060)
    assert float(first["emissions_rate"]) == pytest.approx(2.5 * 0.060 / 3600)
    assert [float(first[f"{name}_energy"]) for name in ("gpu", "cpu")] == pytest.approx([2.4, 0.6])
    assert float(first["gpu_power"]) == pytest.approx(2400)
    assert (float(first["energy_consumed"]), float(first["pue"])) == (3.0, 1.2)
    assert (first["country_name"], first["country_iso_code"], first["region"]) == ("Sweden", "SWE", "SE")
    assert first["ram_energy"] == first["water_consumed"] == first["cpu_count"] == "", "unknown is empty, never zero"
    assert gap["emissions"] == "", "energy without intensity has no emissions"
    assert second["experiment_id"] == "'=HYPERLINK()"


def test_our_own_file_reads_back_as_what_was_booked(ledger):
    text = made(ledger, "codecarbon", model="m")
    for run, kwh in zip(read_codecarbon(text, UTC), (2.5, 1, 4), strict=True):
        assert (run.co2e_ug, run.facility_uj) == (round(kwh * 60e6), round(kwh * 1.2 * KWH))
        assert run.pue_ppm == 1_200_000


def test_a_model_card_holds_the_grams_of_training_and_not_of_inference(ledger):
    block = made(ledger, "model-card", model="m").removeprefix("---\n").removesuffix("---\n")
    card = yaml.safe_load(block)["co2_eq_emissions"]
    assert card["emissions"] == pytest.approx(3.5 * 60)
    assert card["training_type"] == "pre-training, fine-tuning"
    assert card["geographical_location"] == "SE"
    assert "ledger of" in card["source"]


def test_the_ai_acts_line_is_of_training_in_mwh(ledger):
    text = made(ledger, "ai-act", model="m")
    assert "Training energy: 0.00420 MWh, of which 0.00350 MWh of computers" in text
    assert "  pre-training: 0.00300 MWh" in text
    assert "14.2 % of the computers' energy is estimated" in text
    assert "2026-03-01T10:00:00Z to 2026-03-01T11:00:00Z" in text


@pytest.mark.parametrize("form", ["model-card", "ai-act"])
def test_without_training_there_is_no_card(ledger, form):
    with pytest.raises(InvalidInput, match="holds no energy of training"):
        made(ledger, form, model="n")


def test_the_inventory_says_what_it_did_not_compute(ledger):
    rows = {row["quantity"]: row for row in csv.DictReader(io.StringIO(made(ledger, "inventory")))}
    assert float(rows["energy consumed"]["value"]) == pytest.approx(8.5 * 1.2 / 1000)
    assert float(rows["energy without a known intensity"]["value"]) == pytest.approx(0.001)
    assert rows["energy that is fossil, nuclear and renewable"]["value"] == ""
    market = rows["purchased electricity"]
    assert (market["value"], market["note"]) == ("", "not computed: no instruments are declared")
    undeclared = rows["purchased electricity of clusters that nobody declared"]
    assert (undeclared["value"], undeclared["note"]) == ("", "not known")
    apart = rows["electricity whose direct and upstream parts are not known apart"]
    assert float(apart["value"]) == pytest.approx(7.5 * 60 / 1e6)
    assert all(row["GHG Protocol"] or row["ESRS E1"] for row in rows.values())
    assert (rows["energy consumed"]["EFRAG IG 3"], market["EFRAG IG 3"]) == ("E1-5_01", "E1-6_10")


def test_prometheus_reads_the_exposition_and_it_adds_up(ledger):
    families = {family.name: family for family in text_string_to_metric_families(made(ledger, "prometheus"))}
    energy = families["carbon_sched_it_energy_joules"]
    assert energy.type == "gauge"
    assert sum(sample.value for sample in energy.samples) == pytest.approx(8.5 * 3.6e6)
    assert {sample.labels["team"] for sample in energy.samples} == {"", 'a"\\\nb'}
    assert sum(sample.value for sample in families["carbon_sched_co2e_grams"].samples) == pytest.approx(7.5 * 60)
    assert families["carbon_sched_ledger_size"].samples[0].value == len(ledger.entries)


def test_the_command_offers_every_form():
    from carbon_sched.cli.statement import FORMATS

    assert set(FORMATS) == set(MEDIA_TYPES)


# ------------------------------------------------------------------------------------------------------------- reading

HEADER = ",".join(COLUMNS)


def row(**cells):
    given = {
        "timestamp": "2026-11-28T20:46:43", "project_name": "p", "run_id": "r", "duration": "19.565558405000047",
        "emissions": "5.7764352019944415e-05", "energy_consumed": "0.00015163237175467757", "pue": "1.0",
        "cpu_energy": "4.346525761019417e-05", "codecarbon_version": "3.3.2", "country_iso_code": "DEU",
    } | cells  # fmt: skip
    return ",".join(given.get(name, "") for name in COLUMNS)


def test_the_longest_row_of_a_run_holds_since_they_grow():
    text = "\n".join(
        [HEADER, row(duration="10", emissions="0.1"), row(duration="5", emissions="0.05"), row(run_id="s")]
    )
    first, second = read_codecarbon(text, UTC)
    assert (first.run, first.co2e_ug, second.run) == ("r", 100_000_000, "s")
    assert (second.facility_uj, second.components) == (545_876_538, {"cpu": 156_474_927})


def test_imported_runs_are_shown_apart_and_in_no_total(ledger):
    before = statement(read_book(ledger.entries), Selection(model="m"))
    runs = [run.body() for run in read_codecarbon(f"{HEADER}\n{row(emissions='2')}", UTC)]
    labels = {"team": "nlp", "project": "", "model": "m", "phase": "finetuning", "stage": "sft"}
    ledger.add(FactKind.EMISSIONS_IMPORTED, by="person-1", tool="codecarbon", file_sha256="3" * 64, runs=runs, **labels)
    book = read_book(ledger.entries)
    after = statement(book, Selection(model="m"))
    assert after.lines == before.lines
    assert [(one.run, one.co2e_ug, one.by) for one in after.imported] == [("r", 2_000_000_000, "person-1")]
    assert "Imported, not metered" in render(after, "text").decode()
    assert "Imported" not in render(before, "text").decode()
    november = Period(since=datetime(2026, 11, 1, tzinfo=UTC))
    for selection, runs in (
        (Selection(model="n"), 0), (Selection(cluster="north"), 0), (Selection(jobs=("jobpre0000",)), 0),
        (Selection(team="nlp", period=november), 1), (Selection(period=Period(until=november.since)), 0),
    ):  # fmt: skip
        assert len(statement(book, selection).imported) == runs
    found = lifecycle(book, "m")
    assert (len(found.imported), found.making.co2e_ug) == (1, 3.5 * 60_000_000)
    ledger.add(FactKind.EMISSIONS_IMPORTED, by="x", tool="codecarbon", file_sha256="", runs=[{"run": "r"}], **labels)
    with pytest.raises(LedgerBroken, match="imported twice"):
        read_book(ledger.entries)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "timestamp, project_name, run_id"),
        ("a,b\n1,2", "is not a column of it"),
        (f"{HEADER}\n{row(emissions='-1')}", "line 2, emissions: '-1' is not an amount"),
        (f"{HEADER}\n{row(emissions='nan')}", "line 2, emissions"),
        (f"{HEADER}\n{row(emissions='1e400000')}", "line 2, emissions"),
        (f"{HEADER}\n{row(duration='1e30')}", "line 2, duration"),
        (f"{HEADER}\n{row(energy_consumed='x')}", "line 2, energy_consumed: 'x'"),
        (f"{HEADER}\n{row(timestamp='yesterday')}", "line 2, timestamp: 'yesterday' is not a time"),
        (f"{HEADER}\n{row(timestamp='0001-01-01T00:00:00')}", "line 2, duration"),
        (f"{HEADER}\n{row(run_id='')}", "line 2, run_id: '' is empty"),
        (f"{HEADER}\n" + '"' + "x" * 200_000, "is no CSV"),
    ],
)
def test_what_is_no_such_file_is_named_with_its_place(text, message):
    with pytest.raises(InvalidInput) as caught:
        read_codecarbon(text, UTC)
    assert message in str(caught.value)
