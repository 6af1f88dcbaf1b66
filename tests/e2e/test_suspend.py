"""A plain script and a Ray Train job, each suspended three times and resumed, on two real Ray heads.

Then what goes wrong: kill -9 of server, wrapper and head on the way, and jobs that do not save their state.
tests/crash/test_suspension_faults.py kills at every step, over a fake head.
"""

from __future__ import annotations

import json
import os
import signal
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from carbon_sched.service.collect import SILENT_PATIENCE_S
from tests.e2e.suspension import (
    CLEAN,
    DIRTY,
    DIRTY_S,
    KINDS,
    NEARLY,
    SAVED_EVERY,
    STEPS,
    Run,
    Story,
    steered_in,
    uninterrupted,
)
from tests.e2e.test_kills import wrapper_of
from tests.fakes.real_server import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Installation
    from tests.fakes.steered_grid import SteeredGrid

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "suspendable" / "train.py"


@pytest.fixture(scope="module")
def steered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, SteeredGrid]]:
    with steered_in(tmp_path_factory.mktemp("suspended")) as both:
        yield both


@pytest.fixture(scope="module", params=KINDS)
def story(request, steered, tmp_path_factory) -> Story:
    """From submission to receipt: three windows on `north`, the rest on `south`."""
    run = Run(*steered, tmp_path_factory.mktemp(request.param), request.param, kind=request.param)
    run.submit()
    for _ in range(2):
        run.work_on()
        run.suspend()
        run.grid.say("NO", (0, CLEAN))
    run.work_on()
    run.suspend()
    run.grid.say("DE", (0, NEARLY))  # first: with both as dirty there would be nothing to wait for
    run.grid.say("NO", (0, DIRTY))
    run.work_on()
    run.finish()
    return run.story()


def test_the_example_runs_as_its_page_says(steered, tmp_path):
    installation, grid = steered
    grid.say("NO", (0, CLEAN))
    out = installation.run(
        "submit", "--deadline", "+1d", "--storage", str(tmp_path), str(EXAMPLE), "--steps", "200"
    ).stdout
    assert "step 200\nweights [-0." in out


def test_a_job_is_suspended_three_times_and_resumed_elsewhere_with_the_same_result(story):
    assert story.view["state"] == "succeeded", story.view
    assert f"result {uninterrupted()}" in story.output
    assert len(story.of("job-suspended")) == 3
    assert [body["cluster"] for body in story.of("attempt-opened")] == ["north", "north", "north", "south"]
    assert sorted(set(story.steps)) == list(range(STEPS))


def test_each_suspension_repeats_one_reporting_interval_at_most(story):
    """Ray Train does not save when it is stopped: it goes on from its last report."""
    back = [before + 1 - after for before, after in pairwise(story.steps) if after != before + 1]
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
    kinds = {"saving", "restart"} if story.view["name"] == "script" else {"saving", "restart", "lost-work"}
    assert {one["kind"] for one in overhead} == kinds
    for attempt, energy_uj in booked.items():
        assert sum(one["energy_j"] for one in overhead if one["attempt"] == attempt) <= energy_uj / 1e6 + 1e-5


def test_the_cost_of_later_suspensions_is_metered(story):
    costs = [body["cost_metered"] for body in story.of("job-suspended")]
    assert costs[0] == 0
    assert costs[-1] > 0


# what goes wrong -----------------------------------------------------------------------------------


def begun(steered: tuple[Installation, SteeredGrid], folder: Path, name: str, stop_s: float = 0.0) -> Run:
    """A script that has done some of its work on `north`, for which dirty minutes come."""
    run = Run(*steered, folder, name, "script", stop_s)
    run.submit()
    run.work_on()
    run.dirty_minutes()
    return run


def resumed(run: Run) -> None:
    run.grid.say("NO", (0, CLEAN))
    run.work_on()


def check(story: Story, suspensions: int = 1) -> None:
    """It ended once with its result; what was counted is booked once, and the ledger holds."""
    assert story.view["state"] == "succeeded", story.view
    assert f"result {uninterrupted()}" in story.output
    assert sorted(set(story.steps)) == list(range(STEPS))
    assert len(story.of("job-ended")) == 1 + len(story.of("job-resolved")), "a lost one ends until a person requeues it"
    assert len(story.of("job-suspended")) == suspensions, story.view["attempts"]
    spans = [span for body in story.of("energy-recorded") for span in body["spans"]]
    assert len({(span["start"], span["device"], span["owner"]) for span in spans}) == len(spans), "booked twice"
    assert story.receipt["energy_kwh"] == pytest.approx(sum(span["energy_uj"] for span in spans) / 3.6e12, rel=1e-9)


def verified(installation: Installation) -> bool:
    return bool(json.loads(installation.run("audit", "verify", "--json").stdout)["ok"])


def repeated(story: Story) -> int:
    return len(story.steps) - STEPS


def test_kill_9_of_the_server_between_the_stop_and_the_end(steered, tmp_path):
    run = begun(steered, tmp_path, "server", stop_s=15)
    run.stopping()
    os.kill(run.installation.json("server", "status")["pid"], signal.SIGKILL)
    assert run.installation.json("status", "server")["state"] == "running", "the next one goes on where it was"
    run.until("queued")
    resumed(run)
    run.finish()
    story = run.story()
    check(story)
    assert repeated(story) == 0
    assert {one["kind"] for one in story.receipt["overhead"]} == {"saving", "restart"}
    assert verified(run.installation)


def test_kill_9_of_the_wrapper_in_the_grace(steered, tmp_path):
    run = begun(steered, tmp_path, "wrapper", stop_s=15)
    os.kill(wrapper_of(run.stopping()), signal.SIGKILL)
    run.until("queued")
    assert "its state was not saved" in run.installation.run("status", "wrapper").stdout
    resumed(run)
    run.finish()
    story = run.story()
    check(story)
    assert repeated(story) <= SAVED_EVERY
    assert story.receipt["missing"], "it did not finish its energy journal"
    assert verified(run.installation)


@pytest.mark.parametrize(("name", "stop_s", "said"), [("stubborn", 600, "it was killed"), ("full", -1, "exit code 1")])
def test_a_job_that_does_not_save_says_so_and_is_not_suspended_again(steered, tmp_path, name, stop_s, said):
    """It goes on through its grace, or its storage is full."""
    run = begun(steered, tmp_path, name, stop_s)
    run.stopping()
    run.until("queued")
    assert f"its state was not saved ({said})" in run.installation.run("status", name).stdout
    resumed(run)
    run.dirty_minutes()
    run.work_on()
    run.finish()
    story = run.story()
    check(story)
    assert repeated(story) <= SAVED_EVERY


def test_kill_9_of_the_head_while_the_job_is_suspended(steered, tmp_path):
    """While its cluster is away it could go on elsewhere, where it pays to wait as well."""
    run = begun(steered, tmp_path, "suspended")
    run.until("queued")
    run.grid.say("DE", (4 * DIRTY_S, DIRTY), (0, CLEAN))
    kill_head(run.installation, "north")
    run.grid.say("NO", (0, CLEAN))
    run.work_on()
    run.finish()
    check(run.story())
    assert verified(run.installation)


def test_kill_9_of_the_head_while_the_job_is_resumed(steered, tmp_path):
    """Whether its user's code had begun is not known, so a person says that it is to run again."""
    run = begun(steered, tmp_path, "resuming")
    run.until("queued")
    run.grid.say("NO", (0, CLEAN))
    run.until("running")
    kill_head(run.installation, "north")
    run.until("lost")
    run.installation.run("resolve", "resuming", "--requeue")
    run.work_on()
    run.finish()
    story = run.story(patience_s=SILENT_PATIENCE_S + 90)  # so long the lost attempt may be asked about
    check(story)
    assert len(story.of("attempt-opened")) == 3
    assert verified(run.installation)


def test_a_policy_that_grants_no_more_delay_has_a_suspended_job_resumed_in_dirty_minutes(steered, tmp_path):
    """The way in which a deadline tightens."""
    run = begun(steered, tmp_path, "tightened")
    run.until("queued")
    applied(run, "flexibility: {declared: ignore, max_delay: 0}")
    run.work_on()
    run.grid.say("NO", (0, CLEAN))
    run.work_on()  # until the clean minutes are there
    applied(run, "flexibility: {run_between_pauses: 0.5}")
    run.finish()
    check(run.story())


def applied(run: Run, rule: str) -> None:
    file = run.folder / "policy.yaml"
    file.write_text(f"apiVersion: carbon-sched/v1\nname: short-runs\nteam: '*'\n{rule}\n", encoding="utf-8")
    run.installation.run("policy", "apply", str(file))


def test_a_job_whose_cluster_vanishes_while_it_is_suspended_goes_on_elsewhere(steered, tmp_path):
    """Its storage is reached from the other one."""
    run = begun(steered, tmp_path, "vanished")
    run.until("queued")
    run.installation.run("clusters", "remove", "north")
    run.grid.say("DE", (0, CLEAN))
    run.work_on()
    assert "south" in run.installation.run("explain", "vanished").stdout
    run.finish()
    story = run.story()
    check(story)
    assert [body["cluster"] for body in story.of("attempt-opened")] == ["north", "south"]
    run.installation.run("clusters", "add", "north", "--local", "--cpus", "4", "--zone", "NO", "--pue", "1.1")
    run.installation.wait_ready()


def kill_head(installation: Installation, name: str) -> None:
    """And wait until the server has started another one."""
    file = installation.data / "local-heads" / name / "head.json"
    pid = json.loads(file.read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: file.exists() and json.loads(file.read_text())["pid"] != pid)
    installation.wait_ready()
