"""Experiments: their file, the order of their runs, and what their report says of made-up comparisons."""

from __future__ import annotations

import io
from collections import Counter

import pytest
from rich.console import Console

from carbon_sched.cli.experiment_file import read_experiment, runs_of
from carbon_sched.cli.render_experiment import experiment
from carbon_sched.domain.errors import InvalidFile

TEXT = """
apiVersion: carbon-sched/v1
name: int8
script: infer.py
args: [run]
repeats: 4
seed: 7
cool_down: 5s
job: {duration: 30s}
prepare:
  - {name: train, args: ["{folder}/m"]}
  - {name: quantise}
variants:
  - {name: fp32, args: ["{folder}/m"]}
  - {name: int8, args: ["--seed", "{repeat}"], made_by: [quantise]}
  - {name: int4}
"""


@pytest.fixture
def written(tmp_path):
    def write(text: str = TEXT):
        path = tmp_path / "e.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_every_block_holds_every_variant_once_in_an_order_that_the_seed_gives_again(written):
    form = read_experiment(written())
    runs = list(runs_of(form, "/shared"))
    assert [run.name for run in runs[:2]] == ["train", "quantise"]
    blocks = [runs[start : start + 3] for start in range(2, len(runs), 3)]
    assert [Counter(run.repeat for run in block) for block in blocks] == [{n: 3} for n in (1, 2, 3, 4)]
    orders = [[run.name for run in block] for block in blocks]
    assert all(sorted(order) == ["fp32", "int4", "int8"] for order in orders)
    assert len(set(map(tuple, orders))) > 1, "one order for all would favour who comes first"
    assert runs == list(runs_of(read_experiment(written()), "/shared"))
    assert runs != list(runs_of(form.model_copy(update={"seed": 8}), "/shared"))


def test_arguments_name_the_shared_folder_and_the_repeat(written):
    form = read_experiment(written())
    assert form.shares_folder
    runs = list(runs_of(form, "/shared"))
    assert {run.args for run in runs if run.name == "fp32"} == {("run", "/shared/m")}
    assert [run.args[-1] for run in runs if run.name == "int8"] == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: int4", "name: int8", "variants.2.name names 'int8' twice"),
        ("name: int4", "name: train", "variants.2.name names 'train' twice"),
        ("[quantise]", "[prune]", "names 'prune', which is no step of `prepare`. Steps are quantise, train"),
        ("{duration: 30s}", "{durration: 30s}", ":9:7: job.durration is not an option of a run"),
        ("{duration: 30s}", "{name: x}", "job.name is not an option of a run"),
        ("repeats: 4", "repeats: 0", "greater than or equal to 1"),
        ("cool_down: 5s", "cool_down: 5", "cool_down"),
        ("seed: 7", "seeds: 7", "Did you mean seed?"),
        ("  - {name: fp32", "  - {nam: fp32", "variants.0.name is missing"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_with_its_line(written, old, new, message):
    with pytest.raises(InvalidFile) as caught:
        read_experiment(written(TEXT.replace(old, new)))
    assert message in str(caught.value)


# the report -----------------------------------------------------------------------------------------------------------


def difference(value: float, spread: float | None = 0.05):
    low, high = (None, None) if spread is None else (value - spread, value + spread)
    return {"value": value, "low": low, "high": high}


def side(label: str, energies: list[float], against=None, **quality: float):
    runs = [{"energy_uj": round(1e6 * joules), "amount_millionths": 1_000_000} for joules in energies]
    mean = sum(energies) / len(energies)
    return {
        "label": label, "runs": runs, "energy_uj": 1e6 * mean, "duration_us": 2e6, "quality": quality,
        "energy_against_first": against, "verdict": "VERDICT",
        "quality_against_first": {name: difference(0.5) for name in quality} if against else {},
    }  # fmt: skip


def told(name: str, joules: float = 10.0, **changes):
    run = {"number": 1, "name": name, "repeat": 1, "job_id": "j", "state": "succeeded", "reason": "", "good": True}
    return run | {"energy_j": joules, "estimated_j": 0.0} | changes


def shown(*sides, runs=(), literature=None, made_by=()):
    variants = [{"name": one["label"], "made_by": list(made_by), "literature": literature} for one in sides]
    report = {
        "experiment": "0badcafe", "name": "x", "seed": 7, "repeats": 3, "cool_down_s": 5.0, "cluster": "local",
        "runs": list(runs), "variants": variants,
        "comparison": {
            "per": "token", "paired": True, "sides": list(sides),
            "notes": ["int8: 40 % of the energy is estimated", "N"],
        },
    }  # fmt: skip
    out = io.StringIO()
    Console(file=out, width=80).print(experiment(report))
    return " ".join(out.getvalue().split())


BASE = side("fp32", [10.0, 12.0, 11.0], loss=2.0)


def test_figures_have_their_spread_and_interval():
    text = shown(BASE, side("int8", [5.0, 5.5, 6.0], difference(-0.5), loss=2.5), runs=[told("fp32"), told("int8")])
    assert "fp32 3 11.0 J 9.1 % - 2.00 s" in text
    assert "int8 3 5.50 J 9.1 % -50 % (-55 to -45) 2.00 s" in text
    assert "int8 2.5 +0.5 (+0.45 to +0.55)" in text
    assert "order by lot from seed 7: fp32 int8" in text
    assert "ESTIMATED" not in text


def test_an_estimate_is_called_one_first_and_once():
    text = shown(BASE, side("int8", [5.0], difference(-0.5)), runs=[told("fp32", 30.0), told("int8", estimated_j=10.0)])
    assert "ESTIMATED: 25 % of this energy is a model of CPU time, not a measurement" in text
    assert text.index("ESTIMATED") < text.index("11.0 J")
    assert "is estimated N" not in text


@pytest.mark.parametrize(
    ("found", "said", "agreement"),
    [
        (difference(-0.2), "less", "seen here too"),
        (difference(-0.2), "same", "NOT seen here"),
        (difference(0.0), "less", "not shown here"),
        (difference(0.0), "same", "seen here too"),
        (difference(0.2), "same", "seen here too"),
        (difference(0.2), "less", "NOT seen here"),
        (difference(0.2, None), "less", "too few runs to say"),
    ],
)
def test_verdicts_stand_beside_the_literature(found, said, agreement):
    text = shown(BASE, side("int8", [5.0], found), literature={"energy": said, "source": "A 2024"})
    assert f"(A 2024): {agreement}" in text


def test_making_is_told_apart_and_earned_back_only_by_what_saves():
    runs = [told("quantise", 5500.0, repeat=0), told("fp32")]
    text = shown(BASE, side("int8", [5.5], difference(-0.5)), runs=runs, made_by=["quantise"])
    assert "Making, in no figure above: quantise 5.50 kJ" in text
    assert "int8 has earned back what its own making cost after 1e+03 tokens" in text
    assert "earned back" not in shown(BASE, side("int8", [5.5], difference(0.0)), runs=runs, made_by=["quantise"])


def test_what_failed_is_named():
    failed = told("int8", good=False, state="failed", reason="exit code 3")
    text = shown(BASE, side("int4", [5.0], difference(-0.5)), runs=[told("fp32"), failed])
    assert "int8, repeat 1, is in no figure: job j failed, exit code 3" in text
