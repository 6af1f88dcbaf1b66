"""A team's cases for its policies: the example's pass, and each of them can fail."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from carbon_sched.domain.errors import InvalidFile, InvalidInput
from carbon_sched.policy.load import load_policy
from carbon_sched.policy.presets import preset
from carbon_sched.simulate.cases import of_files, run_cases

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "policy-ci"


def policies(folder=EXAMPLE):
    acme = load_policy(folder / "acme.yaml", preset)
    vision = load_policy(folder / "vision.yaml", lambda name: acme if name == "acme" else preset(name))
    return of_files([acme, vision], preset)


@pytest.fixture
def changed(tmp_path):
    """The example with one text replaced in one of its files; its outcomes by the case's first word."""

    def run(file, old, new):
        for path in EXAMPLE.glob("*.yaml"):
            text = path.read_text(encoding="utf-8")
            if path.name == file:
                assert old in text
                text = text.replace(old, new)
            (tmp_path / path.name).write_text(text, encoding="utf-8")
        return {one.name.split()[0]: one for one in run_cases(tmp_path / "cases.yaml", policies(tmp_path))}

    return run


def test_the_cases_of_the_example_pass():
    outcomes = run_cases(EXAMPLE / "cases.yaml", policies())
    assert [outcome.problems for outcome in outcomes] == [()] * 4
    assert {outcome.decision.policy.split("@")[0] for outcome in outcomes} == {"acme", "vision"}


@pytest.mark.parametrize(
    ("file", "old", "new", "case", "problem"),
    [
        ("acme.yaml", "max_delay: 12h", "max_delay: 2h", "offline", "expected delayed, was placed"),
        ("acme.yaml", "extends: eu-residency", "extends: balanced", "nobody", "expected refused, was placed"),
        ("acme.yaml", "extends: eu-residency", "extends: balanced", "training", "expected on paris, was dallas"),
        ("cases.yaml", "delay_at_most: 12h", "delay_at_most: 1h", "offline", "at most 1:00:00, was 6:00:00"),
        ("cases.yaml", "delay_at_least: 6h", "delay_at_least: 7h", "offline", "at least 7:00:00, was 6:00:00"),
        ("cases.yaml", "reason: data must stay in EU", "reason: too hot", "nobody", "a reason with 'too hot'"),
        ("cases.yaml", "deadline: +3h", "deadline: +9h", "whoever", "expected placed, was delayed"),
    ],
)
def test_a_change_that_matters_fails_the_case_that_guards_against_it(changed, file, old, new, case, problem):
    assert any(problem in found for found in changed(file, old, new)[case].problems)


@pytest.mark.parametrize("job", ["{}", "{gpus: 64, gpu-type: H100}", "{workers: 4, gpus-per-worker: 8}"])
def test_a_cluster_without_pools_has_room_for_every_job(tmp_path, job):
    head = "apiVersion: carbon-sched/v1\nclusters: [{name: main, zone: DE}]\ngrid: {DE: 400.0}\ncases:\n"
    (tmp_path / "cases.yaml").write_text(f"{head}- {{name: a, job: {job}, expect: {{verdict: placed}}}}\n")
    assert [outcome.problems for outcome in run_cases(tmp_path / "cases.yaml", of_files([], preset))] == [()]


def test_quiet_hours_are_kept_in_cases_too(changed):
    found = changed("cases.yaml", "2026-03-03T14:00:00Z", "2026-03-03T08:30:00Z")["training"]
    assert found.problems == ("expected placed, was delayed",)
    assert found.decision.start.isoformat() == "2026-03-03T10:00:00+00:00"


@pytest.mark.parametrize(
    ("old", "new", "error", "words"),
    [
        ("verdict: placed", "verdict: run", InvalidFile, "cases.0.expect.verdict is 'run'"),
        ("gpus: 1, duration", "gups: 1, duration", InvalidInput, "'gups' is not an option of a job"),
        ("  FR: 60.0\n", "", InvalidInput, "grid: 'FR' has no intensity"),
        ("{at: 6h,", "{at: now,", InvalidInput, "are no steps in order"),
        ("{at: 6h,", "{at: 6,", InvalidFile, "a duration needs a unit"),
        ("'2026-03-03T14:00:00Z'", "soon", InvalidFile, "at is 'soon'"),
    ],
)
def test_a_wrong_file_is_named(changed, old, new, error, words):
    with pytest.raises(error, match=re.escape(words)):
        changed("cases.yaml", old, new)
