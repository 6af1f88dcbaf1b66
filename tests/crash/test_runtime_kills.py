"""SIGKILL for jobs, wrappers and readers: no joule of a counter is lost, and what is uncertain says so (B5 row 12)."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.fakes.nvml import StubbedNvml, nvml_library, stubbed_nvml, uuid
from tests.fakes.real_server import eventually
from tests.fakes.wrapped import A, B, Workplace, conserved, stop_like_ray

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["nvml_library", "stubbed_nvml"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    workplace = Workplace(tmp_path)
    yield workplace
    workplace.close()


@pytest.fixture
def gpus(place: Workplace, stubbed_nvml: StubbedNvml) -> StubbedNvml:
    place.environment.update(stubbed_nvml.environment)
    return stubbed_nvml


def roles(place: Workplace, attempt: str) -> list[str | None]:
    """What an attempt's wrapper was on its machine, one after another."""
    return [event.role for event in place.record(attempt).events if event.event == "metering"]


def test_killed_after_the_grace_at_most_a_second_is_missing(place):
    process = place.start("trap '' TERM; while :; do sleep 0.05; done")
    place.wait_for("metering")
    child = place.record().last("spawned").child_pid
    stopped_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    stop_like_ray([process.pid, child], signal.SIGTERM)
    eventually(lambda: place.segments() and place.segments()[-1].end_mono_ns > stopped_ns)
    killed_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    stop_like_ray([process.pid, child], signal.SIGKILL)
    process.wait(20)

    assert killed_ns - place.segments()[-1].end_mono_ns < 1_500_000_000


def test_when_the_reader_is_killed_another_goes_on_and_no_joule_is_lost(place, gpus):
    gpus.write("count 1", f"origin {time.time() - 1000}", "at 0 0 watts 300")
    first = place.start("sleep 30", A, CARBON_SCHED_GPUS="0.5")
    place.wait_for("metering", A)
    second = place.start_held(B, CARBON_SCHED_GPUS="0.5")
    looked = len(gpus.readings_mj(0))
    eventually(lambda: len(gpus.readings_mj(0)) >= looked + 2)

    killed_s = time.monotonic()
    os.killpg(first.pid, signal.SIGKILL)
    eventually(lambda: roles(place, B) == ["follower", "reader"])
    taken_over_s = time.monotonic() - killed_s
    place.release(B)
    assert second.wait(20) == 0

    assert conserved(place, uuid(0), gpus.readings_mj(0))
    uncertain = [r for s in place.segments() for r in s.rows if "uncertain-owner" in r.flags]
    assert uncertain
    assert {row.error_ppm for row in uncertain} == {1_000_000}
    assert max(row.end_us for row in uncertain) - min(row.start_us for row in uncertain) <= (taken_over_s + 1.5) * 1e6
    assert place.total_uj(uuid(0), A) > 0


def test_what_a_killed_machine_did_not_seal_is_booked_by_the_next_job(place, gpus):
    gpus.write("count 1", f"origin {time.time() - 1000}", "at 0 0 watts 300")
    first = place.start("sleep 30", A, CARBON_SCHED_GPUS="1")
    place.wait_for("metering", A)
    time.sleep(1.5)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait(20)
    assert place.segments() == []

    place.run("sleep 0.2", B)

    assert conserved(place, uuid(0), gpus.readings_mj(0))
    assert place.total_uj(uuid(0), A) > 250_000_000


def test_a_reader_that_hangs_does_not_hold_up_the_end_of_other_jobs(place):
    reader = place.start("exec sleep 60", A)
    place.wait_for("metering", A)
    os.kill(reader.pid, signal.SIGSTOP)
    try:
        code, _, _ = place.run("true", B)
    finally:
        os.kill(reader.pid, signal.SIGCONT)

    assert code == 0
    assert "did not answer" in place.record(B).last("fault").reason
    assert "did not answer" in place.record(B).last("closed").reason
