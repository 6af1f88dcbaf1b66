"""What every test gets: a suite, a clean environment, no sockets in unit tests, and the shared fixtures."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest

from tests.fakes.postgres import postgres_server, postgres_url
from tests.fakes.ray_cluster import real_ray_head
from tests.suites import SUITES

__all__ = ["postgres_server", "postgres_url", "real_ray_head"]

TESTS = Path(__file__).parent

# The suite of a test that carries no suite's marker itself. Each has a time budget in tests/suites.py.
SUITE_OF_FOLDER = {
    "unit": "unit",
    "contract": "contract",
    "hostile": "contract",
    "machine": "contract",
    "packaging": "contract",
    "crash": "crash",
    "e2e": "ray",
    "hardware": "ray",
}

# How fast a shared machine draws examples is no property of the code.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

# Settings of whoever runs the tests must not steer them, and tests must not touch their data.
SCRUBBED = ("CARBON_SCHED_", "RAY_")
HOMES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME")


def pytest_configure(config: pytest.Config) -> None:
    for name in [name for name in os.environ if name.startswith(SCRUBBED)]:
        del os.environ[name]
    home = tempfile.mkdtemp(prefix="carbon-sched-tests-")
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    os.environ.update({name: f"{home}/{name.lower()}" for name in HOMES})


@pytest.hookimpl(tryfirst=True)  # before `-m` selects by the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "postgres_url" in getattr(item, "fixturenames", ()):
            item.add_marker("postgres")
        where = folder(item)
        if not any(item.get_closest_marker(suite.name) for suite in SUITES):
            item.add_marker(SUITE_OF_FOLDER[where])
        runs_in = [suite for suite in SUITES if item.get_closest_marker(suite.name)][-1]
        if where not in runs_in.folders:
            text = f"the suite {runs_in.name} does not read tests/{where}; tests/suites.py says what it reads"
            raise pytest.UsageError(f"{item.nodeid}: {text}")


def folder(item: pytest.Item) -> str:
    name = item.path.relative_to(TESTS).parts[0]
    if name not in SUITE_OF_FOLDER:
        raise pytest.UsageError(f"{item.nodeid}: tests/{name} belongs to no suite; add it to tests/conftest.py")
    return name


class SocketOpenedError(AssertionError):
    """A unit test opened a socket."""


class Sockets:
    """The switch behind the audit hook, which Python cannot take away again once added."""

    blocked = False

    @classmethod
    def audit(cls, event: str, arguments: tuple[object, ...]) -> None:
        if not cls.blocked or not event.startswith("socket."):
            return
        if event in {"socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo"}:
            raise SocketOpenedError(
                f"a unit test called {event}{arguments[1:]}: use a fake, or move it to contract/ or e2e/"
            )


sys.addaudithook(Sockets.audit)


@pytest.fixture(autouse=True)
def _no_sockets_in_unit_tests(request: pytest.FixtureRequest):
    Sockets.blocked = request.node.get_closest_marker("unit") is not None
    yield
    Sockets.blocked = False
