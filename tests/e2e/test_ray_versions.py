"""Older Rays in environments of their own, asked what tests/contract/test_ray_client.py asks of the present one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
# They have wheels for this package's oldest Pythons only.
NEWEST_PYTHON = {"2.9.3": (3, 11), "2.40.0": (3, 12)}


def environment(version: str, folder: Path) -> Path:
    """A virtual environment with this Ray; skips where it cannot be had."""
    if sys.version_info[:2] > NEWEST_PYTHON[version]:
        pytest.skip(f"Ray {version} has no wheel for Python {sys.version_info[0]}.{sys.version_info[1]}")
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    # They import pkg_resources, which newer setuptools no longer has.
    wanted = [f"ray[default]=={version}", "setuptools<81"]
    installed = subprocess.run(
        [python, "-m", "pip", "install", "-q", *wanted], capture_output=True, text=True, check=False
    )
    if installed.returncode:
        pytest.skip(f"Ray {version} cannot be installed here: {installed.stderr.strip().splitlines()[-1:]}")
    return python


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", sorted(NEWEST_PYTHON))
def test_keeps_the_contract(version: str, tmp_path: Path):
    python = environment(version, tmp_path / "environment")
    suite = "tests/contract/test_ray_client.py"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "ray", "-p", "no:cacheprovider", suite]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "TEST_RAY_PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
