"""What a server's processes cost while nothing happens but that it asks its clusters: with one, and with many.

    python tests/bench/bench_polling.py [--clusters 50] [--seconds 60]

The heads are fakes in this process, each with its own HTTP server; what is measured is the processor time of the server
and of its children, as a part of one core. The bound is 10 % with fifty clusters.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[2]))

from carbon_sched.service.fleet import POLL_S
from tests.bench.processor_time import spent_by_children_s, spent_s
from tests.fakes.ray_head import FakeRayHead
from tests.fakes.real_server import eventually
from tests.fakes.replicas import Replica

if TYPE_CHECKING:
    from tests.fakes.ray_head_http import Reply

SETTLE_S = 15.0


class CountingHead(FakeRayHead):
    """Knows how often it was asked."""

    asked = 0

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> Reply:
        self.asked += 1
        return super().answer(method, path, query, body)


def main() -> None:
    """Measure, print one line for each number of clusters."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clusters", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; each cluster is asked every {POLL_S:g} s")
    print(f"{'clusters':>9} {'answers/s':>10} {'% of a core':>12}")
    for count in (1, arguments.clusters):
        with tempfile.TemporaryDirectory(prefix="cs-bench-") as folder, ExitStack() as heads:
            measure([heads.enter_context(CountingHead()) for _ in range(count)], arguments.seconds, Path(folder))


def measure(heads: list[CountingHead], seconds: float, folder: Path) -> None:
    """One line of the table."""
    server = Replica(folder / "server", folder / "shared", f"sqlite:///{folder / 'bench.sqlite'}")
    try:
        for number, head in enumerate(heads):
            server.client.put_cluster(f"c{number}", {"address": head.address, "zone": "NO"})
        eventually(server.client.clusters, lambda views: all(not view["problem"] for view in views))
        time.sleep(SETTLE_S)
        before, asked, begin = cost_s(server), answers(heads), time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - begin
        used, answered = cost_s(server) - before, answers(heads) - asked
        print(f"{len(heads):>9} {answered / took:>10.1f} {100 * used / took:>12.1f}", flush=True)
    finally:
        server.stop()


def cost_s(server: Replica) -> float:
    """Processor seconds of a server and of its children so far."""
    return spent_s(server.process.pid) + spent_by_children_s(server.process.pid)


def answers(heads: list[CountingHead]) -> int:
    """Requests that the heads have been sent."""
    return sum(head.asked for head in heads)


if __name__ == "__main__":
    main()
