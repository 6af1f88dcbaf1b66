"""What one replica of a service answered, and the file in which it tells so: one line, replaced about every second.

`carbon-sched-<attempt>.requests-<replica>` beside the energy journal of its node, `replica` eight hexadecimal digits:

    {"v":1,"attempt":…,"replica":…,"t0":…,"t1":…,"n":requests,"bad":failed,"in":tokens,"out":tokens,
     "busy":µs,"waited":µs,"lat":"12:3 13:9"}

All are sums from `t0` to `t1` (UTC microseconds). `busy` is the time in which at least one request was in flight and
`waited` the time of all requests together, so that waited / busy is the mean batch size; `lat` counts requests by
latency: bucket k holds those of at most 1.1^k ms that are longer than bucket k - 1's. Under replica `00000000` stands
what Ray Serve's own counters say of the whole service: `n` and `bad` alone.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from carbon_sched_runtime.fields import OWNER, Fields, ascii_text, refuse

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT = 4096
STEP = 1.1
LAST = 145
"""The last bucket holds what took longer than 1.1^144 ms, a quarter of an hour."""
LATENCIES = re.compile(r"([0-9]{1,3}:[0-9]{1,15}( |$))*")
REPLICA = re.compile(r"[0-9a-f]{8}")
SERVE = "00000000"
"""In place of a replica: Ray Serve's own word on all of them together."""


@dataclass(frozen=True)
class Counts:
    """Sums over some time; times in microseconds, `latencies` requests by bucket."""

    requests: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    busy_us: int = 0
    waited_us: int = 0
    latencies: Mapping[int, int] = field(default_factory=dict)

    def __add__(self, other: Counts) -> Counts:
        """Both together."""
        return self._with(other, 1)

    def __sub__(self, earlier: Counts) -> Counts:
        """What came since `earlier`, a sum of the same replica."""
        return self._with(earlier, -1)

    def _with(self, other: Counts, sign: int) -> Counts:
        keys = {*self.latencies, *other.latencies}
        both = {key: self.latencies.get(key, 0) + sign * other.latencies.get(key, 0) for key in keys}
        return Counts(
            self.requests + sign * other.requests,
            self.failed + sign * other.failed,
            self.input_tokens + sign * other.input_tokens,
            self.output_tokens + sign * other.output_tokens,
            self.busy_us + sign * other.busy_us,
            self.waited_us + sign * other.waited_us,
            {key: value for key, value in sorted(both.items()) if value},
        )

    @property
    def batch_size(self) -> float | None:
        """Requests in flight on average while there are any; None without any."""
        return self.waited_us / self.busy_us if self.busy_us else None

    def latency_s(self, share: float) -> float | None:
        """The latency within which this share of the requests was answered, at most a tenth too long; None without."""
        wanted, seen = share * sum(self.latencies.values()), 0
        for bucket, count in sorted(self.latencies.items()):
            seen += count
            if seen >= wanted:
                return float(STEP**bucket / 1000)
        return None


def bucket(seconds: float) -> int:
    """The bucket of a latency."""
    return min(LAST, max(0, math.ceil(math.log(seconds * 1000, STEP) - 1e-9))) if seconds > 0 else 0


@dataclass(frozen=True)
class ReplicaCounts:
    """What one replica of an attempt's service told; times in UTC microseconds."""

    attempt: str
    replica: str
    start_us: int
    end_us: int
    counts: Counts


def counts_name(attempt: str, replica: str) -> str:
    """The file's name; WireError if the ids could not be part of one. `*` for the replica makes the glob of all."""
    if not OWNER.fullmatch(attempt) or not (replica == "*" or REPLICA.fullmatch(replica)):
        refuse("not the ids of an attempt and a replica")
    return f"carbon-sched-{attempt}.requests-{replica}"


def format_counts(told: ReplicaCounts) -> bytes:
    """Its line; WireError when it would not be read back."""
    c = told.counts
    line = {
        "v": 1, "attempt": told.attempt, "replica": told.replica, "t0": told.start_us, "t1": told.end_us,
        "n": c.requests, "bad": c.failed, "in": c.input_tokens, "out": c.output_tokens, "busy": c.busy_us,
        "waited": c.waited_us, "lat": " ".join(f"{key}:{value}" for key, value in sorted(c.latencies.items())),
    }  # fmt: skip
    data = json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"
    parse_counts(data, told.attempt)
    return data


def parse_counts(data: bytes, attempt: str) -> ReplicaCounts:
    """Read what a hostile service may have written; WireError for anything else than sums that can be."""
    if len(data) > LIMIT or not data.endswith(b"\n"):
        refuse("not the counts of a replica")
    line = Fields(ascii_text(data[:-1]))
    if line.integer("v") != 1 or line.text("attempt", OWNER) != attempt:
        refuse("counts in another format, or of another attempt")
    told = ReplicaCounts(
        attempt, line.text("replica", REPLICA), line.integer("t0"), line.integer("t1"),
        Counts(
            line.integer("n"), line.integer("bad"), line.integer("in"), line.integer("out"), line.integer("busy"),
            line.integer("waited"), _latencies(line.text("lat", LATENCIES, LIMIT)),
        ),
    )  # fmt: skip
    line.done()
    counts = told.counts
    if told.end_us < told.start_us or counts.failed > counts.requests or counts.busy_us > counts.waited_us:
        refuse("counts that contradict each other")
    known = counts.requests if told.replica != SERVE else 0
    if sum(counts.latencies.values()) != known or any(key > LAST for key in counts.latencies):
        refuse("latencies that are not those of the requests")
    return told


def _latencies(text: str) -> dict[int, int]:
    pairs = (pair.split(":") for pair in text.split())
    return {int(key): int(value) for key, value in pairs}
