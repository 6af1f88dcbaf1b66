"""Windows inside a real job under the real wrapper, with only the package that travels."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import carbon_sched_runtime
from carbon_sched_runtime.window_file import parse_windows, windows_name
from tests.fakes.nvml import nvml_library, stubbed_nvml, uuid
from tests.fakes.wrapped import A, Workplace

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["nvml_library", "stubbed_nvml"]

JOB = """
import sys, time
from carbon_sched_runtime import windows
assert not any(name.split(".")[0] == "carbon_sched" for name in sys.modules)
with windows.window("all", intensity=100, pue=1.2) as w:
    for number in range(3):
        with windows.window(f"step-{number}", samples=10):
            time.sleep(0.4)
print(w.result)
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    workplace = Workplace(tmp_path)
    yield workplace
    workplace.close()


def test_a_jobs_windows_agree_with_its_segments(place, stubbed_nvml):
    stubbed_nvml.write("count 1", f"origin {int(time.time())}", f"at {int(time.time())} 0 watts 400")
    place.environment.update(stubbed_nvml.environment)
    travels = place.folder / "travels"
    travels.mkdir()
    (travels / "carbon_sched_runtime").symlink_to(Path(carbon_sched_runtime.__file__).parent)
    (place.folder / "job.py").write_text(JOB)
    code, out, error = place.run(
        f"{shlex.quote(sys.executable)} -S job.py", PYTHONPATH=f"{travels}:{pynvml_alone(place.folder)}"
    )

    assert code == 0, error
    assert "gCO2e (given)" in out
    *steps, around = parse_windows((place.journal / windows_name(A)).read_bytes(), A).windows
    assert [step.name for step in steps] == ["step-0", "step-1", "step-2"]
    assert {step.parent for step in steps} == {around.id}
    board = [next(part for part in window.parts if part.device == uuid(0)) for window in (*steps, around)]
    true_uj = 400 * (around.end_mono_ns - around.start_mono_ns) // 1000
    assert abs(board[-1].energy_uj - true_uj) <= board[-1].error_uj
    assert sum(part.energy_uj for part in board[:-1]) <= board[-1].energy_uj
    segments = place.segments()
    assert segments[0].start_mono_ns <= around.end_mono_ns <= segments[-1].end_mono_ns
    assert board[-1].energy_uj <= place.total_uj(uuid(0))


def pynvml_alone(folder: Path) -> Path:
    """A folder that holds pynvml and nothing else of the environment."""
    import pynvml

    alone = folder / "alone"
    alone.mkdir()
    (alone / "pynvml.py").symlink_to(pynvml.__file__)
    return alone
