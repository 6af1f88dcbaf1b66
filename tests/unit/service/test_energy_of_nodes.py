"""Jobs on several nodes: segments are pulled from every node that the wrapper names, and holes are named."""

from __future__ import annotations

import fnmatch
from datetime import timedelta

import pytest

from carbon_sched.domain.errors import ClusterRefused
from carbon_sched_runtime import wire
from tests.fakes.cluster import NODE, FakeCluster
from tests.fakes.world import START, World, a_cluster

WH = 3_600_000_000
OTHER, THIRD = "ab" * 28, "cd" * 28
END = START + timedelta(seconds=10)


class Nodes(FakeCluster):
    """A fake cluster with more nodes than the one of its jobs' wrappers; a node without an entry is gone."""

    elsewhere: dict[str, dict[str, bytes]]

    def list_files(self, node_id: str, pattern: str) -> list[str]:
        if node_id == NODE:
            return super().list_files(node_id, pattern)
        return sorted(name for name in self._of(node_id) if fnmatch.fnmatchcase(name, pattern))

    def read_file(self, node_id: str, name: str, *, limit: int) -> bytes:
        if node_id == NODE:
            return super().read_file(node_id, name, limit=limit)
        self.reads.append(name)
        return self._of(node_id)[name][:limit]

    def _of(self, node_id: str) -> dict[str, bytes]:
        if node_id not in self.elsewhere:
            raise ClusterRefused(f"no node {node_id}")
        return self.elsewhere[node_id]


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path, [a_cluster("c", "DE")], {"DE": [(0, 100.0)]})
    world.clusters["c"].__class__ = Nodes
    world.clusters["c"].elsewhere = {}
    yield world
    world.close()


def begin(world):
    job = world.submit(name="train")
    world.settle()
    attempt = world.attempts(job)[-1]
    world.record(attempt, {"event": "started", "pid": 1}, {"event": "spawned", "child_pid": 2})
    world.clusters["c"].run(attempt.attempt_id)
    world.settle()
    world.segment(attempt, START, END, {attempt.attempt_id: WH})
    return job, attempt


def on_node(world, node, seq=0, **owners):
    """A segment of another node, by a reader of that node's own."""
    segment = world.made_segment(START, END, owners["owners"], seq, reader=node[:8])
    world.clusters["c"].elsewhere.setdefault(node, {})[str(segment.name)] = wire.format_segment(segment)
    return f"{node[:8]}:0-{seq}"


def finish(world, job, attempt):
    closed = {"event": "closed", "exit_code": 0, "segments": 1}
    world.record(attempt, {"event": "ended", "exit_code": 0}, closed)
    world.clusters["c"].end(attempt.attempt_id, "SUCCEEDED", 0)
    world.settle()
    for _ in range(3):
        world.clock.pass_s(61)
        world.settle()
    receipt = world.statements.receipt(job.job_id)
    assert receipt["final"]
    return receipt


def test_a_jobs_total_is_that_of_all_its_nodes(world):
    job, attempt = begin(world)
    journal = on_node(world, OTHER, owners={attempt.attempt_id: 2 * WH, wire.IDLE: 7})
    on_node(world, THIRD, owners={attempt.attempt_id: 5 * WH})  # the wrapper never named it
    world.record(
        attempt,
        {"event": "node", "node_id": OTHER, "machine": "0" * 12, "role": "reader"},
        {"event": "node-closed", "node_id": OTHER, "segments": 1, "journal": journal},
    )
    receipt = finish(world, job, attempt)
    assert receipt["energy_kwh"] == pytest.approx(0.003)
    assert receipt["missing"] == []


def test_segments_of_other_nodes_come_while_the_job_runs_each_once(world):
    job, attempt = begin(world)
    on_node(world, OTHER, owners={attempt.attempt_id: WH})
    world.record(attempt, {"event": "node", "node_id": OTHER, "machine": "0" * 12, "role": "reader"})
    for _ in range(4):
        world.clock.pass_s(31)
        world.settle()
    reads = world.clusters["c"].reads
    assert sum(name.endswith(".seg") for name in reads) == 2
    world.record(attempt, {"event": "node-closed", "node_id": OTHER, "segments": 1, "journal": f"{OTHER[:8]}:0-0"})
    assert finish(world, job, attempt)["energy_kwh"] == pytest.approx(0.002)
    assert sum(name.endswith(".seg") for name in reads) == 2


def test_what_another_node_announced_and_does_not_hold_is_missing(world):
    job, attempt = begin(world)
    on_node(world, OTHER, owners={attempt.attempt_id: WH})
    world.record(
        attempt,
        {"event": "node", "node_id": OTHER, "machine": "0" * 12, "role": "reader"},
        {"event": "node-closed", "node_id": OTHER, "segments": 3, "journal": f"{OTHER[:8]}:0-2"},
    )
    missing = finish(world, job, attempt)["missing"]
    assert missing == [f"2 of 3 energy segments announced on node {OTHER[:12]}"]


def test_a_node_that_is_gone_is_named_and_the_rest_is_booked(world):
    job, attempt = begin(world)
    fault = {"event": "fault", "reason": f"node {OTHER[:12]}: the node is gone: the end of its journal is missing"}
    world.record(attempt, {"event": "node", "node_id": OTHER, "machine": "0" * 12, "role": "reader"}, fault)
    receipt = finish(world, job, attempt)
    assert receipt["energy_kwh"] == pytest.approx(0.001)
    assert any("the node is gone" in text for text in receipt["missing"])
    assert any(f"journal of node {OTHER[:12]} could not be read" in text for text in receipt["missing"])


def test_a_node_that_was_left_and_joined_again_announces_both_times(world):
    job, attempt = begin(world)
    for seq in range(2):
        on_node(world, OTHER, seq, owners={attempt.attempt_id: WH})
        world.record(
            attempt,
            {"event": "node", "node_id": OTHER, "machine": "0" * 12, "role": "reader"},
            {"event": "node-closed", "node_id": OTHER, "segments": 1, "journal": f"{OTHER[:8]}:{seq}-{seq}"},
        )
    receipt = finish(world, job, attempt)
    assert receipt["energy_kwh"] == pytest.approx(0.003)
    assert receipt["missing"] == []


def test_a_record_that_names_nodes_without_end_is_followed_so_far(world):
    job, attempt = begin(world)
    lines = [{"event": "node", "node_id": f"{number:04x}", "role": "reader"} for number in range(300)]
    world.record(attempt, *lines)
    asked = []
    cluster = world.clusters["c"]
    world.clusters["c"]._of = lambda node: asked.append(node) or {}
    finish(world, job, attempt)
    assert len(set(asked)) == 256
    assert cluster.up
