"""`carbon-sched serve-app` against the real application."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from carbon_sched.domain.serve_app import Site
from tests.fakes.served import TOKEN, served

__all__ = ["served"]

APP = """\
name: chat
application:
  import_path: chat:app
  route_prefix: /chat
  runtime_env: {working_dir: app}
model: chat-7b
latency: {max_ms: 50, clusters: {clean: 20}}
min_gain: 20%
horizon: 2h
max_age: 10s
drain: 1m
"""


@pytest.fixture
def folder(served, monkeypatch, tmp_path):
    """The folder where the shell stands, with a service's file and code."""
    monkeypatch.setenv("CARBON_SCHED_URL", served.url)
    monkeypatch.setenv("CARBON_SCHED_TOKEN", TOKEN)
    folder = tmp_path / "shell"
    (folder / "app").mkdir(parents=True)
    (folder / "app" / "chat.py").write_text("app = None\n", encoding="utf-8")
    (folder / "chat.yaml").write_text(APP, encoding="utf-8")
    monkeypatch.chdir(folder)
    return folder


def settled(served):
    """As if the loops had made the service."""
    with served.world.store.transaction() as tx:
        app = tx.app("chat")
        now = served.world.clock.now()
        from dataclasses import replace

        site = Site(1, "clean", "job0000001", now, 50.0, now, "http://clean:8000/chat")
        tx.put_app(replace(app, sites=1, current=site))


def test_a_service_from_its_deployment_to_its_end(shell, folder, served):
    code, out, err = shell("serve-app", "deploy", "chat.yaml", "--json")
    assert code == 0, err
    assert json.loads(out)["state"] == "waiting"
    told = json.loads(shell("audit", "service", "chat", "--json")[1])
    assert (told["model"], len(told["changes"]), told["stays"]) == ("chat-7b", 1, [])
    with served.world.store.transaction(write=False) as tx:
        spec = tx.app("chat").spec
    assert (spec.max_latency_ms, spec.latencies_ms, spec.min_gain) == (50, {"clean": 20}, 0.2)
    assert (spec.horizon_s, spec.max_age_s, spec.drain_s) == (7200, 10, 60)
    assert served.world.bundles.has(spec.bundle_sha256)

    code, _, err = shell("serve-app", "endpoint", "chat")
    assert (code, "answers nowhere yet" in err) == (123, True)
    settled(served)
    assert shell("serve-app", "endpoint", "chat")[1] == "http://clean:8000/chat\n"
    assert json.loads(shell("serve-app", "endpoint", "chat", "--json")[1])["max_age_s"] == 10
    assert "http://clean:8000/chat" in shell("serve-app", "list")[1]
    shown = " ".join(shell("serve-app", "status", "chat")[1].split())
    assert "running" in shown
    assert "metered by job job0000001" in shown
    assert "carbon_sched.serve.Middleware" in shown
    assert json.loads(shell("serve-app", "status", "chat", "--json")[1])["requests"] is None

    assert "is being deleted" in shell("serve-app", "delete", "chat")[2]
    assert json.loads(shell("serve-app", "list", "--json")[1])[0]["state"] == "deleting"


def test_without_a_service_it_says_how_to_make_one(shell, folder):
    assert "serve-app deploy APP.yaml" in shell("serve-app", "list")[2]
    code, _, err = shell("serve-app", "status", "nothing")
    assert (code, "no service 'nothing'" in err) == (121, True)
    code, _, err = shell("serve-app", "status", "nothing", "--window", "soon")
    assert (code, "--window: 'soon' is not a duration" in err) == (120, True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("model: chat-7b", "modle: chat-7b"), "chat.yaml:6:8: modle is not known. Use: name, application"),
        (("horizon: 2h", "horizon: soon"), "chat.yaml:9:10: horizon 'soon' is not a duration"),
        (("min_gain: 20%", "min_gain: much"), "chat.yaml:8:11: min_gain 'much' is not a share"),
        (("max_ms: 50", "max: 50"), "latency.max is not known. Use: max_ms, clusters"),
        (("clean: 20", "clean: near"), "latency.clusters.clean 'near' is not a number"),
        (("name: chat\n", ""), "name is missing"),
        (("drain: 1m", "gpus_per_replica: -1"), "gpus_per_replica: '-1.0' is not an amount"),
        (("drain: 1m", "clusters: [mars]"), "clusters: 'mars' is not configured"),
        (("drain: 1m", "replicas: two"), "replicas 'two' is not a whole number. Write 1 or more"),
        (("drain: 1m", "drain: 5s"), "is over before clients ask for the address again"),
        (("working_dir: app", "working_dir: nowhere"), "application.runtime_env.working_dir: 'nowhere' is no folder"),
        ((APP, "- chat\n"), "holds no service"),
        ((APP, "name: [\n"), "chat.yaml:"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_its_line(shell, folder, served, change, said):
    (folder / "chat.yaml").write_text(APP.replace(*change), encoding="utf-8")
    code, _, err = shell("serve-app", "deploy", "chat.yaml")
    assert code == 120
    assert said in err
    assert served.client.apps() == []


def test_figures_per_request_are_shown_with_what_belongs_to_them(monkeypatch):
    import io

    from carbon_sched.cli import render, render_serving

    requests = {
        "name": "chat", "since": "2026-11-23T18:00:00Z", "until": "2026-11-23T19:00:00Z", "boundary": "IT energy of",
        "replicas": 2, "requests": 1200, "failed": 3, "serve_requests": 1198, "serve_failed": 3,
        "input_tokens": 9000, "output_tokens": 48000, "batch_size": 3.5,
        "p50_s": 0.12, "p95_s": 0.48, "energy_j": 60000.0, "co2e_g": 5.0, "j_per_request": 50.0,
        "co2e_g_per_request": 5 / 1200, "j_per_output_token": 1.25, "co2e_g_per_output_token": 5 / 48000,
    }  # fmt: skip
    view = {
        "name": "chat", "state": "running", "team": "", "model": "m", "submitter": "ada", "created_at": "",
        "address": "http://n/chat", "current": None, "coming": None, "leaving": [], "problem": "look here",
    }  # fmt: skip
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    render.show(render_serving.app(view, requests, ""))
    text = " ".join(out.getvalue().split())
    for said in (
        "1,200, 3 failed", "50.0 J, 4.17 mg CO2e", "1.25 J, 0.104 mg CO2e (output)", "9,000 in, 48,000 out",
        "by Ray Serve 1,198 requests, -2 against the middleware's", "batch size 3.50", "p50 120 ms, p95 480 ms",
        "boundary IT energy of", "look here",
    ):  # fmt: skip
        assert said in text


def test_the_example_is_a_service(shell, folder, served):
    example = Path(__file__).resolve().parents[3] / "examples" / "serving" / "chat.yaml"
    code, out, err = shell("serve-app", "deploy", str(example), "--json")
    assert code == 0, err
    assert json.loads(out)["model"] == "demo-char-lm"
