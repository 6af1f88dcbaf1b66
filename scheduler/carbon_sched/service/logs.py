"""Job logs: read from the cluster while a job runs, from our own copy after it ended."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import ClusterError, StoreError

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


class Logs:
    """Serves byte ranges; many followers of one job share one read of the cluster."""

    def __init__(self, store: Store, fleet: Fleet, directory: Path, clock: Clock, signals: Signals) -> None:
        self._store, self._fleet, self._directory = store, fleet, directory
        self._clock, self._signals = clock, signals
        self._lock = threading.Lock()
        self._live: dict[str, tuple[float, bytes]] = {}

    def read(self, job_id: str, offset: int, wait_s: float) -> LogChunk:
        """Text from byte `offset` of the newest attempt's log; waits up to `wait_s` for something new.

        `next_offset` never cuts a UTF-8 character; undecodable bytes are replaced. `final` once nothing will follow.
        """
        until = self._clock.monotonic() + wait_s
        while True:
            generation = self._signals.generation
            data, final = self._bytes(job_id)
            if len(data) > offset or final or self._clock.monotonic() >= until:
                return _chunk(data, offset, final=final)
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

    def _bytes(self, job_id: str) -> tuple[bytes, bool]:
        with self._store.transaction(write=False) as tx:
            job = tx.job(job_id)
            attempts = [attempt for attempt in tx.attempts(job_id=job_id) if attempt.accepted]
        if not attempts:
            return b"", job.state.final
        attempt = attempts[-1]
        if self._path(attempt).exists():
            return self._path(attempt).read_bytes(), job.state.final
        return self._from_cluster(attempt), job.state.final and attempt.collected

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


def _chunk(data: bytes, offset: int, *, final: bool) -> LogChunk:
    piece = data[offset : offset + CHUNK]
    last = offset + len(piece) == len(data) and final
    if not last:
        piece = piece[: len(piece) - _incomplete_tail(piece)]
    end = offset + len(piece)
    return {"text": piece.decode("utf-8", "replace"), "next_offset": end, "final": final and end >= len(data)}


def _incomplete_tail(piece: bytes) -> int:
    """Bytes at the end that begin a UTF-8 character without finishing it (0 to 3)."""
    for back in range(1, min(4, len(piece)) + 1):
        byte = piece[-back]
        if byte & 0xC0 == 0x80:
            continue
        needed = 2 if byte & 0xE0 == 0xC0 else 3 if byte & 0xF0 == 0xE0 else 4 if byte & 0xF8 == 0xF0 else 1
        return back if needed > back else 0
    return 0
