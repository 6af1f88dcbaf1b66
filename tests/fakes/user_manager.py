"""A real user manager of systemd, apart from one that the machine itself may run: own runtime folder and cgroups."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.real_server import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

CGROUPS = Path("/sys/fs/cgroup")
PROGRAMS = (Path("/usr/lib/systemd/systemd"), Path("/lib/systemd/systemd"))
# It wants to see that the machine was booted with systemd, and takes the cgroup that it finds itself in for its own.
START = """
for group; do mkdir -p "$group" && echo $$ > "$group/cgroup.procs" || exit 1; done
exec unshare --mount --cgroup sh -c 'mount -t tmpfs none /run && mkdir -p /run/systemd/system && exec "$0" --user' {}
"""


def program() -> Path:
    """Where systemd is; skips the test where no manager can be started."""
    found = next((path for path in PROGRAMS if path.exists()), None)
    if found is None or not shutil.which("systemctl") or not shutil.which("unshare"):
        pytest.skip("systemd is not installed")
    if os.geteuid() != 0:
        pytest.skip("only root can start a user manager of its own")
    return found


@contextmanager
def user_manager(folder: Path) -> Iterator[dict[str, str]]:
    """A manager for as long as this is open; yields what the environment of its user must hold."""
    environment = {"XDG_RUNTIME_DIR": str(folder / "runtime"), "XDG_CONFIG_HOME": str(folder / "config")}
    for path in environment.values():
        Path(path).mkdir(mode=0o700)
    hierarchies = [CGROUPS / name for name in ("systemd", "unified", ".") if (CGROUPS / name / "cgroup.procs").exists()]
    groups = [hierarchy / f"carbon-sched-tests-{os.getpid()}" for hierarchy in hierarchies]
    command = ["sh", "-c", START.format(program()), "sh", *map(str, groups)]
    with (folder / "manager.log").open("wb") as log:
        manager = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
    try:
        if not groups or not _answers(manager, environment):
            pytest.skip(f"no user manager starts here: {(folder / 'manager.log').read_text()[-300:] or 'no cgroups'}")
        yield environment
    finally:
        manager.send_signal(signal.SIGTERM)  # with all that it runs
        manager.wait(30)
        for group in groups:
            _remove(group)


def _answers(manager: subprocess.Popen[bytes], environment: dict[str, str]) -> bool:
    def asked() -> bool:
        command = ["systemctl", "--user", "show", "--property=Version"]
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=False)
        return done.returncode == 0

    eventually(lambda: asked() or manager.poll() is not None)
    return manager.poll() is None


def _remove(group: Path) -> None:
    """A cgroup with those below it, which are empty once the manager is gone."""
    if group.exists():
        for path in sorted(group.rglob("*"), reverse=True):
            if path.is_dir():
                path.rmdir()
        group.rmdir()
