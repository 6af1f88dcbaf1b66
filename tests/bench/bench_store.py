"""The store with few and with many finished jobs, side by side in one run; and how many submissions a second it takes.

    python tests/bench/bench_store.py [--url postgresql://...] [--finished 100000] [--submits 500]

Reads are CPU milliseconds of this process, medians, so that a busy machine does not blur the ratio (of PostgreSQL only
the client's part); submissions are wall time. Without --url, SQLite in a temporary folder (WAL, synchronous=FULL).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import sqlalchemy as sa

from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.job import Flexibility, Job, JobEvent, JobSpec, JobState
from carbon_sched.policy.presets import preset
from carbon_sched.ports import JobFilter
from carbon_sched.service.budgets import Budgets
from carbon_sched.service.decide import Decide
from carbon_sched.service.economics import Economics
from carbon_sched.service.estimates import Estimates
from carbon_sched.service.fleet import Fleet
from carbon_sched.service.outlooks import Outlooks
from carbon_sched.service.policies import Policies
from carbon_sched.service.signals import Signals
from carbon_sched.service.statements import Statements
from carbon_sched.store.engine import open_store
from tests.fakes.clock import START, StoppedClock
from tests.fakes.cluster import FakeCluster, FakeClusters
from tests.fakes.world import FakeGrid, a_cluster

FEW = 1_000
LIVE = 50
SPEC = JobSpec(
    "python train.py --epochs 3", "train", team="ml", project="llm", runtime_env={"env_vars": {"A": "1"}},
    flexibility=Flexibility(earliest=START + timedelta(hours=2), max_delay_s=2 * 86_400.0),
)  # fmt: skip


def main() -> None:
    """Measure, print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="an empty PostgreSQL database")
    parser.add_argument("--finished", type=int, default=100_000)
    parser.add_argument("--submits", type=int, default=500)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = arguments.url or f"sqlite:///{folder}/bench.sqlite"
        store = open_store(url, StoppedClock())
        print(f"{store._engine.dialect.name}, {LIVE} live jobs")
        submits(store, arguments.submits)
        add_finished(store, 0, FEW)
        decide = decider(store)
        few = reads(store) | {"decide": median_ms(decide.step)}
        add_finished(store, FEW, arguments.finished)
        many = reads(store) | {"decide": median_ms(decide.step)}
        store.close()
        opening = median_ms(lambda: open_store(url, StoppedClock()).close(), repeats=9)
    print(f"\n{'CPU ms':<34} {FEW:>10,} {arguments.finished:>10,} {'ratio':>7}")
    for name in few:
        print(f"{name:<34} {few[name]:>10.2f} {many[name]:>10.2f} {many[name] / few[name]:>7.2f}")
    print(f"{'open an up-to-date database':<34} {'':>10} {opening:>10.2f}")


def decider(store) -> Decide:
    """What plans the live jobs, on one cluster, after its first plan."""
    clock, signals = StoppedClock(), Signals()
    fleet = Fleet(store, FakeClusters(FakeCluster("clean", clock)), clock, signals)
    fleet.put(a_cluster("clean", "SE-SE3"))
    policies = Policies(store, preset, clock)
    statements = Statements(store)
    budgets = Budgets(store, policies, statements, clock)
    outlooks = Outlooks(FakeGrid({"SE-SE3": [(0.0, 50.0), (3600.0, 10.0)]}))
    decide = Decide(store, fleet, outlooks, Estimates(store), policies, clock, signals, budgets, Economics(statements))
    decide.step()
    return decide


def submit(store, number) -> None:
    with store.transaction() as tx:
        job = Job(f"l{number:09d}", SPEC, JobState.QUEUED, START + timedelta(seconds=number), reason="accepted")
        tx.add_job(job, idempotency_key=f"key-{number}", request_sha256="0" * 64)
        tx.append_fact(Fact(FactKind.JOB_ACCEPTED, START, {"job": job.job_id, "submitter": tx.pseudonym("ada")}))


def submits(store, count) -> None:
    """One transaction each: job, event, fact, pseudonym. All but LIVE of them are then ended."""
    times = []
    for number in range(count):
        start = time.perf_counter()
        submit(store, number)
        times.append(time.perf_counter() - start)
    rank = sorted(times)
    print(f"{count} submissions one after another: {count / sum(times):.0f}/s,", end=" ")
    print(f"p50 {1000 * rank[count // 2]:.1f} ms, p99 {1000 * rank[count * 99 // 100]:.1f} ms")
    with store.transaction() as tx:
        for job in tx.live_jobs()[LIVE:]:
            tx.move_job(job, JobEvent.REFUSED, at=START)


def add_finished(store, first, count) -> None:
    """Finished jobs in bulk, up to `count`: rows copied from a submitted one, then moved as the guards demand."""
    with store._engine.execution_options(write=True).begin() as connection:
        dialect = store._engine.dialect.name
        columns = [c["name"] for c in sa.inspect(connection).get_columns("jobs")]
        number = "printf('f%09d', n)" if dialect == "sqlite" else "'f' || lpad(n::text, 9, '0')"
        fresh = {
            "job_id": number,
            "idempotency_key": "NULL",
            "state": "'queued'",
            "event": "'accepted'",
            "version": "0",
            "submitted_at": "submitted_at - 1000000 * CAST(n AS BIGINT)",
            "finished_at": "NULL",
            "exit_code": "NULL",
        }
        chosen = ", ".join(fresh.get(name, f"j.{name}") for name in columns)
        connection.exec_driver_sql(
            f"WITH RECURSIVE numbers(n) AS (SELECT {first + 1} UNION ALL SELECT n + 1 FROM numbers WHERE n < {count}) "
            f"INSERT INTO jobs ({', '.join(columns)}) "
            f"SELECT {chosen} FROM numbers, jobs j WHERE j.job_id = 'l000000000'"
        )
        connection.exec_driver_sql(
            "UPDATE jobs SET state = 'refused', event = 'refused', version = 1, finished_at = submitted_at + 1 "
            "WHERE state = 'queued' AND job_id LIKE 'f%%'"
        )


def reads(store) -> dict[str, float]:
    """Median milliseconds of what the server asks all the time."""

    def reading(action):
        def run():
            with store.transaction(write=False) as tx:
                action(tx)

        return median_ms(run)

    return {
        "live jobs": reading(lambda tx: tx.live_jobs()),
        "list, newest 50": reading(lambda tx: tx.jobs(JobFilter(), limit=50)),
        "list, one team": reading(lambda tx: tx.jobs(JobFilter(team="ml"), limit=50)),
        "list, queued": reading(lambda tx: tx.jobs(JobFilter(states=frozenset({JobState.QUEUED})), limit=50)),
        "one job": reading(lambda tx: tx.job("l000000001")),
        "open attempts": reading(lambda tx: tx.attempts(open_only=True)),
        "attempts to collect": reading(lambda tx: tx.attempts(uncollected_only=True)),
        "list, lost": reading(lambda tx: tx.jobs(JobFilter(states=frozenset({JobState.LOST})), limit=50)),
    }


def median_ms(action, repeats: int = 25) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return 1000 * statistics.median(times)


if __name__ == "__main__":
    main()
