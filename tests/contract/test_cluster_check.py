"""What `clusters check` finds, on fake heads that lack one thing each."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from carbon_sched import compose
from carbon_sched.clusters.check import Finding, Level, check_cluster
from carbon_sched.clusters.http import Endpoint
from carbon_sched.clusters.ray_client import RayClient
from carbon_sched.domain.cluster import Cluster, ClusterStatus, Pool, Pue, SecretRef
from carbon_sched.ports import RaySubmission
from carbon_sched.service.fleet import STARTING
from tests.fakes.ray_cluster import RealClock
from tests.fakes.ray_head import FakeRayHead

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "t0ken"
BLUE = Cluster("blue", "DE", Pue(1_200_000, "2026", "a test"))


class SkewedClock(RealClock):
    def __init__(self, ahead_s: float) -> None:
        self.ahead = timedelta(seconds=ahead_s)

    def now(self) -> datetime:
        return datetime.now(timezone.utc) + self.ahead


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    return path


@pytest.fixture
def head():
    with FakeRayHead(token=TOKEN, gpus=2, resources={"accelerator_type:H100": 1.0}, execute=False) as fake:
        yield fake


def test_a_head_that_is_starting_is_no_problem_yet():
    class Starting:
        get = staticmethod(lambda _name: BLUE)
        status = staticmethod(lambda name: ClusterStatus(name, datetime.now(timezone.utc), problem=STARTING))

    (found,) = compose._check(Starting(), None)("blue")
    assert (found["level"], found["topic"]) == ("warning", "reachable")
    assert found["text"].startswith("its Ray head on this machine is starting")


def check(head: FakeRayHead, token_file: Path, clock: RealClock | None = None, **more: Any) -> list[Finding]:
    cluster = replace(BLUE, address=head.address, token=SecretRef(file=str(token_file)))
    cluster = replace(cluster, **more)
    endpoint = Endpoint(cluster.name, head.address, cluster.token)
    return check_cluster(RayClient(cluster.name, lambda: endpoint, clock or RealClock()), cluster)


def worrying(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.topic: finding for finding in findings if finding.level is not Level.OK}


def test_a_cluster_in_order_gives_no_worry(head: FakeRayHead, token_file: Path):
    findings = check(head, token_file)
    assert worrying(findings) == {}
    texts = {finding.topic: finding.text for finding in findings}
    assert texts["nodes"] == "1 alive, 4 CPUs, 2 GPUs (H100)"
    assert "advisory" in texts["teams"]


def test_a_wrong_token_ends_the_list(head: FakeRayHead, token_file: Path):
    token_file.write_text("wrong")
    (finding,) = check(head, token_file)
    assert (finding.level, finding.topic) == (Level.PROBLEM, "reachable")
    assert "not accepted" in finding.text


def test_an_open_cluster_is_a_warning(head: FakeRayHead, token_file: Path):
    head.token = None
    found = worrying(check(head, token_file))
    assert list(found) == ["token"]
    assert "switched off" in found["token"].text


@pytest.mark.parametrize(("version", "missing"), [("2.9.3", "64 KiB"), ("2.46.0", "label selectors")])
def test_an_old_ray_is_told_with_what_it_lacks(head: FakeRayHead, token_file: Path, version: str, missing: str):
    head.version = version
    found = worrying(check(head, token_file))
    assert missing in found["version"].text
    assert "too old for tokens" in found["token"].text


def test_silence_about_usage_is_told(head: FakeRayHead, token_file: Path):
    head.autoscaler = "none"
    head.post_job(b'{"entrypoint": "true", "submission_id": "x"}')
    assert "unknown is not free" in worrying(check(head, token_file))["usage"].text


@pytest.mark.parametrize(
    ("ahead_s", "level", "side"),
    [(20, Level.WARNING, "behind"), (-20, Level.WARNING, "ahead of"), (600, Level.PROBLEM, "behind")],
)
def test_a_clock_that_differs_is_told(head: FakeRayHead, token_file: Path, ahead_s: float, level: Level, side: str):
    finding = worrying(check(head, token_file, SkewedClock(ahead_s)))["clock"]
    assert finding.level is level
    assert f"{abs(ahead_s)} s {side} ours" in finding.text


def test_energy_journals_that_cannot_be_fetched_are_a_problem(head: FakeRayHead, token_file: Path):
    head.lie("error", "/api/v0/logs")
    finding = worrying(check(head, token_file))["energy journals"]
    assert finding.level is Level.PROBLEM
    assert "1 of 1 nodes" in finding.text


def test_trouble_with_one_question_does_not_end_the_list(head: FakeRayHead, token_file: Path):
    head.lie("html", "/api/authentication_mode")
    assert list(worrying(check(head, token_file))) == ["token"]


def test_on_demand_nodes_need_another_way_for_their_energy(head: FakeRayHead, token_file: Path):
    pool = Pool("burst", {"GPU": 8}, 4, gpu_type="A100", node_lifetime="on-demand")
    found = worrying(check(head, token_file, pools=(pool,)))
    assert list(found) == ["on-demand nodes"]
    assert "burst" in found["on-demand nodes"].text


def test_a_journal_store_is_that_way_where_it_is_mounted(head: FakeRayHead, token_file: Path, tmp_path: Path):
    pool = Pool("burst", {"GPU": 8}, 4, node_lifetime="on-demand")
    assert worrying(check(head, token_file, pools=(pool,), journal_store=str(tmp_path))) == {}
    found = worrying(check(head, token_file, pools=(pool,), journal_store=str(tmp_path / "not-mounted")))
    assert {topic: one.level for topic, one in found.items()} == {"journal store": Level.PROBLEM}


def test_a_gpu_type_that_no_node_shows_is_told(head: FakeRayHead, token_file: Path):
    pools = (Pool("a", {"GPU": 2}, 1, gpu_type="H100"), Pool("b", {"GPU": 2}, 1, gpu_type="A100"))
    found = worrying(check(head, token_file, pools=pools))
    assert list(found) == ["nodes"]
    assert "'A100' of pool 'b'" in found["nodes"].text


def test_secrets_in_clear_are_told(head: FakeRayHead, token_file: Path):
    # The configured address is judged; the client here still speaks to the fake.
    found = worrying(check(head, token_file, address="http://ray.example:8265"))
    assert found["channel"].level is Level.PROBLEM
    allowed = check(head, token_file, address="http://ray.example:8265", allow_plain_http_token=True)
    assert worrying(allowed)["channel"].level is Level.WARNING
    assert worrying(check(head, token_file, address="https://ray.example")) == {}


def test_a_job_that_runs_is_no_worry(head: FakeRayHead, token_file: Path):
    endpoint = Endpoint("blue", head.address, SecretRef(file=str(token_file)))
    client = RayClient("blue", lambda: endpoint, RealClock())
    client.submit(RaySubmission("cs-a-a1", "true", {}, {}, entrypoint_num_cpus=1))
    head.begin("cs-a-a1")
    assert worrying(check(head, token_file)) == {}
