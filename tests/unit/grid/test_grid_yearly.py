from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from carbon_sched.domain.intensity import Basis, Comparability, Grade, Kind, Perimeter, Signal
from carbon_sched.domain.time import UTC
from carbon_sched.grid.tables import rows
from carbon_sched.grid.yearly import TABLES, YearlyTable

NOW = datetime(2026, 3, 10, tzinfo=UTC)
END = NOW + timedelta(days=7)
LIFECYCLE = Comparability(Signal.AVERAGE, Basis.LIFECYCLE, Perimeter.CONSUMPTION)


@pytest.fixture(scope="module")
def table() -> YearlyTable:
    return YearlyTable.load()


@pytest.mark.parametrize(
    ("zone", "grade", "provider", "basis", "perimeter"),
    [
        ("DE", Grade.ZONE_YEAR, "electricity-maps-yearly", Basis.LIFECYCLE, Perimeter.CONSUMPTION),
        ("US-CAL-CISO", Grade.ZONE_YEAR, "electricity-maps-yearly", Basis.LIFECYCLE, Perimeter.CONSUMPTION),
        ("IN-MH", Grade.COUNTRY_YEAR, "electricity-maps-yearly", Basis.LIFECYCLE, Perimeter.CONSUMPTION),
        ("US-CA", Grade.ZONE_YEAR, "epa-egrid", Basis.DIRECT, Perimeter.GENERATION),
        ("KI", Grade.COUNTRY_YEAR, "ember-yearly", Basis.LIFECYCLE, Perimeter.GENERATION),
        ("WORLD", Grade.WORLD_YEAR, "ember-yearly", Basis.LIFECYCLE, Perimeter.GENERATION),
        ("AQ", Grade.WORLD_YEAR, "ember-yearly", Basis.LIFECYCLE, Perimeter.GENERATION),
    ],
)
def test_the_most_specific_average_answers_and_says_what_it_is(table, zone, grade, provider, basis, perimeter):
    found = table.reading(zone, NOW, END, NOW)
    assert (found.zone, found.grade, found.provider) == (zone, grade, provider)
    assert (found.signal, found.basis, found.perimeter) == (Signal.AVERAGE, basis, perimeter)
    assert (found.start, found.end, found.kind) == (NOW, END, Kind.STATIC)
    assert found.licence
    assert len(found.payload_sha256) == 64


@pytest.mark.parametrize(("year", "expected"), [(2022, "2023"), (2024, "2024"), (2026, "2025")])
def test_the_year_is_the_newest_one_not_after_the_time_asked_for(table, year, expected):
    start = datetime(year, 6, 1, tzinfo=UTC)
    assert table.reading("DE", start, start + timedelta(hours=1), NOW).model_version == expected


def test_germany_is_the_figure_of_the_shipped_row(table):
    row = next(r for r in rows("zone_year_electricitymaps_ODbL.csv") if (r["zone"], r["year"]) == ("DE", "2025"))
    assert table.reading("DE", NOW, END, NOW).intensity_mg_per_kwh == int(row["g_per_kwh"]) * 1000


def test_only_like_is_ranked_with_like(table):
    assert table.reading_like("US-CA", NOW, END, LIFECYCLE).model_version == "2025"
    assert table.reading_like("US-CA", NOW, END, LIFECYCLE).grade is Grade.COUNTRY_YEAR
    generation = Comparability(Signal.AVERAGE, Basis.LIFECYCLE, Perimeter.GENERATION)
    assert table.reading_like("DE", NOW, END, generation).provider == "ember-yearly"
    assert table.reading_like("DE", NOW, END, generation).grade is Grade.COUNTRY_YEAR
    assert (
        table.reading_like("DE", NOW, END, Comparability(Signal.MARGINAL, Basis.DIRECT, Perimeter.CONSUMPTION)) is None
    )


def test_the_world_imports_nothing_so_it_stands_in_for_either_perimeter(table):
    for perimeter in Perimeter:
        found = table.reading_like("AQ", NOW, END, Comparability(Signal.AVERAGE, Basis.LIFECYCLE, perimeter))
        assert (found.intensity_mg_per_kwh, found.perimeter) == (480_000, perimeter)


def test_every_row_names_its_source_and_licence_and_can_be_an_intensity():
    shipped = [row for _, name in TABLES for row in rows(name)]
    assert len(shipped) > 1300
    for row in shipped:
        assert row["source"]
        assert row["licence"]
        assert 10 < float(row["g_per_kwh"]) < 2500


def test_the_share_alike_table_holds_nothing_else():
    assert {row["licence"] for row in rows("zone_year_electricitymaps_ODbL.csv")} == {"ODbL 1.0 (Electricity Maps)"}
    others = [row["licence"] for name in ("country_year.csv", "us_state_year.csv") for row in rows(name)]
    assert not any("ODbL" in licence for licence in others)
