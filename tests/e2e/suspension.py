"""Interruptible jobs on two real Ray heads whose coming minutes a test writes while they run.

So nothing depends on how fast they run: dirty minutes come once a job has done some work, clean ones once it
stands still.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from carbon_sched.cli.connection import find_job
from carbon_sched.service.recall import saved_its_state
from tests.e2e.conftest import Installation, installed_in
from tests.fakes.real_server import eventually
from tests.fakes.steered_grid import SteeredGrid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from carbon_sched.wire import JobView

STEPS, STEP_S, SAVED_EVERY = 500, 0.4, 10
A_WINDOW = 20
"""Steps that a job does before the next dirty minutes."""
CLEAN, NEARLY, DIRTY = 50.0, 60.0, 900.0
DIRTY_S = 180.0
START_S = 240.0
"""Longest start of an attempt, and longest way to a suspension, on a machine with much else to do."""
SHORT_RUNS = """
apiVersion: carbon-sched/v1
name: short-runs
team: '*'
flexibility: {run_between_pauses: 0.5}  # windows of seconds are short beside what an attempt takes to start
"""
SCRIPT = f"""
import json, os, sys, time
from pathlib import Path
from carbon_sched_runtime import job

state = job.checkpoint_dir() / "state.json"
step, total = json.loads(state.read_text()) if job.is_resumed() and state.exists() else (0, 0)
log, hurry = open(sys.argv[1], "a", buffering=1), Path(sys.argv[1] + ".hurry")

def save():
    draft = state.with_suffix(".draft")
    draft.write_text(json.dumps([step, total]))
    draft.replace(state)

while step < {STEPS} and not job.stop_asked():
    log.write(f"{{step}}\\n")
    if not hurry.exists():
        time.sleep({STEP_S})
    step, total = step + 1, (total * 31 + step) % 1_000_003
    if step % {SAVED_EVERY} == 0:
        save()
if job.stop_asked():
    Path(sys.argv[1] + ".stopping").write_text(str(os.getpid()))
    time.sleep(max(0.0, float(sys.argv[2])))
    if float(sys.argv[2]) < 0:
        raise OSError(28, "No space left on device")
    save()
if step == {STEPS}:
    print("result", total)
"""
TRAIN = f"""
import json, os, sys, tempfile, time
os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.2"  # a report counts once it was polled: 2 s of reports every 4
from pathlib import Path
import ray.train
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from carbon_sched_runtime import job

def loop(config):
    step, total = 0, 0
    checkpoint = ray.train.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            step, total = json.loads(Path(folder, "state.json").read_text())
    job.restored()
    log = open(config["log"], "a", buffering=1)
    while step < {STEPS}:
        log.write(f"{{step}}\\n")
        if not Path(config["log"] + ".hurry").exists():
            time.sleep({STEP_S})
        step, total = step + 1, (total * 31 + step) % 1_000_003
        if step % {SAVED_EVERY} == 0:
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "state.json").write_text(json.dumps([step, total]))
                ray.train.report({{"step": step}}, checkpoint=ray.train.Checkpoint.from_directory(folder))
    Path(config["log"] + ".result").write_text(str(total))

DataParallelTrainer(
    loop, train_loop_config={{"log": sys.argv[1]}}, scaling_config=ray.train.ScalingConfig(num_workers=1),
    run_config=ray.train.RunConfig(name=job.run_name(), storage_path=job.storage()),
).fit()
print("result", Path(sys.argv[1] + ".result").read_text())
"""
KINDS = {"script": (SCRIPT, ()), "train": (TRAIN, ("--workers", "1"))}


@dataclass(frozen=True)
class Story:
    """What became of one job: its final view, receipt, output, the steps it did in order, and its facts."""

    view: Any
    receipt: Any
    output: str
    steps: list[int]
    facts: list[Any]

    def of(self, kind: str) -> list[Any]:
        """Bodies of its facts of a kind."""
        return [fact["body"] for fact in self.facts if fact["kind"] == kind]


@dataclass(frozen=True)
class Run:
    """An interruptible job on an installation whose grids the test writes."""

    installation: Installation
    grid: SteeredGrid
    folder: Path
    name: str
    kind: str
    stop_s: float = 0.0
    """What a script takes to save its state when it is asked to stop; below zero: it cannot."""

    def submit(self) -> None:
        """It is to run on `north`, which is clean for now."""
        text, options = KINDS[self.kind]
        (self.folder / f"{self.name}.py").write_text(text, encoding="utf-8")
        self.grid.say("NO", (0, CLEAN))
        self.grid.say("DE", (0, DIRTY))
        self.installation.run(
            "submit", "--no-wait", "--name", self.name, *options, "--interruptible", "--restart-cost", "2s",
            "--duration", f"{STEPS * STEP_S:.0f}s", "--max-delay", "20m", "--storage", str(self.folder / "runs"),
            str(self.folder / f"{self.name}.py"), str(self.log), str(self.stop_s),
        )  # fmt: skip

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.steps"

    def steps(self) -> list[int]:
        """The steps it has begun, in order, those that it repeated twice."""
        return [int(line) for line in self.log.read_text(encoding="utf-8").split()] if self.log.exists() else []

    def view(self) -> JobView:
        with self.installation.client() as client:
            return find_job(client, self.name)

    def work_on(self) -> None:
        """Wait until it did some more steps."""
        enough, until = len(self.steps()) + A_WINDOW, time.monotonic() + START_S
        while len(self.steps()) < enough:
            assert time.monotonic() < until, self._heard(self.view())
            time.sleep(0.2)

    def _heard(self, view: JobView) -> tuple[JobView, str]:
        """What is known of it when it did not do as expected."""
        return view, self.installation.run("logs", self.name, check=False).stdout

    def until(self, state: str, patience_s: float = START_S) -> JobView:
        return eventually(self.view, lambda view: view["state"] == state, patience_s=patience_s)

    def dirty_minutes(self) -> None:
        """They come for `north`, where the job runs."""
        self.grid.say("NO", (DIRTY_S, DIRTY), (0, CLEAN))

    def suspend(self) -> None:
        """Wait until the job stands still for dirty minutes, its state saved."""
        self.dirty_minutes()
        view = self.until("queued")
        assert saved_its_state(view["attempts"][-1]["exit_code"]), self._heard(view)

    def stopping(self) -> int:
        """Wait until the script knows that it is to stop; its pid."""
        mark = self.log.with_suffix(".steps.stopping")
        pid = int(eventually(lambda: mark.exists() and mark.read_text(), patience_s=START_S))
        mark.unlink()
        return pid

    def finish(self) -> None:
        self.log.with_suffix(".steps.hurry").touch()
        self.until("succeeded", 300)

    def story(self, patience_s: float | None = None) -> Story:
        """Once its receipt is final."""
        view, receipt = self.view(), self.installation.finished(self.name, patience_s)
        with self.installation.client() as client:
            facts = [json.loads(entry["payload"]) for entry in client.entries()]
        ours = [fact for fact in facts if _is_of(fact["body"], view["job_id"])]
        return Story(view, receipt, self.installation.run("logs", self.name).stdout, self.steps(), ours)


def uninterrupted() -> int:
    """The result of a run that nothing disturbs."""
    total = 0
    for step in range(STEPS):
        total = (total * 31 + step) % 1_000_003
    return total


@contextlib.contextmanager
def steered_in(folder: Path) -> Iterator[tuple[Installation, SteeredGrid]]:
    """An installation in which windows of seconds count."""
    grid = SteeredGrid(folder, NO=CLEAN, DE=DIRTY)
    with installed_in(folder, grid.settings) as installation:
        (folder / "short.yaml").write_text(SHORT_RUNS, encoding="utf-8")
        installation.run("policy", "apply", str(folder / "short.yaml"))
        yield installation, grid


def _is_of(body: Any, job_id: str) -> bool:
    return body.get("job") == job_id or body.get("attempt", "").startswith(f"cs-{job_id}-")
