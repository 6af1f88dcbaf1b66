"""A real server process of ours over fake Ray heads, started as commands start it, and killed as nobody should be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from carbon_sched.client import Client
from carbon_sched.clusters import processes
from carbon_sched.domain.errors import ServerUnavailable
from carbon_sched.local_server import LocalServer
from tests.fakes.ray_head import FakeRayHead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from carbon_sched.server_files import Running
    from tests.fakes.ray_head_http import Reply

CLI = [sys.executable, "-m", "carbon_sched.cli.main"]
MARK = "CARBON_TESTS_MARK"
"""In the environment of everything a test's server starts, so that what is left over can be found."""
PATIENCE_S = 90.0


def eventually(ask: Callable[[], Any], good: Callable[[Any], bool] = bool, *, patience_s: float | None = None) -> Any:
    """The first good answer; fails after a time that only a broken server or a dead machine needs."""
    deadline = time.monotonic() + (PATIENCE_S if patience_s is None else patience_s)
    while not good(value := ask()):
        assert time.monotonic() < deadline, f"still {value!r}"
        time.sleep(0.05)
    return value


def client_of(data_dir: Path) -> Client:
    """A client of the server that runs on a data folder, without a command for each question."""
    url = json.loads((data_dir / "server.json").read_text(encoding="utf-8"))["url"]
    return Client(url, (data_dir / "token").read_text(encoding="utf-8").strip())


def recorded_spans(client: Client) -> list[dict[str, Any]]:
    """Every energy span in a server's ledger, idle ones too."""
    facts = [json.loads(entry["payload"]) for entry in client.entries()]
    return [span for fact in facts for span in fact["body"].get("spans", [])]


class RealServer:
    """The server of one data folder; `up` is what every command does first."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.local = LocalServer(data_dir, lambda _text: None)
        self._children: list[subprocess.Popen[bytes]] = []

    def up(self) -> Client:
        """A client of the running server, which is started where it does not run."""
        running = self.local.ensure(busy=lambda _: True, end=lambda _: None)
        if self.local._child is not None and self.local._child not in self._children:
            self._children.append(self.local._child)
        return Client(running.url, self.local.files.read_token())

    def running(self) -> Running:
        found = self.local.find()
        assert found is not None
        return found

    def signal(self, number: signal.Signals) -> processes.Process:
        """Send a signal to the server; its process."""
        process = self.running().process
        os.kill(process.pid, number)
        return process

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.gone(self.signal(signal.SIGKILL))

    def gone(self, process: processes.Process) -> None:
        """Wait for the end of a server."""
        eventually(lambda: not processes.alive(process))
        for child in self._children:
            if child.pid == process.pid:
                child.wait()

    def cli(self, *arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """One command to its end."""
        env = {**os.environ, "CARBON_SCHED_DATA_DIR": str(self.data_dir), "NO_COLOR": "1"}
        done = subprocess.run(
            [*CLI, *arguments], env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    def log(self) -> str:
        return self.local.files.log_tail(2000)


class Trap:
    """Calls `spring` at one request to a fake head: before it is done (then it never is), or after it."""

    def __init__(self, head: FakeRayHead, spring: Callable[[], None]) -> None:
        self.head, self.spring = head, spring
        self._true = head.answer
        self._armed: tuple[str, str, bool] | None = None
        self.sprung = threading.Event()
        head.answer = self.answer  # type: ignore[method-assign]

    def arm(self, method: str, path: str, *, after: bool) -> None:
        self.sprung.clear()
        self._armed = (method, path, after)

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> Reply:
        import re

        armed = self._armed
        if armed is None or armed[0] != method or not re.fullmatch(armed[1], f"{path}?{query.get('glob', '')}"):
            return self._true(method, path, query, body)
        self._armed = None
        reply = self._true(method, path, query, body) if armed[2] else None
        self.spring()
        self.sprung.set()
        return reply or self._true("GET", "/nowhere", {}, b"")


class Place:
    """A data folder, a fake head, and jobs that leave a line in a file each time they run."""

    def __init__(self, folder: Path, head: FakeRayHead) -> None:
        self.folder, self.head = folder, head
        self.server = RealServer(folder / "data")
        self.marks = folder / "marks"
        self.marks.touch()

    def begin(self) -> Client:
        """A server that knows the zone NO from a file: nothing here asks the internet."""
        now = datetime.now(timezone.utc).replace(microsecond=0)
        instants = [now + timedelta(days=days) for days in (-40, 10)]
        self.server.data_dir.mkdir(exist_ok=True)
        rows = "".join(f"{at.isoformat()},100\n" for at in instants)
        (self.server.data_dir / "no.csv").write_text(f"start,g_per_kwh\n{rows}")
        grid = "{series: [{zone: 'NO', file: no.csv}], providers: []}"
        (self.server.data_dir / "config.yaml").write_text(f"grid: {grid}\n")
        return self.server.up()

    def add_cluster(self) -> None:
        """Register the head."""
        client = self.begin()
        client.put_cluster("north", {"address": self.head.address, "zone": "NO", "home": True})
        eventually(lambda: client.cluster("north")["problem"], lambda problem: not problem)

    def submit(self, name: str, *, then: str = "true", **more: Any) -> str:
        """A job that notes its run and does `then`; the same name is the same job, however often it is submitted."""
        request: Any = {"entrypoint": f"echo {name} >> {self.marks}; {then}", "name": name, **more}
        while True:
            try:
                return str(self.server.up().submit(request, idempotency_key=name)["job_id"])
            except ServerUnavailable:
                assert self.server.local.crashed()

    def finished(self, job_id: str) -> Any:
        """The job's receipt, once it is final."""
        client = self.server.up()
        return eventually(lambda: client.receipt(job_id), lambda receipt: receipt["final"])

    def runs(self) -> list[str]:
        return sorted(self.marks.read_text().split())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Stopped afterwards, and nothing may be left of it."""
    mark = f"{os.getpid()}-{tmp_path.name}"
    monkeypatch.setenv(MARK, mark)
    monkeypatch.setenv("CARBON_SCHED_MACHINE_DIR", str(tmp_path / "machine"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    with FakeRayHead() as head:
        made = Place(tmp_path, head)
        try:
            yield made
        finally:
            if made.server.local.find() is not None:
                print(made.server.log())
                made.server.gone(made.server.signal(signal.SIGTERM))
    left = processes.members(-1, f"{MARK}={mark}")
    assert not left, [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left]


def state_file(data_dir: Path) -> Any:
    return json.loads((data_dir / "server.json").read_text())
