"""What a Ray cluster must do for us, asked of fake heads of three Ray versions and of a real one."""

from __future__ import annotations

import json
import shlex
import time
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from carbon_sched.clusters.http import Endpoint
from carbon_sched.clusters.ray_client import RayClient, parse_version
from carbon_sched.domain.cluster import SecretRef
from carbon_sched.domain.errors import ClusterRefused, ClusterUnauthorized
from carbon_sched.ports import RayJob, RaySubmission
from tests.fakes.ray_cluster import TOKEN, RealClock
from tests.fakes.ray_head import FakeRayHead

if TYPE_CHECKING:
    from pathlib import Path

FINAL = {"STOPPED", "SUCCEEDED", "FAILED"}
# From the working directory that Ray unpacks to the log directory of its session.
LOGS = "../../../logs"


@dataclass
class Head:
    """One head under test."""

    version: tuple[int, ...]
    address: str
    token_file: Path
    package: Path
    real: bool = False
    ids: list[str] = field(default_factory=list)

    @property
    def client(self) -> RayClient:
        endpoint = Endpoint("under-test", self.address, SecretRef(file=str(self.token_file)))
        return RayClient("under-test", lambda: endpoint, RealClock())

    def new_id(self) -> str:
        """Unique on a head that is shared by several runs of the tests."""
        self.ids.append(f"cs-{time.time_ns():x}-a{len(self.ids) + 1}")
        return self.ids[-1]

    def submit(self, entrypoint: str, *, files: bool = False, **more: Any) -> str:
        runtime_env = dict(more.pop("runtime_env", {}))
        if files:
            runtime_env["working_dir"] = self.client.ensure_package(self.package, "_ray_pkg_cstests.zip")
        submission = RaySubmission(self.new_id(), entrypoint, runtime_env, more.pop("metadata", {}), **more)
        self.client.submit(submission)
        return submission.submission_id

    def wait(self, submission_id: str, states: set[str] = FINAL) -> RayJob:
        return eventually(lambda: self.client.job(submission_id), lambda job: job is not None and job.status in states)

    def run(self, entrypoint: str, **more: Any) -> RayJob:
        return self.wait(self.submit(entrypoint, **more))

    def node(self) -> str:
        return self.client.status().nodes[0].node_id


def eventually(ask: Any, good: Any, timeout_s: float = 30.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not good(value := ask()):
        assert time.monotonic() < deadline, f"still {value!r}"
        time.sleep(0.05)
    return value


@pytest.fixture(params=["2.60.0", "2.40.0", "2.9.3", pytest.param("real", marks=pytest.mark.ray)])
def head(request: pytest.FixtureRequest, tmp_path: Path):
    package = tmp_path / "package.zip"
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("greeting.txt", "hello from the folder")
    token_file = tmp_path / "token"
    token_file.write_text(f"{TOKEN}\n")
    if request.param == "real":
        real = request.getfixturevalue("real_ray_head")
        release = parse_version(json.loads(real.get("/api/version"))["ray_version"])[:2]
        yield Head(release, real.address, token_file, package, real=True)
        return
    resources = {"accelerator_type:H100": 1.0, "my_disk": 2.0}
    with FakeRayHead(request.param, TOKEN, gpus=4.0, resources=resources) as fake:
        yield Head(fake.release, fake.address, token_file, package)


def test_tells_its_nodes_by_exact_resource_names(head: Head):
    status = head.client.status()
    assert status.problem is None
    assert status.usable
    (node,) = status.nodes
    assert node.is_head
    exact = {name: node.resources[name] for name in ("CPU", "GPU", "accelerator_type:H100", "my_disk")}
    assert exact == {"CPU": 4.0, "GPU": 4.0, "accelerator_type:H100": 1.0, "my_disk": 2.0}
    assert node.resources["memory"] > 2**20


def test_keeps_one_epoch(head: Head):
    first = head.client.epoch()
    assert first.session_name
    assert (first.cluster_id != "") == (head.version >= (2, 10))
    assert head.client.epoch() == first == head.client.status().epoch


def test_tells_what_a_job_takes_while_it_runs(head: Head):
    reserved = {"entrypoint_num_cpus": 1.5, "entrypoint_num_gpus": 1, "entrypoint_resources": {"my_disk": 1.0}}
    job = head.submit("sleep 60", **reserved)

    def taken() -> dict[str, float]:
        used = head.client.status().nodes[0].used or {}
        return {name: used.get(name, -1.0) for name in ("CPU", "GPU", "my_disk")}

    eventually(taken, lambda used: used == {"CPU": 1.5, "GPU": 1.0, "my_disk": 1.0})
    head.client.stop(job)
    assert head.wait(job).status == "STOPPED"
    eventually(taken, lambda used: used == {"CPU": 0.0, "GPU": 0.0, "my_disk": 0.0})


def test_runs_a_job_in_its_folder_with_its_environment(head: Head):
    env_vars = {"CARBON_SCHED_JOB": "aaaaaaaaaa"}
    entrypoint = 'cat greeting.txt; echo "$CARBON_SCHED_JOB"; printf "%s" "$RAY_JOB_CONFIG_JSON_ENV_VAR"'
    job = head.run(entrypoint, files=True, runtime_env={"env_vars": env_vars}, metadata={"team": "blue"})
    assert (job.status, job.driver_exit_code, job.driver_node_id) == ("SUCCEEDED", 0, head.node())
    log = head.client.logs(job.submission_id)
    assert b"hello from the folder" in log
    assert b"aaaaaaaaaa" in log
    assert b'"team": "blue"' in log
    assert job.submission_id in {known.submission_id for known in head.client.jobs()}


@pytest.mark.parametrize(("state", "waits"), [("PENDING", True), ("RESCHEDULING", True), ("CREATED", False)])
def test_tells_which_job_waits_for_a_placement_group_on_a_fake(tmp_path, state, waits):
    with FakeRayHead("2.60.0", execute=False) as fake:
        endpoint = Endpoint("under-test", fake.address)
        client = RayClient("under-test", lambda: endpoint, RealClock())
        for submission in ("cs-waiting-a1", "cs-other-a1"):
            client.submit(RaySubmission(submission, "sleep 60", {}, {}))
        fake.jobs["cs-waiting-a1"].job_id = "01000000"
        fake.groups.append({"placement_group_id": "0" * 36, "name": "", "creator_job_id": "01000000", "state": state})
        assert client.waiting_for_room() == ({"cs-waiting-a1"} if waits else set())


WAITS = """
import ray
ray.init()
group = ray.util.placement_group([{"CPU": 1000.0}])
ray.get(group.ready())
"""


@pytest.mark.ray
def test_tells_which_job_waits_for_a_placement_group_on_a_real_head(real_ray_head, tmp_path):
    token_file = tmp_path / "token"
    token_file.write_text(f"{TOKEN}\n")
    head = Head((2, 60), real_ray_head.address, token_file, tmp_path, real=True)
    other = head.submit("sleep 60")
    waiting = head.submit(f"python -c {shlex.quote(WAITS)}")
    eventually(head.client.waiting_for_room, lambda found: found == {waiting}, timeout_s=90.0)
    for job in (other, waiting):
        head.client.stop(job)
        assert head.wait(job).status == "STOPPED"
    eventually(head.client.waiting_for_room, lambda found: found == set())


def test_tells_how_a_job_failed(head: Head):
    job = head.run("exit 3")
    assert (job.status, job.driver_exit_code) == ("FAILED", 3)


def test_a_second_submission_of_an_id_is_the_first(head: Head):
    job = head.submit("echo first")
    head.client.submit(RaySubmission(job, "echo other", {}, {}))
    head.wait(job)
    assert b"other" not in head.client.logs(job)


def test_does_not_know_a_job_that_never_was(head: Head):
    assert head.client.job("cs-never-a1") is None
    assert head.client.logs("cs-never-a1") is None
    head.client.stop("cs-never-a1")


def test_a_stop_gives_the_grace_that_was_asked_for(head: Head):
    # Real Ray would kill it after 3 s by itself, before its last word; the fakes' time is not worth waiting for.
    last_s = 3.5 if head.real else 0.1
    entrypoint = (
        f"trap 'sleep {last_s}; echo flushed; exit 0' TERM; echo ready-$((40 + 2)); while true; do sleep 0.1; done"
    )
    job = head.submit(entrypoint, runtime_env={"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "20"}})
    eventually(lambda: head.client.logs(job) or b"", lambda log: b"ready-42" in log)
    head.client.stop(job)
    ended = head.wait(job)
    assert (ended.status, ended.driver_exit_code) == ("STOPPED", None)
    assert b"flushed" in head.client.logs(job)


def test_a_job_that_cannot_start_stays_pending_even_when_stopped(head: Head):
    job = head.submit("echo never", entrypoint_num_cpus=99)
    head.client.stop(job)
    assert head.client.job(job).status == "PENDING"
    assert head.client.logs(job) is None


def test_hands_out_any_text_as_it_was_written(head: Head):
    text = "no newline at the end: 'q' \"d\" \\ é 漢 🌍"
    job = head.run(f"python -c 'print(bytes.fromhex(\"{text.encode().hex()}\").decode(), end=str())'")
    assert text.encode() in head.client.logs(job.submission_id)


def test_hands_out_bytes_that_are_no_text(head: Head):
    job = head.run("printf 'a\\377b\\r\\nend'")
    assert head.client.logs(job.submission_id).count(b"a\xffb\r\nend") == 1


def test_hands_out_the_files_that_a_job_leaves_in_the_log_directory(head: Head):
    client, mine = head.client, f"cs-test-{time.time_ns():x}"
    write = (
        f"import pathlib; p = pathlib.Path('{LOGS}'); (p / '{mine}.seg').write_bytes(bytes(range(256)) * 240); "
        f"(p / '{mine}.record').write_text('one line'); (p / '{mine}.empty').touch(); (p / '{mine}-folder').mkdir()"
    )
    assert head.run(f"python -c {shlex.quote(write)}", files=True).status == "SUCCEEDED"
    node = head.node()
    assert client.list_files(node, f"{mine}*") == [f"{mine}.empty", f"{mine}.record", f"{mine}.seg"]
    assert client.list_files(node, f"{mine}.nothing*") == []
    assert client.read_file(node, f"{mine}.record", limit=8) == b"one line"
    assert client.read_file(node, f"{mine}.seg", limit=60 * 1024) == bytes(range(256)) * 240
    assert client.read_file(node, f"{mine}.empty", limit=8) == b""
    with pytest.raises(ClusterRefused, match="larger than 7 bytes"):
        client.read_file(node, f"{mine}.record", limit=7)
    with pytest.raises(ClusterRefused, match="not found"):
        client.read_file(node, f"{mine}.nothing", limit=8)


def test_takes_a_label_selector_or_says_that_it_cannot(head: Head):
    if head.version < (2, 54):
        with pytest.raises(ClusterRefused, match=r"2\.54 or newer"):
            head.submit("true", entrypoint_label_selector={"disk": "fast"})
        assert head.client.job(head.ids[-1]) is None
    else:
        assert head.run("true", entrypoint_label_selector={"disk": "fast"}).status == "SUCCEEDED"


def test_takes_a_package_once_and_none_above_100_mib(head: Head, tmp_path: Path):
    assert head.client.ensure_package(head.package, "_ray_pkg_csonce.zip") == "gcs://_ray_pkg_csonce.zip"
    head.package.write_bytes(b"no zip")
    assert head.client.ensure_package(head.package, "_ray_pkg_csonce.zip") == "gcs://_ray_pkg_csonce.zip"
    job = head.run("cat greeting.txt", runtime_env={"working_dir": "gcs://_ray_pkg_csonce.zip"})
    assert job.status == "SUCCEEDED"
    large = tmp_path / "large.zip"
    with large.open("wb") as file:
        file.truncate(100 * 2**20 + 1)
    with pytest.raises(ClusterRefused, match="100 MiB"):
        head.client.ensure_package(large, "_ray_pkg_cslarge.zip")


def test_a_job_whose_package_is_missing_fails_and_says_why(head: Head):
    job = head.run("true", runtime_env={"working_dir": "gcs://_ray_pkg_csmissing.zip"})
    assert job.status == "FAILED"
    assert "runtime_env setup failed" in job.message.lower()
    assert job.error_type == ("RUNTIME_ENV_SETUP_FAILURE" if head.version >= (2, 54) else None)


def test_refuses_a_wrong_token(head: Head):
    if head.real and head.version < (2, 52):
        pytest.skip("this Ray knows no tokens")
    head.token_file.write_text("another-token")
    with pytest.raises(ClusterUnauthorized, match="not accepted") as refusal:
        head.client.jobs()
    assert "another-token" not in str(refusal.value)
    status = head.client.status()
    assert not status.usable
    assert "another-token" not in status.problem
