"""Ray Serve's own counters, as a service's job reads them from agents that show them to Prometheus."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from carbon_sched_runtime import serve_watch
from carbon_sched_runtime.allocation import Raylet
from carbon_sched_runtime.request_counts import SERVE, Counts, counts_name, parse_counts
from carbon_sched_runtime.serve_watch import Tally, Watch

ATTEMPT = "cs-job1-a1"


def line(value, *, status="200", application="chat", route="/chat", name="ray_serve_num_http_requests_total"):
    labels = {"Component": "core_worker", "application": application, "route": route, "status_code": status}
    written = ",".join(f'{key}="{text}"' for key, text in labels.items())
    return f"{name}{{{written}}} {value}"


def page(*lines):
    return "\n".join(["# HELP ray_serve_num_http_requests_total The number of HTTP requests.", *lines, "other 1.0", ""])


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    """Pages by agent; what is not there refuses the connection."""
    pages: dict[str, str] = {}

    def get(address, path, token=""):
        if path == serve_watch.DISCOVERY:
            assert (address, token) == ("dash:8265", "secret")
            return pages["sd"].encode()
        if address not in pages:
            raise ConnectionRefusedError(f"{address} refuses")
        return pages[address].encode()

    monkeypatch.setattr(serve_watch, "get", get)
    monkeypatch.setattr(serve_watch, "cluster_token", lambda: "secret")
    monkeypatch.setenv("CARBON_SCHED_ATTEMPT", ATTEMPT)
    monkeypatch.setenv("CARBON_SCHED_JOURNAL_DIR", str(tmp_path))
    pages["sd"] = json.dumps([{"labels": {}, "targets": ["a:1", "b:1"]}])
    return pages


def told(tmp_path):
    return parse_counts((tmp_path / counts_name(ATTEMPT, SERVE)).read_bytes(), ATTEMPT).counts


def test_what_all_agents_counted_since_the_first_look_is_told(cluster, tmp_path):
    watch = Watch("chat", Raylet("n", "dash:8265", None))
    cluster |= {"a:1": page(line(7)), "b:1": page()}
    watch.turn()
    assert told(tmp_path) == Counts(0), "the 7 are of before"
    cluster["a:1"] = page(line(10), line(2.0, status="500"), line(50, application="other"))
    cluster["b:1"] = page(line("1.5e+01", status="404"))
    watch.turn()
    assert told(tmp_path) == Counts(3 + 2 + 15, 2)
    cluster["a:1"] = page(line(4), line(2, status="500"))  # it began anew
    watch.turn()
    assert told(tmp_path) == Counts(24, 2)


def test_an_agent_that_is_gone_keeps_nobody_elses_counts_away(cluster, tmp_path, capfd):
    watch = Watch("chat", Raylet("n", "dash:8265", None))
    cluster["b:1"] = page()
    watch.turn()
    cluster["b:1"] = page(line(15))
    watch.turn()
    assert told(tmp_path) == Counts(15)
    assert capfd.readouterr().err.count("a:1 refuses") == 1


def test_a_turn_ends_in_time_however_slow_the_agents(cluster, tmp_path, monkeypatch, capfd):
    cluster |= {"a:1": page(), "b:1": page()}
    clock = SimpleNamespace(monotonic=iter([0.0, 1.0, 99.0]).__next__, time_ns=lambda: 1)
    monkeypatch.setattr(serve_watch, "time", clock)
    Watch("chat", Raylet("n", "dash:8265", None)).turn()
    assert "not every agent answered within 8 s" in capfd.readouterr().err
    assert told(tmp_path) == Counts(0)


def test_a_series_that_was_away_for_a_look_is_not_counted_twice():
    tally = Tally("chat")
    for text in (page(), page(line(5)), page(), page(line(6))):
        tally.add("a", text)
    assert tally.requests == 6


@pytest.mark.parametrize("name", ["ray_serve_num_http_requests", "ray_serve_num_http_requests_total"])
def test_labels_of_any_text_are_read(name):
    tally = Tally("chat")
    tally.add("a", page())
    tally.add("a", page(line(5, name=name, route=r"/a,b}=\"application=x\"{")))
    assert tally.requests == 5


@pytest.mark.parametrize("answer", ["{}", "no JSON", '[{"targets": 5}]'])
def test_a_dashboard_that_names_no_agents_is_said_once_in_the_jobs_log(cluster, tmp_path, capfd, answer):
    cluster["sd"] = answer
    watch = Watch("chat", Raylet("n", "dash:8265", None))
    watch.turn()
    watch.turn()
    assert capfd.readouterr().err.count("Ray Serve's own metrics are not all read") == 1
    assert list(tmp_path.iterdir()) == []


def test_outside_of_ray_nothing_is_told(cluster, tmp_path, capfd):
    Watch("chat", None).turn()
    assert "no raylet above this process names its dashboard" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
