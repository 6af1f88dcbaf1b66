"""kill -9 of what runs a job, with real Ray: the state is right or LOST, and the receipt says what is missing."""

from __future__ import annotations

import json
import os
import signal
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from carbon_sched.clusters import processes
from carbon_sched.domain.time import from_rfc3339
from tests.e2e.test_main_job import gpu_counter_uj, script
from tests.fakes.real_server import eventually, recorded_spans

if TYPE_CHECKING:
    from carbon_sched.client import Client
    from tests.e2e.conftest import Installation

WAITS = """
    import os, pathlib, time
    pathlib.Path({file!r}).write_text(str(os.getpid()))
    time.sleep(600)
"""


def running(installation: Installation, folder: Path, cluster: str) -> tuple[str, int]:
    """A job that runs until it is killed: its id and the pid of its script."""
    file = folder / "pid"
    job = installation.start("--cluster", cluster, str(script(folder, "waits.py", WAITS.format(file=str(file)))))
    pid = int(eventually(lambda: file.exists() and file.read_text()))
    eventually(lambda: installation.json("status", job)["state"] == "running")
    return job, pid


def wrapper_of(pid: int) -> int:
    """Our wrapper among the processes above one."""
    while b"carbon_sched_runtime.run" not in Path(f"/proc/{pid}/cmdline").read_bytes():
        pid = int(processes._stat(pid)[processes._PARENT])
        assert pid > 1
    return pid


def missing(receipt) -> list[str]:
    """What a receipt misses, but for what the first job since boot always does: nobody read the counters before it."""
    return [text for text in receipt["missing"] if "before the machine's first reading since boot" not in text]


def gone(pid: int) -> bool:
    return processes.process(pid) is None


def test_kill_9_of_the_job(installation, tmp_path):
    job, pid = running(installation, tmp_path / "p", "north")
    os.kill(pid, signal.SIGKILL)
    receipt = installation.finished(job)
    assert (receipt["state"], missing(receipt)) == ("failed", [])
    assert installation.json("status", job)["exit_code"] == 137
    assert installation.run("wait", job, check=False).returncode == 137
    assert receipt["energy_kwh"] > 0


@pytest.mark.slow  # an unfinished journal is waited for
@pytest.mark.timeout(300)
def test_kill_9_of_the_wrapper(installation, tmp_path):
    job, pid = running(installation, tmp_path / "p", "north")
    os.kill(wrapper_of(pid), signal.SIGKILL)
    receipt = installation.finished(job)
    assert receipt["state"] == "failed"
    assert any("no final record" in text for text in receipt["missing"])
    assert any("did not finish its energy journal" in text for text in receipt["missing"])
    assert eventually(lambda: gone(pid)), "the kernel ends it with its wrapper"
    assert json.loads(installation.run("audit", "verify", "--json").stdout)["ok"]


@pytest.mark.slow  # another head is started
@pytest.mark.timeout(300)
def test_kill_9_of_the_ray_head(installation, tmp_path):
    job, pid = running(installation, tmp_path / "p", "south")
    head = json.loads((installation.data / "local-heads" / "south" / "head.json").read_text())
    os.kill(head["pid"], signal.SIGKILL)
    receipt = installation.finished(job)
    assert receipt["state"] == "lost"
    assert any("was restarted and forgot its jobs" in text for text in receipt["missing"])
    assert installation.run("wait", job, check=False).returncode == 124
    assert eventually(lambda: gone(pid)), "what the dead head ran is ended before the next one starts"
    installation.wait_ready()
    again = installation.start("--cluster", "south", str(script(tmp_path / "p", "short.py", "print('on')")))
    assert installation.finished(again)["state"] == "succeeded"


@pytest.mark.slow  # another head is started
@pytest.mark.timeout(600)
def test_a_killed_head_loses_no_energy_once_a_job_of_another_head_runs_on_the_machine(installation, tmp_path):
    job, _ = running(installation, tmp_path / "p", "south")
    with installation.client() as client:
        eventually(lambda: owned(client, job))  # a sealed segment; what comes after it nobody has read yet
    head = json.loads((installation.data / "local-heads" / "south" / "head.json").read_text())
    died = datetime.now(timezone.utc)
    os.kill(head["pid"], signal.SIGKILL)
    next_one = installation.start("--cluster", "north", str(script(tmp_path / "p", "short.py", "print('on')")))
    assert installation.finished(next_one)["state"] == "succeeded"
    assert installation.finished(job)["state"] == "lost"
    with installation.client() as client:
        assert max(from_rfc3339(span["end"]) for span in owned(client, job)) > died - timedelta(seconds=2)
    for gpu in (0, 1):
        booked, counted = gpu_counter_uj(installation, gpu)
        assert booked == counted
    installation.wait_ready()


def owned(client: Client, job: str) -> list[dict[str, Any]]:
    """What the ledger holds of a job's energy."""
    return [span for span in recorded_spans(client) if span["owner"] == f"cs-{job}-a1"]


def test_kill_9_of_the_server_adopts_the_heads_that_run(installation, tmp_path):
    job, pid = running(installation, tmp_path / "p", "north")
    folders = [installation.data / "local-heads" / name for name in ("north", "south")]
    heads = [json.loads((folder / "head.json").read_text()) for folder in folders]
    server = installation.json("server", "status")["pid"]
    os.kill(server, signal.SIGKILL)
    assert installation.json("status", job)["state"] == "running"
    assert installation.json("server", "status")["pid"] != server
    installation.wait_ready()
    assert [json.loads((folder / "head.json").read_text()) for folder in folders] == heads
    assert not gone(pid)
    installation.run("stop", job)
    receipt = installation.finished(job)
    assert (receipt["state"], missing(receipt)) == ("stopped", [])
    assert installation.json("status", job)["attempts"][0]["number"] == 1


ODD = r"""
    import sys
    out = sys.stdout.buffer
    for number in range(10_000):
        out.write(b"line %d\n" % number)
    out.write(b"\x00\x01\x1b[31m\xff\xfe\x7f\n" + "\u2028 ☕".encode() + b" and no newline")
"""


def test_a_long_log_with_binary_and_no_newline_arrives_as_it_was_written(installation, tmp_path):
    path = str(script(tmp_path / "p", "odd.py", ODD))
    out = installation.run("submit", "--name", "odd", path).stdout
    assert installation.run("logs", "odd").stdout == out, "the same afterwards as attached"
    lines = out[out.index("line 0\n") :].split("\n")  # behind what Ray itself says
    assert lines[:10_000] == [f"line {number}" for number in range(10_000)]
    assert lines[10_000:] == ["\x00\x01\x1b[31m\ufffd\ufffd\x7f", "\u2028 ☕ and no newline"]
