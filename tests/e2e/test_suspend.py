"""A job that is suspended for cleaner minutes and resumed, on two real Ray heads, with hours made short."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.conftest import installed_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

STEPS, STEP_S, SAVED_EVERY = 800, 0.5, 10
PERIOD_S, PERIODS = 180, 4
SLOT_S = 5
SCRIPT = f"""
import json, sys, time
from carbon_sched_runtime import job

state = job.checkpoint_dir() / "state.json"
step, total = json.loads(state.read_text()) if job.is_resumed() and state.exists() else (0, 0)
log = open(sys.argv[1], "a", buffering=1)

def save():
    draft = state.with_suffix(".draft")
    draft.write_text(json.dumps([step, total]))
    draft.replace(state)

while step < {STEPS} and not job.stop_asked():
    time.sleep({STEP_S})
    total = (total * 31 + step) % 1_000_003
    log.write(f"{{step}}\\n")
    step += 1
    if step % {SAVED_EVERY} == 0 or job.stop_asked():
        save()
if step == {STEPS}:
    print("result", total)
"""


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


def series(folder: Path, begin: datetime) -> dict[str, Any]:
    """Both grids in slots of the plan: north is clean in every other 90 s, and after that only south is nearly so."""
    turn, lasting = PERIOD_S * PERIODS, range(0, 3600, SLOT_S)
    north = [50 if second < turn and second % PERIOD_S < PERIOD_S / 2 else 700 for second in lasting]
    south = [900 if second < turn else 60 for second in lasting]
    for zone, values in (("NO", north), ("DE", south)):
        rows = [f"{(begin + timedelta(seconds=SLOT_S * i)).isoformat()},{value}" for i, value in enumerate(values)]
        (folder / f"{zone}.csv").write_text("start,g_per_kwh\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return {"providers": [], "series": [{"zone": z, "file": str(folder / f"{z}.csv")} for z in ("NO", "DE")]}


@pytest.fixture(scope="module")
def story(tmp_path_factory) -> Iterator[Story]:
    """A plain script, from submission to receipt."""
    folder = tmp_path_factory.mktemp("suspended")
    with installed_in(folder, series(folder, datetime.now(timezone.utc))) as installation:
        series(folder, datetime.now(timezone.utc).replace(microsecond=0))  # the heads took their time
        (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
        installation.run(
            "submit", "--no-wait", "--name", "script", "--interruptible", "--restart-cost", "2s", "--duration",
            f"{STEPS * STEP_S:.0f}s", "--max-delay", "25m", "--storage", str(folder / "runs"),
            str(folder / "script.py"), str(folder / "steps"),
        )  # fmt: skip
        yield finished(installation, folder)


def finished(installation, folder: Path) -> Story:
    until = time.monotonic() + 1500
    while not (view := installation.json("status", "script"))["finished_at"]:
        assert time.monotonic() < until, view
        time.sleep(2)
    receipt = installation.finished("script")
    with installation.client() as client:
        facts = [json.loads(entry["payload"]) for entry in client.entries()]
    ours = [
        fact
        for fact in facts
        if fact["body"].get("job") == view["job_id"] or view["job_id"] in fact["body"].get("attempt", "")
    ]
    steps = [int(line) for line in (folder / "steps").read_text(encoding="utf-8").split()]
    return Story(view, receipt, installation.run("logs", "script").stdout, steps, ours)


def uninterrupted() -> int:
    total = 0
    for step in range(STEPS):
        total = (total * 31 + step) % 1_000_003
    return total


def test_a_job_is_suspended_three_times_and_resumed_elsewhere_with_the_same_result(story):
    assert story.view["state"] == "succeeded", story.view
    assert f"result {uninterrupted()}" in story.output
    assert len(story.of("job-suspended")) >= 3
    clusters = [body["cluster"] for body in story.of("attempt-opened")]
    assert (clusters[0], clusters[-1]) == ("north", "south")
    assert sorted(set(story.steps)) == list(range(STEPS))


def test_each_suspension_repeats_one_reporting_interval_at_most(story):
    steps = story.steps
    back = [before + 1 - after for before, after in pairwise(steps) if after != before + 1]
    assert all(0 < repeated <= SAVED_EVERY for repeated in back)
    assert len(back) <= len(story.of("job-suspended"))


def test_its_receipt_is_the_sum_of_its_attempts_and_says_what_of_it_was_overhead(story):
    booked = {body["attempt"]: 0 for body in story.of("attempt-opened")}
    for body in story.of("energy-recorded"):
        booked[body["attempt"]] += sum(span["energy_uj"] for span in body["spans"])
    assert all(booked.values())
    assert story.receipt["energy_kwh"] == pytest.approx(sum(booked.values()) / 3.6e12, rel=1e-9)
    assert story.receipt["suspensions"] == len(story.of("job-suspended"))
    overhead = story.receipt["overhead"]
    assert {one["kind"] for one in overhead} == {"saving", "restart"}, "it saves at each stop: no work is lost"
    for attempt, energy_uj in booked.items():
        assert sum(one["energy_j"] for one in overhead if one["attempt"] == attempt) <= energy_uj / 1e6 + 1e-5


def test_the_cost_of_later_suspensions_is_metered(story):
    costs = [body["cost_metered"] for body in story.of("job-suspended")]
    assert costs[0] == 0
    assert costs[-1] > 0
