"""Run the suites and say what each took against its time budget on two cores.

    python tests/suites.py [--slow] [SUITE ...] [-- PYTEST-ARGUMENTS]

Those that compute have both cores, one after another; then those that mostly wait for servers run side by side.
A suite over its budget is reported, not failed: a shared machine is slower than a quiet one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
NO_TESTS_COLLECTED = 5


@dataclass(frozen=True)
class Suite:
    """One marker of tests/conftest.py, its budget in seconds, how many processes share it, and where its tests are.

    Suites of lane 0 have the machine for themselves; those of the other lanes wait most of their time, for servers.

    Only its folders are read, since reading all tests takes a process ten seconds; tests/conftest.py refuses a test
    that lies elsewhere.
    """

    name: str
    budget_s: int
    workers: int
    folders: tuple[str, ...]
    lane: int = 0


# In the order of their running. A test that carries two of these markers runs in the last of its suites only.
# Suites that start servers of their own run in one process: two Ray heads at once would starve two cores.
SUITES = (
    Suite("unit", 60, 2, ("unit",)),
    Suite("contract", 90, 2, ("contract", "hostile", "machine", "packaging")),
    Suite("postgres", 90, 2, ("contract", "machine", "crash", "e2e"), lane=1),
    Suite("crash", 60, 0, ("crash",), lane=1),
    Suite("ray", 180, 0, ("e2e", "hardware", "contract"), lane=2),
    Suite("browser", 60, 0, ("e2e",), lane=1),
)


@dataclass(frozen=True)
class Outcome:
    """What one suite did: counts, seconds of wall time, and pytest's exit status."""

    suite: Suite
    passed: int
    failed: int
    skipped: int
    wall_s: float
    status: int


def main() -> int:
    """Run the suites asked for and print the table; 1 if any failed or none ran a test."""
    arguments = parse()
    wanted = [suite for suite in SUITES if suite.name in arguments.suite or not arguments.suite]
    outcomes = run_all(wanted, partial(run, slow=arguments.slow, extra=arguments.extra))
    report(outcomes)
    ran = sum(o.passed + o.failed for o in outcomes)
    return 1 if not ran or any(o.status not in (0, NO_TESTS_COLLECTED) for o in outcomes) else 0


def parse() -> argparse.Namespace:
    """Read the command line; what follows `--` goes to pytest as it is."""
    ours, extra = sys.argv[1:], []
    if "--" in ours:
        cut = ours.index("--")
        ours, extra = ours[:cut], ours[cut + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slow", action="store_true", help="the slow tests too")
    parser.add_argument("suite", nargs="*", metavar="SUITE", help=", ".join(suite.name for suite in SUITES))
    arguments = parser.parse_args(ours)
    unknown = set(arguments.suite) - {suite.name for suite in SUITES}
    if unknown:
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    arguments.extra = extra
    return arguments


def run_all(wanted: list[Suite], run_one: Callable[[Suite], Outcome]) -> list[Outcome]:
    """Lane 0, then the other lanes side by side; outcomes in the order of the suites."""
    lanes = [[suite for suite in wanted if suite.lane == lane] for lane in range(3)]
    done = [run_one(suite) for suite in lanes[0]]
    with ThreadPoolExecutor(len(lanes)) as pool:
        for outcomes in pool.map(lambda lane: [run_one(suite) for suite in lane], lanes[1:]):
            done += outcomes
    return sorted(done, key=lambda outcome: SUITES.index(outcome.suite))


def run(suite: Suite, *, slow: bool, extra: list[str]) -> Outcome:
    """Run one suite in a pytest of its own and read its counts from the JUnit file it writes.

    What it prints is shown as it comes in lane 0, and in one piece at its end where another suite runs beside it.
    """
    later = [other.name for other in SUITES[SUITES.index(suite) + 1 :]]
    selection = " and not ".join([suite.name, *later, *([] if slow else ["slow"])])
    print(f"==> {suite.name}", flush=True)
    out = subprocess.PIPE if suite.lane else None
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "results.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-m", selection, f"--junitxml={results}"]
        command += [f"tests/{folder}" for folder in suite.folders]
        command += ["-n", str(suite.workers)] if suite.workers else []
        start = time.monotonic()
        ended = subprocess.run(
            [*command, *extra], cwd=ROOT, check=False, stdout=out, stderr=subprocess.STDOUT, text=True
        )
        wall_s = time.monotonic() - start
        if ended.stdout:
            print(f"==> {suite.name}, from its beginning\n{ended.stdout}", flush=True)
        counts = tally(results)
    return Outcome(suite, *counts, wall_s, ended.returncode)


def tally(results: Path) -> tuple[int, int, int]:
    """Return (passed, failed, skipped); a pytest that wrote nothing counts as none of them."""
    if not results.exists():
        return 0, 0, 0
    total = failed = skipped = 0
    for element in ET.parse(results).getroot().iter("testsuite"):
        total += int(element.get("tests", 0))
        failed += int(element.get("failures", 0)) + int(element.get("errors", 0))
        skipped += int(element.get("skipped", 0))
    return total - failed - skipped, failed, skipped


def report(outcomes: list[Outcome]) -> None:
    """Print one line per suite and the sum, in the plain form that CI systems read."""
    print(f"\n{'suite':<10} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8} {'budget':>7}")
    for o in outcomes:
        note = "  over budget" if o.wall_s > o.suite.budget_s else ""
        note = f"  pytest ended with status {o.status}" if o.status not in (0, 1, NO_TESTS_COLLECTED) else note
        counts = f"{o.passed:>7} {o.failed:>7} {o.skipped:>8}"
        print(f"{o.suite.name:<10} {counts} {o.wall_s:>8.1f} {o.suite.budget_s:>7}{note}")
    passed, failed, skipped = (sum(getattr(o, kind) for o in outcomes) for kind in ("passed", "failed", "skipped"))
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped")


if __name__ == "__main__":
    sys.exit(main())
