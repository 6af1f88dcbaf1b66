"""A process that submits jobs to a store and says which were committed, until it is killed.

python -m tests.fakes.store_writer URL FIRST-NUMBER
"""

from __future__ import annotations

import sys

from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.job import Job, JobEvent, JobSpec, JobState
from carbon_sched.store.engine import open_store
from tests.fakes.clock import START, StoppedClock


def main() -> None:
    """One line on stdout for each commit that returned: the job's number."""
    url, number = sys.argv[1], int(sys.argv[2])
    store = open_store(url, StoppedClock())
    while True:
        with store.transaction() as tx:
            job = Job(f"j{number:09d}", JobSpec("true", "job"), JobState.QUEUED, START)
            job = tx.add_job(job, idempotency_key=job.job_id, request_sha256="")
            tx.append_fact(Fact(FactKind.JOB_ACCEPTED, START, {"job": job.job_id}))
            tx.move_job(job, JobEvent.DISPATCH, at=START)
            tx.enqueue("submit", job.job_id, {})
        print(number, flush=True)
        number += 1


if __name__ == "__main__":
    main()
