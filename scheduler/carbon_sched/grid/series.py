"""A file with the intensity of one zone over time, as a grid source (layer: grid adapters)."""

from __future__ import annotations

import bisect
import gzip
import hashlib
import io
import logging
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import InvalidInput, ZoneNotCovered
from carbon_sched.domain.intensity import Comparability, Grade, Kind, Reading
from carbon_sched.domain.time import from_epoch
from carbon_sched.grid.provider import HOUSE
from carbon_sched.grid.series_text import Series, parse_series

if TYPE_CHECKING:
    from datetime import datetime

log = logging.getLogger(__name__)

MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class _Content:
    """What one version of the file says."""

    series: Series
    sha256: str
    issued_at: datetime


class SeriesFile:
    """Implements `ports.GridSource` on a CSV or JSON file (also gzipped); formats: `series_text.parse_series`.

    The file is read when made (raises InvalidFile or InvalidInput, for the user who configured it) and again whenever
    its time or size changes. A changed file that cannot be read leaves the last good content in use, and says so in the
    log and in `problem`.
    """

    def __init__(self, path: Path, zone: str, like: Comparability = HOUSE, licence: str = "user-supplied") -> None:
        """`like` says what kind of intensity the file holds."""
        self._path, self._zone, self._like, self._licence = Path(path), zone, like, licence
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._content = self._read()
        self._fetched_at: datetime | None = None
        self.problem: str | None = None

    @property
    def name(self) -> str:
        """Provider name on its readings."""
        return f"series:{self._path.name}"

    def zones(self) -> frozenset[str]:
        """The one zone of the file."""
        return frozenset({self._zone})

    def readings(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        """The file's values that overlap `[start, end)`.

        Intervals that have begun are live (measured, or estimated where the file says so or was written before they
        ended); later ones are forecasts issued when the file was written.
        """
        if zone != self._zone:
            raise ZoneNotCovered(f"{self.name} holds {self._zone}, not {zone}")
        content, fetched_at = self._fresh(now)
        series = content.series
        first, last = bisect.bisect_right(series.ends, start), bisect.bisect_left(series.starts, end)
        return [self._reading(content, index, now, fetched_at) for index in range(first, last)]

    def _reading(self, content: _Content, index: int, now: datetime, fetched_at: datetime) -> Reading:
        series = content.series
        begun = series.starts[index] <= now
        early = content.issued_at < series.ends[index] or series.ends[index] > now
        kind = Kind.ESTIMATED if series.estimated[index] or early else Kind.MEASURED
        return Reading(
            zone=self._zone,
            start=series.starts[index],
            end=series.ends[index],
            intensity_mg_per_kwh=series.intensity_mg_per_kwh[index],
            signal=self._like.signal,
            basis=self._like.basis,
            perimeter=self._like.perimeter,
            kind=kind if begun else Kind.FORECAST,
            grade=Grade.LIVE if begun else Grade.PROVIDER_FORECAST,
            provider=self.name,
            issued_at=min(content.issued_at, fetched_at),
            fetched_at=fetched_at,
            payload_sha256=content.sha256,
            licence=self._licence,
        )

    def _fresh(self, now: datetime) -> tuple[_Content, datetime]:
        with self._lock:
            stamp = self._stamp()
            if stamp != self._seen:
                self._seen = stamp
                self._read_again()
            self._fetched_at = self._fetched_at or now
            return self._content, self._fetched_at

    def _read_again(self) -> None:
        try:
            self._content, self._fetched_at = self._read(), None
            self.problem = None
        except InvalidInput as error:
            self.problem = str(error)
            log.warning("%s: using the values read before: %s", self.name, error)

    def _stamp(self) -> tuple[int, int] | None:
        """Time and size, which change when the content does; None while there is no readable file."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size

    def _read(self) -> _Content:
        try:
            modified, data = self._path.stat().st_mtime, self._path.read_bytes()
        except OSError as error:
            raise self._unreadable(error) from None
        series = parse_series(self._text(data), str(self._path), self._like)
        return _Content(series, hashlib.sha256(data).hexdigest(), from_epoch(modified))

    def _text(self, data: bytes) -> str:
        try:
            plain = decompress(data) if self._path.suffix == ".gz" else data
            if len(plain) > MAX_BYTES:
                raise self._invalid(f"is larger than {MAX_BYTES // 2**20} MiB", "Give a shorter period")
            return plain.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise self._invalid("is not UTF-8 text", "Save it as UTF-8") from None
        except (OSError, EOFError, zlib.error):
            raise self._invalid("is not a gzip file", "Compress it again, or drop the suffix .gz") from None

    def _unreadable(self, error: OSError) -> InvalidInput:
        return self._invalid(f"cannot be read ({error.strerror})", "Name a readable CSV or JSON file")

    def _invalid(self, problem: str, remedy: str) -> InvalidInput:
        return InvalidInput("series file", self._path, problem, remedy)


def decompress(data: bytes) -> bytes:
    """Gunzip at most one byte more than MAX_BYTES: a small file may hold very much."""
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        return file.read(MAX_BYTES + 1)
