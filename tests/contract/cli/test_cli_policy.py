"""`carbon-sched policy` against the real application."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from carbon_sched.client import Client
from tests.fakes.served import TOKEN, served

__all__ = ["served"]

HEAD = "apiVersion: carbon-sched/v1\n"
ACME = HEAD + "name: acme\nextends: balanced\ndescription: Ours.\nteam: '*'\nflexibility: {max_delay: 2h}\n"
VISION = HEAD + "name: vision\nextends: acme\nteam: vision\nqueue: {priority: high}\n"


@pytest.fixture
def files(served, monkeypatch, tmp_path):
    """Two policies of an organisation and a script, in the folder where the shell stands."""
    monkeypatch.setenv("CARBON_SCHED_URL", served.url)
    monkeypatch.setenv("CARBON_SCHED_TOKEN", TOKEN)
    folder = tmp_path / "shell"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "acme.yaml").write_text(ACME, encoding="utf-8")
    (folder / "vision.yaml").write_text(VISION, encoding="utf-8")
    (folder / "train.py").write_text("print()\n", encoding="utf-8")
    return folder


def rows(out):
    return {row["key"]: (row["value"], row["level"]) for row in json.loads(out)["settings"]}


def test_a_policy_from_file_to_force_and_back(shell, files, served):
    code, _, err = shell("policy", "apply", "acme.yaml", "--dry-run")
    assert (code, "nothing was" in err) == (0, True)
    assert "preset" in shell("policy", "list")[1]
    assert "acme" not in shell("policy", "list")[1]

    assert shell("policy", "apply", "acme.yaml", "--reason", "pilot")[0] == 0
    assert shell("policy", "apply", "vision.yaml")[0] == 0
    listed = {view["name"]: view for view in json.loads(shell("policy", "list", "--json")[1])}
    assert (listed["acme"]["version"], listed["acme"]["reason"]) == (1, "pilot")
    assert listed["vision"]["levels"] == ["balanced", "acme", "vision"]
    assert listed["run-now"]["version"] is None

    (files / "acme.yaml").write_text(ACME.replace("2h", "4h"), encoding="utf-8")
    assert shell("policy", "apply", "acme.yaml")[0] == 0
    assert rows(shell("policy", "explain", "train.py", "--json")[1])["flexibility.max_delay"] == ("4h", "acme")
    code, _, err = shell("policy", "rollback", "acme", "--reason", "too slow")
    assert (code, "as it was in version 1" in err) == (0, True)
    assert rows(shell("policy", "explain", "train.py", "--json")[1])["flexibility.max_delay"] == ("2h", "acme")
    assert "back to 1; too slow" in shell("policy", "show", "acme", "--versions")[1]


def test_show_prints_the_text_that_is_in_force(shell, files):
    shell("policy", "apply", "acme.yaml")
    assert shell("policy", "show", "acme")[1] == ACME
    assert "name: run-now" in shell("policy", "show", "run-now")[1]
    assert shell("policy", "show", "nobody")[0] == 120


def test_explain_names_file_and_line_of_every_value(shell, files, served):
    shell("policy", "apply", "acme.yaml")
    shell("policy", "apply", "vision.yaml")
    code, out, _ = shell("policy", "explain", "train.py", "--team", "vision", "--set-only")
    assert code == 0
    assert "vision@2:5" in out
    assert "acme@1:6" in out
    assert "weights.cost" not in out
    job = served.client.submit({"entrypoint": "true", "name": "nightly", "team": "vision"}, idempotency_key="k")
    assert rows(shell("policy", "explain", "nightly", "--json")[1])["queue.priority"] == ("high", "vision")
    assert served.client.job_policy(job["job_id"])["policy"] == "vision"
    assert shell("policy", "explain", "train.py", "--policy", "nobody")[0] == 120


def test_validate_needs_no_server_and_finds_every_problem(shell, files, monkeypatch):
    monkeypatch.setenv("CARBON_SCHED_URL", "http://127.0.0.1:9")
    code, out, _ = shell("policy", "validate", "vision.yaml", "acme.yaml")
    assert (code, out.count("is a valid policy")) == (0, 2)
    (files / "acme.yaml").write_text(ACME + "minimum_gian: 1\nlocked: [queue]\n", encoding="utf-8")
    code, out, err = shell("policy", "validate", "acme.yaml")
    assert code == 120
    assert "acme.yaml:7:1: minimum_gian is not a known key. Did you mean minimum_gain?" in err
    code, out, _ = shell("policy", "validate", "acme.yaml", "--json")
    assert code == 120
    assert json.loads(out)["files"][0]["problems"][0]["field"] == "minimum_gian"
    assert shell("policy", "validate", "gone.yaml")[0] == 120


def test_diff_compares_files_names_and_versions(shell, files):
    shell("policy", "apply", "acme.yaml")
    assert shell("policy", "diff", "acme", "acme.yaml")[:2] == (0, "")
    (files / "acme.yaml").write_text(ACME.replace("2h", "4h"), encoding="utf-8")
    code, out, _ = shell("policy", "diff", "acme", "acme.yaml")
    assert (code, "-flexibility: {max_delay: 2h}" in out) == (1, True)
    assert re.search(r"flexibility.max_delay +2h +4h +all", out), "what it comes to, beside the texts"
    (files / "team.yaml").write_text(
        HEAD + "name: team\nextends: acme\nphases: {evaluation: {flexibility: {max_delay: 30m}}}\n", encoding="utf-8"
    )
    code, out, _ = shell("policy", "diff", "acme", "team.yaml")
    effects = out.partition("before")[2]
    assert (code, effects.count("flexibility.max_delay"), effects.count("minimum_gain")) == (1, 1, 0)
    assert re.search(r"flexibility.max_delay +2h +30m +evaluation", effects), "what it extends holds for the rest"
    shell("policy", "apply", "acme.yaml")
    assert "+flexibility: {max_delay: 4h}" in shell("policy", "diff", "acme@1", "acme")[1]
    assert shell("policy", "diff", "acme@9", "acme")[0] == 120


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ("name: [", 120, "is not YAML"),
        (HEAD + "name: lab\nextends: nobody\n", 120, "Use one of"),
        (HEAD + "name: lab\nteam: '*'\n", 121, "acme and lab are both for team"),
        (ACME, 121, "in force just so"),
    ],
)
def test_what_cannot_be_applied_changes_nothing(shell, files, served, content, code, words):
    shell("policy", "apply", "acme.yaml")
    before = served.client.policies()
    (files / "bad.yaml").write_text(content, encoding="utf-8")
    found, _, err = shell("policy", "apply", "bad.yaml")
    assert found == code
    assert words in err
    assert served.client.policies() == before


def test_a_backtest_on_ones_own_jobs_lets_a_change_pass_or_refuses_it(shell, files, served):
    code, _, err = shell("policy", "apply", "acme.yaml", "--require-backtest")
    assert (code, "no job of the last 28 days ran" in err) == (121, True)
    job = served.world.submit(name="nightly")
    served.world.settle()
    served.world.run_to_end(job, seconds=3600)
    served.world.settle()
    served.world.clock.pass_s(3600 * 3)

    (files / "nowhere.yaml").write_text(ACME + "clusters: {allowed: []}\n", encoding="utf-8")
    code, _, err = shell("policy", "apply", "nowhere.yaml", "--require-backtest", "--margin", "0.5")
    assert (code, "worse than the margin allows, on 1 jobs" in err, "1 late instead of 0" in err) == (121, True, True)
    code, _, err = shell("policy", "apply", "nowhere.yaml", "--require-backtest", "--dry-run")
    assert (code, "would be refused" in err) == (0, True)
    assert "acme" not in shell("policy", "list")[1]

    code, out, err = shell("policy", "apply", "acme.yaml", "--require-backtest", "--json")
    assert code == 0, err
    found = json.loads(out)["backtest"]
    assert (found["jobs"], found["worse"], found["margin_ppm"]) == (1, False, 10_000)
    assert found["before_ug"] == found["after_ug"] > 0


def test_applying_asks_for_an_operator(shell, files, served, monkeypatch):
    monkeypatch.setenv("CARBON_SCHED_TOKEN", served.token("submitter"))
    assert shell("policy", "apply", "acme.yaml")[0] == 122
    assert shell("policy", "list")[0] == 0
    with Client(served.url, served.token("operator", name="olga")) as client:
        assert client.apply_policy({"content": ACME})["applied_by"] == "olga"


def test_decisions_follow_the_newest_version_and_name_it(files, served):
    served.client.apply_policy({"content": ACME})
    job = served.client.submit({"entrypoint": "true", "name": "a"}, idempotency_key="k")
    served.world.settle()
    assert served.client.decision(job["job_id"])["policy"] == served.client.policy("acme")["label"]


def test_the_schema_is_json(shell):
    code, out, _ = shell("policy", "schema")
    assert (code, json.loads(out)["properties"]["apiVersion"]["const"]) == (0, "carbon-sched/v1")


BUDGET = (
    HEAD + "name: acme\nteam: '*'\nbudgets:\n"
    "- {name: vision, of: {team: vision}, every: month, co2e_kg: 0.000001, energy_kwh: 500, over: approve}\n"
)


def test_a_budget_holds_a_job_until_it_is_approved(shell, files, served):
    (files / "acme.yaml").write_text(BUDGET, encoding="utf-8")
    assert "no policy in force has a budget" in shell("budget", "list")[2]
    shell("policy", "apply", "acme.yaml")
    job = served.client.submit({"entrypoint": "true", "name": "nightly", "team": "vision"}, idempotency_key="k")
    served.world.settle()
    assert "budget approve" in served.client.job(job["job_id"])["reason"]
    (view,) = json.loads(shell("budget", "list", "--json")[1])
    assert (view["budget"], view["limit_ug"], view["reserved_ug"]) == ("acme/vision", 1000, 0)

    code, _, err = shell("budget", "approve", "nightly", "--reason", "release")
    assert (code, "may exceed acme/vision" in err) == (0, True)
    served.world.settle()
    assert served.client.job(job["job_id"])["state"] == "starting"
    assert "500 kWh" in shell("budget", "list")[1]
    code, _, err = shell("budget", "approve", "nightly", "--reason", "again")
    assert (code, "only a job that waits" in err) == (121, True)


def test_budgets_of_other_teams_are_not_shown(shell, files, served, monkeypatch):
    (files / "acme.yaml").write_text(BUDGET, encoding="utf-8")
    shell("policy", "apply", "acme.yaml")
    monkeypatch.setenv("CARBON_SCHED_TOKEN", served.token("viewer", ["speech"]))
    assert json.loads(shell("budget", "list", "--json")[1]) == []
    monkeypatch.setenv("CARBON_SCHED_TOKEN", served.token("viewer", ["vision"]))
    assert len(json.loads(shell("budget", "list", "--json")[1])) == 1


def test_cases_are_decided_without_a_server(shell, monkeypatch, tmp_path):
    monkeypatch.setenv("CARBON_SCHED_URL", "http://127.0.0.1:9")
    example = Path(__file__).resolve().parents[3] / "examples" / "policy-ci"
    files = [f"--policy={example / name}" for name in ("acme.yaml", "vision.yaml")]
    code, out, _ = shell("policy", "test", str(example / "cases.yaml"), *files)
    assert (code, out.count("passed  ")) == (0, 4)
    shown = json.loads(shell("policy", "test", str(example / "cases.yaml"), *files, "--json")[1])
    assert [row["verdict"] for row in shown] == ["placed", "delayed", "placed", "refused"]
    text = (example / "cases.yaml").read_text(encoding="utf-8")
    (tmp_path / "cases.yaml").write_text(text.replace("cluster: paris}", "cluster: dublin}"), encoding="utf-8")
    code, out, _ = shell("policy", "test", str(tmp_path / "cases.yaml"), *files)
    assert (code, "FAILED  training" in out, "expected on dublin, was paris" in out) == (1, True, True)
