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
