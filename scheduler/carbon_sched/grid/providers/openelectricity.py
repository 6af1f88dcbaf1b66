"""Open Electricity v4 (Australia): energy and emissions per region, divided; a free key, **non-commercial data**.

Average, direct, generation. The data are CC BY-NC 4.0 since February 2026: the provider is off unless the configuration
says `non_commercial: true`, and every reading carries the licence. Times are in network time with its offset.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.errors import GridMalformed, InvalidInput
from carbon_sched.domain.intensity import Basis, Comparability, Kind, Perimeter, Reading, Signal
from carbon_sched.grid.http import read_secret
from carbon_sched.grid.provider import Collector, Method, instant, items, member, number, record

if TYPE_CHECKING:
    from carbon_sched.domain.cluster import SecretRef
    from carbon_sched.grid.http import Channel

NAME = "openelectricity"
BASE = "https://api.openelectricity.org.au"
REMEDY = "Register at platform.openelectricity.org.au for a key, then give its environment variable or file"
METHOD = Method(
    NAME,
    Comparability(Signal.AVERAGE, Basis.DIRECT, Perimeter.GENERATION),
    "CC BY-NC 4.0 (Open Electricity): non-commercial use only",
    retention="used-only",
)
REGIONS = {"AU-NSW": "NSW1", "AU-QLD": "QLD1", "AU-SA": "SA1", "AU-TAS": "TAS1", "AU-VIC": "VIC1"}
NETWORK_TIME = timezone(timedelta(hours=10))
"""The National Electricity Market runs on UTC+10 all year."""
HOUR = timedelta(hours=1)
G_PER_KWH_OF_T_PER_MWH = 1000.0
UNITS = {"energy": "MWh", "emissions": "t"}


class OpenElectricity:
    """Implements `provider.Provider`."""

    name = NAME
    ttl = timedelta(minutes=30)
    lookback = timedelta(days=28)
    horizon = timedelta(0)
    max_span = timedelta(days=14)

    def __init__(self, channel: Channel, key: SecretRef | None, *, non_commercial: bool = False) -> None:
        """Raises InvalidInput unless `non_commercial` says that this use is one."""
        if not non_commercial:
            problem = "gives data for non-commercial use only (CC BY-NC 4.0)"
            raise InvalidInput("grid provider", NAME, problem, "Set non_commercial: true if yours is, or remove it")
        self._channel, self._key = channel, key

    def zones(self) -> frozenset[str]:
        """The five regions of the National Electricity Market."""
        return frozenset(REGIONS)

    def fetch(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        """One request for both metrics."""
        key = read_secret(self._key, NAME, REMEDY)
        params: dict[str, str | list[str]] = {
            "metrics": ["energy", "emissions"],
            "interval": "1h",
            "primary_grouping": "network_region",
            "date_start": f"{start.astimezone(NETWORK_TIME):%Y-%m-%dT%H:00:00}",
            "date_end": f"{min(end, now).astimezone(NETWORK_TIME):%Y-%m-%dT%H:00:00}",
        }
        headers = {"Authorization": f"Bearer {key}"}
        data, answer = self._channel.get_json("/v4/data/network/NEM", params, headers=headers, secrets=(key,))
        energy, emissions = (_metric(data, metric, REGIONS[zone]) for metric in ("energy", "emissions"))
        collector = Collector(METHOD, zone, now, answer)
        for at, mwh in sorted(energy.items()):
            tonnes = emissions.get(at)
            known = mwh is not None and tonnes is not None and mwh > 0
            value = tonnes / mwh * G_PER_KWH_OF_T_PER_MWH if known and tonnes is not None and mwh is not None else None
            collector.add(at, at + HOUR, value, Kind.ESTIMATED)
        return collector.readings(start, end)


def _metric(data: Any, metric: str, region: str) -> dict[datetime, float | None]:
    """One metric of one region by start of the hour; GridMalformed when the answer lacks it or has another unit."""
    for item in items(NAME, data, "data"):
        one = record(NAME, item)
        if one.get("metric") != metric:
            continue
        if (one.get("unit"), one.get("interval")) != (UNITS[metric], "1h"):
            raise GridMalformed(f"{NAME}: {metric} is not in {UNITS[metric]} per hour")
        for result in items(NAME, one, "results"):
            if record(NAME, result).get("columns", {}).get("region") == region:
                return {_time(point): _amount(point) for point in items(NAME, result, "data")}
    raise GridMalformed(f"{NAME}: the answer has no {metric} of {region}")


def _time(point: Any) -> datetime:
    if not isinstance(point, list) or len(point) != 2:
        raise GridMalformed(f"{NAME}: {str(point)[:40]!r} stands where [time, value] is documented")
    return instant(NAME, point[0], naive_is=NETWORK_TIME)


def _amount(point: list[Any]) -> float | None:
    return number(NAME, member(NAME, {"value": point[1]}, "value"))
