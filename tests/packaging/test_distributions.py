"""What users install: built for real, installed into fresh environments, asked from unfriendly places."""

from __future__ import annotations

import email.parser
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LENT = sysconfig.get_paths()["purelib"]
PRESETS = sorted(path.stem for path in (ROOT / "policies").glob("*.yaml"))
ASK = """
import json, carbon_sched, carbon_sched.policy.presets as presets
print(json.dumps([carbon_sched.__file__, str(presets.presets_folder()), list(presets.preset_names())]))
"""
IMPORT_RUNTIME = """
import importlib, pkgutil, carbon_sched_runtime
for module in pkgutil.iter_modules(carbon_sched_runtime.__path__):
    importlib.import_module(f"carbon_sched_runtime.{module.name}")
"""


def run(*command: object, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(source: Path, out: Path, kind: str) -> Path:
    run(sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", out, source, cwd=source)
    (built,) = out.iterdir()
    return built


def install(what: list[object], folder: Path) -> Path:
    """Install into a fresh environment, without dependencies: the tests' own environment lends them, hatchling too."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=ROOT)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    run(*pip, *what, cwd=ROOT, PIP_DISABLE_PIP_VERSION_CHECK="1", PYTHONPATH=LENT)
    return python


def ask(python: Path, cwd: Path) -> tuple[Path, Path, list[str]]:
    """Import path, presets folder and preset names as this environment sees them."""
    package, presets, names = json.loads(run(python, "-c", ASK, cwd=cwd, PYTHONPATH=LENT))
    return Path(package), Path(presets), names


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """What a clean clone holds, under a path with spaces and letters beyond ASCII."""
    clone = tmp_path_factory.mktemp("packaging") / "a path with späces"
    names = ["scheduler", "policies", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", ".gitignore"]
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in names:
        of = ROOT / name
        shutil.copytree(of, clone / name, ignore=ignored) if of.is_dir() else shutil.copy(of, clone / name)
    return clone


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    return build(source, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def sdist(source, tmp_path_factory) -> Path:
    return build(source, tmp_path_factory.mktemp("sdist"), "sdist")


@pytest.fixture
def job_folder(tmp_path) -> Path:
    """A training job's folder, whose own modules have the names that ours must not have."""
    for name in ("scheduler.py", "policies.py", "policy.py"):
        (tmp_path / name).write_text("raise SystemExit('the module of the job was imported')\n")
    return tmp_path


def test_a_wheel_brings_its_presets_and_ignores_a_jobs_own_modules(wheel, tmp_path_factory, job_folder):
    folder = tmp_path_factory.mktemp("from wheel") / "an environment"
    package, presets, names = ask(install([wheel], folder), job_folder)
    assert names == PRESETS
    assert presets == package.parent / "_presets"
    assert package.is_relative_to(folder)


def test_a_wheel_holds_our_two_packages_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith("/METADATA"))
        headers = email.parser.Parser().parsestr(archive.read(metadata).decode())
    assert {name.split("/")[0] for name in names} == {"carbon_sched", "carbon_sched_runtime", Path(metadata).parts[0]}
    assert "carbon_sched/py.typed" in names
    assert headers["Requires-Python"] == ">=3.10"
    assert headers["License-Expression"] == "Apache-2.0"
    assert not [line for line in headers.get_all("Requires-Dist") if "ray" in line and "extra ==" not in line]


def test_a_wheel_from_the_sdist_is_the_wheel_from_the_checkout(sdist, wheel, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data") if hasattr(tarfile, "data_filter") else (
            archive.extractall(tmp_path / "unpacked")
        )
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    again = build(unpacked, tmp_path / "out", "wheel")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        contents = [{name: archive.read(name) for name in archive.namelist()} for archive in (first, second)]
    assert contents[0].keys() == contents[1].keys()
    assert contents[0] == contents[1]


def test_an_editable_install_finds_the_presets_in_its_checkout(source, tmp_path, job_folder):
    python = install(["--no-build-isolation", "--editable", source], tmp_path / "an environment")
    package, presets, names = ask(python, job_folder)
    assert names == PRESETS
    assert package == source / "scheduler" / "carbon_sched" / "__init__.py"
    assert presets == source / "policies"


def test_what_travels_to_a_cluster_imports_without_any_dependency(wheel, tmp_path, job_folder):
    python = install([wheel], tmp_path / "bare")
    assert run(python, "-I", "-W", "error", "-c", IMPORT_RUNTIME, cwd=job_folder) == ""


def test_the_command_is_installed_and_helps(wheel, tmp_path, job_folder):
    python = install([wheel], tmp_path / "an environment")
    help_text = run(python.with_name("carbon-sched"), "--help", cwd=job_folder, PYTHONPATH=LENT)
    assert "submit" in help_text
