"""Run Ray's own tests of its job protocol against us: one of our servers, with a real Ray head as its cluster.

    python tests/ray_own_tests.py RAY_SOURCE [PYTEST-ARGUMENTS]

RAY_SOURCE is a checkout of Ray's repository at the installed release; Ray's wheel carries no tests. The tests run
unmodified. What they import from Ray's own test support is stood in for: the cluster that they start is our server. A
queue decides before it submits, so their patience is multiplied. Those left out are printed with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
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

TESTS = "python/ray/dashboard/modules/job/tests/test_http_job_server.py"
PATIENCE = 6
LEFT_OUT = {
    "test_submit_job_with_resources": "starts a cluster of its own, and reads Ray's words about waiting for resources",
    "test_list_jobs_empty": "starts a cluster of its own",
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


@contextlib.contextmanager
def our_server(folder: Path) -> Iterator[RealServer]:
    """A server with one real head as its only cluster."""
    os.environ["CARBON_SCHED_MACHINE_DIR"] = str(folder / "machine")
    head = RealRayHead(token=None)
    head.start()
    try:
        data = folder / "data"
        data.mkdir()
        (data / "config.yaml").write_text("grid: {providers: []}\n")
        server = RealServer(data)
        client = server.up()
        client.put_cluster("north", {"address": head.address, "zone": "NO", "home": True})
        eventually(lambda: client.cluster("north")["problem"], lambda problem: not problem)
        yield server
        server.gone(server.signal(signal.SIGTERM))
    finally:
        head.stop()


def stand_in(address: str, token: str) -> None:
    """What Ray's tests import from Ray's test support, as far as those that we run use it.

    Their client sends an `Authorization` that means nothing, so ours travels in the other header that Ray has for it.
    """
    from ray._private import test_utils
    from ray.job_submission import JobSubmissionClient

    made = JobSubmissionClient.__init__

    def with_token(client: Any, address: str, headers: dict[str, str] | None = None) -> None:
        made(client, address, headers={**(headers or {}), "X-Ray-Authorization": f"Bearer {token}"})

    JobSubmissionClient.__init__ = with_token

    @contextlib.contextmanager
    def started(**_: Any) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(address_info={"webui_url": address})

    @contextlib.contextmanager
    def set_env_var(name: str, value: str) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(name, value)
            yield

    provided: dict[str, dict[str, Any]] = {
        "ray.tests": {},
        "ray.tests.conftest": {"_ray_start": started},
        "ray.dashboard.tests": {},
        "ray.dashboard.tests.conftest": {},
        "ray.dashboard.modules.job.tests": {},
        "ray.dashboard.modules.job.tests.test_cli_integration": {"set_env_var": set_env_var},
    }
    for name, content in provided.items():
        module = ModuleType(name)
        module.__dict__.update(content, __path__=[])
        sys.modules[name] = module
    test_utils.wait_for_condition = patient(test_utils.wait_for_condition)


def patient(wait: Callable[..., None]) -> Callable[..., None]:
    def waits(condition: Callable[..., bool], timeout: float = 10, **more: Any) -> None:
        wait(condition, timeout=timeout * PATIENCE, **more)

    return waits


def main(source: Path, arguments: list[str]) -> int:
    file = source / TESTS
    if not file.is_file():
        print(f"{file} is not there: name a checkout of https://github.com/ray-project/ray", file=sys.stderr)
        return 2
    plugin = RaysTests()
    with tempfile.TemporaryDirectory(prefix="cs-t-") as folder, our_server(Path(folder)) as server:
        stand_in(server.running().url.removeprefix("http://"), server.local.files.read_token())
        options = ["-v", "-c", os.devnull, f"--rootdir={file.parent}", "-p", "no:cacheprovider", "-p", "no:randomly"]
        status = pytest.main([str(file), *options, *arguments], plugins=[plugin])
    print(f"\n{len(plugin.left_out)} left out:")
    for name, reason in plugin.left_out.items():
        print(f"  {name}: {reason}")
    return int(status)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
