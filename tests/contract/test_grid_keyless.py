"""Without any key: European clusters can be ranked, over real HTTP, and stay rankable while providers fail."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from carbon_sched.domain.cluster import SecretRef
from carbon_sched.domain.intensity import Basis, Comparability, Grade, Kind, Perimeter, Signal
from carbon_sched.domain.time import UTC
from carbon_sched.grid.chain import Grid
from carbon_sched.grid.check import check_providers
from carbon_sched.grid.http import Limits, Web
from carbon_sched.grid.registry import KEYLESS, ProviderConfig, make_source
from carbon_sched.grid.yearly import YearlyTable
from tests.fakes import grid_server
from tests.fakes.clock import StoppedClock
from tests.fakes.grid_server import KEY, GridServer

NOW = datetime(2026, 3, 10, 14, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOUSE = Comparability(Signal.AVERAGE, Basis.LIFECYCLE, Perimeter.CONSUMPTION)
ZONES = ["DE", "FR", "GB"]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def running():
    with GridServer(NOW) as server:
        yield server


@pytest.fixture
def server(running):
    running.reset(NOW)
    return running


def web_of(clock, **limits):
    return Web(clock, clock.pass_s, lambda: 0.0, Limits(**limits))


def grid_of(server, clock=None):
    web = web_of(clock or StoppedClock(NOW), tries=1)
    return Grid([make_source(ProviderConfig(name, url=server.base(name)), web) for name in KEYLESS], YearlyTable.load())


def test_three_countries_are_ranked_by_the_one_provider_that_covers_them(server):
    comparison = grid_of(server).compare(ZONES, NOW, NOW + 24 * HOUR)
    assert set(comparison.outlooks) == set(ZONES)
    for outlook in comparison.outlooks.values():
        assert {r.comparability for r in outlook.readings} == {HOUSE}
        assert outlook.readings[0].start == NOW
        assert outlook.readings[-1].end >= NOW + 24 * HOUR
    assert comparison.outlooks["DE"].readings[0].provider == "energy-charts"


def test_the_national_forecast_goes_on_where_the_common_one_ends(server):
    """Energy-Charts knows 36 h here, NESO 48: the hours between come from NESO at the common level."""
    server.value = lambda at: 200.0
    neso = server.answers["neso"]

    def half(grid, path, query, headers):
        grid.value = lambda at: 100.0 + (40.0 if at.minute == 30 else 0.0)
        try:
            return neso(grid, path, query, headers)
        finally:
            grid.value = lambda at: 200.0

    server.answers["neso"] = half
    gb = grid_of(server).outlook("GB", NOW, NOW + 60 * HOUR)
    extended = [r for r in gb.readings if r.provider == "neso" and r.start > NOW + 37 * HOUR]
    assert len(extended) >= 20
    assert {r.kind for r in extended} == {Kind.FORECAST}
    level = sum(r.intensity_mg_per_kwh for r in extended) / len(extended) / 1000
    assert level == pytest.approx(200.0, rel=0.05)
    assert {r.comparability for r in extended} == {HOUSE}
    assert "at the level of energy-charts" in extended[0].model_version


def test_with_the_common_provider_down_the_zones_are_still_ranked(server):
    server.answers["energy-charts"] = lambda *_: (500, {"error": "down"})
    comparison = grid_of(server).compare(ZONES, NOW, NOW + 24 * HOUR)
    by_zone = {zone: o.readings[0] for zone, o in comparison.outlooks.items()}
    assert by_zone["DE"].grade is Grade.ZONE_YEAR
    assert by_zone["GB"].grade is Grade.OWN_FORECAST
    assert "electricity-maps-yearly" in by_zone["GB"].model_version
    assert {r.comparability for o in comparison.outlooks.values() for r in o.readings} == {HOUSE}
    assert any("HTTP 500" in note for note in comparison.notes)


def test_where_the_common_provider_does_not_cover_gb_all_three_are_still_ranked(server):
    energy_charts = server.answers["energy-charts"]

    def without_gb(grid, path, query, headers):
        if query["country"] == ["uk"]:
            return 422, {"detail": "country not known"}
        return energy_charts(grid, path, query, headers)

    server.answers["energy-charts"] = without_gb
    comparison = grid_of(server).compare(ZONES, NOW, NOW + 24 * HOUR)
    first = {zone: outlook.readings[0] for zone, outlook in comparison.outlooks.items()}
    assert {r.comparability for r in first.values()} == {HOUSE}
    assert (first["DE"].grade, first["FR"].grade, first["GB"].grade) == (Grade.LIVE, Grade.LIVE, Grade.OWN_FORECAST)
    assert first["GB"].provider == "neso"
    assert "electricity-maps-yearly" in first["GB"].model_version
    assert any("country" in note for note in comparison.notes)


def test_with_everything_down_for_a_day_each_is_asked_once_per_interval(server):
    server.fault = 503
    clock = StoppedClock(NOW)
    grid = grid_of(server, clock)
    for _ in range(24 * 12):
        now = clock.now()
        outlooks = grid.outlooks(ZONES, now, now + 24 * HOUR)
        assert {o.readings[0].grade for o in outlooks.values()} == {Grade.ZONE_YEAR}
        clock.pass_s(300)
    zones_asked = {"energy-charts": 3, "neso": 1, "rte-odre": 1}
    for name, zones in zones_asked.items():
        asked = [path for path, _, _ in server.requests if path.startswith(f"/{name}/")]
        assert 0 < len(asked) <= zones * 24 * 4, f"{name}: {len(asked)}"


# grid check ----------------------------------------------------------------------------------------------------------


def one(server, name, *, clock=None, zones=("DE",), url=None, **options):
    config = ProviderConfig(name, url=url or server.base(name), **options)
    return check_providers([config], web_of(clock or StoppedClock(NOW), tries=1, total_s=5.0), zones, NOW)[0]


def key(monkeypatch, value=KEY):
    monkeypatch.setenv("CHECK_KEY", value)
    return SecretRef(env="CHECK_KEY")


def test_check_says_that_all_is_well(server, monkeypatch):
    found = one(server, "electricity-maps", key=key(monkeypatch), zones=("XX", "GB"))
    assert found.ok
    assert found.zone == "GB"
    assert found.newest.start >= NOW - HOUR
    assert found.forecast_until > NOW + 5 * HOUR


def test_check_names_a_wrong_key(server, monkeypatch):
    found = one(server, "electricity-maps", key=key(monkeypatch, "wrong"))
    assert found.problem == "the key is wrong, or not allowed to ask this"
    assert "HTTP 401" in found.detail
    assert found.remedy


def test_check_names_a_missing_key(server, monkeypatch):
    monkeypatch.delenv("NO_KEY", raising=False)
    found = one(server, "entsoe", key=SecretRef(env="NO_KEY"))
    assert found.problem == "it needs a key, and none can be read"
    assert "env:NO_KEY" in found.detail


def test_check_names_an_expired_trial(server, monkeypatch):
    server.fault, server.fault_body = 401, '{"error": "Your trial period has ended"}'
    found = one(server, "electricity-maps", key=key(monkeypatch))
    assert found.problem == "the trial or contract of the key has ended"
    assert "Renew" in found.remedy
    assert "Your trial period has ended" in found.detail


def test_check_names_a_zone_outside_the_plan(server, monkeypatch):
    server.fault, server.fault_body = 403, '{"error": "Token unauthorized for zoneKey=DE"}'
    found = one(server, "electricity-maps", key=key(monkeypatch))
    assert found.problem == "the zone is not covered, or not in this plan"
    assert "plan" in found.remedy


def test_check_names_that_there_is_no_network(server):
    found = one(server, "energy-charts", url="http://127.0.0.1:9")
    assert found.problem == "there is no connection to it"
    assert "network" in found.remedy


def test_check_tells_a_provider_in_trouble_from_a_network_in_trouble(server):
    server.fault = 503
    found = one(server, "energy-charts")
    assert found.problem == "it does not answer, or with an error"
    assert "status page" in found.remedy


def test_check_names_a_changed_api_and_missing_data(server):
    server.fault = "html"
    assert one(server, "energy-charts").problem == "its answer is not what it documents"
    server.fault = None
    server.change = grid_server.missing
    server.change = lambda _: []
    assert one(server, "energy-charts").problem == "it has no value for the last hours"


def test_check_names_an_incomplete_configuration(server):
    assert "non-commercial" in one(server, "openelectricity").detail
    assert "no zone is configured" in one(server, "carbon-aware-sdk").problem
    assert "Choose from" in one(server, "gridnobody").detail
