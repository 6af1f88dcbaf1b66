"""Jobs that use Ray themselves, on a real head: what they reserve is seen, and their own runtime environment works."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import carbon_sched_runtime
from carbon_sched.clusters.http import Endpoint
from carbon_sched.clusters.ray_client import RayClient
from carbon_sched.domain.cluster import SecretRef
from carbon_sched.ports import RaySubmission
from tests.fakes.ray_cluster import RealClock, RealRayHead

if TYPE_CHECKING:
    from collections.abc import Callable

RESERVES = """
import time
import ray
from ray.util import placement_group
ray.init()
ray.get(placement_group([{"CPU": 2, "GPU": 1}]).ready())
time.sleep(60)
"""
# As users write it: everything said once more, for the tasks.
OWN_ENVIRONMENT = """
import os
import ray
ray.init(runtime_env={"working_dir": ".", "py_modules": ["lib/own"], "env_vars": {"OWN": "mine"}})

@ray.remote
def task():
    import own
    names = ("OWN", "CARBON_SCHED_ATTEMPT")
    return own.__name__, open("data.txt").read(), [os.environ.get(name) for name in names]

print("task says", ray.get(task.remote()))
"""
# As the wrapper asks: from the entrypoint's own process, with what Ray gave it.
HOLDS = """
import os, time
import ray
from carbon_sched_runtime.allocation import ask, own_raylet, slots_by_pid
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as In

ray.init()

@ray.remote(num_cpus=0)
class Holder:
    def pid(self):
        return os.getpid()

group = placement_group([{"GPU": 1}])
halves = [Holder.options(num_gpus=0.5).remote() for _ in range(2)]
whole = Holder.options(num_gpus=1, scheduling_strategy=In(group)).remote()
pids = ray.get([one.pid.remote() for one in (*halves, whole)])
raylet, end = own_raylet(), time.monotonic() + 50
held = {}
while len(held) < 3 and time.monotonic() < end:
    held = {pid: slots for pid, slots in slots_by_pid(ask(raylet.dashboard), raylet.node).items() if pid in pids}
    time.sleep(0.2)
print("held", sorted(sorted(slots.values()) for slots in held.values()), len({s for one in held.values() for s in one}))
"""


@pytest.fixture
def client(real_ray_head: RealRayHead) -> RayClient:
    endpoint = Endpoint("real", real_ray_head.address, SecretRef(file=str(real_ray_head.token_file)))
    return RayClient("real", lambda: endpoint, RealClock())


def eventually(ask: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + 100
    while not good(value := ask()):
        assert time.monotonic() < deadline, f"still {value!r}"
        time.sleep(0.1)
    return value


def submit(client: RayClient, folder: Path, files: dict[str, str], **variables: str) -> str:
    package = folder / "package.zip"
    with zipfile.ZipFile(package, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    submission_id = f"cs-{time.time_ns():x}-a1"
    env_vars = {"CARBON_SCHED_ATTEMPT": submission_id, "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1", **variables}
    uri = client.ensure_package(package, f"_ray_pkg_{submission_id}.zip")
    runtime_env = {"working_dir": uri, "env_vars": env_vars}
    client.submit(RaySubmission(submission_id, "python job.py", runtime_env, {}))
    return submission_id


def test_what_a_placement_group_reserves_is_taken(client: RayClient, tmp_path: Path):
    def taken() -> tuple[float, float]:
        used = client.status().nodes[0].used
        return used["CPU"], used["GPU"]

    job = submit(client, tmp_path, {"job.py": RESERVES})
    eventually(taken, lambda used: used == (2.0, 1.0))
    client.stop(job)
    eventually(taken, lambda used: used == (0.0, 0.0))


def test_a_script_may_bring_its_own_runtime_environment(client: RayClient, tmp_path: Path):
    files = {"job.py": OWN_ENVIRONMENT, "data.txt": "data", "lib/own/__init__.py": ""}
    job = submit(client, tmp_path, files)
    ended = eventually(lambda: client.job(job), lambda seen: seen.status not in ("PENDING", "RUNNING"))
    log = client.logs(job).decode()
    assert ended.status == "SUCCEEDED", log
    assert f"task says ('own', 'data', ['mine', '{job}'])" in log


def test_which_gpus_the_raylet_gave_to_whom_is_seen_from_the_jobs_own_node(client: RayClient, tmp_path: Path):
    runtime = str(Path(carbon_sched_runtime.__file__).parent.parent)
    job = submit(client, tmp_path, {"job.py": HOLDS}, PYTHONPATH=runtime)
    ended = eventually(lambda: client.job(job), lambda seen: seen.status not in ("PENDING", "RUNNING"))
    log = client.logs(job).decode()
    assert ended.status == "SUCCEEDED", log
    assert "held [[500000], [500000], [1000000]] 2" in log, (
        "two halves of one GPU, and a whole one of a placement group"
    )
