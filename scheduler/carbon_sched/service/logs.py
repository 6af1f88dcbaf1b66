"""Job logs: read from the cluster while a job runs, from our own copy after it ended."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import ClusterError, NotFound, StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from carbon_sched.domain.job import Attempt
    from carbon_sched.ports import Clock, Store
    from carbon_sched.service.fleet import Fleet
    from carbon_sched.service.signals import Signals
    from carbon_sched.wire import LogChunk

FRESH_S = 0.4
CHUNK = 1 << 20
BYTES_PER_S = 4_000_000
"""Ray answers with the whole log every time, so the larger it is, the less often we ask."""


@dataclass(frozen=True)
class _Page:
    """What one attempt wrote so far; `final` when no more will come, `superseded` when another attempt follows."""

    attempt: int
    data: bytes
    final: bool
    superseded: bool = False


class Logs:
    """Serves byte ranges; many followers of one job share one read of the cluster."""

    def __init__(self, store: Store, fleet: Fleet, directory: Path, clock: Clock, signals: Signals) -> None:
        self._store, self._fleet, self._directory = store, fleet, directory
        self._clock, self._signals = clock, signals
        self._lock = threading.Lock()
        self._live: dict[str, tuple[float, bytes]] = {}

    def read(self, job_id: str, offset: int, wait_s: float, attempt: int | None = None) -> LogChunk:
        """Text from byte `offset` of an attempt's log (None: the newest's); waits up to `wait_s` for something new.

        The chunk names the attempt that it is of, in whose log `next_offset` counts: behind the end of one attempt
        comes the beginning of the next. No chunk cuts a UTF-8 character; undecodable bytes are replaced. `final` once
        nothing will follow. Raises NotFound for an attempt that the job never had.
        """
        until = self._clock.monotonic() + wait_s
        while True:
            generation = self._signals.generation
            page = self._page(job_id, attempt)
            if page.superseded and len(page.data) <= offset:
                attempt, offset = page.attempt + 1, 0
                continue
            if len(page.data) > offset or page.final or self._clock.monotonic() >= until:
                return _chunk(page, offset)
            self._signals.wait_for_change(generation, min(FRESH_S, max(0.0, until - self._clock.monotonic())))

    def keep(self, attempt: Attempt) -> None:
        """Copy the whole log of an ended attempt.

        Raises ClusterError when the cluster does not give it, StoreError when it cannot be kept.
        """
        if self._path(attempt).exists():
            return
        client = self._fleet.client(self._fleet.get(attempt.cluster))
        self._write(self._path(attempt), client.logs(attempt.attempt_id) or b"")
        with self._lock:
            self._live.pop(attempt.attempt_id, None)

    def _page(self, job_id: str, number: int | None) -> _Page:
        """The whole log of attempt `number`, or of the next one that a cluster took; None: of the newest."""
        with self._store.transaction(write=False) as tx:
            job = tx.job(job_id)
            attempts = [attempt for attempt in tx.attempts(job_id=job_id) if attempt.accepted]
        if number is not None and number > job.attempts:
            raise NotFound(f"job {job_id} has no attempt {number}; it has had {job.attempts}")
        wanted = attempts[-1:] if number is None else [attempt for attempt in attempts if attempt.number >= number]
        if not wanted:
            return _Page(number or 0, b"", final=job.state.final)
        attempt = wanted[0]
        kept = self._path(attempt).exists()
        data = self._path(attempt).read_bytes() if kept else self._from_cluster(attempt)
        newest = attempt is attempts[-1]
        final = newest and job.state.final and (kept or attempt.collected)
        return _Page(attempt.number, data, final=final, superseded=not newest)

    def _from_cluster(self, attempt: Attempt) -> bytes:
        with self._lock:
            at, data = self._live.get(attempt.attempt_id, (float("-inf"), b""))
            if self._clock.monotonic() - at < max(FRESH_S, len(data) / BYTES_PER_S):
                return data
            self._live[attempt.attempt_id] = (self._clock.monotonic(), data)
        try:
            fresh = self._fleet.client(self._fleet.get(attempt.cluster)).logs(attempt.attempt_id)
        except ClusterError:
            # the state shows the trouble; a follower just sees no news until the cluster answers again
            return data
        data = data if fresh is None else fresh
        with self._lock:
            self._live[attempt.attempt_id] = (self._clock.monotonic(), data)
        return data

    def _write(self, path: Path, data: bytes) -> None:
        """The file whole or not at all."""
        partial = path.with_suffix(".part")
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            partial.touch(mode=0o600)
            partial.write_bytes(data)
            partial.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise StoreError(f"the log {path} cannot be written ({error.strerror}). Make room there") from error

    def _path(self, attempt: Attempt) -> Path:
        return self._directory / f"{attempt.attempt_id}.log"


def _chunk(page: _Page, offset: int) -> LogChunk:
    piece = page.data[offset : offset + CHUNK]
    last = offset + len(piece) == len(page.data) and (page.final or page.superseded)
    if not last:
        piece = piece[: len(piece) - _incomplete_tail(piece)]
    end = offset + len(piece)
    final = page.final and end >= len(page.data)
    return {"attempt": page.attempt, "text": piece.decode("utf-8", "replace"), "next_offset": end, "final": final}


def _incomplete_tail(piece: bytes) -> int:
    """Bytes at the end that begin a UTF-8 character without finishing it (0 to 3)."""
    for back in range(1, min(4, len(piece)) + 1):
        byte = piece[-back]
        if byte & 0xC0 == 0x80:
            continue
        needed = 2 if byte & 0xE0 == 0xC0 else 3 if byte & 0xF0 == 0xE0 else 4 if byte & 0xF8 == 0xF0 else 1
        return back if needed > back else 0
    return 0
