"""The wrapper in real processes: it runs a job as Ray would, meters it, and survives what happens to either of them."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.nvml import StubbedNvml, nvml_library, stubbed_nvml, uuid
from tests.fakes.powercap import Powercap
from tests.fakes.wrapped import A, B, Workplace, conserved, conserved_span, stop_like_ray

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["nvml_library", "stubbed_nvml"]

BUSY = "end=$(($(date +%s%N)+{ns})); while [ $(date +%s%N) -lt $end ]; do :; done"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    workplace = Workplace(tmp_path)
    yield workplace
    workplace.close()


# It runs the job as Ray would ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entrypoint", "code"),
    [("true", 0), ("exit 3", 3), ("kill -9 $$", 137), ("no-such-program", 127), ("exit 255", 255)],
)
def test_the_exit_code_is_the_jobs(place, entrypoint, code):
    assert place.run(entrypoint)[0] == code
    assert place.record().last("ended").exit_code == code
    assert place.record().last("closed").exit_code == code


def test_output_environment_and_arguments_are_as_without_the_wrapper(place):
    script = place.folder / "job.py"
    script.write_text(
        "import os, sys, json, signal\n"
        "print('out 1', flush=True); print('err 1', file=sys.stderr, flush=True); print('out 2')\n"
        "print(json.dumps(sys.argv[1:])); print(os.getcwd()); print(os.getsid(0) == os.getppid() or os.getsid(0))\n"
        "print(signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGPIPE), signal.pthread_sigmask(0, []))\n"
        "print(json.dumps({k: v for k, v in os.environ.items() if k not in ('_', 'SHLVL')}, sort_keys=True))\n"
    )
    entrypoint = (
        f"{shlex.quote(sys.executable)} job.py 'a b' \"q'q\" '' üñí $((1+1)) \\$HOME | sed s/$(getconf PAGESIZE)/x/"
    )
    wrapped = place.run(entrypoint, LC_ALL="", LANG="", LC_CTYPE="C")
    ours = ("PYTHONPATH", "JOURNAL_DIR", "MACHINE_DIR", "POWERCAP")
    environment = {name: value for name, value in wrapper_environment(place).items() if name not in ("_", "SHLVL")}
    plain = subprocess.run(
        entrypoint,
        shell=True,
        env=environment,
        cwd=place.folder,
        capture_output=True,
        start_new_session=True,
        check=False,
    )

    assert plain.stdout.decode().splitlines()[2:4] == wrapped[1].splitlines()[2:4]
    assert without_session(plain.stdout.decode()) == without_session(wrapped[1])
    assert plain.stderr.decode() == wrapped[2]
    assert plain.returncode == wrapped[0] == 0
    assert all(name in plain.stdout.decode() for name in ours)


def wrapper_environment(place: Workplace) -> dict[str, str]:
    """The environment that `Workplace.run` gave to the wrapper."""
    process = place.start("sleep 60", B, LC_ALL="", LANG="", LC_CTYPE="C")
    place.wait_for("spawned", B)
    entries = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    environment = dict(entry.decode().split("=", 1) for entry in entries if entry)
    return {name: value.replace(B[3:13], A[3:13]) for name, value in environment.items()}


def without_session(output: str) -> list[str]:
    return [line for line in output.splitlines() if not line.isdigit() and line != "True"]


def test_streams_are_inherited_so_that_order_stays(place):
    with (place.folder / "log").open("wb") as log:
        process = subprocess.run(
            [sys.executable, "-m", "carbon_sched_runtime.run", "--", "for i in 1 2 3; do echo o$i; echo e$i >&2; done"],
            env={**os.environ, **wrapper_environment(place)}, stdout=log, stderr=log, check=False,
        )  # fmt: skip

    assert process.returncode == 0
    assert (place.folder / "log").read_text().split() == ["o1", "e1", "o2", "e2", "o3", "e3"]


def test_user_modules_do_not_become_part_of_the_wrapper(place):
    for name in ("json", "queue", "threading", "select", "dataclasses", "fcntl", "shlex", "pynvml", "re", "selectors"):
        (place.folder / f"{name}.py").write_text("raise SystemExit('the user module was imported')\n")

    code, out, error = place.run("echo fine", PYTHONPATH=f"{wrapper_path(place)}:{place.folder}")

    assert (code, out) == (0, "fine\n"), error
    assert place.record().last("fault") is None
    assert place.record().last("closed").segments > 0


def wrapper_path(place: Workplace) -> str:
    return wrapper_environment(place)["PYTHONPATH"]


# The fence and the record ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fence", ["1", "nan", "soon", "", "-inf"])
def test_past_the_fence_nothing_is_run(place, fence):
    code, out, error = place.run("echo ran; touch ran", CARBON_SCHED_START_BY=fence)

    assert (code, out) == (75, "")
    assert "not run" in error
    assert not (place.folder / "ran").exists()
    assert [event.event for event in place.record().events] == ["refused"]
    assert place.record().last("refused").reason.startswith("fence")


def test_before_the_fence_the_job_runs(place):
    assert place.run("echo ran", CARBON_SCHED_START_BY=str(time.time() + 60))[:2] == (0, "ran\n")


def test_an_attempt_that_started_once_is_not_started_again(place):
    assert place.run("echo once")[1] == "once\n"

    code, out, _ = place.run("echo twice")

    assert (code, out) == (75, "")


def test_the_record_tells_the_real_start_and_end(place):
    before = time.time_ns() // 1000
    place.run("sleep 0.5")
    after = time.time_ns() // 1000

    events = {event.event: event for event in place.record().events}
    assert [name for name in events if name != "metering"] == ["started", "spawned", "ended", "closed"]
    assert before < events["started"].time_us < events["ended"].time_us < after
    assert events["ended"].time_us - events["started"].time_us >= 500_000
    assert events["metering"].role == "reader"


def test_a_journal_that_cannot_be_written_does_not_stop_the_job_and_is_said(place):
    code, out, error = place.run("echo ran", CARBON_SCHED_JOURNAL_DIR=str(place.folder / "none"))

    assert (code, out) == (0, "ran\n")
    assert "cannot write" in error


def test_metering_that_cannot_start_does_not_stop_the_job_and_is_said(place):
    (place.folder / "blocked").write_text("")

    code, out, _ = place.run("echo ran", CARBON_SCHED_MACHINE_DIR=str(place.folder / "blocked" / "machine"))

    assert (code, out) == (0, "ran\n")
    assert "NotADirectoryError" in place.record().last("fault").reason
    assert "NotADirectoryError" in place.record().last("closed").reason


def test_what_the_supervisor_starts_beside_the_job_is_not_waited_for(place):
    process = place.start("true", beside="sleep 20 >&- 2>&-")
    process.wait(20)

    assert place.record().last("closed").reason is None


def test_processes_that_outlive_the_entrypoint_are_said(place):
    place.run("sleep 20 >&- 2>&- &")

    assert place.record().last("closed").reason == "1 processes outlive the entrypoint"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
@pytest.mark.parametrize("entrypoint", ["sleep 600", "echo up; sleep 600; echo more"])
def test_after_kill_9_of_the_wrapper_its_job_ends_too(place, entrypoint):
    process = place.start(entrypoint)
    place.wait_for("spawned")
    child = place.record().last("spawned").child_pid

    process.kill()
    process.wait(20)

    until = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert not Path(f"/proc/{child}").exists()
    assert place.record().last("ended") is None


def test_a_single_program_takes_the_shells_place_and_is_what_ends_with_the_wrapper(place):
    process = place.start(f"{sys.executable} -c 'import os, time; print(os.getpid(), flush=True); time.sleep(600)'")
    script = int(process.stdout.readline())
    assert script == place.record().last("spawned").child_pid
    process.kill()
    process.wait(20)
    until = time.monotonic() + 20
    while Path(f"/proc/{script}").exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert not Path(f"/proc/{script}").exists()


@pytest.mark.parametrize(
    ("entrypoint", "code", "out"),
    [
        ("echo 'a\\tb'", 0, "a\tb\n"),
        ("A=1 env", 0, "A=1"),
        ("sh -c 'exit 3'", 3, ""),
        ("no-such-program x", 127, ""),
        ("cd / && pwd", 0, "/\n"),
        ("printf '%s-%s' a 'b c'", 0, "a-b c"),
    ],
)
def test_every_command_does_what_the_shell_makes_of_it(place, entrypoint, code, out):
    ended, said, _ = place.run(entrypoint)
    assert ended == code
    assert out in said


# Stopping ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("linger", ["30", "soon"])
def test_a_stopped_jobs_wrapper_stays_as_long_as_it_is_told_to_once_all_is_written(place, linger):
    process = place.start("sleep 60", CARBON_SCHED_LINGER_S=linger)
    place.wait_for("metering")
    stop_like_ray([process.pid, place.record().last("spawned").child_pid], signal.SIGTERM)
    place.wait_for("closed")
    if linger == "soon":  # which is no time
        assert process.wait(20) == 128 + signal.SIGTERM
    else:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)


def test_a_job_that_ends_by_itself_is_not_lingered_after(place):
    assert place.run("true", CARBON_SCHED_LINGER_S="300")[0] == 0


def test_a_stop_reaches_the_job_once_and_the_journal_is_closed(place):
    trap = "trap 'echo got; sleep 0.3; exit 9' TERM; echo up; while :; do sleep 0.05; done"
    process = place.start(trap)
    assert process.stdout.readline() == b"up\n"
    place.wait_for("metering")
    child = place.record().last("spawned").child_pid

    stop_like_ray([process.pid, child], signal.SIGTERM)
    out, _ = process.communicate(timeout=20)

    assert (process.returncode, out) == (9, b"got\n")
    events = [event.event for event in place.record().events]
    assert events[-3:] == ["stopping", "ended", "closed"]
    assert place.total_uj("cpu:model") > 0


def test_a_job_that_dies_of_the_signal_is_told_as_a_shell_tells_it(place):
    process = place.start("exec sleep 60")
    place.wait_for("metering")
    stop_like_ray([process.pid, place.record().last("spawned").child_pid], signal.SIGTERM)

    assert process.wait(20) == 143
    assert place.record().last("ended").signal == signal.SIGTERM


SAVES = """
from carbon_sched_runtime import job
import pathlib, time
folder = job.checkpoint_dir()
(folder / "state").write_text("1")
print("up", flush=True)
while not job.stop_asked():
    time.sleep(0.02)
(folder / "draft").write_text("2")
(folder / "draft").replace(folder / "state")
"""


@pytest.mark.parametrize(("full", "code"), [(False, 0), (True, 1)])
def test_a_suspended_jobs_record_tells_when_it_last_saved_its_state_also_on_a_full_storage(place, full, code):
    folder = place.folder / "runs" / "cs-j"
    folder.mkdir(parents=True)
    if full:
        (folder / "draft").symlink_to("/dev/full")
    (place.folder / "job.py").write_text(SAVES)
    process = place.start(
        f"{shlex.quote(sys.executable)} job.py", CARBON_SCHED_RUN_NAME="cs-j", CARBON_SCHED_STORAGE=str(folder.parent)
    )
    assert process.stdout.readline() == b"up\n"
    place.wait_for("metering")
    stop_like_ray([process.pid, place.record().last("spawned").child_pid], signal.SIGTERM)
    _, error = process.communicate(timeout=20)

    assert process.returncode == code, "it listens: the code is its own word"
    assert place.record().last("listening")
    assert (b"No space left on device" in error) == full
    told, stopping = place.record().last("saved"), place.record().last("stopping")
    assert (told.time_us < stopping.time_us) == full, "the newest good state is that of before the stop"


@pytest.mark.parametrize(
    ("code", "runs", "told"),
    [
        (1, "cs-j", 143),  # ray.get raises
        (15, "cs-j", 143),  # ray.init's handler exits
        (134, "cs-j", 143),  # its native one aborts
        (9, "cs-j", 9),
        (1, "", 1),
    ],
)
def test_a_ray_driver_that_knows_nothing_of_stops_is_told_to_have_died_of_one(place, code, runs, told):
    suspendable = {"CARBON_SCHED_RUN_NAME": runs} if runs else {}
    process = place.start(f"trap 'exit {code}' TERM; echo up; while :; do sleep 0.05; done", **suspendable)
    assert process.stdout.readline() == b"up\n"
    place.wait_for("metering")
    stop_like_ray([process.pid, place.record().last("spawned").child_pid], signal.SIGTERM)
    _, error = process.communicate(timeout=20)

    ended = place.record().last("ended")
    assert (process.returncode, ended.exit_code, ended.signal) == (told, told, signal.SIGTERM if told == 143 else None)
    assert (f"exit code {code}, by the stop".encode() in error) == (told == 143)


# Metering on the C stub --------------------------------------------------------------------------------------------


@pytest.fixture
def gpus(place: Workplace, stubbed_nvml: StubbedNvml) -> StubbedNvml:
    place.environment.update(stubbed_nvml.environment)
    return stubbed_nvml


def look_twice(gpus: StubbedNvml) -> None:
    """Until whoever meters has looked at the first GPU twice more."""
    before = len(gpus.readings_mj(0))
    wait_until(lambda: len(gpus.readings_mj(0)) >= before + 2)


def test_the_rows_are_the_counter_difference_exactly(place, gpus):
    now = time.time()
    gpus.write("count 2", f"origin {now - 1000}", "at 0 0 watts 310", "at 0 1 watts 73", f"at {now + 1} 0 watts 650")

    place.run("sleep 1.6", CARBON_SCHED_GPUS="2")

    for index in (0, 1):
        readings = gpus.readings_mj(index)
        # The first reading only asks whether there is a counter.
        assert place.total_uj(uuid(index), A) == (readings[-1] - readings[1]) * 1000 > 0
        assert place.total_uj(uuid(index)) == place.total_uj(uuid(index), A)
    (closed,) = [event for event in place.record().events if event.event == "closed"]
    assert closed.reason is None


def test_a_gpu_belongs_to_the_attempt_whose_process_is_on_it(place, gpus):
    now = time.time()
    script = ["count 2", f"origin {now - 1000}", "at 0 * watts 300"]
    gpus.write(*script)
    first, second = place.start_held(A, CARBON_SCHED_GPUS="1"), place.start_held(B, CARBON_SCHED_GPUS="1")
    pids = [int(process.stdout.readline()) for process in (first, second)]
    gpus.write(*script, f"at 0 0 pids {pids[1]}", f"at 0 1 pids {pids[0]}")
    look_twice(gpus)
    for attempt, process in ((A, first), (B, second)):
        place.release(attempt)
        process.wait(20)

    rows = [row for segment in place.segments() for row in segment.rows]
    # The scripted driver goes on listing both after their end: what it then says is nobody's.
    by_process = [row for row in rows if row.rule == "gpu-pids" and row.owner not in ("idle", "unattributed")]
    users = {(row.device, row.owner) for row in by_process}
    assert users == {(uuid(0), B), (uuid(1), A)}
    assert place.total_uj(uuid(0)) == (gpus.readings_mj(0)[-1] - gpus.readings_mj(0)[1]) * 1000


def test_a_gpu_in_mig_mode_is_split_by_slices(place, gpus):
    script = ["count 1", f"origin {time.time() - 1000}", "at 0 0 watts 350", "mig 0 3", "mig 0 2"]
    gpus.write(*script)
    process = place.start_held(A, CUDA_VISIBLE_DEVICES="MIG-00000000-0000-0000-0000-000000000000")
    pid = int(process.stdout.readline())
    gpus.write(*script, f"at 0 0.1 pids {pid}")
    look_twice(gpus)
    place.release()
    process.wait(20)

    rows = [row for segment in place.segments() for row in segment.rows if row.device == uuid(0)]
    assert {row.rule for row in rows} == {"mig-slices"}
    assert conserved(place, uuid(0), gpus.readings_mj(0))
    whole, part = Counter[int](), Counter[int]()
    for row in rows:
        whole[row.start_us] += row.energy_uj
        part[row.start_us] += row.energy_uj * (row.owner == A)
    most = max(part[start] / whole[start] for start in whole if whole[start])
    assert most == pytest.approx(5 / 7, rel=1e-4), "one slice named and one used, since it was seen there"


def test_rapl_of_a_server_is_split_and_adds_up(place):
    tree = Powercap(place.folder / "powercap")
    tree.zone("intel-rapl:0", "package-0", 262_143_000_000)
    tree.zone("intel-rapl:0:0", "dram", 5_000_000)
    process = place.start_held()
    tree.set("intel-rapl:0", 40_000_000)  # it goes round
    tree.set("intel-rapl:0:0", 9_000_000)
    place.release()
    process.wait(20)

    assert place.total_uj("cpu:package-0") == 262_143_328_850 - 262_143_000_000 + 40_000_000
    assert place.total_uj("dram:package-0") == 4_000_000
    assert {d for segment in place.segments() for d in segment.devices} == {"cpu:package-0", "dram:package-0"}


def test_without_any_counter_figures_are_marked_estimated(place):
    place.run(BUSY.format(ns=1_200_000_000))

    assert {row.source for segment in place.segments() for row in segment.rows} == {"estimated"}
    assert "estimated" in place.record().last("metering").reason
    assert place.total_uj("cpu:model", A) > 0


# Several attempts --------------------------------------------------------------------------------


def test_many_attempts_at_once_add_up_to_one_counter_difference(place, gpus):
    gpus.write("count 1", f"origin {time.time() - 1000}", "at 0 0 watts 300")
    attempts = [f"{A[:-1]}{n + 2}" for n in range(6)]
    for attempt in attempts:
        place.start_held(attempt, CARBON_SCHED_GPUS="0.1")
    for attempt in attempts:
        place.release(attempt)
    assert [process.wait(30) for process in place.processes] == [0] * len(attempts)

    readings = gpus.readings_mj(0)
    devices = {row.device for segment in place.segments() for row in segment.rows}
    assert devices == {uuid(0), "cpu:model"}
    assert conserved(place, uuid(0), readings)
    assert conserved_span(place, "cpu:model")
    for attempt in attempts:
        events = [event.event for event in place.record(attempt).events]
        assert events[-1] == "closed", attempt
        assert place.record(attempt).last("closed").reason is None
        assert place.total_uj("cpu:model", attempt) > 0


@pytest.mark.parametrize(
    "abuse",
    [
        "rm -rf journal/*.seg",
        "for f in journal/*.seg; do rm $f; ln -s /etc/passwd $f; done",
        "for f in journal/*.seg; do rm $f; mkdir $f; done",
        "for f in journal/*.seg; do rm $f; mkfifo $f; done",
        "for f in journal/*.seg; do truncate -s 1G $f; done",
        "for f in journal/*.seg; do echo x >> $f; done",
    ],
)
def test_a_job_that_abuses_its_journal_changes_no_figure(place, abuse):
    os.mkfifo(place.folder / "go")
    process = place.start(f"read go <go; {abuse}; touch done; exec sleep 60", A)
    place.wait_for("metering")
    place.run("true", B)  # its end makes the reader seal a segment
    wait_until(lambda: list(place.journal.glob("*.seg")))
    before = {path.name: path.read_bytes() for path in place.journal.glob("*.seg")}
    (place.folder / "go").write_text("go\n")
    wait_until((place.folder / "done").exists)
    os.kill(place.record(A).last("spawned").child_pid, signal.SIGTERM)
    assert process.wait(20) == 143

    assert re.search("altered or removed, and put back: [1-9]", place.record(A).last("closed").reason)
    assert {name: (place.journal / name).read_bytes() for name in before} == before


def test_a_flood_of_files_named_like_ours_harms_neither_the_job_nor_its_figures(place):
    name = "carbon-sched-0123456789ab-35a06fda-00c0ffee-{:06d}.seg"
    place.journal.mkdir()
    for number in range(2000):
        (place.journal / name.format(number)).write_bytes(b"flood")

    assert place.run("sleep 0.3")[0] == 0
    assert place.record().last("closed").segments == 1
    assert place.record().last("closed").reason is None


def test_a_record_that_the_job_rewrites_is_read_as_far_as_it_is_ours(place):
    record = f"journal/carbon-sched-{A}.record"
    place.run(f'echo rubbish >> {record}; echo \'{{"v":1,"event":"ended","attempt":"cs-x-a1","t":1}}\' >> {record}')

    assert place.record().last("ended").exit_code == 0
    assert len(place.record().problems) == 2


def wait_until(condition, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
