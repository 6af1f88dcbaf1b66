"""ENTSO-E Transparency Platform: generation by type (document A75) times life-cycle fuel factors; a free token.

Average, life-cycle, generation. XML: in curve type A03 a position that is left out repeats the one before it; "no
data" may be an Acknowledgement with status 200. The token must stand in the query, so it is taken out of every shown
URL and log.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import GridAuth, GridError, GridMalformed, GridNoData
from carbon_sched.domain.intensity import Basis, Comparability, Kind, Perimeter, Reading, Signal
from carbon_sched.domain.time import UTC
from carbon_sched.grid.answers import quoted
from carbon_sched.grid.http import read_secret
from carbon_sched.grid.mix import STORAGE, VERSION, intensity_g_per_kwh
from carbon_sched.grid.provider import Collector, Method, instant
from carbon_sched.grid.tables import rows

if TYPE_CHECKING:
    from carbon_sched.domain.cluster import SecretRef
    from carbon_sched.grid.http import Channel

NAME = "entsoe"
BASE = "https://web-api.tp.entsoe.eu"
REMEDY = "Ask transparency@entsoe.eu for API access, then give the token's environment variable or file"
METHOD = Method(
    NAME,
    Comparability(Signal.AVERAGE, Basis.LIFECYCLE, Perimeter.GENERATION),
    "ENTSO-E Transparency Platform terms (free re-use with attribution)",
)
RESOLUTION = {"PT15M": timedelta(minutes=15), "PT30M": timedelta(minutes=30), "PT60M": timedelta(hours=1)}
FUELS = {
    "B01": "biomass",
    "B02": "coal",
    "B03": "gas",
    "B04": "gas",
    "B05": "coal",
    "B06": "oil",
    "B07": "oil",
    "B08": "coal",
    "B09": "geothermal",
    "B10": STORAGE,
    "B11": "hydro",
    "B12": "hydro",
    "B13": "ocean",
    "B14": "nuclear",
    "B15": "other",
    "B16": "solar",
    "B17": "other",
    "B18": "wind-offshore",
    "B19": "wind",
    "B20": "other",
    "B25": STORAGE,
}
"""Production types of the platform's code list, by our fuels; waste (B17) is counted like other."""
DOCTYPE = re.compile(rb"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)


class Entsoe:
    """Implements `provider.Provider`."""

    name = NAME
    ttl = timedelta(minutes=30)
    lookback = timedelta(days=28)
    horizon = timedelta(0)
    max_span = timedelta(days=28)

    def __init__(self, channel: Channel, key: SecretRef | None) -> None:
        self._channel, self._key = channel, key
        self._areas = {row["zone"]: row["eic"] for row in rows("entsoe_areas.csv")}

    def zones(self) -> frozenset[str]:
        """Zones with an area code in `data/entsoe_areas.csv`."""
        return frozenset(self._areas)

    def fetch(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        """One request; periods that the platform has not published yet are missing at the end."""
        area, key = self._areas[zone], read_secret(self._key, NAME, REMEDY)
        params = {
            "securityToken": key,
            "documentType": "A75",
            "processType": "A16",
            "in_Domain": area,
            "periodStart": f"{start.astimezone(UTC):%Y%m%d%H}00",
            "periodEnd": f"{_ceil(min(end, now)):%Y%m%d%H}00",
        }
        answer = self._channel.get("/api", params, secrets=(key,), classify=_classify)
        collector = Collector(METHOD, zone, now, answer)
        for (at, step), mix in sorted(_mixes(answer.body, area, key).items()):
            collector.add(at, at + step, intensity_g_per_kwh(mix), Kind.ESTIMATED, model_version=VERSION)
        return collector.readings(start, end)


def _mixes(body: bytes, area: str, key: str) -> dict[tuple[datetime, timedelta], dict[str, float]]:
    """MW by fuel for each (start, resolution)."""
    root = _parse(body)
    if root.tag == "Acknowledgement_MarketDocument":
        text = root.findtext("Reason/text") or "no reason given"
        raise GridNoData(f"{NAME}: {quoted(text, (key,))}")
    if root.tag != "GL_MarketDocument":
        raise GridMalformed(f"{NAME}: answered with a {root.tag[:40]!r} where a GL_MarketDocument is documented")
    mixes: dict[tuple[datetime, timedelta], dict[str, float]] = {}
    for series in root.iter("TimeSeries"):
        found = series.findtext("inBiddingZone_Domain.mRID")
        if found is None:
            continue  # outBiddingZone: what plants and storage take from the grid, not generation
        if found.strip() != area:
            raise GridMalformed(f"{NAME}: asked for {area}, answered for {found[:40]!r}")
        if series.findtext("quantity_Measure_Unit.name") != "MAW":
            raise GridMalformed(f"{NAME}: quantities are not in MAW (megawatts)")
        fuel = FUELS.get(series.findtext("MktPSRType/psrType") or "", "other")
        for period in series.iter("Period"):
            for at, step, quantity in _points(period):
                mix = mixes.setdefault((at, step), {})
                mix[fuel] = mix.get(fuel, 0.0) + quantity
    return mixes


def _points(period: ET.Element) -> list[tuple[datetime, timedelta, float]]:
    """Every position of a period, the left-out ones repeated (curve type A03)."""
    start = instant(NAME, period.findtext("timeInterval/start"))
    end = instant(NAME, period.findtext("timeInterval/end"))
    step = RESOLUTION.get(period.findtext("resolution") or "")
    if step is None or not timedelta(0) < end - start <= timedelta(days=400):
        raise GridMalformed(f"{NAME}: an unknown resolution or period")
    given: dict[int, float] = {}
    for point in period.iter("Point"):
        try:
            position, quantity = int(point.findtext("position") or ""), float(point.findtext("quantity") or "")
        except ValueError:
            raise GridMalformed(f"{NAME}: a point without position or quantity") from None
        if not -1e6 < quantity < 1e6:
            raise GridMalformed(f"{NAME}: {quantity:g} MW is no area's generation")
        given[position] = quantity
    out, last = [], None
    for position in range(1, (end - start) // step + 1):
        last = given.get(position, last)
        if last is not None:
            out.append((start + (position - 1) * step, step, last))
    return out


def _parse(body: bytes) -> ET.Element:
    """The document without its namespaces; one that defines entities is refused before it can expand them."""
    if DOCTYPE.search(body):
        raise GridMalformed(f"{NAME}: answered with a web page or a document with entities where XML is documented")
    try:
        root = ET.fromstring(body)  # noqa: S314 - entities are refused above, and the size is capped
    except ET.ParseError:
        raise GridMalformed(f"{NAME}: answered with something that is not complete XML") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _classify(status: int, said: str) -> GridError | None:
    if status == 401:
        return GridAuth(f"{NAME}: does not accept the token (HTTP 401). {REMEDY}")
    if status == 400 and "no matching data" in said.lower():
        return GridNoData(f"{NAME}: has no values there (HTTP 400: {said})")
    return None


def _ceil(moment: datetime) -> datetime:
    whole = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return whole if whole == moment else whole + timedelta(hours=1)
