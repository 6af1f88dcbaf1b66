from __future__ import annotations

import pytest

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.grid.tables import rows
from carbon_sched.grid.zones import default_pue, known_zone, place_of, zone_names


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("DE", "DE"),
        (" us-cal-ciso ", "US-CAL-CISO"),
        ("uk", "GB"),
        ("WORLD", "WORLD"),
        ("aws:eu-central-1", "DE"),
        ("gcp/europe-west9", "FR"),
        ("eastus", "US-MIDA-PJM"),
        ("IN-MH", "IN-MH"),
    ],
)
def test_zones_and_cloud_regions_are_recognised(text, zone):
    assert known_zone(text) == zone


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("US-CAL-CSIO", "US-CAL-CISO"),
        ("germny", "DE (Germany)"),
        ("california", "US-CAL-BANC"),
        ("aws:eu-centrl-1", "aws:eu-central-1"),
    ],
)
def test_an_unknown_zone_is_refused_with_near_matches(text, hint):
    with pytest.raises(InvalidInput) as refused:
        known_zone(text)
    assert hint in str(refused.value)
    assert "WORLD" in str(refused.value)


def test_an_uncertain_region_is_confirmed_by_the_user():
    with pytest.raises(InvalidInput, match=r"probably in US-NW-BPAT.*PACW.*giving the zone itself"):
        known_zone("aws:us-west-2")
    assert place_of("aws:us-west-2").confidence == "low"


def test_zones_known_from_elsewhere_are_known():
    with pytest.raises(InvalidInput):
        known_zone("XX-LAB")
    assert known_zone("XX-LAB", extra={"XX-LAB"}) == "XX-LAB"


def test_every_cloud_region_maps_to_a_known_zone():
    assert {row["em_zone"] for row in rows("cloud_region_zone_pue.csv")} <= set(zone_names())


def test_pue_comes_from_the_newest_fleet_figure_or_the_industry():
    assert (default_pue("AWS").ppm, default_pue("AWS").period) == (1_140_000, "2025")
    assert default_pue("Equinix").ppm == 1_420_000
    assert default_pue("nobody").ppm == default_pue().ppm == 1_540_000
    assert "Uptime" in default_pue().source
    assert place_of("aws:eu-central-1").pue.ppm == 1_140_000
    assert place_of("ovh:gra").pue is None


@pytest.mark.parametrize(
    ("text", "zone"),
    [("50.11,8.68", "DE"), ("48.9, 2.3", "FR"), ("-33.87,151.21", "AU-NSW"), ("1.3,103.8", "SG"), ("64.1,-21.9", "IS")],
)
def test_coordinates_near_a_city_are_its_zone(text, zone):
    assert known_zone(text) == zone


@pytest.mark.parametrize(
    ("text", "zone", "hint"),
    [
        ("40.73,-74.10", "US-MIDA-PJM", "US-NY-NYIS"),  # Jersey City, across the river from New York
        ("33.45,-112.07", "US-SW-AZPS", "US-SW-SRP"),  # Phoenix has two utilities
        ("55.6,12.7", "DK-DK2", "SE-SE4"),
    ],
)
def test_coordinates_between_zones_are_confirmed_by_the_user(text, zone, hint):
    assert place_of(text).zone == zone
    assert place_of(text).confidence == "low"
    with pytest.raises(InvalidInput, match=hint):
        known_zone(text)


def test_coordinates_some_way_from_a_city_are_not_certain():
    assert place_of("30.2,-95.0").confidence == "medium", "60 km from Houston, in a country of many grids"
    place = place_of("-33.3,117.3")
    assert (place.zone, place.confidence) == ("AU-WA", "medium")
    assert "km from Perth" in place.note


@pytest.mark.parametrize("text", ["0,-30", "-80.0,10.0", "-25.0,130.0"])
def test_coordinates_far_from_everything_are_refused(text):
    with pytest.raises(InvalidInput, match="km from the nearest city"):
        known_zone(text)


@pytest.mark.parametrize("text", ["91,0", "0,181"])
def test_coordinates_must_be_on_earth(text):
    with pytest.raises(InvalidInput, match="no place on Earth"):
        known_zone(text)


def test_places_lie_in_known_zones_and_agree_with_the_regions_named_after_them():
    zones = set(zone_names())
    places = {row["place"]: row["zone"] for row in rows("places.csv")}
    assert set(places.values()) <= zones
    regions = rows("cloud_region_zone_pue.csv")
    sure = [row for row in regions if row["zone_confidence"] == "high" and row["location"] in places]
    assert len(sure) > 30
    assert [row for row in sure if places[row["location"]] != row["em_zone"]] == []
