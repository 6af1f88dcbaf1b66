"""What the code imports is what pyproject.toml declares: no module that is there by somebody else's grace."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGE = ROOT / "scheduler" / "carbon_sched"
OURS = {"carbon_sched", "carbon_sched_runtime"}
# Reached by the server only, so the server's extra may bring what they import.
SERVER_ONLY = ("api", "clusters", "compose.py", "grid", "planning", "service", "simulate", "store")

# Features of an extra, imported when they are asked for; without it they say which extra is missing.
OPTIONAL = {
    "cli/chart.py": "reports",
    "clusters/kubernetes/api.py": "kubernetes",
    "ledger/documents/pdf.py": "reports",
    "ledger/statement/parquet.py": "reports",
    "machine_meter.py": "server",
}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> set[str]:
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    return {normalised(Requirement(line).name) for line in lines}


def imported(file: Path) -> set[str]:
    """Top-level names of third-party modules that a file imports at run time."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for_types = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    skipped = {id(inner) for block in for_types for inner in ast.walk(block)}
    nodes = [node for node in ast.walk(tree) if id(node) not in skipped]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.split(".")[0] for name in names} - OURS - set(sys.stdlib_module_names)


def undeclared(files: list[Path], allowed: set[str]) -> list[str]:
    distributions = packages_distributions()
    return [
        f"{file.relative_to(ROOT)} imports {module}"
        for file in files
        for module in sorted(imported(file))
        if not allowed & {normalised(name) for name in distributions.get(module, [module])}
    ]


def sources(*, server: bool) -> list[Path]:
    files = [f for f in PACKAGE.rglob("*.py") if f.relative_to(PACKAGE).as_posix() not in OPTIONAL]
    return [f for f in files if (f.relative_to(PACKAGE).parts[0] in SERVER_ONLY) is server]


@pytest.mark.parametrize(("server", "extras"), [(False, ()), (True, ("server",))])
def test_every_import_is_a_declared_dependency(server, extras):
    files = sources(server=server)
    assert len(files) > 10
    assert undeclared(files, declared(*extras)) == []


@pytest.mark.parametrize(("file", "extra"), OPTIONAL.items())
def test_an_optional_feature_imports_what_its_extra_declares(file, extra):
    assert undeclared([PACKAGE / file], declared(extra)) == []
    assert undeclared([PACKAGE / file], declared()), "it needs no extra any more"
