"""Commands that read, and those for the auditor, against a loopback server."""

from __future__ import annotations

import json
import re

import pytest

from carbon_sched.client import Client
from tests.fakes.api_server import TOKEN, Fault
from tests.fakes.api_views import (
    AT,
    attempt_view,
    decision_view,
    receipt_view,
)

ID = "0123456789"
ENDED = {"cluster": "north", "finished_at": AT, "attempts": [attempt_view()]}


# which server ---------------------------------------------------------------------------------------------------------


def test_wrong_token(api, shell, monkeypatch):
    monkeypatch.setenv("CARBON_SCHED_TOKEN", "cs_other")
    code, _, err = shell("list")
    assert code == 122
    assert "missing, wrong" in err


def test_a_token_may_stand_in_a_file(api, shell, monkeypatch, tmp_path):
    monkeypatch.delenv("CARBON_SCHED_TOKEN")
    assert shell("list")[0] == 122
    monkeypatch.setenv("CARBON_SCHED_TOKEN_FILE", str(tmp_path / "none"))
    assert shell("list")[0] == 122
    (tmp_path / "token").write_text(f"{TOKEN}\n", encoding="utf-8")
    monkeypatch.setenv("CARBON_SCHED_TOKEN_FILE", str(tmp_path / "token"))
    assert shell("list")[0] == 0


def test_no_server_there(api, shell, monkeypatch):
    monkeypatch.setenv("CARBON_SCHED_URL", "http://127.0.0.1:1")
    code, _, err = shell("status")
    assert code == 123
    assert "cannot reach the carbon-sched server" in err


def test_a_ray_dashboard_is_not_our_server(api, shell):
    api.faults = [Fault(200, b"<!doctype html>", content_type="text/html")]
    code, _, err = shell("status")
    assert code == 123
    assert "check CARBON_SCHED_URL" in err


def test_a_remote_server_is_neither_ended_nor_read_nor_installed_from_here(api, shell):
    for command in ("stop", "logs", "install", "uninstall"):
        code, _, err = shell("server", command)
        assert code == 120
        assert "unset CARBON_SCHED_URL" in err
    assert api.shut_down is None


READING = [
    ["status"], ["status", ID], ["list"], ["logs", ID], ["wait", ID], ["explain", ID], ["receipt", ID], ["stop", ID],
    ["clusters", "list"], ["clusters", "check", "north"], ["server", "status"], ["audit", "verify"], ["doctor"],
    ["grid", "now"], ["grid", "forecast", "DE"], ["grid", "history", "DE"], ["grid", "providers"], ["grid", "check"],
]  # fmt: skip


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_every_reading_command_speaks_json_and_fits_eighty_columns(done, shell, command):
    code, out, _ = shell(*command, "--json")
    assert code == 0
    json.loads(out)
    code, out, err = shell(*command)
    assert code == 0
    assert max(map(len, (out + err).splitlines()), default=0) <= 80
    assert all(line == line.rstrip() for line in out.splitlines())


def test_json_is_what_the_api_said(done, shell):
    assert json.loads(shell("receipt", ID, "--json")[1]) == receipt_view()
    assert json.loads(shell("explain", ID, "--json")[1]) == decision_view()
    assert json.loads(shell("status", "last", "--json")[1])["state"] == "succeeded"


def test_logs_are_the_jobs_bytes(done, shell):
    assert shell("logs", ID)[:2] == (0, "all of it\n")
    assert shell("logs", "-f", ID)[:2] == (0, "all of it\n")


def test_a_job_is_named_by_id_by_a_unique_name_or_as_the_last(done, shell):
    assert shell("status", "train.py")[0] == shell("status", "last")[0] == shell("status", ID)[0] == 0
    code, _, err = shell("status", "nobody")
    assert code == 121
    assert "carbon-sched list" in err
    Client(done.url, TOKEN).submit({"entrypoint": "x", "name": "train.py"}, idempotency_key="k2")
    code, _, err = shell("status", "train.py")
    assert code == 121
    assert f"newest first: 0000000001, {ID}" in err


def test_a_job_is_started_and_extended_once_by_who_saw_what_it_asks(done, shell):
    for command in (["start"], ["extend", "--deadline", "+6h"], ["extend", "--max-delay", "2d"]):
        code, _, err = shell(*command, ID)
        assert (code, "is planned anew" in err) == (0, True)
    assert [call.json()["amendments"] for call in done.made("PATCH", f"/v1/jobs/{ID}")] == [0, 1, 2]
    code, _, err = shell("extend", "--max-delay", "2d", ID)
    assert (code, "asked for that already" in err) == (0, True)
    assert json.loads(shell("start", ID, "--json")[1])["now"] is True


@pytest.mark.parametrize(
    ("arguments", "said"), [([], "--deadline"), (["--deadline", "soon"], "soon"), (["--max-delay", "3"], "has no unit")]
)
def test_no_more_time_without_saying_how_much(done, shell, arguments, said):
    code, _, err = shell("extend", ID, *arguments)
    assert code == 120
    assert said in err
    assert done.made("PATCH", f"/v1/jobs/{ID}") == []


def test_no_job_yet(api, shell):
    assert shell("status")[0] == 121
    assert shell("list") == (0, "", "no jobs\n")
    assert shell("list", "--team", "x") == (0, "", "no jobs match\n")


@pytest.mark.parametrize("command", [["list"], ["audit", "report"], ["audit", "statement"]])
def test_a_phase_that_there_is_not(api, shell, command):
    code, _, err = shell(*command, "--phase", "training")
    assert (code, "'--phase': 'training' is not one of" in err) == (120, True)


def test_losses_are_shown_as_plainly_as_savings(done, shell):
    _, out, _ = shell("receipt", ID)
    assert re.search(r"129 mg +103 mg saved +at once on the home cluster \(south\)", out)
    assert re.search(r"20\.0 mg +6\.40 mg more", out)
    assert "(50 % estimated)" in out
    assert "ESTIMATED +/-40 %" in out


def test_trouble_of_a_cluster_is_shown(done, shell):
    _, out, _ = shell("clusters", "list")
    assert "nothing answers" in out
    assert "?/8" in out, "unknown is not free"


def test_clusters_are_added_once_and_replaced_when_told(api, shell, tmp_path):
    code, _, err = shell("clusters", "add", "lab", "--local", "--zone", "DE", "--cpus", "2", "--pue", "1.2", "--home")
    assert code == 0
    assert "clusters check lab" in err
    sent = api.made("PUT", "/v1/clusters/lab")[0].json()
    assert sent == {"zone": "DE", "local": {"cpus": 2}, "pue": 1.2, "home": True}
    assert shell("clusters", "add", "lab", "--local", "--zone", "DE")[0] == 121
    (tmp_path / "pools.yaml").write_text("- {name: a, node_resources: {GPU: 8}, max_nodes: 2}\n", encoding="utf-8")
    code, _, _ = shell(
        "clusters", "add", "lab", "--replace", "--zone", "DE", "--address", "https://h", "--token", "file:t",
        "--header", "X=env:Y", "--start-grace", "10m", "--pools", "pools.yaml", "--ca-file", "ca.pem",
    )  # fmt: skip
    assert code == 0
    assert api.made("PUT", "/v1/clusters/lab")[1].json() == {
        "zone": "DE", "address": "https://h", "token": f"file:{tmp_path}/t", "headers": {"X": "env:Y"},
        "start_grace_s": 600.0, "ca_file": f"{tmp_path}/ca.pem",
        "pools": [{"name": "a", "node_resources": {"GPU": 8}, "max_nodes": 2}],
    }  # fmt: skip
    assert shell("clusters", "remove", "lab")[0] == 0
    assert shell("clusters", "remove", "lab")[0] == 121


def test_a_kubernetes_cluster_is_added_by_its_api_server(api, shell, tmp_path):
    (tmp_path / "pools.yaml").write_text("- {name: a, node_resources: {GPU: 8}, max_nodes: 2}\n", encoding="utf-8")
    code, _, _ = shell(
        "clusters", "add", "gke", "--kubernetes", "--zone", "FI", "--address", "https://k", "--token", "file:t",
        "--pools", "pools.yaml", "--namespace", "ml", "--namespace", "nlp", "--create-in", "ml", "--discover",
    )  # fmt: skip
    assert code == 0
    assert api.made("PUT", "/v1/clusters/gke")[0].json() == {
        "zone": "FI", "address": "https://k", "token": f"file:{tmp_path}/t",
        "kubernetes": {"namespaces": ["ml", "nlp"], "create_in": ["ml"], "discover": True},
        "pools": [{"name": "a", "node_resources": {"GPU": 8}, "max_nodes": 2}],
    }  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [[], ["--local", "--address", "http://x"], ["--address", "http://x", "--cpus", "2"], ["--local", "--pue", "0.9"],
     ["--local", "--pue", "nan"], ["--address", "http://x", "--create-in", "a"], ["--local", "--discover"],
     ["--local", "--header", "X=hunter2"], ["--local", "--start-grace", "5"]],
)  # fmt: skip
def test_contradictions_about_a_cluster(api, shell, arguments):
    code, _, err = shell("clusters", "add", "lab", "--zone", "DE", *arguments)
    assert code == 120
    assert "hunter2" not in err
    assert api.calls == []


# the auditor ----------------------------------------------------------------------------------------------------------


def test_a_broken_chain_is_found_here_whatever_the_server_says(done, shell, tmp_path):
    done.entries = [{"seq": 1, "prev": "0" * 64, "hash": "f" * 64, "payload": "{}"}]
    assert Client(done.url, TOKEN).verify()["ok"] is True
    code, _, err = shell("audit", "verify")
    assert code == 126
    assert "ledger entry 1" in err
    assert shell("audit", "export", "-o", "copy.jsonl")[0] == 0
    assert shell("audit", "verify", "--file", "copy.jsonl")[0] == 126
    assert json.loads((tmp_path / "copy.jsonl").read_text(encoding="utf-8")) == done.entries[0]


def test_a_cut_off_ledger_shows_against_a_checkpoint(done, shell):
    assert shell("audit", "verify")[0] == 0
    assert shell("audit", "verify", "--checkpoint", f"5:{'ab' * 32}")[0] == 126
    assert shell("audit", "verify", "--checkpoint", "five")[0] == 120


@pytest.mark.parametrize("content", ["", "no json\n", "[]\n", '{"seq": "1"}\n', "\xff"])
def test_what_is_no_copy_of_a_ledger(api, shell, tmp_path, content):
    (tmp_path / "x").write_text(content, encoding="latin-1")
    code = shell("audit", "verify", "--file", "x")[0]
    assert code == (0 if content == "" else 120)


def test_reports(done, shell, tmp_path):
    assert shell("audit", "report", "--md", "--since", "-7d", "--team", "nlp", "--job", "last")[1] == "report as md\n"
    query = done.calls[-1].query
    assert (query["team"], query["job"], set(query)) == (["nlp"], [ID], {"team", "job", "since", "format"})
    assert shell("audit", "report", "--csv", "-o", "r.csv")[0] == 0
    assert (tmp_path / "r.csv").read_text(encoding="utf-8") == "report as csv\n"
    assert shell("audit", "report", "-o", "no/such/folder")[0] == 120
    assert shell("audit", "report", "--since", "2026-11-02", "--until", "2026-11-01")[0] == 120
