"""The suite for real GPUs, on the C stub of NVML: that it runs from end to end, whatever a real sensor will show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fakes.nvml import nvml_library, stubbed_nvml

__all__ = ["nvml_library", "stubbed_nvml"]

SUITE = Path(__file__).parents[1] / "hardware"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_every_test_for_a_real_gpu_passes_on_one_that_does_as_scripted(stubbed_nvml, tmp_path):
    stubbed_nvml.write("count 1", f"origin {time.time() - 10}", "at 0 0 watts 70")
    figures = tmp_path / "figures.json"
    environment = {**os.environ, **stubbed_nvml.environment, "HARDWARE_TESTS": str(figures)}
    del environment["NVML_STUB_LOG"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-k", "not 60-", str(SUITE)]
    done = subprocess.run(command, env=environment, cwd=SUITE.parents[1], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
    assert "7 passed" in done.stdout
    assert "skipped" not in done.stdout
    found = json.loads(figures.read_text(encoding="utf-8"))
    assert found["gpu"] == "NVIDIA H100 STUB"
    assert found["counter period, ms (median, longest)"][0] == pytest.approx(100, abs=5)
    assert found["steady load: counter / integrated power"] == pytest.approx(1, abs=0.01)
