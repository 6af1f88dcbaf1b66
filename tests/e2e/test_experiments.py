"""The examples of experiments, on a real Ray head."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

MANY_RUNS_S = 900.0
"""An experiment runs one job after another: up to a dozen, each with Ray's own start."""
TECHNIQUES = Path(__file__).parents[2] / "examples" / "techniques"


@pytest.fixture
def techniques(tmp_path):
    """A copy of the examples, whose files a test may shorten."""
    return Path(shutil.copytree(TECHNIQUES, tmp_path / "techniques", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_better_compression_costs_more_energy_as_the_report_says(installation, techniques):
    file = techniques / "compression.yaml"
    short = file.read_text(encoding="utf-8").replace("cool_down: 2s", "cool_down: 0").replace('"10"', '"4"')
    file.write_text("".join(line for line in short.splitlines(keepends=True) if "zlib-9" not in line), encoding="utf-8")
    report = installation.json("experiment", "--repeats", "2", str(file), timeout_s=MANY_RUNS_S)
    assert all(run["good"] and run["energy_j"] > 0 for run in report["runs"]), report["runs"]
    first, *others = report["comparison"]["sides"]
    found = {side["label"]: side for side in others}
    assert [first["label"], *found] == ["zlib-6", "zlib-1", "lzma"]
    assert found["lzma"]["energy_against_first"]["value"] > 1
    bits = {side["label"]: side["quality"]["bits_per_byte"] for side in [first, *others]}
    assert bits["lzma"] < bits["zlib-6"] < bits["zlib-1"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="needs PyTorch (pip install 'carbon-sched[techniques]')"
)
def test_ways_to_train_a_transformer_are_compared_with_their_quality(installation, techniques):
    file = techniques / "training.yaml"
    text = file.read_text(encoding="utf-8").replace("cool_down: 2s", "cool_down: 0").replace('"60000"', '"16384"')
    file.write_text(text, encoding="utf-8")
    report = installation.json("experiment", "--repeats", "1", str(file), timeout_s=MANY_RUNS_S)
    assert all(run["good"] and run["energy_j"] > 0 for run in report["runs"]), report["runs"]
    sides = {side["label"]: side for side in report["comparison"]["sides"]}
    assert list(sides) == [variant["name"] for variant in report["variants"]]
    assert all(1 < side["quality"]["bits_per_byte"] < 8.5 for side in sides.values())
    steps = [sides[name]["quality"]["bits_per_byte"] for name in ("batch-2", "adamw", "batch-64")]
    assert steps == sorted(steps), "of few bytes, more and smaller steps learn more"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_leanest_variant_that_keeps_the_floor_serves_and_is_not_tried_among_all_again(installation, techniques):
    file = techniques / "compression_job.yaml"
    text = file.read_text(encoding="utf-8").replace("lzma: ", 'gone: "no-such-method", lzma: ').replace("20", "6")
    file.write_text(text.replace('gone: "no-such-method", lzma: "lzma --megabytes 6"',
                                 'lzma: "lzma --megabytes 6", gone: "no-such-method"'), encoding="utf-8")  # fmt: skip
    first = installation.run("submit", str(file), timeout_s=MANY_RUNS_S)
    told = first.stdout + first.stderr
    assert "variant gone failed when it was tried and does not serve: it ended with exit code 2" in told
    assert "variant zlib-1 serves" in told
    receipt = installation.finished("compression")
    assert (receipt["variant"], [one["name"] for one in receipt["windows"]]) == ("zlib-1", ["compress"])
    assert "variant gone failed when it was tried, and did not serve" in receipt["notes"]
    again = installation.run("submit", "--name", "compression", str(file), timeout_s=MANY_RUNS_S)
    assert "variant zlib-1 serves" in again.stdout + again.stderr
    assert "variant lzma, tried" not in again.stdout + again.stderr, "the ledger knows it"


BAD = """
import os, pathlib, sys
from carbon_sched_runtime import job, windows

model, accuracy = sys.argv[1:]
if model == "crashes":
    os.kill(os.getpid(), 11)
scale = 1 if model == "good" else float(pathlib.Path(model).read_text())
with windows.window("answer") as window:
    window.add(items=job.slice_of(40))
    sum(range(3_000_000))
windows.report(accuracy=float(accuracy))
print("served by", model, scale)
"""
VARIANTS = {"full": "good 0.9", "missing": "no-such-model.bin 0.9", "poor": "small.bin 0.5", "crash": "crashes 0.9"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_missing_artefact_a_poor_one_and_a_crash_are_named_and_the_baseline_serves(installation, tmp_path):
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "small.bin").write_text("0.5")
    (tmp_path / "answer.py").write_text(BAD, encoding="utf-8")
    told = [part for name, words in VARIANTS.items() for part in ("--variant", f"{name}={words}")]
    options = (*told, "--quality-floor", "accuracy>=0.8", "--item", "item", "--slice", "8", "--name", "answers")
    done = installation.run("submit", *options, str(tmp_path / "answer.py"), timeout_s=300)
    said = done.stdout + done.stderr
    assert "variant missing failed when it was tried and does not serve: it ended with exit code 1" in said
    assert "variant crash failed when it was tried and does not serve: it ended with exit code " in said
    assert "variant poor lies below the floor of quality and does not serve" in said
    assert "variant full serves" in said
    assert said.count("served by good") == 2, "tried, then for all items"
    receipt = installation.finished("answers")
    assert (receipt["variant"], receipt["state"]) == ("full", "succeeded")
    for name in ("missing", "crash"):
        assert f"variant {name} failed when it was tried, and did not serve" in receipt["notes"]
    assert any("variant poor" in note and "floor" in note for note in receipt["notes"])
    assert sum(window["units"].get("items", 0) for window in receipt["windows"]) == 40, "trials are no work"
