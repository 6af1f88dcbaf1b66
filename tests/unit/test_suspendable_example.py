"""The example of a job that may be suspended: stopped and resumed, it ends with the weights of an undisturbed run."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.wrapped import RUNTIME

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "suspendable" / "train.py"


@pytest.fixture
def begin(tmp_path):
    def start(name, *more, resumed="0"):
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), "--steps", "60", "--save-every", "20", *more],
            env={"PYTHONPATH": str(RUNTIME), "CARBON_SCHED_RUN_NAME": name, "CARBON_SCHED_STORAGE": str(tmp_path),
                 "CARBON_SCHED_RESUMED": resumed},
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    return start


@pytest.mark.parametrize(("number", "said"), [(signal.SIGTERM, "stopped at step"), (signal.SIGKILL, "")])
def test_it_goes_on_where_it_was(begin, number, said):
    whole, _ = begin("whole").communicate(timeout=60)
    first = begin("run", "--pause", "0.1")
    assert first.stdout.readline() == "step 20\n"
    first.send_signal(number)
    out, _ = first.communicate(timeout=60)
    assert said in out
    assert first.returncode == (0 if said else -signal.SIGKILL)
    again, _ = begin("run", resumed="1").communicate(timeout=60)
    step = int(again.splitlines()[0].removeprefix("resumed at step "))
    assert step % 20 == 0 or said
    assert 20 <= step < 60
    assert again.splitlines()[-1] == whole.splitlines()[-1]
    assert whole.splitlines()[-1].startswith("weights [-0.")
