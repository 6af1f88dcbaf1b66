"""How long an auditor waits, and how large the ledger grows (B5 row 25; a year of 2,000 GPUs).

    make bench-audit                                                    a sample, in about two minutes
    .venv/bin/python tests/bench/bench_audit.py --facts 1000000         a month of 785,000 facts, whole
    .venv/bin/python tests/bench/bench_audit.py --facts 10000000        all: 26 GB of disk, 15 minutes of CPU time
    .venv/bin/python tests/bench/bench_audit.py --fleet-hours 8760      the year of 2,000 GPUs in full: hours, 100 GB

Ledgers are made up (`fleet_ledger.py`), with the bodies that the services write; commands and the server's part run as
processes of their own, and their CPU time and peak memory are the kernel's word. What is scaled to the full size is
scaled by the number of facts, from CPU time: on a machine that does nothing else, that is the time on the clock.

Row 25 asks for 10 million facts in 60 s and 100 MiB, and for a month's statement in 30 s. Measured on 29 November
2026, two cores under a load of 20, where CPU time counts more too: 10 million facts, 60.0 s and 61 MiB. A month's
statement: 48 s, scaled from 100,000 facts. That misses by 18 s. It is Python's time for each fact, 44 us at the least
of many runs: two thirds to check its hash and its canonical form and to read it, one third to cut, price and sum its
parts in integers of any size. Of the run over 10 million facts only the verification was waited for.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from carbon_sched.cli.periods import period as parsed_period
from carbon_sched.ledger.copy import entries_of, line_of
from carbon_sched.ledger.encoding import decode_fact
from carbon_sched.ledger.selection import Selection
from carbon_sched.ledger.statement import statement
from carbon_sched.ledger.statement.formats import render
from carbon_sched.service.statements import Statements
from carbon_sched.store.engine import open_store
from tests.bench.fleet_ledger import STEP, Fleet
from tests.fakes.clock import StoppedClock

FULL = 10_000_000
SMALL_JOBS = Fleet(slots=64, gpus=1, hours=2)
"""Single-GPU jobs: 33 facts each, one kilobyte per fact."""
BIG_FLEET = Fleet(slots=250, gpus=8, hours=12)
"""2,000 GPUs."""
STORED = 5_000
MONTH = "2026-01"
MONTH_H = 744
MONTHS_FACTS = 785_000
"""What SMALL_JOBS write in January; 10 million facts are a year and a month of theirs."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, default=FULL // 100, help="of the ledger that is verified")
    parser.add_argument("--fleet-hours", type=int, default=12, help="of the 2,000 GPUs; a year has 8,760")
    parser.add_argument("--statement-of", metavar="DATABASE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.statement_of:
        served(arguments.statement_of)
        return
    with tempfile.TemporaryDirectory() as folder:
        verified(Path(folder) / "ledger.jsonl", arguments.facts)
        fleet(Path(folder) / "fleet.jsonl", arguments.fleet_hours)
        stored(Path(folder) / "store.sqlite")


def verified(copy: Path, facts: int) -> None:
    """The whole chain of a copy, with a checkpoint; then the statement of a month, from the copy and by a server."""
    size, last = written(copy, islice(SMALL_JOBS.entries(10**9), facts))
    print(f"{facts:,} facts, {size / facts:,.0f} bytes each")
    start_s = audit("verify", "--help").cpu_s
    used = audit("verify", "--file", copy, "--checkpoint", f"{facts}:{last.hash}")
    print(f"  audit verify             {used}   {scaled(used.cpu_s - start_s, facts)}")
    used = audit("statement", "--export", copy, "--period", MONTH, "--format", "json")
    print(f"  audit statement, a month {used}   of it {min(facts, MONTHS_FACTS):,} facts; the chain of all is checked")
    database = copy.with_suffix(".sqlite")
    loaded(database, copy)
    used = process([__file__, "--statement-of", f"sqlite:///{database}"], quiet=False)
    print(f"  both by the server       {used}")
    database.unlink()


def loaded(database: Path, copy: Path) -> None:
    """The copy's entries in the ledger of a database, past the service, which appends one by one."""
    open_store(f"sqlite:///{database}", StoppedClock()).close()
    with closing(sqlite3.connect(database)) as connection, copy.open("rb") as lines:
        connection.executemany("INSERT INTO ledger (seq, prev, hash, payload) VALUES (?, ?, ?, ?)", entries_of(lines))
        connection.commit()


def served(database: str) -> None:
    """What a server does for the month's statement: it follows the ledger with an index, and answers from that.

    It follows while the ledger grows, and once as a whole after its start: the answer is what a person waits for.
    """
    store = open_store(database, StoppedClock())
    statements, period = Statements(store), parsed_period(MONTH)
    selection = Selection(period=period)
    begin = time.process_time()
    size = statements.look(lambda index: index.size)
    indexed = time.process_time()
    render(statements.over(period, lambda book: statement(book, selection)), "json")
    seconds = time.process_time() - indexed
    print(f"  the server's index       {indexed - begin:7.1f} s CPU, once after its start")
    whole = seconds * MONTHS_FACTS / min(size, MONTHS_FACTS)
    print(f"  the month's statement    {seconds:7.1f} s CPU, from then on   all of a month: {whole:.0f} s")
    store.close()


def fleet(copy: Path, hours: int) -> None:
    """A part of a year of 2,000 GPUs, five minutes per span: measured, and scaled to the year by its length."""
    entries = BIG_FLEET.entries(round(hours * 3600 / STEP.total_seconds()))
    size, last = written(copy, entries)
    facts, year, spans = last.seq, 8760 / hours, hours * 12 * BIG_FLEET.slots * BIG_FLEET.gpus
    print(f"\n2,000 GPUs for {hours:,} h, five minutes per span: {spans:,} spans of GPUs in {facts:,} facts")
    print(f"  size                     {size / 1e6:7,.0f} MB")
    millions = f"{spans * year / 1e6:,.0f} million spans in {facts * year / 1e6:.1f} million facts"
    print(f"  scaled to a year         {size * year / 1e9:7,.0f} GB: {millions}")
    start_s = audit("verify", "--help").cpu_s
    used = audit("verify", "--file", copy)
    work_s = used.cpu_s - start_s
    print(f"  audit verify             {used}   {size / work_s / 1e6:.0f} MB/s; a year: {work_s * year / 60:.0f} min")
    if hours <= MONTH_H:
        used = audit("statement", "--export", copy, "--period", MONTH, "--format", "json")
        month_s = (used.cpu_s - start_s) * MONTH_H / hours
        print(f"  audit statement          {used}   all of January: {month_s / 60:.1f} min")
    copy.unlink()


def stored(file: Path) -> None:
    """The same facts in SQLite: appended as the server does, then verified there."""
    store = open_store(f"sqlite:///{file}", StoppedClock())
    facts = [decode_fact(entry.payload) for entry in islice(BIG_FLEET.entries(10**9), STORED)]
    begin = time.perf_counter()
    for first in range(0, STORED, 100):
        with store.transaction() as tx:
            for fact in facts[first : first + 100]:
                tx.append_fact(fact)
    appended = time.perf_counter() - begin
    begin = time.process_time()
    assert Statements(store).verify().require().size == STORED
    seconds = time.process_time() - begin
    store.close()
    per_fact = sum(path.stat().st_size for path in file.parent.glob(f"{file.name}*")) / STORED
    need = BIG_FLEET.slots / STEP.total_seconds()
    print(f"\n{STORED:,} of those facts in SQLite, {per_fact:,.0f} bytes each")
    print(f"  appended                 {STORED / appended:7.0f} facts/s; 2,000 GPUs write {need:.1f}")
    print(f"  verified by the server   {seconds:7.1f} s CPU        {scaled(seconds, STORED)}")


def written(copy: Path, entries):
    """Size in bytes, and the last entry."""
    with copy.open("wb") as file:
        for entry in entries:
            file.write(line_of(entry))
    return copy.stat().st_size, entry


def scaled(seconds: float, facts: int) -> str:
    return f"{FULL:,} facts: {seconds * FULL / facts:.0f} s"


@dataclass(frozen=True)
class Used:
    """What a process took."""

    wall_s: float
    cpu_s: float
    peak_mib: float

    def __str__(self) -> str:
        return f"{self.wall_s:7.1f} s, {self.cpu_s:.1f} s CPU, {self.peak_mib:.0f} MiB"


def audit(*arguments: object) -> Used:
    """Run `carbon-sched audit ...`."""
    code = "import sys; from carbon_sched.cli.entry import main; sys.exit(main())"
    return process(["-c", code, "audit", *map(str, arguments)])


def process(arguments: list[str], *, quiet: bool = True) -> Used:
    """Run this Python."""
    silent = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    begin = time.perf_counter()
    sys.stdout.flush()
    child = os.posix_spawn(
        sys.executable, [sys.executable, *arguments], os.environ, file_actions=silent if quiet else []
    )
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments[-4:])} ended with {os.waitstatus_to_exitcode(status)}")
    return Used(time.perf_counter() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


if __name__ == "__main__":
    main()
