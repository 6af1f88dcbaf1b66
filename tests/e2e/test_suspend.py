"""A job that is suspended for cleaner minutes and resumed, on two real Ray heads, with hours made short."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import installed_in

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS, STEP_S, SAVED_EVERY = 200, 0.5, 10
PERIOD_S, PERIODS = 60, 4
TRAIN = f"""
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


def uninterrupted():
    total = 0
    for step in range(STEPS):
        total = (total * 31 + step) % 1_000_003
    return total


def series(folder: Path, begin: datetime) -> dict:
    """Both grids in steps of 10 s: north is clean every other half minute, and after that only south is nearly so."""
    turn = PERIOD_S * PERIODS
    north = [50 if second < turn and second % PERIOD_S < PERIOD_S / 2 else 700 for second in range(0, 1800, 10)]
    south = [900 if second < turn else 60 for second in range(0, 1800, 10)]
    for zone, values in (("NO", north), ("DE", south)):
        rows = [f"{(begin + timedelta(seconds=10 * i)).isoformat()},{value}" for i, value in enumerate(values)]
        (folder / f"{zone}.csv").write_text("start,g_per_kwh\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return {"providers": [], "series": [{"zone": z, "file": str(folder / f"{z}.csv")} for z in ("NO", "DE")]}


def test_a_script_is_suspended_three_times_and_resumed_once_elsewhere_with_the_same_result(tmp_path):
    grid = series(tmp_path, datetime.now(timezone.utc))
    with installed_in(tmp_path, grid) as installation:
        series(tmp_path, datetime.now(timezone.utc).replace(microsecond=0))  # the heads took their time
        script = tmp_path / "train.py"
        script.write_text(TRAIN, encoding="utf-8")
        log = tmp_path / "steps"
        installation.run(
            "submit", "--no-wait", "--name", "train", "--interruptible", "--restart-cost", "1s", "--duration",
            f"{STEPS * STEP_S:.0f}s", "--max-delay", "10m", "--storage", str(tmp_path / "runs"), str(script), str(log),
        )  # fmt: skip
        until = time.monotonic() + 600
        while not (view := installation.json("status", "train"))["finished_at"]:
            assert time.monotonic() < until, view
            time.sleep(1)
        receipt = installation.finished("train")
        with installation.client() as client:
            facts = [json.loads(entry["payload"]) for entry in client.entries()]
        output = installation.run("logs", "train").stdout

    assert view["state"] == "succeeded", view
    assert f"result {uninterrupted()}" in output
    opened = [fact["body"]["cluster"] for fact in facts if fact["kind"] == "attempt-opened"]
    suspended = [fact["body"] for fact in facts if fact["kind"] == "job-suspended"]
    assert len(suspended) >= 3
    assert opened == ["north"] * (len(opened) - 1) + ["south"]
    done = [int(line) for line in log.read_text(encoding="utf-8").split()]
    assert sorted(set(done)) == list(range(STEPS))
    assert len(done) - STEPS <= SAVED_EVERY * len(suspended)
    by_attempt = energy_uj(facts)
    assert len(by_attempt) == len(opened)
    assert all(by_attempt.values())
    assert receipt["energy_kwh"] == pytest.approx(sum(by_attempt.values()) / 3.6e12, rel=1e-9)


def energy_uj(facts):
    """What was booked to each attempt."""
    found = {fact["body"]["attempt"]: 0 for fact in facts if fact["kind"] == "attempt-opened"}
    for fact in facts:
        if fact["kind"] == "energy-recorded":
            found[fact["body"]["attempt"]] += sum(span["energy_uj"] for span in fact["body"]["spans"])
    return found
