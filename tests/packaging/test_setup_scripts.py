"""The scripts behind `make`: which Python they take, what they say when there is none, and what is pinned."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.fakes.kubernetes import KUBERNETES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


@pytest.fixture
def checkout(tmp_path) -> Path:
    folder = tmp_path / "a path with spaces"
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def programs(tmp_path) -> Path:
    """A PATH of our own making: the few programs the scripts need, and those that a test adds."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("sh", "dirname", "rm", "touch", "ls"):
        (folder / name).symlink_to(shutil.which(name))
    return folder


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def run(command: list[str], cwd: Path, path: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, cwd=cwd, env={"PATH": str(path), **environment}, capture_output=True, text=True, check=False
    )


def test_without_a_fitting_python_the_setup_says_what_to_do(checkout, programs):
    program(programs, "python3", "exit 1")
    done = run([".ci/setup"], checkout, programs)
    assert done.returncode == 1
    assert "no Python >= 3.10" in done.stderr
    assert "PYTHON=/path/to/python3" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_named_python_that_does_not_fit_is_refused(checkout, programs):
    program(programs, "old", "exit 1")
    done = run([".ci/setup"], checkout, programs, PYTHON="old")
    assert done.returncode == 1
    assert "PYTHON=old is not a Python >= 3.10" in done.stderr


def test_make_installs_once_and_again_only_when_the_pins_change(checkout, programs):
    (programs / "make").symlink_to(shutil.which("make"))
    # Stands in for a Python: makes an environment whose Python only notes what it was asked.
    program(
        programs,
        "python3",
        'if [ "$2" = venv ]; then "$MKDIR" -p .venv/bin && "$CP" "$0" .venv/bin/python; else echo "$0 $*" >>asked; fi',
    )
    tools = {"MKDIR": shutil.which("mkdir"), "CP": shutil.which("cp")}
    installs = []
    for changed in (None, None, "constraints.txt", None, "pyproject.toml"):
        if changed:
            outdate(checkout, changed)
        done = run(["make", "setup"], checkout, programs, **tools)
        assert done.returncode == 0, done.stderr
        installs.append((checkout / "asked").read_text().count("pip install"))
    assert installs == [1, 1, 2, 2, 3]
    assert ".venv/bin/python -m pip install" in (checkout / "asked").read_text()


def outdate(checkout: Path, name: str) -> None:
    """Make this one file newer than the last set-up, without waiting for the clock."""
    now = (checkout / ".venv" / ".ready").stat().st_mtime
    for file in (checkout / "pyproject.toml", checkout / "constraints.txt", checkout / ".ci" / "setup"):
        os.utime(file, (now - 100, now - 100))
    os.utime(checkout / ".venv" / ".ready", (now - 50, now - 50))
    os.utime(checkout / name, (now - 10, now - 10))


def test_provision_without_root_says_what_is_missing_and_goes_on(checkout, programs):
    program(programs, "id", "echo 1000")
    done = run([".ci/provision", "cc", "chromium", "redis", "helm"], checkout, programs)
    assert done.returncode == 0
    assert "missing: cc chromium redis helm" in done.stdout
    assert "skipped" in done.stdout


def test_provision_installs_only_what_is_missing(checkout, programs):
    program(programs, "id", "echo 0")
    program(programs, "cc", "exit 0")
    program(programs, "apt-get", 'echo "$*" >>asked')
    done = run([".ci/provision", "cc", "redis"], checkout, programs)
    assert done.returncode == 0
    assert "cc is there" in done.stdout
    asked = (checkout / "asked").read_text().splitlines()
    assert asked[0].startswith("update")
    assert asked[1].endswith("redis-server")
    assert len(asked) == 2


def test_the_api_server_the_schemas_and_the_fakes_are_of_one_version():
    version = re.search(r"^KUBERNETES_VERSION=(\S+)", (ROOT / ".ci" / "provision").read_text(), re.MULTILINE)[1]
    modules = (ROOT / ".ci" / "kube-apiserver" / "go.mod").read_text()
    assert f"k8s.io/kubernetes {version}\n" in modules
    assert f"k8s.io/kubernetes@{version}" == KUBERNETES


def test_provision_knows_its_names(checkout, programs):
    done = run([".ci/provision", "posgres"], checkout, programs)
    assert done.returncode == 2
    assert "unknown name 'posgres'" in done.stderr


def pins(python: str) -> dict[str, str]:
    found = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        requirement = Requirement(line)
        environment = {"python_version": python, "python_full_version": f"{python}.5"}
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert requirement.name not in found, f"{requirement.name} is pinned twice for {python}"
            found[requirement.name] = str(requirement.specifier).removeprefix("==")
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_every_direct_dependency_has_one_pin_that_its_range_allows(python):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [
        lines for extra, lines in project["optional-dependencies"].items() if extra != "techniques"
    ]  # a GPU's own
    wanted = [Requirement(line) for line in sum(extras, project["dependencies"])]
    pinned = pins(python)
    environment = {"python_version": python, "python_full_version": f"{python}.5"}
    for requirement in wanted:
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name == "carbon-sched" or (requirement.marker and not requirement.marker.evaluate(environment)):
            continue
        assert requirement.specifier.contains(pinned[name]), f"{name} {pinned[name]} on {python}"


def test_the_pins_name_no_address():
    text = (ROOT / "constraints.txt").read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-", text, re.MULTILINE), "an option, such as an index"
    assert all(re.fullmatch(r"[a-z0-9-]+==[^ @]+( ; python_version .*)?", x) for x in text.splitlines() if x[0] != "#")
