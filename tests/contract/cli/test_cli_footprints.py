"""`compare`, `audit lifecycle`, `service` and `chargeback`: from a copy, and the same from the real application."""

from __future__ import annotations

import json

import pytest

from carbon_sched.domain.facts import FactKind
from carbon_sched.ledger.copy import line_of
from tests.fakes.ledger import Worked, window
from tests.fakes.served import TOKEN, served

__all__ = ["served"]


@pytest.fixture
def copied(monkeypatch, tmp_path):
    """A copy of a worked ledger in the working folder, and no server."""
    ledger = Worked()
    for number, kwh in enumerate((1.0, 1.1, 0.9)):
        for name, part in (("fp16", 1), ("int8", 0.5)):
            told = window("quality", "10:58", "10:59", accuracy=0.8)
            labels = {"name": name, "model": "m", "team": "nlp", "phase": "inference-batch"}
            ledger.ran(f"job{name}{number:03}", kwh * part, window("w", tokens=1e6), told, **labels)
    ledger.ran("jobpre0000", 40, model="m", phase="pretraining")
    (tmp_path / "ledger.jsonl").write_bytes(b"".join(map(line_of, ledger.entries)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CARBON_SCHED_URL", "http://127.0.0.1:9")


@pytest.mark.usefixtures("copied")
def test_a_comparison_is_a_table_and_a_verdict(shell):
    code, out, err = shell("compare", "fp16", "int8", "--per", "token", "--export", "ledger.jsonl")
    assert (code, err) == (0, "")
    flat = " ".join(out.split())
    assert "Per token" in flat
    assert "int8 against fp16: 50 % less energy (95 % confidence: " in flat
    assert "accuracy 0.8" in flat
    assert "PUE 1.2, 50 g/kWh (PUE: the average over these jobs; intensity: the average over these jobs)" in flat
    code, out, _ = shell(
        "compare", "fp16", "int8", "--export", "ledger.jsonl", "--json", "--pue", "1", "--intensity", "1"
    )
    assert [side["co2e_ug"] for side in json.loads(out)["sides"]] == [1_000_000, 500_000]


@pytest.mark.usefixtures("copied")
def test_a_life_cycle_shows_making_and_inference_apart(shell):
    code, out, err = shell("audit", "lifecycle", "--model", "m", "--export", "ledger.jsonl")
    assert (code, err) == (0, "")
    rows = {line.split("  ")[0]: line.split() for line in out.splitlines()}
    assert rows["pretraining"][1:6] == ["1", "40.0", "kWh", "48.0", "kWh"]
    # 4.5 kWh x 60 g over 6 million tokens is 45 ug; 2,400 g of training over as many is 400 ug
    assert rows["tokens"][1:6] == ["6000000", "0.750", "mWh", "0.0450", "mg"]
    assert rows["tokens"][-2:] == ["0.400", "mg"]
    assert "of the hardware of 7 attempts no embodied figure is known" in out


def test_a_services_stays_are_shown_with_their_reasons_and_energy(shell, monkeypatch, tmp_path):
    ledger = Worked()
    ledger.add(
        FactKind.SERVICE_DEPLOYED, service="chat", model="m", project="", team="nlp", by="person-1", spec_sha256="ab"
    )
    ledger.ran("jobserve00", 1.0, model="m", phase="inference-online")
    stay = {"service": "chat", "number": 1, "cluster": "north", "job": "jobserve00"}
    rates = [
        {"cluster": "north", "expected_mg_per_kwh": 60_000, "reason": ""},
        {"cluster": "south", "expected_mg_per_kwh": None, "reason": "80 ms from the users, more than 50 ms"},
    ]
    ledger.add(FactKind.SERVICE_PLACED, **stay, **{"from": None}, reason="the least", candidates=rates)
    ledger.add(FactKind.SERVICE_ANSWERS, **stay, **{"from": None})
    ledger.add(FactKind.SERVICE_LEFT, **stay, reason="moved to south")
    (tmp_path / "ledger.jsonl").write_bytes(b"".join(map(line_of, ledger.entries)))
    monkeypatch.chdir(tmp_path)
    code, out, err = shell("audit", "service", "chat", "--export", "ledger.jsonl")
    assert (code, err) == (0, "")
    flat = " ".join(out.split())
    why = "1. north: the least (gCO2e/kWh expected: north 60; south: 80 ms from the users, more than 50 ms)"
    for said in (why, "left: moved to south", "1.00 kWh 60.0 g", "person-1"):
        assert said in flat


@pytest.mark.usefixtures("copied")
def test_charges_say_what_is_not_charged(shell):
    code, out, err = shell("audit", "chargeback", "--month", "2026-03", "--export", "ledger.jsonl")
    assert (code, err) == (0, "")
    assert "Charges from 2026-03-01T00:00:00Z to 2026-04-01T00:00:00Z" in out
    assert "charged: 0 % of the energy" in out
    assert "no machine has an independent meter" in out
    code, out, _ = shell("audit", "chargeback", "--month", "2026-02", "--export", "ledger.jsonl")
    assert (code, "nothing was used" in out) == (0, True)


@pytest.mark.usefixtures("copied")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("audit", "chargeback", "--month", "2026-13"), 120, "Write it as 2026-11"),
        (("compare", "fp16", "jobint8000", "--paired"), 120, "'fp16 3, jobint8000 1' runs of each cannot be paired"),
        (("compare", "fp16"), 120, "are not two different sides"),
        (("compare", "fp16", "int9"), 121, "neither the id of a job"),
        (("compare", "fp16", "int8", "--per", "query"), 120, "which counted tokens"),
        (("audit", "lifecycle", "--model", "x"), 121, "no job of the ledger names the model"),
        (("audit", "service", "x"), 121, "the ledger knows no service 'x'"),
    ],
)
def test_bad_input_is_named(shell, arguments, code, message):
    found, _, err = shell(*arguments, "--export", "ledger.jsonl")
    assert (found, message in " ".join(err.split())) == (code, True), err


def test_the_server_says_the_same(shell, served, monkeypatch):
    monkeypatch.setenv("CARBON_SCHED_URL", served.url)
    monkeypatch.setenv("CARBON_SCHED_TOKEN", TOKEN)
    job = served.client.submit({"entrypoint": "true", "model": "m", "phase": "pretraining"}, idempotency_key="a")[
        "job_id"
    ]
    code, out, _ = shell("audit", "lifecycle", "--model", "m", "--month", "2026-03", "--json")
    assert (code, json.loads(out)["stages"]) == (0, [])
    code, out, _ = shell("audit", "chargeback", "--by", "model", "--json")
    assert (code, json.loads(out)["rows"]) == (0, [])
    code, _, err = shell("compare", job, "nobody")
    assert (code, "neither the id" in err) == (121, True)


def test_codecarbons_file_is_imported_once_and_marked(shell, served, monkeypatch, tmp_path):
    monkeypatch.setenv("CARBON_SCHED_URL", served.url)
    monkeypatch.setenv("CARBON_SCHED_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "emissions.csv").write_text(
        "timestamp,project_name,run_id,duration,emissions,energy_consumed\n2026-03-01T11:00:00,p,r,60,0.5,1\n",
        encoding="utf-8",
    )
    arguments = (
        "audit",
        "import",
        "emissions.csv",
        "--model",
        "m",
        "--phase",
        "finetuning",
        "--timezone",
        "Europe/Berlin",
    )
    code, _, err = shell(*arguments)
    assert (code, "1 run of emissions.csv imported, and marked so in the ledger" in err) == (0, True)
    code, _, err = shell(*arguments)
    assert (code, "were imported already (r)" in err) == (121, True)
    (imported,) = json.loads(shell("audit", "lifecycle", "--model", "m", "--json")[1])["imported"]
    assert (imported["end"], imported["co2e_ug"], imported["by"]) == ("2026-03-01T10:00:00Z", 500_000_000, "person-1")
    code, out, _ = shell("audit", "lifecycle", "--model", "m")
    assert "1 imported runs, 1.00 kWh and 500 g by the word of other tools: in no figure" in " ".join(out.split())
    for wrong, message in (("--timezone=x", "is not a time zone"), ("--phase=x", "phase")):
        code, _, err = shell(*arguments, wrong)
        assert (code, message in err) == (120, True)
    (tmp_path / "emissions.csv").write_text("a,b\n", encoding="utf-8")
    assert shell(*arguments)[0] == 120
    assert shell("audit", "verify")[0] == 0
