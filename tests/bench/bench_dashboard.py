"""How fast the dashboard is with 10,000 jobs, 50 clusters, 20 zones and 90 days behind it.

    make bench-dashboard
    .venv/bin/python tests/bench/bench_dashboard.py --days 9 --updates 100      a tenth of it, in a minute

Jobs take an hour on one GPU each and leave a fact of energy every five minutes. `server` is the time of one answer
without a browser: of the page, and of the part that an open page asks for when something changed. `first byte` and
`interactive` are Chromium's own (navigation timing), on a second visit; `bytes` is what that visit transfers. The heap
is read after a forced collection. Goals: first byte 300 ms, interactive 1 s, update 100 ms, 300 KB, a flat heap.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import requests
from playwright.sync_api import Page, sync_playwright

from carbon_sched.domain.job import Job, JobEvent, JobSpec, JobState
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.ledger.encoding import decode_fact
from carbon_sched.service.answers import PATIENCE_S
from tests.bench.fleet_ledger import BEGIN, Fleet
from tests.fakes.busy_fleet import day_curve
from tests.fakes.served import Served
from tests.fakes.world import START, a_cluster

CLUSTERS, ZONES, SLOTS, WAITING = 50, 20, 5, 100
PAGES = ("/", "/queue", "/footprint", "/footprint?by=model&model=m1", "/policies", "/health")
PIECE = 2_000
LONGEST_S = 300.0


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--updates", type=int, default=1000, help="of one open page, for its memory")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        served = a_fleet(Path(folder))
        try:
            fill(served, arguments.days)
            measure(served, arguments.updates)
        finally:
            served.close()


def a_fleet(folder: Path) -> Served:
    """Clusters over zones whose intensity changes by the hour."""
    grid = {f"Z{number:02}": day_curve(60 + 25 * number, 20 + number, number) for number in range(ZONES)}
    clusters = [a_cluster(f"cluster-{n}", f"Z{n % ZONES:02}", 1.1 + n % 5 / 10, home=n == 0) for n in range(CLUSTERS)]
    return Served(folder, clusters, grid, PATIENCE_S)


def fill(served: Served, days: int) -> None:
    """Jobs of all those days in the ledger and in the database; and some that wait."""
    served.world.clock.at = max(START, BEGIN + timedelta(days=days))
    begin, fleet = time.monotonic(), Fleet(slots=SLOTS, gpus=1, hours=1)
    served.world.settle()
    facts, size = (decode_fact(entry.payload) for entry in fleet.entries(days * 24 * 12)), 0
    with served.world.store.transaction() as tx:
        while piece := list(islice(facts, PIECE)):
            size += len(tx.append_facts(piece))
    with served.world.store.transaction() as tx:
        for one in served.world.statements.ask(lambda book: list(book.jobs.values())):
            spec = JobSpec("python train.py", one.name, team=one.team, project=one.project)
            job = Job(one.job_id, spec, JobState.QUEUED, one.submitted_at)
            job = tx.add_job(job, idempotency_key=None, request_sha256="0" * 64)
            tx.move_job(job, JobEvent.STOPPED, at=one.submitted_at + timedelta(hours=1))
    later = {"earliest": to_rfc3339(served.world.clock.now() + timedelta(hours=6)), "max_delay_s": 43_200.0}
    for number in range(WAITING):
        served.world.submit(name=f"waits-{number}", **later, duration_s=3600.0, power_w=700.0)
    served.world.settle()
    jobs, took = served.world.statements.ask(lambda book: len(book.jobs)), time.monotonic() - begin
    print(f"{jobs:,} jobs of {days} days, {size:,} entries, {CLUSTERS} clusters, {ZONES} zones; filled in {took:.0f} s")


def measure(served: Served, updates: int) -> None:
    """Every page by itself, then in Chromium, then one of them open for long."""
    session = requests.Session()
    session.get(served.client.login_url(), timeout=60)
    warm(served, session)
    print(f"\n{'page':<34}{'server, ms':>11}{'update, ms':>11}{'first byte':>11}{'interactive':>12}{'KB':>8}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(served.client.login_url())
        for path in PAGES:
            whole, part = timed(served, session, path), timed(served, session, path, {"HX-Request": "true"})
            first, interactive, transferred = visited(page, served.url + path)
            print(f"{path:<34}{whole:>11.0f}{part:>11.0f}{first:>11.0f}{interactive:>12.0f}{transferred / 1000:>8.0f}")
        heaps(page, served, updates)
        browser.close()


def warm(served: Served, session: requests.Session) -> None:
    """Until nothing is being computed any more, and how long the first answers took."""
    for path in PAGES:
        begin = time.monotonic()
        cold = None
        while "being computed" in session.get(served.url + path, timeout=60).text.lower():
            cold = time.monotonic() - begin
            if cold > LONGEST_S:
                raise SystemExit(f"{path} is not computed after {LONGEST_S:g} s")
            time.sleep(0.1)
        print(f"after a start, {path} is whole after {time.monotonic() - begin:.1f} s")


def timed(served: Served, session: requests.Session, path: str, headers: dict[str, str] | None = None) -> float:
    """Median milliseconds of an answer."""
    found = []
    for _ in range(7):
        begin = time.perf_counter()
        assert session.get(served.url + path, headers=headers, timeout=60).status_code == 200
        found.append(1000 * (time.perf_counter() - begin))
    return statistics.median(found)


def visited(page: Page, url: str) -> tuple[float, float, int]:
    """First byte and interactive in ms, and bytes transferred, of the second visit."""
    page.goto(url)
    page.goto(url)
    page.wait_for_timeout(300)
    told: dict[str, Any] = page.evaluate("performance.getEntriesByType('navigation')[0].toJSON()")
    more = page.evaluate("performance.getEntriesByType('resource').reduce((sum, one) => sum + one.transferSize, 0)")
    return told["responseStart"], told["domInteractive"], told["transferSize"] + more


UPDATE = """async (times) => {
  for (let number = 0; number < times; number++)
    await htmx.ajax("GET", location.pathname, { target: "#moving", swap: "morph:innerHTML" });
}"""


def heaps(page: Page, served: Served, updates: int) -> None:
    """The heap of an open page before, between and after its updates."""
    page.goto(served.url + "/")
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    steps = [min(20, updates), *[updates // 4] * 4]
    done, said = 0, []
    for step in steps:
        page.evaluate(UPDATE, step)
        done += step
        session.send("HeapProfiler.collectGarbage")
        metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
        said.append(f"{done}: {metrics['JSHeapUsedSize'] / 1e6:.1f} MB, {metrics['Nodes']:.0f} nodes")
    print("\nheap after updates   " + "   ".join(said))


if __name__ == "__main__":
    main()
