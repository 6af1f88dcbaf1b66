"""Two grids whose coming minutes a test writes while jobs run: what has begun stays as it was."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

SLOT = timedelta(seconds=5)
LASTING = timedelta(hours=1)


class SteeredGrid:
    """Series files of zones, in slots as fine as a plan over minutes has them; every zone needs its first word."""

    def __init__(self, folder: Path, **g_per_kwh: float) -> None:
        """The zones, and what each emits until it is told otherwise."""
        self._folder = folder
        self._values: dict[str, dict[datetime, float]] = {zone: {} for zone in g_per_kwh}
        for zone, value in g_per_kwh.items():
            self.say(zone, (LASTING.total_seconds(), value))

    @property
    def settings(self) -> dict[str, Any]:
        """What a server's configuration says of its grid."""
        return {"providers": [], "series": [{"zone": zone, "file": str(self._file(zone))} for zone in self._values]}

    def say(self, zone: str, *stretches: tuple[float, float]) -> None:
        """From the next slot on, so many seconds of so many g/kWh, one stretch after another, the last one for ever."""
        known, slot = self._values[zone], _next_slot()
        end = slot + LASTING
        if not known:
            slot -= 10 * SLOT
        for number, (seconds, value) in enumerate(stretches, 1):
            until = end if number == len(stretches) else slot + timedelta(seconds=seconds)
            while slot < until:
                known[slot] = value
                slot += SLOT
        rows = [f"{start.isoformat()},{known[start]}" for start in sorted(known) if start < end]
        draft = self._file(zone).with_suffix(".draft")
        draft.write_text("start,g_per_kwh\n" + "\n".join(rows) + "\n", encoding="utf-8")
        draft.replace(self._file(zone))

    def _file(self, zone: str) -> Path:
        return self._folder / f"{zone}.csv"


def _next_slot() -> datetime:
    now = datetime.now(timezone.utc)
    return now + SLOT - timedelta(seconds=now.timestamp() % SLOT.total_seconds())
