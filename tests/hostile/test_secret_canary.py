"""A canary in every place where a secret may stand; then everything we write, print, store or run is searched for it.

A real server, started by the command line and logging at debug level, against a fake Ray head that repeats what it was
told: in a failed setup, in a refusal, and to a token it does not take.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
import yaml

from carbon_sched.cli.main import run
from tests.fakes.ray_head import FakeRayHead

OURS = ("token", "vault.key")
"""The two files of the data folder whose content is secret."""


def canary() -> str:
    return f"canary{secrets.token_hex(12)}"


@dataclass
class Shell:
    """Runs commands in this process and keeps all that they print."""

    capsys: pytest.CaptureFixture[str]
    said: list[str] = field(default_factory=list)

    def __call__(self, *arguments: str) -> tuple[int, str]:
        code = run(list(arguments))
        out, err = self.capsys.readouterr()
        self.said += [out, err]
        return code, out


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A canary for every slot, where each is read from, and a shell in a project folder."""
    found = {name: canary() for name in ("env", "file", "variable", "token", "header")}
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "pyproject.toml").touch()
    (tmp_path / "project" / "train.py").write_text("print(1)\n", encoding="utf-8")
    env = {"env_vars": {"PASSWORD": found["env"]}}
    (tmp_path / "env.yaml").write_text(yaml.safe_dump(env), encoding="utf-8")
    for name in ("file", "token"):
        (tmp_path / name).write_text(found[name] + "\n", encoding="utf-8")
    monkeypatch.setenv("OF_THE_SERVER", found["variable"])
    monkeypatch.setenv("OF_THE_PROXY", found["header"])
    monkeypatch.setenv("CARBON_SCHED_GRID_PROVIDERS", "none")
    monkeypatch.chdir(tmp_path / "project")
    return found


@pytest.fixture
def head(places):
    with FakeRayHead(token=places["token"], execute=False) as head:
        yield head


@pytest.fixture
def shell(places, head, capsys, monkeypatch):
    with tempfile.TemporaryDirectory(prefix="cs-t-") as folder:
        data = Path(folder, "data")
        data.mkdir(mode=0o700)
        monkeypatch.setenv("CARBON_SCHED_DATA_DIR", str(data))
        call = Shell(capsys)
        serve = [sys.executable, "-m", "carbon_sched.cli.main", "serve", "--data-dir", data, "--log-level", "debug"]
        with (data / "server.log").open("wb") as log, subprocess.Popen(serve, stdout=log, stderr=log) as server:
            eventually((data / "server.json").exists)
            try:
                code, _ = call(
                    "clusters", "add", "lab", "--zone", "DE", "--address", head.address, "--token", "file:../token",
                    "--header", "X-Proxy=env:OF_THE_PROXY",
                )  # fmt: skip
                assert code == 0, call.said
                yield call
            finally:
                server.terminate()


def submit(shell: Shell) -> str:
    code, out = shell(
        "submit", "--no-wait", "--json", "--runtime-env", "../env.yaml", "--secret", "A=file:../file",
        "--secret", "B=env:OF_THE_SERVER", "train.py",
    )  # fmt: skip
    assert code == 0, shell.said[-1]
    return str(json.loads(out)["job_id"])


def eventually(ask, timeout_s: float = 60.0):
    until = time.monotonic() + timeout_s
    while not (value := ask()):
        assert time.monotonic() < until
        time.sleep(0.1)
    return value


def ended(shell: Shell, job: str) -> dict:
    def final() -> dict | None:
        view = json.loads(shell("status", job, "--json")[1])
        return view if view["finished_at"] else None

    return eventually(final)


def submission(head: FakeRayHead, job: str):
    return eventually(lambda: head.jobs.get(f"cs-{job}-a1"))


def everything_stored(data: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(data)): path.read_bytes()
        for path in data.rglob("*")
        if path.is_file() and path.relative_to(data).parts[0] not in OURS
    }


def command_lines() -> dict[str, bytes]:
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found[str(path)] = path.read_bytes()
        except OSError:
            continue
    return found


def spellings(value: str) -> list[bytes]:
    return [value.encode(), base64.b64encode(value.encode()).rstrip(b"=")[:-1], value.encode().hex().encode()]


def search(places: dict[str, str], where: dict[str, bytes]) -> list[tuple[str, str]]:
    return [
        (slot, name)
        for slot, value in places.items()
        for name, content in where.items()
        if any(spelling in content for spelling in spellings(value))
    ]


EVERY_READING_COMMAND = [
    ["status", "JOB"], ["explain", "JOB"], ["receipt", "JOB"], ["list"], ["logs", "JOB"], ["wait", "JOB"],
    ["clusters", "list"], ["clusters", "check", "lab"], ["server", "status"], ["audit", "verify"], ["audit", "report"],
]  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="reads the process list of Linux")
def test_no_secret_is_written_printed_stored_or_passed_as_an_argument(shell, head, places, tmp_path):
    data = Path(os.environ["CARBON_SCHED_DATA_DIR"])
    places["api"] = (data / "token").read_text(encoding="utf-8").strip()

    # each secret does arrive where it belongs: a search for what never existed would prove nothing
    quoted = submit(shell)
    env = submission(head, quoted).request["runtime_env"]["env_vars"]
    assert [env[name] for name in ("PASSWORD", "A", "B")] == [places[name] for name in ("env", "file", "variable")]
    assert any(sent.get("X-Proxy") == places["header"] for sent in head.received)
    assert search(places, command_lines()) == []

    # the head quotes everything: in a failed setup, in a refusal, and in a refused token
    everything = " ".join(value for slot, value in places.items() if slot != "api")  # which no cluster ever sees
    head.finish(f"cs-{quoted}-a1", "FAILED", None, message=f"runtime_env setup failed: {env} {places['header']}")
    assert "runtime_env setup failed" in ended(shell, quoted)["reason"]
    head.lie("answer", r"/api/jobs/", method="POST", code=400, body=everything.encode(), media_type="text/plain")
    refused = submit(shell)
    assert "HTTP 400" in ended(shell, refused)["reason"]
    head.token = canary()
    assert shell("clusters", "check", "lab")[0] == 124
    for job in (quoted, refused):
        for command in EVERY_READING_COMMAND:
            words = [job if word == "JOB" else word for word in command]
            shell(*words)
            shell(*words, "--json")
    assert shell("audit", "export", "-o", str(tmp_path / "ledger"))[0] == 0

    # the secret itself in the wrong place
    wrong = places["env"]
    for words in (
        ["--secret", f"A={wrong}"], ["--secret", wrong], ["--runtime-env-json", f'{{"env_vars": "{wrong}'],
        ["--runtime-env-json", f'["{wrong}"]'], ["--runtime-env-json", f'{{"env_vars": {{"A": ["{wrong}"]}}}}'],
        ["--runtime-env-json", f'{{"env_vars": "{wrong}"}}'],
    ):  # fmt: skip
        assert shell("submit", "--no-wait", *words, "train.py")[0] == 120
    assert shell("clusters", "add", "x", "--zone", "DE", "--address", "http://h", "--token", wrong)[0] == 120
    assert shell("clusters", "add", "x", "--zone", "DE", "--local", "--header", f"X={wrong}")[0] == 120
    url = json.loads((data / "server.json").read_text(encoding="utf-8"))["url"]
    for body in (
        {"runtime_env": {"env_vars": {"A": wrong}}}, {"entrypoint": "x", "secrets": wrong}, [wrong],
        {"entrypoint": "x", "secrets": {"A": wrong}}, {"entrypoint": "x", "passwd": wrong}, {"entrypoint": [wrong]},
        {"entrypoint": "x", "runtime_env": wrong}, {"entrypoint": "x", "secrets": {"A": {"value": wrong}}},
    ):  # fmt: skip
        answer = requests.post(
            f"{url}/v1/jobs", json=body, headers={"Authorization": f"Bearer {places['api']}"}, timeout=10
        )
        assert answer.status_code == 400, answer.text
        shell.said.append(answer.text)
    assert requests.get(f"{url}/v1/jobs", headers={"Authorization": f"Bearer {wrong}"}, timeout=10).status_code == 401

    stored = everything_stored(data)
    assert b"DEBUG" in stored["server.log"]
    assert any(name.startswith("carbon-sched.sqlite") for name in stored)
    assert search(places, stored) == []
    assert search(places, {"ledger": (tmp_path / "ledger").read_bytes()}) == []
    assert search(places, {"printed": "".join(shell.said).encode()}) == []
    assert search(places, command_lines()) == []
