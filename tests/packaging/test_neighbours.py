"""Wheel and sdist, with all that they need from the index, on the oldest and newest Python there is on this machine.

Beside them the index's own packages `scheduler` and `policies`, whose names our folders have, and a job's folder with
modules of these names too. It takes what it installs from the index that pip is configured with, hence slow.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.pythons import pythons
from tests.packaging.test_distributions import build

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
LEDGER = ROOT / "examples" / "audit" / "ledger.jsonl"
PRESETS = sorted(path.stem for path in (ROOT / "policies").glob("*.yaml"))
ASK = """
import json, sys, carbon_sched, carbon_sched_runtime, importlib.metadata as m
from carbon_sched.policy.presets import preset_names
names = [m.version(name) for name in ("scheduler", "policies")]
print(json.dumps([carbon_sched.__file__, sys.version_info[:2], sorted(preset_names()), names]))
"""


def run(*command: object, cwd: Path) -> str:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    clone = tmp_path_factory.mktemp("source") / "a path with späces"
    for name in ("scheduler", "policies", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", ".gitignore"):
        of, ignored = ROOT / name, shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(of, clone / name, ignore=ignored) if of.is_dir() else shutil.copy(of, clone / name)
    return clone


@pytest.fixture
def job_folder(tmp_path) -> Path:
    folder = tmp_path / "a job"
    folder.mkdir()
    for name in ("scheduler.py", "policies.py"):
        (folder / name).write_text("raise SystemExit('the module of the job was imported')\n")
    return folder


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_installs_beside_packages_and_modules_of_the_same_names(source, tmp_path, job_folder, kind, which):
    versions = sorted(pythons())
    if not versions or (which == "newest" and len(versions) < 2):
        pytest.skip("no other Python that we support is on this machine")
    version = versions[0 if which == "oldest" else -1]
    built = build(source, tmp_path / "dist", kind)
    environment = tmp_path / "an environment"
    run(pythons()[version], "-m", "venv", environment, cwd=tmp_path)
    python = environment / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run(*pip, built, "scheduler", "policies", cwd=tmp_path)

    file, told, presets, neighbours = json.loads(run(python, "-c", ASK, cwd=job_folder))
    assert Path(file).is_relative_to(environment)
    assert (tuple(told), presets) == (version, PRESETS)
    assert all(neighbours)
    program = python.with_name("carbon-sched")
    assert run(program, "--version", cwd=job_folder).startswith("carbon-sched ")
    for command in ("submit", "doctor", "audit", "clusters"):
        assert f"carbon-sched {command}" in run(program, command, "--help", cwd=job_folder)
    assert sys.executable not in (program.read_text(encoding="utf-8"))
    totals = run(program, "audit", "statement", "--export", LEDGER, "--format", "json", cwd=job_folder)
    assert json.loads(totals)["totals"]["co2e_ug"] == 354_000_000, "an auditor has the core install and the ledger"
