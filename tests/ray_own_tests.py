"""Run Ray's own tests of its job protocol against us: one of our servers, with a real Ray head as its cluster.

    python tests/ray_own_tests.py RAY_SOURCE [PYTEST-ARGUMENTS]

RAY_SOURCE is a checkout of Ray's repository at the installed release; Ray's wheel carries no tests. The tests run
unmodified. What they import from Ray's own test support is stood in for: the cluster that they start is our server, at
Ray's own port. A queue decides before it submits, so their patience is multiplied. Those left out are printed with the
reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.fakes.ray_cluster import RealRayHead  # noqa: E402 - after the path
from tests.fakes.real_server import RealServer, eventually  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TESTS = "python/ray/dashboard/modules/job/tests"
FILES = ("test_http_job_server.py", "test_cli_integration.py")
OTHER_FILES = {
    "test_sdk.py": "tests the client alone, or which of Ray's own agents starts a driver",
    "test_cli.py": "tests the command alone, on a mocked client",
    "test_job_manager*.py, test_job_agent*.py, test_common.py, test_utils.py": "test the inside of Ray's dashboard",
    "test_job_inheritance.py": "tests what a driver's tasks inherit, within one cluster",
    "test_backwards_compatibility.py": "installs old releases of Ray from a package index",
}
RAYS_PORT = 8265
"""Where the tests, and a command that is told nothing, look for a cluster."""
PATIENCE = 6
LEFT_OUT = {
    "test_submit_job_with_resources": "starts a cluster of its own, and reads Ray's words about waiting for resources",
    "test_list_jobs": "expects env_vars in the answer; ours are encrypted at rest and never shown",
    "test_submit_job[s3_working_dir]": "needs Amazon S3",
    "test_submit_job[working_dir_and_local_py_modules_whl]": "needs Amazon S3",
    "test_submit_job[pip_txt]": "needs a package index at run time",
    "test_submit_job[conda_yaml]": "needs conda",
    "test_timeout": "needs a package index at run time",
    "test_runtime_env_setup_failure": "needs Amazon S3",
    "test_ray_tune_basic": "needs ray[tune]",
    "test_http_bad_request": "reads the words of Ray's parser; ours are tested in hostile/test_hostile_requests.py",
    "test_job_metadata": "expects nothing but Ray's own keys in a driver's metadata; ours says which job it is of",
    "test_version_endpoint": "expects the server to be the installed Ray itself",
    "test_request_headers": "tests the client alone, at an address of its own",
    "test_jobs_env_hook": "its driver imports the test from within Ray's package",
    "test_job_head_pick_random_job_agent": "tests the inside of Ray's dashboard",
    "test_bad_runtime_env": "needs a package index at run time",
    "test_list": "expects env_vars in the answer; ours are encrypted at rest and never shown",
    "test_resources": "starts a cluster of its own, and reads Ray's words about waiting for resources",
}
"""By the test's name, with or without its parameters."""


class RaysTests:
    """The pytest plugin: leaves out what is named above, and runs the tests that are coroutines."""

    def __init__(self) -> None:
        self.left_out: dict[str, str] = {}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        kept = []
        for item in items:
            reason = LEFT_OUT.get(item.name) or LEFT_OUT.get(item.name.partition("[")[0])
            if reason is None:
                kept.append(item)
            else:
                self.left_out[item.name] = reason
        items[:] = kept

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        if not inspect.iscoroutinefunction(pyfuncitem.obj):
            return None
        names = pyfuncitem._fixtureinfo.argnames
        asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
        return True


class Queue:
    """What stands where the tests expect a cluster of Ray's: a server of ours over one real head, new at each start."""

    def __init__(self, folder: Path, head: RealRayHead) -> None:
        self.folder, self.head = folder, head
        self.server: RealServer | None = None
        self.started = 0

    def start(self) -> None:
        data = self.folder / f"data-{self.started}"
        data.mkdir()
        (data / "config.yaml").write_text(f"port: {RAYS_PORT}\ngrid: {{providers: []}}\n")
        self.server, self.started = RealServer(data), self.started + 1
        client = self.server.up()
        client.put_cluster("north", {"address": self.head.address, "zone": "NO", "home": True})
        eventually(lambda: client.cluster("north")["problem"], lambda problem: not problem)
        os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token})

    def stop(self) -> None:
        if self.server is not None:
            self.server.gone(self.server.signal(signal.SIGTERM))
            self.server = None

    @property
    def token(self) -> str:
        assert self.server is not None, "no server runs"
        return self.server.local.files.read_token()


@contextlib.contextmanager
def our_queue(folder: Path) -> Iterator[Queue]:
    os.environ["CARBON_SCHED_MACHINE_DIR"] = str(folder / "machine")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    head = RealRayHead(token=None)
    head.start()
    queue = Queue(folder, head)
    try:
        yield queue
    finally:
        queue.stop()
        head.stop()


def stand_in(queue: Queue, tests: Path) -> None:
    """What Ray's tests use of Ray's test support, as far as those that we run use it."""

    @contextlib.contextmanager
    def started(**_: Any) -> Iterator[SimpleNamespace]:
        queue.start()
        yield SimpleNamespace(address_info={"webui_url": f"127.0.0.1:{RAYS_PORT}"})
        queue.stop()

    package("ray.tests", [])
    package("ray.tests.conftest", [], _ray_start=started)
    package("ray.dashboard.tests", [])
    package("ray.dashboard.tests.conftest", [])
    package("ray.dashboard.modules.job.tests", [str(tests)])
    from ray._private import test_utils

    test_utils.wait_for_condition = patient(test_utils.wait_for_condition)
    subprocess.check_output = starting(queue, subprocess.check_output)
    send_token(queue)


def package(name: str, path: list[str], **content: Any) -> None:
    module = ModuleType(name)
    module.__dict__.update(content, __path__=path)
    sys.modules[name] = module


def starting(queue: Queue, check_output: Callable[..., Any]) -> Callable[..., Any]:
    """`ray start` starts a server of ours, `ray stop` stops that alone."""
    done = {"start": queue.start, "stop": queue.stop}

    def run(command: Any, *arguments: Any, **options: Any) -> Any:
        if list(command[:1]) == ["ray"] and command[1] in done:
            return done[command[1]]()
        return check_output(command, *arguments, **options)

    return run


def send_token(queue: Queue) -> None:
    """The tests' client sends an `Authorization` that means nothing; ours travels in Ray's other header for it."""
    from ray.job_submission import JobSubmissionClient

    made = JobSubmissionClient.__init__

    def with_token(client: Any, address: str, headers: dict[str, str] | None = None) -> None:
        made(client, address, headers={**(headers or {}), "X-Ray-Authorization": f"Bearer {queue.token}"})

    JobSubmissionClient.__init__ = with_token


def patient(wait: Callable[..., None]) -> Callable[..., None]:
    def waits(condition: Callable[..., bool], timeout: float = 10, **more: Any) -> None:
        wait(condition, timeout=timeout * PATIENCE, **more)

    return waits


def main(source: Path, arguments: list[str]) -> int:
    tests = source / TESTS
    files = [tests / name for name in FILES]
    if missing := [file for file in files if not file.is_file()]:
        print(f"{missing[0]} is not there: name a checkout of https://github.com/ray-project/ray", file=sys.stderr)
        return 2
    plugin = RaysTests()
    with tempfile.TemporaryDirectory(prefix="cs-t-") as folder, our_queue(Path(folder)) as queue:
        stand_in(queue, tests)
        options = ["-v", "-c", os.devnull, f"--rootdir={tests}", "-p", "no:cacheprovider", "-p", "no:randomly"]
        status = pytest.main([*map(str, files), *options, *arguments], plugins=[plugin])
    print("\nLeft out:")
    for name, reason in {**plugin.left_out, **OTHER_FILES}.items():
        print(f"  {name}: {reason}")
    return int(status)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
