"""From what a user says about a place (zone key, cloud region, coordinates) to a grid zone, with how sure that is."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from carbon_sched.domain.cluster import DEFAULT_PUE_PPM, DEFAULT_PUE_SOURCE, Pue
from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.units import pue_ppm
from carbon_sched.grid.tables import rows
from carbon_sched.grid.yearly import TABLES, WORLD

if TYPE_CHECKING:
    from collections.abc import Collection

ALIASES = {"UK": "GB", "EL": "GR"}
"""Codes people and providers use for a zone that has another key."""
COORDINATES = re.compile(r"([+-]?\d{1,3}(?:\.\d+)?)\s*,\s*([+-]?\d{1,3}(?:\.\d+)?)", re.ASCII)
EARTH_RADIUS_KM = 6371.0
NEAR_KM = 60.0
"""About the size of a metropolitan area: nearer than this a city's zone is taken to be the place's."""
FARTHEST_KM = 400.0
RETIRED = {"IN-MH": "Maharashtra (a former key, today part of IN-WE)"}
"""Keys that Electricity Maps no longer publishes but archived series still carry."""


@dataclass(frozen=True)
class Place:
    """Where a cluster is: its zone, how sure that is (`high`, `medium`, `low`), and what is known of the building."""

    zone: str
    confidence: str
    note: str = ""
    pue: Pue | None = None


@cache
def zone_names() -> dict[str, str]:
    """Every known zone key with its name, sorted by key."""
    names = {row["zone"]: row["name"] for _, table in TABLES for row in rows(table)}
    regions = {row["zone"]: f"{row['name']} (region of NESO)" for row in rows("neso_regions.csv")}
    return dict(sorted((names | regions | RETIRED).items()))


def known_zone(text: str, extra: Collection[str] = ()) -> str:
    """The zone key meant by a zone (`DE`), a cloud region (`aws:eu-central-1`) or a place (`50.11,8.68`).

    `extra` are zones known from elsewhere, such as configured series. Raises InvalidInput with near matches for an
    unknown zone, and for a region whose zone is not certain: that one the user confirms by giving the zone.
    """
    place = place_of(text, extra)
    if place.confidence != "high":
        because = f" ({place.note})" if place.note else ""
        problem = f"is probably in {place.zone}, but that is not certain{because}"
        raise InvalidInput("zone", text, problem, f"Confirm it by giving the zone itself, for example {place.zone}")
    return place.zone


def place_of(text: str, extra: Collection[str] = ()) -> Place:
    """Where `text` is: a zone key is taken at its word, a cloud region is looked up in the shipped table.

    `latitude,longitude` (degrees) is the zone of the nearest known city; how sure that is depends on its distance and
    on whether cities of other zones are about as near.
    """
    wanted = text.strip()
    for key in (wanted, wanted.upper(), ALIASES.get(wanted.upper(), "")):
        if key in zone_names() or key in extra:
            return Place(key, "high")
    if (spot := COORDINATES.fullmatch(wanted)) is not None:
        return _at(text, float(spot[1]), float(spot[2]))
    regions = _regions(wanted.lower().replace("/", ":"))
    if len(regions) == 1:
        return _place(regions[0])
    if regions:
        choices = ", ".join(f"{row['provider']}:{row['region']}" for row in regions)
        raise InvalidInput("zone", text, "is a region of several clouds", f"Say which: {choices}")
    raise InvalidInput("zone", text, "is not a known grid zone or cloud region", _near(wanted, extra))


def default_pue(operator: str | None = None) -> Pue:
    """The newest published fleet-wide PUE of an operator (names: `operator_pue.csv`), else the industry's average."""
    rows_of = [r for r in rows("operator_pue.csv") if operator and r["operator"].lower() == operator.lower()]
    fleet = [r for r in rows_of if r["pue"] and r["scope"].startswith(("fleet", "global average"))]
    if not fleet:
        return Pue(DEFAULT_PUE_PPM, "2025", DEFAULT_PUE_SOURCE)
    newest = max(fleet, key=lambda row: int(row["year"]))
    source = f"{newest['operator']} {newest['scope']}: {newest['source']} (confidence {newest['confidence']})"
    return Pue(pue_ppm(float(newest["pue"])), newest["year"], source)


def _at(text: str, latitude: float, longitude: float) -> Place:
    if abs(latitude) > 90 or abs(longitude) > 180:
        raise InvalidInput("zone", text, "is no place on Earth", "Write latitude,longitude in degrees: 50.11,8.68")
    here = math.radians(latitude), math.radians(longitude)
    cities = sorted((_km(here, row), row["zone"], row["place"]) for row in rows("places.csv"))
    distance, zone, city = cities[0]
    if distance > FARTHEST_KM:
        problem = f"is {distance:.0f} km from the nearest city we know ({city})"
        raise InvalidInput("zone", text, problem, "Give the grid zone itself")
    rivals = [f"{rival} ({name})" for far, rival, name in cities if rival != zone and far < 2 * distance + NEAR_KM]
    # A key such as US-NY-NYIS is one of several grids in its country: its border may be nearer than the next city.
    sure = "high" if distance <= (NEAR_KM / 2 if "-" in zone else NEAR_KM) else "medium"
    note = f"{distance:.0f} km from {city}" + (f"; near {', '.join(rivals[:3])} too" if rivals else "")
    return Place(zone, "low" if rivals else sure, note)


def _km(here: tuple[float, float], row: dict[str, str]) -> float:
    """Great-circle distance (haversine formula)."""
    latitude, longitude = math.radians(float(row["latitude"])), math.radians(float(row["longitude"]))
    half = math.sin((latitude - here[0]) / 2) ** 2
    half += math.cos(here[0]) * math.cos(latitude) * math.sin((longitude - here[1]) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(half, 1.0)))


def _regions(wanted: str) -> list[dict[str, str]]:
    provider, _, region = wanted.rpartition(":")
    table = rows("cloud_region_zone_pue.csv")
    return [row for row in table if row["region"] == region and provider in ("", row["provider"])]


def _place(row: dict[str, str]) -> Place:
    pue = None
    if row["pue"]:
        pue = Pue(pue_ppm(float(row["pue"])), row["pue_year"], f"{row['pue_scope']}: {row['pue_source']}")
    return Place(row["em_zone"], row["zone_confidence"], row["zone_note"], pue)


def _near(wanted: str, extra: Collection[str]) -> str:
    """The keys that look like `wanted`, or whose names do."""
    by_spelling = {key.lower(): key for key in (*zone_names(), *extra, *ALIASES)}
    by_spelling |= {name.lower(): key for key, name in zone_names().items()}
    table = rows("cloud_region_zone_pue.csv")
    by_spelling |= {f"{row['provider']}:{row['region']}": f"{row['provider']}:{row['region']}" for row in table}
    near = difflib.get_close_matches(wanted.lower(), by_spelling, n=5, cutoff=0.6)
    near += [name for name in by_spelling if len(wanted) >= 3 and wanted.lower() in name and name not in near]
    found = list(dict.fromkeys(by_spelling[name] for name in near))[:5]
    hint = f"Near matches: {', '.join(_shown(key) for key in found)}. " if found else ""
    return f"{hint}Zones are Electricity Maps keys such as DE or US-CAL-CISO; {WORLD} where the place is not known"


def _shown(key: str) -> str:
    name = zone_names().get(ALIASES.get(key, key))
    return f"{key} ({name})" if name else key
