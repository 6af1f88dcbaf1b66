"""The Python interpreters that this machine offers, for what must be the same under each of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OLDEST = tuple(
    map(int, re.search(r'requires-python = ">=(\d+)\.(\d+)"', (ROOT / "pyproject.toml").read_text()).groups())
)
NEWEST = 20


@lru_cache
def pythons() -> dict[tuple[int, int], str]:
    """Interpreters that this machine offers, from the oldest that we support; a shim may be there and lead nowhere."""
    found = {}
    for minor in range(OLDEST[1], NEWEST):
        for program in [shutil.which(f"python3.{minor}"), *sorted(map(str, shims(minor)))]:
            if program and works(program, minor):
                found[3, minor] = program
                break
    return found


def shims(minor: int) -> list[Path]:
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    return list(root.glob(f"versions/3.{minor}.*/bin/python"))


def works(program: str, minor: int) -> bool:
    ask = [program, "-c", "import sys, venv, ensurepip; print(sys.version_info[1], sys.version_info[3])"]
    done = subprocess.run(ask, capture_output=True, text=True, check=False)
    return done.stdout.split() == [str(minor), "final"]
