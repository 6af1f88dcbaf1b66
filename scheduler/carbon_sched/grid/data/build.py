# ruff: noqa: INP001 - a folder of data, not a package
"""Build the tables of this folder from a folder of emission and PUE factors: `python build.py FACTORS_DIR`.

Run by a maintainer when factors are renewed; nothing imports it. Rows keep their source and licence. The Electricity
Maps table stays a file of its own, because its licence (ODbL) is share-alike for databases.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

HERE = Path(__file__).parent
RETRIEVED = "2026-11-23"
ODBL_NAME = "zone_year_electricitymaps_ODbL.csv"
EMBER = "Ember via Our World in Data, as bundled in codecarbon 3.3.2"
YEARLY = ["zone", "name", "year", "g_per_kwh", "basis", "perimeter", "source", "licence", "retrieved"]
WORLD = {
    "zone": "WORLD",
    "name": "World",
    "year": "2023",
    "g_per_kwh": "480",
    "basis": "lifecycle",
    "perimeter": "generation",
    "source": "Ember, Global Electricity Review 2024 (figure quoted from memory, to be confirmed)",
    "licence": "CC BY 4.0 (Ember)",
    "retrieved": RETRIEVED,
}


def main(factors: Path) -> None:
    """Write every table; fails on the first row that is not understood."""
    countries = {row["iso3"]: row["iso2"] for row in _read(HERE / "countries.csv")}
    averages = _read(factors / "country_or_zone_average_intensity.csv")
    _write(ODBL_NAME, YEARLY, [_zone(row) for row in _read(factors / "zone_yearly_intensity_electricitymaps_ODbL.csv")])
    # A life-cycle average of zero cannot be: the source has a zero where it has no value (one row, CAF).
    ember = [_country(row, countries) for row in averages if row["zone_kind"] == "country" and float(row["intensity"])]
    _write("country_year.csv", YEARLY, [WORLD, *ember])
    _write("us_state_year.csv", YEARLY, [_state(row) for row in averages if row["zone_kind"] == "us_state"])
    for name in ("cloud_region_zone_pue.csv", "operator_pue.csv"):
        rows = _read(factors / name)
        _write(name, list(rows[0]), rows)
    fuels = _read(factors / "fuel_lifecycle_factors.csv")
    _write("fuel_factors.csv", list(fuels[0]), fuels)


def _zone(row: dict[str, str]) -> dict[str, str]:
    _expect(row["unit"], "gCO2eq/kWh", row)
    return {
        "zone": row["em_zone"],
        "name": row["name"],
        "year": row["year"],
        "g_per_kwh": row["carbon_intensity"],
        "basis": "lifecycle",
        "perimeter": "consumption",
        "source": "Electricity Maps, as republished in @tgwf/co2 0.19.0",
        "licence": "ODbL 1.0 (Electricity Maps)",
        "retrieved": RETRIEVED,
    }


def _country(row: dict[str, str], iso2: dict[str, str]) -> dict[str, str]:
    _expect((row["unit"], row["basis"], row["source"]), ("gCO2e/kWh", "lifecycle, generation-based", EMBER), row)
    return {
        "zone": iso2[row["zone"]],
        "name": row["name"],
        "year": row["year"],
        "g_per_kwh": row["intensity"],
        "basis": "lifecycle",
        "perimeter": "generation",
        "source": row["source"],
        "licence": row["licence"],
        "retrieved": RETRIEVED,
    }


def _state(row: dict[str, str]) -> dict[str, str]:
    _expect((row["unit"], row["basis"]), ("gCO2e/kWh", "direct (total output rate), generation-based"), row)
    return {
        "zone": "US" if row["zone"] == "US-usa" else row["zone"],
        "name": "United States" if row["zone"] == "US-usa" else row["name"],
        "year": row["year"],
        "g_per_kwh": row["intensity"],
        "basis": "direct",
        "perimeter": "generation",
        "source": row["source"],
        "licence": row["licence"],
        "retrieved": RETRIEVED,
    }


def _expect(found: object, wanted: object, row: dict[str, str]) -> None:
    if found != wanted:
        raise SystemExit(f"not understood ({found!r} is not {wanted!r}): {row}")


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write(name: str, columns: list[str], rows: list[dict[str, str]]) -> None:
    with (HERE / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
