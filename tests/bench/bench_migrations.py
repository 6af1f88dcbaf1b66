"""How long each migration holds its locks over a million jobs: on PostgreSQL nobody reads a table that one changes.

    python tests/bench/bench_migrations.py [--jobs 1000000] [--only sqlite|postgresql]

The schema of the first migration is filled with finished jobs and two events of each; then every later migration runs
in a transaction of its own, whose wall time is what others wait at most. The bound on PostgreSQL is 2 s each.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import sqlalchemy as sa

from carbon_sched.store import schema
from tests.fakes.postgres import PostgresServer, programs

NUMBERS = {
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count}) ",
    "postgresql": "WITH numbers(n) AS (SELECT generate_series(1, {count})) ",
}
JOBS = """
INSERT INTO jobs
  (job_id, state, event, version, reason, attempts, submitted_at, request_sha256, spec, name, team, project, phase)
SELECT 'job' || n, 'queued', 'accepted', 0, 'accepted', 0, n, '', '{{}}', 'train', 'ml', 'llm', 'other' FROM numbers"""
END = """
UPDATE jobs SET state = 'refused', event = 'refused', version = 1, finished_at = submitted_at"""
EVENTS = """
INSERT INTO job_events (job_id, at, event, state, reason)
SELECT job_id, submitted_at, {event}, 'refused', '' FROM jobs"""


def main() -> None:
    """Measure, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--only", choices=sorted(NUMBERS))
    arguments = parser.parse_args()
    kinds = [arguments.only] if arguments.only else sorted(NUMBERS)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {arguments.jobs:,} jobs; seconds of each migration")
    took = {kind: measured(kind, arguments.jobs) for kind in kinds}
    print(f"{'to':<8}", *(f"{kind:>12}" for kind in kinds))
    for number in range(1, schema.REVISION):
        print(f"{number + 1:04}    ", *(f"{took[kind][number - 1]:>12.2f}" for kind in kinds))
    print(f"{'longest':<8}", *(f"{max(took[kind]):>12.2f}" for kind in kinds))


def measured(kind: str, jobs: int) -> list[float]:
    """Seconds of each migration after the first one."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            return migrated(sa.create_engine(f"sqlite:///{folder}/bench.sqlite"), jobs)
    found = programs()
    if found is None:
        sys.exit("PostgreSQL is not installed (.ci/provision postgresql)")
    server = PostgresServer(found, durable=True)
    server.start()
    try:
        return migrated(sa.create_engine(server.url(server.create_database())), jobs)
    finally:
        server.stop()


def migrated(engine: sa.Engine, jobs: int) -> list[float]:
    kind = engine.dialect.name
    with engine.begin() as connection:
        schema.migrate(connection, "0001")
        connection.exec_driver_sql((NUMBERS[kind] + JOBS).format(count=jobs))
        connection.exec_driver_sql(END)
        for event in ("'accepted'", "'refused'"):
            connection.exec_driver_sql(EVENTS.format(event=event))
    times = [seconds(engine, f"{number:04}") for number in range(2, schema.REVISION + 1)]
    engine.dispose()
    return times


def seconds(engine: sa.Engine, target: str) -> float:
    begin = time.monotonic()
    with engine.begin() as connection:
        schema.migrate(connection, target)
    return time.monotonic() - begin


if __name__ == "__main__":
    main()
