"""What a job that may be suspended asks about itself."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys

import pytest

from carbon_sched import job
from tests.fakes.wrapped import RUNTIME


def test_name_and_place_are_those_that_the_server_gave(monkeypatch, tmp_path):
    monkeypatch.setenv("CARBON_SCHED_RUN_NAME", "cs-abc")
    monkeypatch.setenv("CARBON_SCHED_STORAGE", str(tmp_path / "runs"))
    monkeypatch.setenv("CARBON_SCHED_RESUMED", "1")
    assert job.checkpoint_dir() == tmp_path / "runs" / "cs-abc"
    assert job.checkpoint_dir().is_dir()
    assert (job.run_name(), job.storage(), job.is_resumed()) == ("cs-abc", str(tmp_path / "runs"), True)


def test_outside_of_a_job_a_folder_of_the_user_is_used_and_nothing_is_resumed(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert job.checkpoint_dir() == tmp_path / f"carbon-sched-checkpoints-{os.getuid()}" / "local"
    assert stat.S_IMODE(job.checkpoint_dir().stat().st_mode) == 0o700
    assert not job.is_resumed()


def test_a_storage_that_is_no_folder_is_left_to_what_can_write_there(monkeypatch):
    monkeypatch.setenv("CARBON_SCHED_STORAGE", "s3://bucket/runs")
    assert job.storage() == "s3://bucket/runs"
    with pytest.raises(ValueError, match="s3://bucket/runs is not a folder"):
        job.checkpoint_dir()


@pytest.mark.parametrize(
    "meanwhile", ["", "signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))  # as ray.init does"]
)
def test_a_stop_is_a_word_to_the_job_from_the_first_question_on_whatever_a_library_does(meanwhile):
    script = f"""
import signal, sys
from carbon_sched_runtime import job
assert not job.stop_asked()
{meanwhile}
assert not job.stop_asked()
print("ready", flush=True)
sys.stdin.read()
print("asked" if job.stop_asked() else "not asked")
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(RUNTIME)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, b"asked\n")
