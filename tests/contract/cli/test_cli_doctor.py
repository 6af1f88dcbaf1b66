"""`carbon-sched doctor` with a server, with none, and with clusters that are in trouble."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from carbon_sched.cli import checkup_service
from carbon_sched.domain.cluster import Cluster, LocalHead, Pue, SecretRef
from carbon_sched.store.engine import open_store
from tests.fakes.api_server import Fault
from tests.fakes.api_views import cluster_view
from tests.fakes.ray_cluster import RealClock
from tests.fakes.ray_head import FakeRayHead

PUE = Pue(1_100_000, "2026", "test")


@pytest.fixture
def doctor(shell):
    def call() -> tuple[int, dict]:
        code, out, _ = shell("doctor", "--json")
        found = json.loads(out)
        assert found["ok"] is (code == 0)
        assert found["ok"] is not any(finding["level"] == "problem" for finding in found["findings"])
        return code, found

    return call


def told(found: dict, topic: str) -> list[tuple[str, str]]:
    return [(one["level"], one["text"]) for one in found["findings"] if one["topic"] == topic]


# a server -------------------------------------------------------------------------------------------------------------


def test_all_is_well_and_the_page_fits_eighty_columns(api, shell, doctor):
    api.clusters["north"] = cluster_view()
    code, found = doctor()
    assert code == 0
    assert told(found, "north") == [("ok", "answers, and nothing is amiss")]
    assert found["measured"] or found["estimated"]
    code, out, err = shell("doctor")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert "ESTIMATED" in out or "measured" in out


def test_no_zone_is_a_warning_with_its_remedy(api, doctor):
    api.clusters["here"] = cluster_view("here", zone="WORLD", intensity_grade="F")
    code, found = doctor()
    assert code == 0
    assert "world's average" in told(found, "here")[0][1]
    assert "--zone ZONE" in next(one["remedy"] for one in found["findings"] if one["topic"] == "here")


def test_another_version_another_python_and_a_wrong_clock(api, doctor, monkeypatch):
    health = {"ok": True, "version": "9.0.0", "python": "3.99"}
    true_answer = api.answer
    monkeypatch.setattr(api, "answer", lambda call: (200, health) if call.path == "/healthz" else true_answer(call))
    monkeypatch.setattr(
        "http.server.BaseHTTPRequestHandler.date_time_string", lambda *_: "Thu, 01 Jan 2026 00:00:00 GMT"
    )
    code, found = doctor()
    assert code == 120
    drift = told(found, "version")
    assert [level for level, _ in drift] == ["warning", "warning"]
    assert "9.0.0" in drift[0][1]
    assert "Python 3.99" in drift[1][1]
    assert told(found, "clock")[0][0] == "problem"


def test_a_wrong_token_no_server_and_a_stranger(api, doctor, monkeypatch):
    monkeypatch.setenv("CARBON_SCHED_TOKEN", "cs_other")
    code, found = doctor()
    assert code == 122
    assert told(found, "server")[-1][0] == "problem"
    api.faults = [Fault(200, b"<!doctype html>", content_type="text/html")]
    assert doctor()[0] == 123
    monkeypatch.setenv("CARBON_SCHED_URL", "http://127.0.0.1:1")
    assert doctor()[0] == 123


def test_a_local_head_of_another_ray(api, doctor, monkeypatch):
    monkeypatch.setattr(checkup_service, "ray_version", lambda: "2.60.0")
    api.clusters["here"] = cluster_view("here", local=True, ray_version="2.40.0")
    assert ("warning", "its head runs Ray 2.40.0, installed here is 2.60.0") in told(doctor()[1], "here")


# no server ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def alone(api, monkeypatch):
    """No server anywhere; the folder of one that ran before."""
    monkeypatch.delenv("CARBON_SCHED_URL")
    return Path(os.environ["CARBON_SCHED_DATA_DIR"])


def test_without_a_server_none_is_started_and_nothing_is_left(alone, doctor):
    code, found = doctor()
    assert code == 0
    assert told(found, "server")[0][1].startswith("none runs")
    assert told(found, "clusters")[0][0] == "warning"
    assert not alone.exists()


def registered(folder: Path, *clusters: Cluster) -> None:
    folder.mkdir()
    store = open_store(f"sqlite:///{folder / 'carbon-sched.sqlite'}", RealClock())
    with store.transaction() as tx:
        for cluster in clusters:
            tx.put_cluster(cluster)
    store.close()


def test_registered_clusters_are_asked_from_here(alone, doctor, tmp_path):
    (tmp_path / "right").write_text("right\n", encoding="utf-8")
    (tmp_path / "wrong").write_text("wrong\n", encoding="utf-8")
    with FakeRayHead(token="right") as head:
        registered(
            alone,
            Cluster("good", "DE", PUE, address=head.address, token=SecretRef(file=str(tmp_path / "right"))),
            Cluster("refused", "DE", PUE, address=head.address, token=SecretRef(file=str(tmp_path / "wrong"))),
            Cluster("without", "DE", PUE, address=head.address, token=SecretRef(file=str(tmp_path / "none"))),
            Cluster("gone", "DE", PUE, address="http://127.0.0.1:1"),
            Cluster("here", "WORLD", PUE, local=LocalHead()),
        )
        before = sorted(path.name for path in alone.iterdir())
        code, found = doctor()
    assert code == 124
    assert told(found, "good") == [("ok", "answers, and nothing is amiss")]
    assert "the token was not accepted" in told(found, "refused")[0][1]
    assert told(found, "without")[0][0] == "problem"
    assert told(found, "gone")[0][0] == "problem"
    assert [level for level, _ in told(found, "here")] == ["warning", "ok"]
    assert sorted(path.name for path in alone.iterdir()) == before


def test_a_database_that_is_none(alone, doctor):
    alone.mkdir()
    (alone / "carbon-sched.sqlite").write_bytes(b"nothing that SQLite knows" * 100)
    code, found = doctor()
    assert code == 0
    assert told(found, "clusters")[0][0] == "warning"
