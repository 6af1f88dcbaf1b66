"""Our files in the hands of the tools they are made for, in a venv of their own: CodeCarbon, pandas, huggingface_hub.

Slow, since the venv is made by pip: left to `make test-all`.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from carbon_sched.domain.time import UTC
from carbon_sched.ledger.book import read_book
from carbon_sched.ledger.imported import read_codecarbon
from carbon_sched.ledger.selection import Selection
from carbon_sched.ledger.statement import statement
from carbon_sched.ledger.statement.formats import render
from carbon_sched_runtime.codecarbon import COLUMNS, SEMANTICS
from tests.fakes.ledger import KWH, Worked, at, span

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

METER = """
from codecarbon import OfflineEmissionsTracker
tracker = OfflineEmissionsTracker(country_iso_code="SWE", project_name="p", measure_power_secs=1, log_level="error")
tracker.start()
sum(number * number for number in range(20_000_000))
tracker.stop()
"""
DTYPES = """
import json, sys, pandas
frame = pandas.read_csv(sys.argv[1])
known = [name for name in frame if frame[name].notna().all()]
print(json.dumps([list(frame), {name: str(frame[name].dtype) for name in known}]))
"""
CARD = """
import sys
from huggingface_hub import ModelCard
print(ModelCard.load(sys.argv[1]).data.to_dict()["co2_eq_emissions"])
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Runs a script in a venv that has the tools and nothing of ours; its output."""
    folder = tmp_path_factory.mktemp("foreign")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    wanted = [f"codecarbon=={SEMANTICS}", "pandas", "huggingface_hub"]
    made = subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"pip cannot install {', '.join(wanted)} here: {made.stderr.strip()[-200:]}")

    def run(script, *arguments):
        command = [python, "-c", script, *map(str, arguments)]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout

    run(METER)
    run.theirs = folder / "emissions.csv"
    return run


@pytest.fixture
def ours():
    """A statement of a job with every kind of device that CodeCarbon knows, on a zone in Sweden."""
    ledger = Worked()
    kinds = {"gpu": 2 * KWH, "cpu": KWH // 2, "dram": KWH // 4}
    spans = [span(at("10:00"), at("11:00"), energy, kind, kind=kind) for kind, energy in kinds.items()]
    ledger.ran("jobpre0000", 0, spans=spans, phase="pretraining", project="p", model="m")
    return statement(read_book(ledger.entries), Selection())


def test_a_file_that_the_real_codecarbon_wrote_is_read(python):
    text = python.theirs.read_text(encoding="utf-8")
    (run,) = read_codecarbon(text, UTC)
    assert tuple(text.splitlines()[0].split(",")) == COLUMNS
    assert (run.name, run.tool_version, run.country) == ("p", SEMANTICS, "SWE")
    assert 0 < run.facility_uj < KWH
    assert sum(run.components.values()) == pytest.approx(run.facility_uj, abs=3)
    assert run.co2e_ug > 0


def test_pandas_sees_the_same_columns_and_types_in_ours_as_in_codecarbons(python, ours, tmp_path):
    (tmp_path / "emissions.csv").write_bytes(render(ours, "codecarbon"))
    columns, dtypes = json.loads(python(DTYPES, tmp_path / "emissions.csv"))
    their_columns, their_dtypes = json.loads(python(DTYPES, python.theirs))
    assert columns == their_columns == list(COLUMNS)
    both = dtypes.keys() & their_dtypes.keys()
    assert {name: dtypes[name] for name in both} == {name: their_dtypes[name] for name in both}
    # what the ledger does not know of the machine is empty there, and so is nothing else
    assert their_dtypes.keys() - dtypes.keys() == {
        "os", "python_version", "cpu_count", "cpu_model", "gpu_count", "ram_total_size", "water_consumed", "wue",
        "on_cloud", "cpu_utilization_percent", "gpu_utilization_percent", "ram_utilization_percent", "ram_used_gb",
    }  # fmt: skip


def test_huggingfaces_own_parser_reads_the_model_card(python, ours, tmp_path):
    (tmp_path / "README.md").write_bytes(render(ours, "model-card") + b"\n# A model\n")
    said = python(CARD, tmp_path / "README.md")
    assert "'emissions': 165.0" in said
    assert "'training_type': 'pre-training'" in said
