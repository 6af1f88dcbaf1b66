"""EIA-930 (United States): hourly generation by fuel of each balancing authority, times life-cycle factors; a free key.

Average, life-cycle, generation: an importer such as California looks cleaner or dirtier than what it consumes. Values
are strings; the clock has no minutes and is UTC, and a `period` is the hour that *ends* then. Lag of hours up to a
day, revised for days. Sorted explicitly, because paging is unstable otherwise.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.errors import GridAuth, GridError, GridMalformed
from carbon_sched.domain.intensity import Basis, Comparability, Kind, Perimeter, Reading, Signal
from carbon_sched.domain.time import UTC
from carbon_sched.grid.http import read_secret
from carbon_sched.grid.mix import STORAGE, VERSION, intensity_g_per_kwh
from carbon_sched.grid.provider import Collector, Method, items, member, record
from carbon_sched.grid.tables import rows

if TYPE_CHECKING:
    from carbon_sched.domain.cluster import SecretRef
    from carbon_sched.grid.answers import Answer
    from carbon_sched.grid.http import Channel

NAME = "eia-930"
BASE = "https://api.eia.gov"
PATH = "/v2/electricity/rto/fuel-type-data/data/"
REMEDY = "Register at eia.gov/opendata for a free key, then give its environment variable or file"
METHOD = Method(
    NAME,
    Comparability(Signal.AVERAGE, Basis.LIFECYCLE, Perimeter.GENERATION),
    "public domain (US EIA)",
)
FUELS = {
    "COL": "coal",
    "NG": "gas",
    "NUC": "nuclear",
    "OIL": "oil",
    "WAT": "hydro",
    "SUN": "solar",
    "WND": "wind",
    "GEO": "geothermal",
    "OTH": "other",
    "UNK": "other",
    "BAT": STORAGE,
    "PS": STORAGE,
    "UES": STORAGE,
    "OES": STORAGE,
    "SNB": "solar",
    "WNB": "wind",
}
HOUR = timedelta(hours=1)
PAGE = 5000
PAGES = 20


class Eia930:
    """Implements `provider.Provider`."""

    name = NAME
    ttl = timedelta(hours=1)
    lookback = timedelta(days=28)
    horizon = timedelta(0)
    max_span = timedelta(days=28)

    def __init__(self, channel: Channel, key: SecretRef | None) -> None:
        self._channel, self._key = channel, key
        table = rows("zone_year_electricitymaps_ODbL.csv")
        # Zones of the contiguous states are named by their balancing authority: US-CAL-CISO is CISO.
        self._authorities = {z: z.split("-")[2] for z in (r["zone"] for r in table) if _is_authority(z)}

    def zones(self) -> frozenset[str]:
        """Zones that are a balancing authority."""
        return frozenset(self._authorities)

    def fetch(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        """Page by page; hours not yet reported are missing at the end."""
        respondent = self._authorities[zone]
        mixes: dict[datetime, dict[str, float]] = {}
        answer = None
        for page in range(PAGES):
            data, answer = self._page(respondent, start, min(end, now) + HOUR, page * PAGE)
            found = items(NAME, data, "response", "data")
            for item in found:
                _add(mixes, record(NAME, item), respondent)
            if len(found) < PAGE:
                break
        if answer is None:
            raise AssertionError("unreachable: at least one page is asked for")
        collector = Collector(METHOD, zone, now, answer)
        for at, mix in sorted(mixes.items()):
            collector.add(at, at + HOUR, intensity_g_per_kwh(mix), Kind.ESTIMATED, model_version=VERSION)
        return collector.readings(start, end)

    def _page(self, respondent: str, start: datetime, end: datetime, offset: int) -> tuple[Any, Answer]:
        key = read_secret(self._key, NAME, REMEDY)
        params: dict[str, str | list[str]] = {
            "frequency": "hourly",
            "data[0]": "value",
            "facets[respondent][]": [respondent],
            "start": f"{start.astimezone(UTC):%Y-%m-%dT%H}",
            "end": f"{end.astimezone(UTC):%Y-%m-%dT%H}",
            "sort[0][column]": "period",
            "sort[0][direction]": "asc",
            "sort[1][column]": "fueltype",
            "sort[1][direction]": "asc",
            "offset": str(offset),
            "length": str(PAGE),
        }
        return self._channel.get_json(PATH, params, headers={"X-Api-Key": key}, secrets=(key,), classify=_classify)


def _is_authority(zone: str) -> bool:
    return zone.startswith("US-") and zone.count("-") == 2 and zone != "US-AK-SEAPA"


def _add(mixes: dict[datetime, dict[str, float]], row: Any, respondent: str) -> None:
    if row.get("respondent") != respondent:
        raise GridMalformed(f"{NAME}: asked for {respondent}, answered for {str(row.get('respondent'))[:40]!r}")
    if row.get("value-units", "megawatthours") != "megawatthours":
        raise GridMalformed(f"{NAME}: values in {str(row['value-units'])[:40]!r}, documented are megawatthours")
    value = row.get("value")
    if value is None:
        return
    try:
        end = datetime.strptime(str(member(NAME, row, "period")), "%Y-%m-%dT%H").replace(tzinfo=UTC)
        energy = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else float("nan")
    except ValueError:
        raise GridMalformed(f"{NAME}: a row that is not (period, value): {str(row)[:80]}") from None
    if not -1e6 < energy < 1e6:
        raise GridMalformed(f"{NAME}: {str(value)[:40]!r} MWh is no authority's generation in an hour")
    fuel = FUELS.get(str(row.get("fueltype")), "other")
    mix = mixes.setdefault(end - HOUR, {})
    mix[fuel] = mix.get(fuel, 0.0) + energy


def _classify(status: int, said: str) -> GridError | None:
    if status == 403 and "api_key" in said.lower():
        return GridAuth(f"{NAME}: the key is missing or wrong (HTTP 403: {said}). {REMEDY}")
    return None
