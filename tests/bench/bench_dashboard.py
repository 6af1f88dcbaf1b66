"""How fast the dashboard is with 10,000 jobs, 50 clusters, 20 zones and 90 days behind it.

    make bench-dashboard
    .venv/bin/python tests/bench/bench_dashboard.py --days 9 --updates 100      a tenth of it, in a minute

Jobs take an hour on one GPU each and leave a fact of energy every five minutes; a provider that is made up tells hourly
intensities, which the real chain brings to one level and forecasts from. `server` is the time of one answer without a
browser: of the page, and of the part that an open page asks for, each time after something changed (a second passed, a
fact was booked); medians of ten. `CPU` is what the second takes of processor time, however busy the machine is. `first
byte`, `interactive` (all scripts have run) and `KB` are Chromium's own on a second visit. For the memory of a page and
of the server two pages are brought up to date again and again, a change before each; the heap is read after forced
collections. Ends with 1 where a figure is beyond its bar.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import statistics
import sys
import tempfile
import time
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

import requests
from playwright.sync_api import Page, sync_playwright

from carbon_sched.domain.job import Job, JobEvent, JobSpec, JobState
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.grid.cache import CachedSource
from carbon_sched.grid.chain import Grid
from carbon_sched.grid.yearly import YearlyTable
from carbon_sched.ledger.encoding import decode_fact
from carbon_sched.service.answers import PATIENCE_S
from carbon_sched.service.forecasts import OwnForecasts
from tests.bench.fleet_ledger import BEGIN, Fleet
from tests.fakes.busy_fleet import POLICY
from tests.fakes.grid import FakeSource
from tests.fakes.served import Served
from tests.fakes.weather import intensity
from tests.fakes.world import a_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from carbon_sched.domain.facts import Fact

ZONES = (
    "AT", "BE", "CH", "CZ", "DE", "DK-DK1", "ES", "FI", "FR", "GB", "GR", "HU", "IT-NO", "NL", "NO-NO1", "PL", "PT",
    "RO", "SE-SE3", "US-CAL-CISO",
)  # fmt: skip
CLUSTERS, SLOTS, WAITING = 50, 5, 100
BARS = {"server": 300, "update": 100, "update, CPU": 100, "first byte": 300, "interactive": 1000, "KB": 300}
"""Milliseconds, but for the last."""
GROWTH = 0.03
"""By what share memory may be more after all updates than after half of them and still be called flat."""
READINGS = 6
PIECE = 2_000
LONGEST_S = 300.0
DAY = timedelta(days=1)


class Hourly(FakeSource):
    """A made-up provider: hourly values up to two days ahead."""

    name, ttl, lookback, horizon, max_span = "made-up", timedelta(minutes=15), 90 * DAY, 2 * DAY, 90 * DAY

    def __init__(self, days: int) -> None:
        hours = 24 * (days + 10)
        curves = {zone: list(intensity(hours, number, level=60 + 25 * number)) for number, zone in enumerate(ZONES)}
        super().__init__(curves, BEGIN, provider=self.name)
        self.fetch = self.readings


def main() -> int:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--updates", type=int, default=1000, help="of each open page, for its memory")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clusters = [a_cluster(f"cluster-{n}", ZONES[n % 20], 1.1 + n % 5 / 10, home=n == 0) for n in range(CLUSTERS)]
        served = Served(Path(folder), clusters, patience_s=PATIENCE_S)
        try:
            bench = Bench(served, arguments.days)
            return bench.measure(arguments.updates)
        finally:
            served.close()


class Bench:
    """A fleet with its past behind a server, to which something happens whenever `change` is called."""

    def __init__(self, served: Served, days: int) -> None:
        self.served, self.session, self.beyond = served, requests.Session(), []
        world = served.world
        world.clock.at = BEGIN + days * DAY - timedelta(hours=1)
        sources = [CachedSource(Hourly(days))]
        world.outlooks._grid = Grid(sources, YearlyTable.load(), forecaster=OwnForecasts(world.clock))
        self.facts = self.fill(days)
        jobs = served.client.jobs(state=["stopped"], limit=2)["jobs"]
        ended, other = (job["job_id"] for job in jobs)
        self.pages = (
            "/", "/queue", "/queue?show=ended", f"/jobs/{ended}", f"/jobs/{self.waiting[0]}", "/footprint",
            "/footprint?by=model&model=m1", f"/footprint?since={BEGIN.date()}", "/policies", "/health",
            f"/compare?a={ended}&b={other}",
        )  # fmt: skip

    def fill(self, days: int) -> Iterator[Fact]:
        """Jobs of all those days in the ledger and in the database, and some that wait; returns the facts to come."""
        world, begin = self.served.world, time.monotonic()
        world.policies.apply(POLICY.replace("9, over", "6, over"), by="ada", reason="budgets of the year")
        world.policies.apply(POLICY, by="ada", reason="more room")
        world.settle()
        entries = Fleet(slots=SLOTS, gpus=1, hours=1).entries((days + 2) * 24 * 12)
        facts, size, piece = (decode_fact(entry.payload) for entry in entries), 0, [None]
        with world.store.transaction() as tx:
            while piece[-1] is None or piece[-1].at < world.clock.now():
                piece = list(islice(facts, PIECE))
                size += len(tx.append_facts(piece))
        with world.store.transaction() as tx:
            for one in world.statements.ask(lambda book: list(book.jobs.values())):
                spec = JobSpec("python train.py", one.name, team=one.team, project=one.project, model=one.model)
                job = Job(one.job_id, spec, JobState.QUEUED, one.submitted_at)
                job = tx.add_job(job, idempotency_key=None, request_sha256="0" * 64)
                tx.move_job(job, JobEvent.STOPPED, at=one.submitted_at + timedelta(hours=1))
        later = {"earliest": to_rfc3339(world.clock.now() + timedelta(hours=6)), "max_delay_s": 43_200.0}
        self.waiting = [
            world.submit(name=f"waits-{number}", **later, duration_s=3600.0, power_w=700.0).job_id
            for number in range(WAITING)
        ]
        world.settle()
        jobs, took = world.statements.look(lambda index: len(index.jobs)), time.monotonic() - begin
        counted = f"{jobs:,} jobs of {days} days, {size:,} entries, {CLUSTERS} clusters, {len(ZONES)} zones"
        print(f"{counted}; filled in {took:.0f} s")
        return facts

    def change(self) -> None:
        """A second passes, the ledger grows by a fact, and open pages are told."""
        self.served.world.clock.pass_s(1.0)
        with self.served.world.store.transaction() as tx:
            tx.append_facts([next(self.facts)])
        self.served.world.signals.job_changed()

    def measure(self, updates: int) -> int:
        """Every page by itself, then in Chromium, then two of them open for long."""
        self.session.get(self.served.client.login_url(), timeout=60)
        self.warm()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(self.served.client.login_url())
            print(f"\n{'page':<42}" + "".join(f"{name:>13}" for name in BARS))
            for path in self.pages:
                whole, part = self.timed(path), self.timed(path, {"HX-Request": "true"})
                self.tell(path, (whole[0], *part, *visited(page, self.served.url + path)))
            print(f"{'bars (ms, KB)':<42}" + "".join(f"{bar:>13}" for bar in BARS.values()))
            for path in ("/", "/queue"):
                self.open_for_long(page, path, updates)
            browser.close()
        for said in self.beyond:
            print(f"BEYOND ITS BAR: {said}")
        return 1 if self.beyond else 0

    def tell(self, path: str, figures: tuple[float, ...]) -> None:
        print(f"{path:<42}" + "".join(f"{figure:>13.0f}" for figure in figures))
        for (name, bar), figure in zip(BARS.items(), figures, strict=True):
            if figure > bar:
                self.beyond.append(f"{path} {name} {figure:.0f}, not {bar}")

    def warm(self) -> None:
        """Until nothing is being computed any more, and how long the first answers took."""
        for path in self.pages:
            begin = time.monotonic()
            while "being computed" in self.session.get(self.served.url + path, timeout=60).text.lower():
                if time.monotonic() - begin > LONGEST_S:
                    raise SystemExit(f"{path} is not computed after {LONGEST_S:g} s")
                time.sleep(0.1)
            print(f"after a start, {path} is whole after {time.monotonic() - begin:.1f} s")

    def timed(self, path: str, headers: dict[str, str] | None = None) -> tuple[float, float]:
        """Median milliseconds of an answer after a change, and of processor time of it and of whoever asks."""
        walls, cpus = [], []
        for _ in range(10):
            self.change()
            wall, cpu = time.perf_counter(), time.process_time()
            assert self.session.get(self.served.url + path, headers=headers, timeout=60).status_code == 200
            walls.append(1000 * (time.perf_counter() - wall))
            cpus.append(1000 * (time.process_time() - cpu))
        return statistics.median(walls), statistics.median(cpus)

    def open_for_long(self, page: Page, path: str, updates: int) -> None:
        """Memory after half of its updates and after all, and of a page opened anew after half as many.

        What is shown grows as time passes and jobs come into sight, so a leak is what is more than both.
        """
        page.goto(self.served.url + path)
        half, old = (updated(page, updates // 2, self.change) for _ in range(2))
        print(f"{path} after half of {updates} updates: {half}\n{path} after all: {old}")
        page.goto(self.served.url + path)
        young = updated(page, updates // 2, self.change)
        print(f"{path} opened anew, after half as many: {young}")
        for name, *then, last in zip(Memory._fields, half, young, old, strict=True):
            if last > max(then) * (1 + GROWTH):
                self.beyond.append(f"{path} {name} grew from {max(then):g} to {last:g}")


def updated(page: Page, times: int, change: Callable[[], None]) -> Memory:
    """Bring an open page up to date so many times, a change before each, and look at its memory."""
    for _ in range(times):
        change()
        page.evaluate(UPDATE)
    return memory(page)


class Memory(NamedTuple):
    """Of a page: its heap, elements and listeners; of the process that holds the server: what is resident."""

    heap_mb: float
    nodes: int
    listeners: int
    server_mb: float


def memory(page: Page) -> Memory:
    """The least of some seconds, since an open page draws its curves anew a while after each update."""
    devtools, seen = page.context.new_cdp_session(page), []
    devtools.send("Performance.enable")
    for _ in range(READINGS):
        page.wait_for_timeout(500)
        devtools.send("HeapProfiler.collectGarbage")
        found = {one["name"]: one["value"] for one in devtools.send("Performance.getMetrics")["metrics"]}
        seen.append((found["JSHeapUsedSize"] / 1e6, found["Nodes"], found["JSEventListeners"]))
    devtools.detach()
    heap_mb, nodes, listeners = map(min, zip(*seen, strict=True))
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return Memory(round(heap_mb, 2), int(nodes), int(listeners), round(pages * 4096 / 1e6, 1))


def visited(page: Page, url: str) -> tuple[float, float, float]:
    """First byte and interactive in ms, and thousands of bytes transferred, of the second visit."""
    page.goto(url)
    page.goto(url)
    page.wait_for_timeout(1000)
    told: dict[str, Any] = page.evaluate("performance.getEntriesByType('navigation')[0].toJSON()")
    more = page.evaluate("performance.getEntriesByType('resource').reduce((sum, one) => sum + one.transferSize, 0)")
    return told["responseStart"], told["domContentLoadedEventEnd"], (told["transferSize"] + more) / 1000


UPDATE = """() => new Promise((done) => {
  document.body.addEventListener("htmx:afterSettle", () => done(), { once: true });
  htmx.trigger("#moving", "sse:news");
})"""


if __name__ == "__main__":
    sys.exit(main())
