"""The same ledger gives the same statement, byte by byte: on every Python here, in every locale and time zone, with the
standard library alone; and from the command line of the core install.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from carbon_sched.ledger.book import read_book
from carbon_sched.ledger.copy import entry_of
from carbon_sched.ledger.selection import Selection
from carbon_sched.ledger.statement import statement
from carbon_sched.ledger.statement.formats import render
from tests.fakes.pythons import ROOT, pythons

if TYPE_CHECKING:
    from pathlib import Path

LEDGER = ROOT / "examples" / "audit" / "ledger.jsonl"
FORMS = ("text", "markdown", "html", "json", "jsonl", "csv")
PLACES = [("C", "UTC", "0"), ("tr_TR.UTF-8", "America/St_Johns", "1"), ("de_DE.UTF-8", "Pacific/Kiritimati", "2")]
ELSEWHERE = """
import hashlib, json, sys
sys.path.insert(0, sys.argv[1])
from carbon_sched.ledger.book import read_book
from carbon_sched.ledger.copy import entry_of
from carbon_sched.ledger.selection import Selection
from carbon_sched.ledger.statement import statement
from carbon_sched.ledger.statement.formats import render
made = statement(read_book(map(entry_of, open(sys.argv[2], "rb"))), Selection())
print(json.dumps({form: hashlib.sha256(render(made, form)).hexdigest() for form in sys.argv[3:]}))
"""
CORE_ONLY = """
import sys
EXTRAS = ("ray", "fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic", "psycopg", "highspy", "fsspec", "jinja2",
          "prometheus_client", "websockets", "matplotlib", "pyarrow", "typst")
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
sys.argv[0] = "carbon-sched"
from carbon_sched.cli.entry import main
main()
"""


@pytest.fixture(scope="module")
def here():
    made = statement(read_book(map(entry_of, LEDGER.read_bytes().splitlines())), Selection())
    return {form: hashlib.sha256(render(made, form)).hexdigest() for form in FORMS}


@pytest.mark.parametrize("program", [pytest.param(path, id=f"{v[0]}.{v[1]}") for v, path in sorted(pythons().items())])
def test_every_python_makes_the_same_bytes(here, program):
    command = [program, "-S", "-E", "-B", "-c", ELSEWHERE, str(ROOT / "scheduler"), str(LEDGER), *FORMS]
    assert json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout) == here


@pytest.mark.parametrize(("locale", "zone", "seed"), PLACES)
def test_every_locale_and_time_zone_makes_the_same_bytes(here, locale, zone, seed):
    surroundings = os.environ | {"LC_ALL": locale, "LANG": locale, "TZ": zone, "PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", ELSEWHERE, str(ROOT / "scheduler"), str(LEDGER), *FORMS]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60, env=surroundings)
    assert json.loads(done.stdout) == here


def audited(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """The command as the core install runs it, without a server anywhere."""
    surroundings = os.environ | {"CARBON_SCHED_URL": "http://127.0.0.1:9"}
    command = [sys.executable, "-c", CORE_ONLY, "audit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=60, env=surroundings, cwd=cwd, check=False)


def test_an_auditor_with_the_copy_and_the_core_computes_the_total_with_one_command(here, tmp_path):
    done = audited("statement", "--export", LEDGER, "--format", "json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert hashlib.sha256(done.stdout).hexdigest() == here["json"]
    assert json.loads(done.stdout)["totals"]["co2e_ug"] == 354_000_000
    assert audited("verify", "--export", LEDGER, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("form", ["pdf", "parquet"])
def test_a_format_of_an_extra_says_which(tmp_path, form):
    done = audited("statement", "--export", LEDGER, "-o", f"statement.{form}", cwd=tmp_path)
    assert done.returncode == 120
    assert b"pip install 'carbon-sched[reports]'" in done.stderr
    assert not (tmp_path / f"statement.{form}").exists()
