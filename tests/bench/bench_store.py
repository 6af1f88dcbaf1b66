"""What a server asks its database all the time, with few and with many finished jobs in it, side by side in one run.

    python tests/bench/bench_store.py [--url postgresql://A --url postgresql://B] [--finished 100000] [--submits 500]

Finished jobs have events, a decision, a collected attempt and a metered run. CPU milliseconds of this process, medians
of rounds in which both databases take turns, so that a busy machine does not blur the ratio (of PostgreSQL only the
client's part); the bound is 1.2. Submissions are wall time. Without --url, SQLite in a temporary folder (WAL,
synchronous=FULL).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[2]))

import sqlalchemy as sa

from carbon_sched.domain.decision import Decision, Verdict
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.job import Attempt, Flexibility, Job, JobEvent, JobSpec, JobState
from carbon_sched.domain.run import PastRun
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

if TYPE_CHECKING:
    from collections.abc import Callable

FEW = 1_000
LIVE = 50
ROUNDS, REPEATS = 15, 5
SPEC = JobSpec(
    "python train.py --epochs 3", "train", team="ml", project="llm", runtime_env={"env_vars": {"A": "1"}},
    flexibility=Flexibility(earliest=START + timedelta(hours=2), max_delay_s=2 * 86_400.0),
)  # fmt: skip


def main() -> None:
    """Measure, print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", action="append", help="an empty PostgreSQL database, and another one")
    parser.add_argument("--finished", type=int, default=100_000)
    parser.add_argument("--submits", type=int, default=500)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        urls = arguments.url or [f"sqlite:///{folder}/{name}.sqlite" for name in ("few", "many")]
        few, many = (open_store(url, StoppedClock()) for url in urls)
        print(f"{few._engine.dialect.name}, {LIVE} live jobs")
        submits(few, arguments.submits)
        submits(many, arguments.submits)
        add_finished(few, FEW)
        add_finished(many, arguments.finished)
        print(f"\n{'CPU ms':<34} {FEW:>10,} {arguments.finished:>10,} {'ratio':>7}")
        of_many = asked(many)
        for name, of_few in asked(few).items():
            times = [milliseconds(of_few, of_many[name]) for _ in range(ROUNDS)]
            fewer, more = (statistics.median(one) for one in zip(*times, strict=True))
            print(f"{name:<34} {fewer:>10.2f} {more:>10.2f} {more / fewer:>7.2f}")
        few.close()
        many.close()


def milliseconds(*actions: Callable[[], object]) -> list[float]:
    """CPU time of each, with as many repetitions as the clock needs."""
    took = []
    for action in actions:
        begin = time.process_time()
        for _ in range(REPEATS):
            action()
        took.append(1000 * (time.process_time() - begin) / REPEATS)
    return took


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


NUMBERS = {
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})",
    "postgresql": "WITH numbers(n) AS (SELECT generate_series(1, {count}))",
}
JOB = {"sqlite": "printf('f%09d', n)", "postgresql": "'f' || lpad(n::text, 9, '0')"}
MOVES = (
    "state = 'dispatching', event = 'dispatch', version = 1",
    "state = 'succeeded', event = 'succeeded', version = 2, finished_at = submitted_at + 1",
)


def add_finished(store, count) -> None:
    """Copies of one job that was decided about, ran and succeeded, in bulk; each moved as the guards demand."""
    pattern = ran(store)
    of_job, of_attempt = f"job_id = '{pattern.job_id}'", f"attempt_id = '{pattern.attempt_id}'"
    with store._engine.execution_options(write=True).begin() as connection:
        job = JOB[connection.dialect.name]
        attempt, at = f"'cs-' || {job} || '-a1'", "submitted_at - 1000000 * CAST(n AS BIGINT)"
        queued = {"state": "'queued'", "event": "'accepted'", "version": "0", "finished_at": "NULL"}
        copy(connection, "jobs", of_job, {"job_id": job, "submitted_at": at} | queued, count)
        copy(connection, "job_events", of_job, {"job_id": job}, count)
        copy(connection, "decisions", of_job, {"job_id": job}, count)
        copy(connection, "attempts", of_job, {"attempt_id": attempt, "job_id": job}, count)
        copy(connection, "runs", of_attempt, {"attempt_id": attempt}, count)
        for move in MOVES:
            connection.exec_driver_sql(f"UPDATE jobs SET {move} WHERE job_id LIKE 'f%%' AND version < 2")


def copy(connection, table: str, which: str, fresh: dict[str, str], count: int) -> None:
    """So many copies of some rows, with the columns of `fresh` made anew."""
    names = [column["name"] for column in sa.inspect(connection).get_columns(table) if column["name"] != "id"]
    chosen = ", ".join(fresh.get(name, name) for name in names)
    numbers = NUMBERS[connection.dialect.name].format(count=count)
    connection.exec_driver_sql(
        f"{numbers} INSERT INTO {table} ({', '.join(names)}) SELECT {chosen} FROM numbers, {table} WHERE {which}"
    )


def ran(store) -> Attempt:
    """The attempt of a job that ran."""
    job = Job("pattern", SPEC, JobState.QUEUED, START - timedelta(days=1), reason="accepted")
    at = job.submitted_at
    attempt = Attempt("cs-pattern-a1", job.job_id, 1, "clean", opened_at=at, start_by=at)
    with store.transaction() as tx:
        job = tx.add_job(job, idempotency_key=None, request_sha256="")
        tx.put_decisions([Decision(job.job_id, Verdict.PLACE, at, "now", cluster="clean")])
        tx.add_attempt(attempt)
        tx.move_job(tx.move_job(job, JobEvent.DISPATCH, at=at), JobEvent.SUCCEEDED, at=at)
        attempt = tx.put_attempt(replace(attempt, outcome="succeeded", collected=True))
        tx.add_run(attempt.attempt_id, PastRun("train", SPEC.resources, 60.0, 300.0))
    return attempt


def asked(store) -> dict[str, Callable[[], object]]:
    """What the server asks, by name."""

    def reading(action):
        def run():
            with store.transaction(write=False) as tx:
                action(tx)

        return run

    def listed(**where):
        return reading(lambda tx: tx.jobs(JobFilter(**where), limit=50))

    return {
        "live jobs": reading(lambda tx: tx.live_jobs()),
        "list, newest 50": listed(),
        "list, one team": listed(team="ml"),
        "list, queued": listed(states=frozenset({JobState.QUEUED})),
        "list, lost": listed(states=frozenset({JobState.LOST})),
        "status of a live job": reading(lambda tx: status(tx, "l000000001")),
        "status of a finished job": reading(lambda tx: status(tx, "f000000500")),
        "open attempts": reading(lambda tx: tx.attempts(open_only=True)),
        "attempts to collect": reading(lambda tx: tx.attempts(uncollected_only=True)),
        "decide": decider(store).step,
    }


def status(tx, job_id) -> None:
    """All that is told of a job."""
    tx.job(job_id)
    tx.queue_positions([job_id])
    tx.attempts(job_id=job_id)
    tx.events(job_id)
    tx.decision(job_id)


if __name__ == "__main__":
    main()
