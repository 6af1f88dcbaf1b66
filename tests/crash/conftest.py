"""What several tests of kills begin with."""

from __future__ import annotations

import pytest

from carbon_sched.store.engine import open_store
from tests.fakes.world import FakeClock


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """The files of a server that has just begun: made once, copied for each story."""
    folder = tmp_path_factory.mktemp("new")
    open_store(f"sqlite:///{folder / 'w.sqlite'}", FakeClock()).close()
    return folder
