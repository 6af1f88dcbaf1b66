"""What a service's job runs: it reads what Ray Serve itself counted, and tells it beside the sums of the replicas.

    python -m carbon_sched_runtime.serve_watch APPLICATION

Serve's proxies count HTTP requests by application and status, and the metrics agent of each node shows that to
Prometheus. Where the agents are, the dashboard tells (`GET /api/prometheus/sd`; older Ray does not). Proxies pass their
counts on every ten seconds or so: these sums come late. What an agent had counted at first sight is left out.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

from carbon_sched_runtime.allocation import cluster_token, get, own_raylet
from carbon_sched_runtime.machine import replace_file
from carbon_sched_runtime.request_counts import SERVE, Counts, ReplicaCounts, counts_name, format_counts
from carbon_sched_runtime.run import complain, journal_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from carbon_sched_runtime.allocation import Raylet

PERIOD_S = 10.0
TURN_S = 8.0
"""No agent is asked later in a turn: the last turn, with an agent that takes 5 s, is within a job's stop grace."""
STOPPED = 128 + signal.SIGTERM
TARGETS = 1000
DISCOVERY = "/api/prometheus/sd"
SERIES = re.compile(r"ray_serve_num_http_requests(?:_total)?\{(.*)\} ([0-9.e+]+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Tally:
    """The growth of an application's counters over all agents; what a restarted one counted anew is added."""

    def __init__(self, application: str) -> None:
        self._application = application
        self._seen: dict[str, dict[str, int]] = {}
        self.requests = self.failed = 0

    def add(self, agent: str, page: str) -> None:
        """Take an agent's page, in Prometheus' text format."""
        now = dict(self._series(page))
        before = self._seen.get(agent, now)
        for series, value in now.items():
            self._grow(series, before.get(series, 0), value)
        self._seen[agent] = before | now

    def _grow(self, series: str, before: int, now: int) -> None:
        grown = now - before if now >= before else now
        self.requests += grown
        self.failed += grown if _label(series, "status_code").startswith("5") else 0

    def _series(self, page: str) -> Iterator[tuple[str, int]]:
        for line in page.splitlines():
            found = SERIES.fullmatch(line)
            if found and _label(found.group(1), "application") == self._application:
                yield found.group(1), int(float(found.group(2)))


def _label(labels: str, name: str) -> str:
    return next((value for key, value in LABEL.findall(labels) if key == name), "")


class Watch:
    """Reads the counters of one attempt's application and writes the file that the server collects."""

    def __init__(self, application: str, raylet: Raylet | None) -> None:
        self._tally, self._raylet = Tally(application), raylet
        self._start_us = time.time_ns() // 1000
        self._said = ""

    def turn(self) -> None:
        """Look once, and tell; what stands in the way is said in the job's log, once."""
        until, trouble = time.monotonic() + TURN_S, ""
        try:
            for agent in self._agents():
                if time.monotonic() >= until:
                    trouble = f"not every agent answered within {TURN_S:g} s"
                    break
                trouble = self._look(agent) or trouble
            self._tell()
        except (OSError, ValueError) as error:
            trouble = str(error)
        if trouble and trouble != self._said:
            complain(f"Ray Serve's own metrics are not all read: {trouble}")
        self._said = trouble or self._said

    def _look(self, agent: str) -> str:
        """Take what one agent shows; why it shows nothing, or an empty text. Others go on."""
        try:
            self._tally.add(agent, get(agent, "/metrics").decode("utf-8", "replace"))
        except OSError as error:
            return str(error)
        return ""

    def _agents(self) -> list[str]:
        """Where each node's agent shows its metrics, as HOST:PORT. OSError or ValueError."""
        if self._raylet is None:
            raise OSError("no raylet above this process names its dashboard")
        groups = json.loads(get(self._raylet.dashboard, DISCOVERY, cluster_token()))
        try:
            found = [str(agent) for group in groups for agent in group["targets"]][:TARGETS]
        except (TypeError, KeyError) as error:
            raise ValueError("the dashboard names agents in another form") from error
        if not found:
            raise ValueError("the dashboard names no agents")
        return found

    def _tell(self) -> None:
        attempt, counts = os.environ["CARBON_SCHED_ATTEMPT"], Counts(self._tally.requests, self._tally.failed)
        told = ReplicaCounts(attempt, SERVE, self._start_us, time.time_ns() // 1000, counts)
        replace_file(f"{journal_folder()}/{counts_name(attempt, SERVE)}", format_counts(told))


def main(arguments: list[str]) -> int:
    """Look until SIGTERM comes, and once more then."""
    (application,) = arguments
    watch, stopped = Watch(application, own_raylet()), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    watch.turn()
    while not stopped.wait(PERIOD_S):
        watch.turn()
    watch.turn()
    return STOPPED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
