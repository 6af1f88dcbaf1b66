"""A job on two real Ray nodes, each a machine of its own: its total is the sum of both, and nothing stays behind."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from carbon_sched.domain.time import from_rfc3339
from carbon_sched_runtime.wire import Record, parse_record, record_name
from tests.fakes.nvml import nvml_library, uuid
from tests.fakes.ray_machines import WATTS, RayMachines, require_namespaces
from tests.fakes.real_server import client_of, recorded_spans

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.ray_machines import RayMachine

__all__ = ["nvml_library"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PREAMBLE = """
import sys, time
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ray.init()
me = ray.get_runtime_context().get_node_id()
other = next(node["NodeID"] for node in ray.nodes() if node["NodeID"] != me)

@ray.remote(num_cpus=1)
def work(seconds):
    time.sleep(seconds)
    return ray.get_runtime_context().get_node_id()

def on(node, seconds):
    return work.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(seconds)
"""


@dataclass(frozen=True)
class Lab:
    """Our server with that cluster as its only one."""

    data: Path
    machines: RayMachines

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CARBON_SCHED_", "RAY_"))}
        done = subprocess.run(
            [sys.executable, "-m", "carbon_sched.cli.main", *arguments],
            env={**kept, "CARBON_SCHED_DATA_DIR": str(self.data), "NO_COLOR": "1"}, cwd=self.data,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        if check and done.returncode:
            pytest.fail(f"{arguments} exited with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def submit(self, name: str, code: str) -> str:
        """Start a job from the code that follows the preamble; its id."""
        folder = self.data / f"job-{name}"
        folder.mkdir()
        (folder / "pyproject.toml").touch()
        (folder / "job.py").write_text(PREAMBLE + textwrap.dedent(code))
        said = self.run("submit", "--no-wait", "--json", "--gpus", "1", "--name", name, str(folder / "job.py"))
        return str(json.loads(said.stdout)["job_id"])

    def spans(self) -> list[dict[str, Any]]:
        """Every span of the ledger."""
        with client_of(self.data) as client:
            return recorded_spans(client)

    def receipt(self, job: str, timeout_s: float = 240) -> dict[str, Any]:
        until = time.monotonic() + timeout_s
        while True:
            receipt = json.loads(self.run("receipt", job, "--json").stdout)
            if receipt["final"]:
                return dict(receipt)
            assert time.monotonic() < until, receipt
            time.sleep(0.5)

    def record(self, job: str) -> Record:
        """The wrapper's record, from the head's disk."""
        attempt = f"cs-{job}-a1"
        path = self.machines.head.session_logs / record_name(attempt)
        return parse_record(path.read_bytes() if path.exists() else b"", attempt)

    def wait_for(self, job: str, event: str, timeout_s: float = 120) -> None:
        until = time.monotonic() + timeout_s
        while self.record(job).last(event) is None:
            assert time.monotonic() < until, self.record(job)
            time.sleep(0.2)


@pytest.fixture(scope="module")
def lab(nvml_library: Path) -> Iterator[Lab]:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed (pip install 'carbon-sched[local]')")
    require_namespaces()
    machines = RayMachines(nvml_library)
    with tempfile.TemporaryDirectory(prefix="cs-t-") as data:
        Path(data, "config.yaml").write_text("grid: {providers: []}\n", encoding="utf-8")
        started = Lab(Path(data), machines)
        try:
            machines.start()
            started.run("clusters", "add", "two", "--address", machines.address, "--zone", "DE", "--pue", "1.2")
            yield started
        finally:
            started.run("server", "stop", check=False)
            machines.stop()


def machine_of(events: Record, kind: str) -> str:
    found = events.last(kind)
    assert found is not None
    assert found.machine is not None
    return found.machine


def joules(spans: list[dict[str, Any]], machine: str, owner: str | None = None) -> float:
    """GPU energy of a machine, of everybody or of one owner."""
    wanted = [s for s in spans if s["machine"] == machine and s["device"] == uuid(0) and owner in (None, s["owner"])]
    return sum(span["energy_uj"] for span in wanted) / 1e6


def counted(machine: RayMachine) -> float:
    """What the machine's GPU counter moved between the first and the last reading that was booked."""
    readings = machine.nvml.readings_mj(0)
    return (readings[-1] - readings[1]) / 1000


def seconds(spans: list[dict[str, Any]]) -> float:
    times = [[from_rfc3339(span[edge]) for edge in ("start", "end")] for span in spans]
    return sum((end - start).total_seconds() for start, end in times)


def beyond_heads(receipt: dict[str, Any]) -> list[str]:
    """What is missing, but for the moment before a machine's very first reading."""
    return [text for text in receipt["missing"] if "before the machine's first reading" not in text]


def test_a_job_with_workers_on_one_node_has_no_actor_elsewhere(lab):
    job = lab.submit("alone", "print(ray.get(on(me, 12)) == me)")
    receipt = lab.receipt(job)
    assert beyond_heads(receipt) == []
    events = [event.event for event in lab.record(job).events]
    assert "closed" in events
    assert not {"node", "fault"} & set(events)
    assert lab.machines.worker.nvml.readings_mj(0) == []


def test_a_jobs_total_is_the_sum_of_its_machines(lab):
    job = lab.submit("both", "print(len(set(ray.get([on(me, 20), on(other, 20), on(other, 20)]))))")
    receipt = lab.receipt(job)
    record, spans, attempt = lab.record(job), lab.spans(), f"cs-{job}-a1"
    head, worker = machine_of(record, "metering"), machine_of(record, "node")
    assert head != worker
    assert record.last("node-closed").segments >= 1

    assert joules(spans, worker) == pytest.approx(counted(lab.machines.worker), abs=1e-6)
    mine = [span for span in spans if span["owner"] == attempt]
    assert {span["machine"] for span in mine} == {head, worker}
    assert receipt["energy_kwh"] == pytest.approx(sum(span["energy_uj"] for span in mine) / 3.6e12, rel=1e-9)
    # The job holds the GPU of each machine for as long as it has processes there.
    for machine, watts in ((head, WATTS["head"]), (worker, WATTS["worker"])):
        held_s = seconds([s for s in mine if s["machine"] == machine and s["device"] == uuid(0)])
        assert held_s > 5
        assert joules(spans, machine, attempt) == pytest.approx(watts * held_s, abs=watts * 0.5)
    assert beyond_heads(receipt) == []


def test_an_actor_leaves_its_node_half_a_minute_after_the_last_worker(lab):
    job = lab.submit("leaves", "ray.get(on(other, 12)); ray.get(on(me, 60))")
    receipt = lab.receipt(job)
    events = {event.event: event for event in lab.record(job).events}
    assert events["node-closed"].time_us < events["ended"].time_us
    assert events["node-closed"].time_us - events["node"].time_us > 25e6
    assert "fault" not in events
    assert beyond_heads(receipt) == []


def test_a_stopped_job_closes_the_journals_of_all_its_nodes(lab):
    job = lab.submit("stopped", "ray.get(on(other, 300))")
    lab.wait_for(job, "node")
    lab.run("stop", job)
    receipt = lab.receipt(job)
    events = [event.event for event in lab.record(job).events]
    assert "node-closed" in events, lab.record(job)
    assert events[-1] == "closed"
    assert "fault" not in events
    assert beyond_heads(receipt) == []


def test_a_machine_that_dies_is_a_hole_and_not_a_zero(lab):
    job = lab.submit("dies", "on(other, 300); ray.get(on(me, 45))")
    lab.wait_for(job, "node")
    lab.machines.worker.kill()
    receipt = lab.receipt(job)
    assert receipt["energy_kwh"] > 0
    assert any("the end of its journal is missing" in text for text in receipt["missing"])
