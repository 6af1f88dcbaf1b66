"""Submissions per second that real servers take, and how long each waits for its answer, also while they plan.

    python tests/bench/bench_throughput.py [--seconds 60] [--queue 10000] [--only sqlite|postgresql]

Client, servers and database run on this machine: one server on SQLite (WAL, synchronous=FULL) at 100 submissions a
second, two on PostgreSQL at 200. Requests start on a fixed schedule, whatever became of those before, and the latency
counts from the scheduled moment, so that a stall is counted by everybody who would have met it. In the second run of
each, `queue` jobs wait already, and every submission makes the planner plan again. At the end every acknowledged job is
looked for in the database.

The last columns are milliseconds of processor time per submission: of this process (clients, and a fake Ray head), of
the servers, of their planners, and of PostgreSQL. Together they say how many submissions a second the cores can do.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import tempfile
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[2]))

from carbon_sched.domain.job import Bundle, Flexibility, Job, JobSpec, JobState, Resources
from carbon_sched.local_server import ServerFiles
from carbon_sched.ports import JobFilter
from carbon_sched.store.engine import open_store
from tests.bench.processor_time import spent_by_children_s, spent_s
from tests.fakes.clock import StoppedClock
from tests.fakes.postgres import PostgresServer, programs
from tests.fakes.ray_head import FakeRayHead
from tests.fakes.replicas import Replica

RATES = {"sqlite": 100, "postgresql": 200}
SERVERS = {"sqlite": 1, "postgresql": 2}
CONNECTIONS = 32
BATCH = 500
LEASE_S = 15.0
HEADS = ("waiting jobs", "asked/s", "answered/s", "p50 ms", "p99 ms", "longest ms", "errors", "lost", "plans")
PARTS = ("client", "servers", "planners", "database")


def main() -> None:
    """Measure, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--queue", type=int, default=10_000)
    parser.add_argument("--only", choices=sorted(RATES))
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the first run")
    print(f"{'database':<11}", *(f"{head:>12}" for head in HEADS), *(f"{part:>9}" for part in PARTS))
    for kind in [arguments.only] if arguments.only else sorted(RATES, reverse=True):
        for queue in (0, arguments.queue):
            with tempfile.TemporaryDirectory(prefix="cs-bench-") as folder, FakeRayHead(cpus=64, execute=False) as head:
                measure(kind, queue, arguments.seconds, Path(folder), head)


def measure(kind: str, queue: int, seconds: float, folder: Path, head: FakeRayHead) -> None:
    """One line of the table."""
    server = None
    url = f"sqlite:///{folder / 'bench.sqlite'}"
    if kind == "postgresql":
        found = programs()
        if found is None:
            sys.exit("PostgreSQL is not installed (.ci/provision postgresql)")
        server = PostgresServer(found, durable=True)
        server.start()
        url = server.url(server.create_database())
    replicas: list[Replica] = []
    try:
        fill(url, queue)
        homes = [folder / f"server-{number}" for number in range(SERVERS[kind])]
        replicas += [Replica(home, folder / "shared", url, lease_s=LEASE_S) for home in homes]
        replicas[0].client.put_cluster("north", {"address": head.address, "zone": "NO", "home": True})
        load = Load(replicas, RATES[kind], seconds)
        before = spent(replicas, server)
        load.run()
        took = [(now - then) / load.count for then, now in zip(before, spent(replicas, server), strict=True)]
        plans = sum(planned(replica) for replica in replicas if replica.leads())
        for replica in replicas:
            replica.stop()
        row = [f"{kind:<11} {queue:>12,}", load.row(), f"{lost(url, load):>12}", f"{plans:>12}"]
        print(*row, *(f"{1000 * part:>9.2f}" for part in took), flush=True)
    finally:
        for replica in replicas:
            replica.stop()
        if server is not None:
            server.stop()


def spent(replicas: list[Replica], server: PostgresServer | None) -> list[float]:
    """Seconds of processor time so far, by `PARTS`."""
    servers = [replica.process.pid for replica in replicas]
    database = 0.0 if server is None else spent_s(server.pid()) + spent_by_children_s(server.pid())
    return [time.process_time(), sum(map(spent_s, servers)), sum(map(spent_by_children_s, servers)), database]


def fill(url: str, count: int) -> None:
    """Queued jobs that may wait for days, straight into the database."""
    store, now = open_store(url, StoppedClock()), datetime.now(timezone.utc)
    resources = Resources(bundles=(Bundle(cpus=1.0),))
    spec = JobSpec(
        "true", "waits", team="ml", resources=resources,
        flexibility=Flexibility(earliest=now + timedelta(hours=2), max_delay_s=2 * 86_400.0),
    )  # fmt: skip
    for first in range(0, count, BATCH):
        with store.transaction() as tx:
            for number in range(first, min(first + BATCH, count)):
                job = Job(f"w{number:09d}", spec, JobState.QUEUED, now, reason="accepted, not planned yet")
                tx.add_job(job, idempotency_key=None, request_sha256="")
    store.close()


def planned(replica: Replica) -> int:
    """Steps of the decide loop so far, by the server's own count."""
    answer = fetch(replica, "/metrics")
    name = 'carbon_sched_step_seconds_count{loop="decide"} '
    return next((int(float(line.split()[-1])) for line in answer.splitlines() if line.startswith(name)), 0)


def fetch(replica: Replica, path: str) -> str:
    connection = http.client.HTTPConnection(urlsplit(replica.url).netloc, timeout=30)
    connection.request("GET", path, headers={"Authorization": f"Bearer {ServerFiles(replica.data_dir).read_token()}"})
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def lost(url: str, load: Load) -> int:
    """Acknowledged jobs that are not in the database."""
    store = open_store(url, StoppedClock())
    with store.transaction(write=False) as tx:
        there = {job.job_id for job in tx.jobs(JobFilter(name="bench"), limit=10**6)}
    store.close()
    return len(set(load.acknowledged) - there)


class Load:
    """Requests on a fixed schedule over some connections, shared out among the servers."""

    def __init__(self, replicas: list[Replica], rate: float, seconds: float) -> None:
        self.replicas, self.rate, self.count = replicas, rate, int(rate * seconds)
        self.latencies: list[float] = []
        self.acknowledged: list[str] = []
        self.errors = 0
        self.lock = threading.Lock()
        self.next = 0
        body = {"entrypoint": "true", "name": "bench", "earliest": "2099-01-01T00:00:00Z"}
        self.body = json.dumps(body).encode()

    def run(self) -> None:
        self.start = time.monotonic() + 1.0
        threads = [threading.Thread(target=self.work, args=(number,)) for number in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.took = time.monotonic() - self.start

    def work(self, number: int) -> None:
        replica = self.replicas[number % len(self.replicas)]
        connection = http.client.HTTPConnection(urlsplit(replica.url).netloc, timeout=60)
        token = ServerFiles(replica.data_dir).read_token()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        while True:
            with self.lock:
                mine, self.next = self.next, self.next + 1
            if mine >= self.count:
                connection.close()
                return
            due = self.start + mine / self.rate
            time.sleep(max(0.0, due - time.monotonic()))
            self.ask(connection, headers | {"Idempotency-Key": f"{mine}"}, due)

    def ask(self, connection: http.client.HTTPConnection, headers: dict[str, str], due: float) -> None:
        try:
            connection.request("POST", "/v1/jobs", self.body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            status, content = 0, b""
        else:
            status = answer.status
        with self.lock:
            self.latencies.append(time.monotonic() - due)
            if status == 202:
                self.acknowledged.append(json.loads(content)["job_id"])
            else:
                self.errors += 1

    def row(self) -> str:
        ranked = sorted(self.latencies)
        shown = (ranked[len(ranked) // 2], ranked[len(ranked) * 99 // 100], ranked[-1])
        cells = [f"{self.rate:>12.0f}", f"{len(self.acknowledged) / self.took:>12.1f}"]
        cells += [f"{1000 * latency:>12.0f}" for latency in shown]
        return " ".join([*cells, f"{self.errors:>12}"])


if __name__ == "__main__":
    main()
