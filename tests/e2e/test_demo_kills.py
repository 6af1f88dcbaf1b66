"""kill -9 of the server at twenty random moments of the demo, with real Ray: no job is lost, none runs twice.

The demo's own story is told again and again until the server was killed often enough: a job at once, then one that
waits for a clean hour. What is killed is what a command found or started; nobody helps it up but the commands.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from carbon_sched.clusters import processes
from carbon_sched.local_server import LocalServer
from tests.fakes.real_server import CLI, MARK

EXAMPLES = Path(__file__).parents[2] / "examples"
KILLS = 20
UNAVAILABLE = 123


class Killer(threading.Thread):
    """Kills the server of a data folder now and then."""

    def __init__(self, data_dir: Path, draw: random.Random) -> None:
        super().__init__(daemon=True)
        self.local, self.draw = LocalServer(data_dir, lambda _: None), draw
        self.kills, self.done = 0, threading.Event()

    def run(self) -> None:
        while not self.done.wait(self.draw.uniform(0.2, 8)):
            running = self.local.find()
            if running is not None:
                os.kill(running.pid, 9)
                self.kills += 1


class Story:
    """The demo in a folder, its jobs noting each run."""

    def __init__(self, folder: Path) -> None:
        spec = importlib.util.spec_from_file_location("demo", EXAMPLES / "demo.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.demo, self.marks, self.jobs = module.Demo(folder), folder / "marks", []
        self.demo.environment |= {MARK: str(folder), "CARBON_SCHED_GRID_PROVIDERS": "none"}
        self.marks.touch()
        self.demo.prepare()

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*CLI, *arguments], env=self.demo.environment, capture_output=True, text=True, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def submit(self, *flexibility: str) -> None:
        """One job of the demo, followed to its end; a command that was cut off is followed by the next one."""
        name = f"job-{len(self.jobs)}"
        self.jobs.append(name)
        command = f"echo {name} >> {self.marks}; python train.py --steps 300"
        submit = [
            "submit",
            "--name",
            name,
            "--duration",
            "25s",
            *flexibility,
            "--working-dir",
            str(EXAMPLES / "quickstart"),
        ]
        done = self.cli(*submit, "--", "sh", "-c", command)
        while done.returncode == UNAVAILABLE:
            known = json.loads(self.cli("list", "--name", name, "--json").stdout or '{"jobs": []}')["jobs"]
            done = self.cli("wait", "--logs", name) if known else self.cli(*submit, "--", "sh", "-c", command)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_server_is_killed_at_twenty_random_moments_of_the_demo():
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'carbon-sched[local]')")
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="cs-t-") as name:
        folder = Path(name)
        story = Story(folder)
        heads = {head: head.read_text() for head in folder.glob("local-heads/*/head.json")}
        killer = Killer(folder, random.Random(seed))
        killer.start()
        try:
            while killer.kills < KILLS:
                story.submit()
                story.submit("--max-delay", "1m")
            killer.done.set()
            killer.join()
            receipts = [json.loads(story.cli("receipt", name, "--json").stdout) for name in story.jobs]
            assert [receipt["state"] for receipt in receipts] == ["succeeded"] * len(story.jobs)
            assert sorted(story.marks.read_text().split()) == sorted(story.jobs), "each ran once"
            assert all(receipt["energy_kwh"] > 0 for receipt in receipts)
            assert {head: head.read_text() for head in heads} == heads, "the heads were found again, not started anew"
            assert story.cli("audit", "verify").returncode == 0
        finally:
            killer.done.set()
            killer.join()
            stopped = story.cli("server", "stop", "--force")
        assert stopped.returncode == 0, stopped.stderr
        assert not processes.members(-1, f"{MARK}={folder}")
    print(f"{killer.kills} kills over {len(story.jobs)} jobs; Python {sys.version.split()[0]}")
