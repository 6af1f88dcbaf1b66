"""A loopback server, a shell in a project folder, and a server with a job that has ended."""

from __future__ import annotations

import pytest

from carbon_sched.cli.main import run
from carbon_sched.client import Client
from tests.fakes.api_server import TOKEN, RunningApi
from tests.fakes.api_views import (
    AT,
    attempt_view,
    cluster_view,
    job_view,
)

ID = "0123456789"
ENDED = {"cluster": "north", "finished_at": AT, "attempts": [attempt_view()]}


@pytest.fixture
def api(monkeypatch, tmp_path):
    """A server that commands find by the environment, and a shell in a project folder with a script."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "train.py").write_text("print('hello')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CARBON_SCHED_DATA_DIR", str(tmp_path / "data"))
    with RunningApi() as running:
        monkeypatch.setenv("CARBON_SCHED_URL", running.url)
        monkeypatch.setenv("CARBON_SCHED_TOKEN", TOKEN)
        yield running


@pytest.fixture
def shell(capsys):
    """Runs a command line: (exit code, stdout, stderr)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert "\x1b" not in out + err, "no colours where there is no terminal"
        return code, out, err

    return call


@pytest.fixture
def done(api):
    """A server with a cluster and one job that has ended."""
    api.tell(job_view(state="succeeded", exit_code=0, reason="finished", **ENDED), text="all of it\n")
    Client(api.url, TOKEN).submit({"entrypoint": "python train.py"}, idempotency_key="k")
    api.clusters["north"] = cluster_view()
    api.clusters["west"] = cluster_view("west", problem="nothing answers", gpus=8.0, gpus_used=None)
    return api
