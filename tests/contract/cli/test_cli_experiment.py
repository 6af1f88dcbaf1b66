"""`carbon-sched experiment` against a loopback server: which jobs it submits, in which order, and how it ends."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from carbon_sched.cli import experiment
from tests.fakes.api_views import AT, attempt_view, job_view, receipt_view

TEXT = """
apiVersion: carbon-sched/v1
name: tiny
script: train.py
repeats: 2
cool_down: 5s
prepare:
  - {name: make, args: ["{folder}"]}
variants:
  - {name: one, args: ["{folder}"]}
  - {name: two, args: ["--two"]}
"""
ENDED = {"cluster": "north", "finished_at": AT, "attempts": [attempt_view()]}


def compared_side(label: str):
    against = None if label == "one" else {"value": -0.5, "low": -0.6, "high": -0.4}
    return {
        "label": label, "runs": [{"energy_uj": 1, "amount_millionths": 1}], "energy_uj": 1.0, "duration_us": 1.0,
        "quality": {}, "quality_against_first": {}, "energy_against_first": against, "verdict": "VERDICT",
    }  # fmt: skip


@pytest.fixture
def trial(api, monkeypatch, tmp_path):
    """A file, a server on which every job ends as `ends` says, and the rests that were taken."""
    (tmp_path / "e.yaml").write_text(TEXT, encoding="utf-8")
    ends, rests = {}, []
    submit = api._submit

    def submitted(call):
        name = call.json()["name"].removeprefix("tiny.")
        key = call.headers["idempotency-key"]
        if key not in api.keys:
            code = ends.get(name, 0)
            state = {"state": "failed" if code else "succeeded", "exit_code": code, "reason": "it ended"}
            job_id = f"{len(api.keys):010d}"
            api.tell(job_view(job_id, name=name, **state, **ENDED))
            api.receipts[job_id] = [receipt_view(job_id=job_id)]
        return submit(call)

    api._submit = submitted
    api.comparison = {"per": "job", "paired": True, "sides": [compared_side("one"), compared_side("two")], "notes": []}
    monkeypatch.setattr(experiment.time, "sleep", rests.append)
    api.ends, api.rests = ends, rests
    return api


def accepted(api):
    """The jobs in the order of their submission."""
    calls = {call.headers["idempotency-key"]: call for call in api.made("POST", "/v1/jobs")}
    return [call.json() for call in calls.values()]


def test_runs_are_jobs_one_at_a_time_on_one_cluster_with_rests_between(trial, shell):
    code, out, err = shell("experiment", "e.yaml", "--json")
    assert code == 0, err
    jobs, report = accepted(trial), json.loads(out)
    assert jobs[0]["name"] == "tiny.make"
    assert Counter(job["name"] for job in jobs[1:]) == {"tiny.one": 2, "tiny.two": 2}
    assert [job.get("clusters") for job in jobs] == [None, *[["north"]] * 4]
    assert [job["metadata"]["run"] for job in jobs] == ["1", "2", "3", "4", "5"]
    assert {job["metadata"]["experiment"] for job in jobs} == {report["experiment"]}
    assert trial.rests == [5.0] * 4
    (asked,) = trial.made("GET", "/v1/compare")
    by_name = {name: [run["job_id"] for run in report["runs"] if run["name"] == name] for name in ("one", "two")}
    assert asked.query["side"] == [f"{name}={','.join(jobs)}" for name, jobs in by_name.items()]
    assert asked.query["paired"] == ["True"]
    shared = jobs[0]["entrypoint"].split()[-1]
    assert report["experiment"] in shared
    assert {job["entrypoint"].split()[-1] for job in jobs if job["name"] == "tiny.one"} == {shared}


def test_what_was_interrupted_goes_on_with_the_same_jobs(trial, shell, monkeypatch):
    def interrupted(_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment.time, "sleep", interrupted)
    code, _, err = shell("experiment", "e.yaml")
    assert code == 130
    identity = err.partition("--resume ")[2].split()[0]
    monkeypatch.setattr(experiment.time, "sleep", trial.rests.append)
    code, out, err = shell("experiment", "e.yaml", "--resume", identity)
    assert code == 0, err
    assert len(trial.keys) == 5, "the first run was not submitted again"
    assert "-50 % (-60 to -40)" in out


def test_a_variant_that_fails_is_named_and_gives_the_exit_code(trial, shell):
    trial.ends["two"] = 3
    trial.comparison["sides"] = trial.comparison["sides"][:1]
    code, _, err = shell("experiment", "e.yaml")
    assert code == 121
    assert "since runs of two did not end well" in " ".join(err.split())
    text = (TEXT + "  - {name: three}\n").replace("repeats: 2", "repeats: 1")
    trial.comparison["sides"] = [compared_side("one"), compared_side("three")]
    with open("e.yaml", "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(text)
    code, out, _ = shell("experiment", "e.yaml")
    assert code == 3
    assert "two, repeat 1, is in no figure" in " ".join(out.split())
    (*_, asked) = trial.made("GET", "/v1/compare")
    assert [side.partition("=")[0] for side in asked.query["side"]] == ["one", "three"]


def test_a_step_that_fails_ends_the_experiment(trial, shell):
    trial.ends["make"] = 1
    code, _, err = shell("experiment", "e.yaml")
    assert code == 121
    assert "step make did not end well" in " ".join(err.split())
    assert len(accepted(trial)) == 1


def test_bad_input_is_named(trial, shell):
    assert shell("experiment", "none.yaml")[0] == 120
    code, _, err = shell("experiment", "e.yaml", "--resume", "x")
    assert (code, "Give the 8 letters" in err) == (120, True)
    text = TEXT.replace("cool_down: 5s", "job: {duration: soon}")
    Path("e.yaml").write_text(text, encoding="utf-8")
    code, _, err = shell("experiment", "e.yaml")
    assert (code, "job.duration: 'soon' is not a duration" in err) == (120, True)
    assert "--resume" not in err, "there is nothing to go on with"
    assert trial.made("POST", "/v1/jobs") == []
