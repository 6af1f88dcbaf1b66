from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from carbon_sched.domain.cluster import SecretRef
from carbon_sched.domain.errors import (
    GridAuth,
    GridError,
    GridMalformed,
    GridNoData,
    GridRateLimited,
    GridTransient,
    ZoneNotCovered,
)
from carbon_sched.domain.intensity import Basis, Comparability, Grade, Kind, Perimeter, Signal
from carbon_sched.domain.time import UTC
from carbon_sched.grid.cache import CachedSource
from carbon_sched.grid.http import Limits, Web
from carbon_sched.grid.registry import PROVIDERS, ProviderConfig, make_provider
from tests.fakes import grid_server
from tests.fakes.clock import StoppedClock
from tests.fakes.grid_server import FAULTS, KEY, TOKEN, GridServer, daily

NOW = datetime(2026, 3, 10, 14, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)
AVERAGE, MARGINAL = Signal.AVERAGE, Signal.MARGINAL
LIFECYCLE, DIRECT = Basis.LIFECYCLE, Basis.DIRECT
CONSUMPTION, GENERATION = Perimeter.CONSUMPTION, Perimeter.GENERATION


@dataclass(frozen=True)
class Case:
    name: str
    zone: str
    like: Comparability
    forecasts: bool = True
    mix: bool = False
    options: dict[str, object] = field(default_factory=dict)
    locations: dict[str, str] = field(default_factory=dict)
    key: bool = False
    zones: tuple[str, ...] = ()


def like(signal, basis, perimeter):
    return Comparability(signal, basis, perimeter)


CASES = [
    Case("energy-charts", "DE", like(AVERAGE, LIFECYCLE, CONSUMPTION)),
    Case("neso", "GB", like(AVERAGE, DIRECT, CONSUMPTION)),
    Case("neso", "GB-NESO-13", like(AVERAGE, DIRECT, CONSUMPTION)),
    Case("electricity-maps", "DE", like(AVERAGE, LIFECYCLE, CONSUMPTION), key=True),
    Case("electricity-maps", "FR", like(AVERAGE, DIRECT, CONSUMPTION), key=True, options={"basis": "direct"}),
    Case("watttime", "US-CAL-CISO", like(MARGINAL, DIRECT, CONSUMPTION), key=True, options={"user": "user"}),
    Case("energidataservice", "DK-DK1", like(AVERAGE, DIRECT, CONSUMPTION)),
    Case("rte-odre", "FR", like(AVERAGE, DIRECT, GENERATION), forecasts=False),
    Case("entsoe", "DE", like(AVERAGE, LIFECYCLE, GENERATION), forecasts=False, mix=True, key=True),
    Case("eia-930", "US-TEX-ERCO", like(AVERAGE, LIFECYCLE, GENERATION), forecasts=False, mix=True, key=True),
    Case("carbon-aware-sdk", "IE", like(MARGINAL, DIRECT, CONSUMPTION), locations={"IE": "northeurope"}),
    Case(
        "openelectricity",
        "AU-NSW",
        like(AVERAGE, DIRECT, GENERATION),
        forecasts=False,
        key=True,
        options={"non_commercial": True},
    ),
    Case("series-url", "DE", like(AVERAGE, LIFECYCLE, CONSUMPTION), zones=("DE",)),
]
IDS = [f"{case.name}-{case.zone}" for case in CASES]
every = pytest.mark.parametrize("case", CASES, ids=IDS)
plain = pytest.mark.parametrize(
    "case",
    [case for case in CASES if not case.mix and case.name != "series-url"],
    ids=[i for i, case in zip(IDS, CASES, strict=True) if not case.mix and case.name != "series-url"],
)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TEST_GRID_KEY", KEY)


@pytest.fixture(scope="module")
def running():
    with GridServer(NOW) as server:
        yield server


@pytest.fixture
def server(running):
    running.reset(NOW)
    return running


def provider_of(case, server, *, limits=None, clock=None, key="TEST_GRID_KEY"):
    clock = clock or StoppedClock(server.now)
    web = Web(clock, clock.pass_s, lambda: 0.0, limits or Limits(total_s=20.0))
    config = ProviderConfig(
        case.name,
        key=SecretRef(env=key) if case.key else None,
        url=server.base(case.name),
        zones=case.zones,
        locations=case.locations,
        options=case.options,
    )
    return make_provider(config, web)


def fetch(case, server, hours_back=6, hours_ahead=6, **options):
    provider = provider_of(case, server, **options)
    return provider.fetch(case.zone, server.now - hours_back * HOUR, server.now + hours_ahead * HOUR, server.now)


def check_line(readings, *, holes=False):
    """Ordered, without overlap, each value what the scripted grid says for its time."""
    assert readings
    for left, right in pairwise(readings):
        assert left.end <= right.start if holes else left.end == right.start
    for reading in readings:
        assert reading.intensity_mg_per_kwh / 1000 == pytest.approx(daily(reading.start), abs=0.6)


def test_every_provider_of_the_registry_is_under_contract():
    assert {case.name for case in CASES} == set(PROVIDERS)


@every
def test_a_documented_answer_becomes_readings_that_say_what_they_are(case, server):
    readings = fetch(case, server)
    check_line(readings)
    assert readings[0].start <= NOW - 5 * HOUR
    begun = [r for r in readings if r.start < NOW]
    ahead = [r for r in readings if r.start > NOW]
    assert begun[-1].end > NOW - HOUR
    assert {r.kind for r in begun} <= {Kind.MEASURED, Kind.ESTIMATED}
    assert {r.grade for r in begun} == {Grade.LIVE}
    assert bool(ahead) == case.forecasts
    assert {(r.kind, r.grade) for r in ahead} <= {(Kind.FORECAST, Grade.PROVIDER_FORECAST)}
    for reading in readings:
        assert (reading.zone, reading.comparability, reading.provider) == (case.zone, case.like, case.name)
        assert reading.licence
        assert len(reading.payload_sha256) == 64
        assert reading.issued_at <= reading.fetched_at == NOW


@every
@pytest.mark.parametrize(
    "night", ["2026-03-29T01:30:00+00:00", "2026-10-25T01:30:00+00:00", "2028-02-29T12:00:00+00:00"]
)
def test_the_nights_of_the_clock_change_have_every_hour_once(case, server, night):
    server.now = datetime.fromisoformat(night)
    readings = fetch(case, server, hours_back=12, hours_ahead=12)
    check_line(readings)
    assert readings[0].start <= server.now - 11 * HOUR


MALFORMED = ("html", "truncated", "huge", "bomb", "redirect", "loop", "nan", "deep", "list")


@every
@pytest.mark.parametrize("fault", MALFORMED)
def test_an_answer_that_is_not_as_documented_is_malformed(case, server, fault):
    server.fault = fault
    with pytest.raises(GridMalformed):
        fetch(case, server)


@every
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in MALFORMED])
def test_an_answer_that_does_not_come_in_time_is_transient(case, server, fault):
    server.fault = fault
    with pytest.raises(GridTransient):
        fetch(case, server, limits=Limits(total_s=0.15, tries=1))


STATUSES = {
    400: GridMalformed,
    401: GridAuth,
    403: GridAuth,
    404: GridNoData,
    410: GridMalformed,
    422: GridMalformed,
    429: GridRateLimited,
    500: GridTransient,
    503: GridTransient,
}


@every
@pytest.mark.parametrize("status", STATUSES)
def test_every_status_is_the_error_it_means_and_shows_no_key(case, server, status, caplog):
    caplog.set_level(logging.DEBUG)
    server.fault = status
    with pytest.raises(STATUSES[status]) as raised:
        fetch(case, server)
    assert str(status) in str(raised.value) or isinstance(raised.value, GridAuth)
    shown = f"{raised.value!r} {raised.value} {caplog.text}"
    assert KEY not in shown
    assert TOKEN not in shown


@every
def test_a_page_that_repeats_our_key_is_quoted_without_it(case, server):
    server.fault = "echo-page"
    with pytest.raises(GridMalformed) as raised:
        fetch(case, server)
    assert KEY not in str(raised.value)
    assert TOKEN not in str(raised.value)


@every
def test_retry_after_is_kept(case, server):
    server.fault, server.retry_after = 429, "321"
    with pytest.raises(GridRateLimited) as raised:
        fetch(case, server)
    assert raised.value.retry_after_s == 321.0


@every
def test_a_passing_failure_is_tried_again(case, server):
    server.fault, server.faults_left = 503, 2
    check_line(fetch(case, server))


@every
def test_no_key_is_in_a_log_or_a_reading(case, server, caplog):
    caplog.set_level(logging.DEBUG)
    readings = fetch(case, server)
    assert KEY not in caplog.text + repr(readings)
    assert TOKEN not in caplog.text + repr(readings)
    if case.key:
        assert any(KEY in str(request) or TOKEN in str(request) for request in server.requests), "it was really sent"


keyed = pytest.mark.parametrize("case", [case for case in CASES if case.key], ids=lambda case: case.name)


@keyed
def test_a_wrong_key_and_no_key_at_all_are_named(case, server, monkeypatch):
    monkeypatch.setenv("TEST_GRID_WRONG", "wr0ng-k3y")
    with pytest.raises(GridAuth) as raised:
        fetch(case, server, key="TEST_GRID_WRONG")
    assert "wr0ng-k3y" not in str(raised.value)
    asked = len(server.requests)
    with pytest.raises(GridAuth, match="TEST_GRID_NONE"):
        fetch(case, server, key="TEST_GRID_NONE")
    assert len(server.requests) == asked


# what may be wrong with values ---------------------------------------------------------------------------------------


@every
def test_missing_hours_are_holes(case, server):
    server.change = grid_server.missing
    if case.name == "series-url":  # a series of one's own is held to its own promise
        with pytest.raises(GridMalformed, match="leaves a gap"):
            fetch(case, server)
        return
    readings = fetch(case, server)
    if case.name == "entsoe":
        return  # there the positions of a period close up; nulls are its way to leave a value out
    check_line(readings, holes=True)
    assert any(left.end < right.start for left, right in pairwise(readings))


@plain
def test_nulls_are_holes_and_no_offence(case, server, caplog):
    server.change = grid_server.nulls
    readings = fetch(case, server)
    assert "refused" not in caplog.text
    check_line(readings, holes=True)
    assert any(left.end < right.start for left, right in pairwise(readings))


@plain
def test_what_stands_twice_counts_once_and_order_does_not_matter(case, server):
    expected = fetch(case, server)
    for change in (grid_server.duplicated, grid_server.shuffled):
        server.change = change
        assert [(r.start, r.end, r.intensity_mg_per_kwh, r.kind) for r in fetch(case, server)] == [
            (r.start, r.end, r.intensity_mg_per_kwh, r.kind) for r in expected
        ]


@plain
def test_two_values_for_one_hour_are_both_refused(case, server, caplog):
    server.change = grid_server.contradicting
    readings = fetch(case, server)
    if case.name == "openelectricity":
        assert len({r.start for r in readings}) == len(readings)
        return  # its values are keyed by time in the answer we build; the later one stands
    check_line(readings, holes=True)
    assert "two different values" in caplog.text


@plain
@pytest.mark.parametrize("value", [-5, 1e9, 2500.5])
def test_an_impossible_value_is_refused_and_logged_and_the_rest_is_used(case, server, value, caplog):
    server.change = grid_server.with_value(value)
    check_line(fetch(case, server), holes=True)
    assert "is no grid's intensity" in caplog.text


@plain
def test_zero_is_taken_only_from_methods_that_can_give_it(case, server, caplog):
    server.change = grid_server.with_value(0)
    zeros = [r for r in fetch(case, server) if r.intensity_mg_per_kwh == 0]
    if case.like.basis is LIFECYCLE:
        assert not zeros
        assert "0 g/kWh cannot be a life-cycle average" in caplog.text
    else:
        assert zeros


@plain
@pytest.mark.parametrize("value", ["12", True, [1], {"a": 1}])
def test_what_is_no_number_makes_the_answer_malformed(case, server, value):
    server.change = grid_server.with_value(value)
    with pytest.raises(GridMalformed):
        fetch(case, server)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.name in ("energy-charts", "rte-odre")], ids=lambda case: case.name
)
def test_a_measurement_of_the_future_is_refused(case, server, caplog):
    server.change = grid_server.from_the_future
    readings = fetch(case, server)
    assert not [r for r in readings if r.start > NOW + timedelta(minutes=5) and r.kind is not Kind.FORECAST]
    assert "a measured value from the future" in caplog.text


@pytest.mark.parametrize(
    ("name", "zone", "answered"),
    [
        ("neso", "GB-NESO-13", "12"),
        ("electricity-maps", "DE", "US-CAL-CISO"),
        ("watttime", "US-CAL-CISO", "PJM_DC"),
        ("energidataservice", "DK-DK1", "DK2"),
        ("rte-odre", "FR", "Bretagne"),
        ("entsoe", "DE", "10YFR-RTE------C"),
        ("eia-930", "US-TEX-ERCO", "CISO"),
        ("carbon-aware-sdk", "IE", "westeurope"),
        ("openelectricity", "AU-NSW", "VIC1"),
    ],
)
def test_an_answer_for_another_zone_is_not_used(name, zone, answered, server):
    case = next(case for case in CASES if (case.name, case.zone) == (name, zone))
    server.zone_answered = answered
    with pytest.raises(GridMalformed, match=answered if name not in ("neso", "openelectricity") else name):
        fetch(case, server)


def test_a_forecast_for_another_zone_is_not_used(server):
    server.zone_answered = "FR"
    provider = provider_of(CASES[3], server)
    with pytest.raises(GridMalformed, match="answered for 'FR'"):
        provider.fetch("DE", NOW, NOW + 6 * HOUR, NOW)


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("electricity-maps", "direct"),
        ("watttime", "g_per_kwh"),
        ("entsoe", "KWT"),
        ("eia-930", "megawatts"),
        ("openelectricity", "GWh"),
    ],
)
def test_an_answer_in_another_unit_is_not_used(name, unit, server):
    case = next(case for case in CASES if case.name == name)
    server.unit = unit
    with pytest.raises(GridMalformed):
        fetch(case, server)


@pytest.mark.parametrize("case", [c for c in CASES if c.mix], ids=lambda case: case.name)
@pytest.mark.parametrize("value", ["a lot", "1e99"])
def test_a_mix_of_nonsense_is_malformed(case, server, value):
    server.change = grid_server.with_value(value)
    with pytest.raises(GridMalformed):
        fetch(case, server)


def test_left_out_positions_of_entsoe_repeat_the_one_before(server):
    server.change = grid_server.nulls
    readings = fetch(next(case for case in CASES if case.name == "entsoe"), server)
    values = [r.intensity_mg_per_kwh for r in readings]
    assert all(left.end == right.start for left, right in pairwise(readings))
    assert values[1] == values[0]
    assert values[2] != values[1]


def test_no_data_of_entsoe_may_come_with_status_200(server):
    server.change = lambda _: []
    with pytest.raises(GridNoData, match="No matching data"):
        fetch(next(case for case in CASES if case.name == "entsoe"), server)


def test_xml_with_entities_is_refused_before_they_expand(server):
    server.fault, server.fault_body = 200, '<!DOCTYPE b [<!ENTITY a "aaaa">]><b>&a;</b>'
    with pytest.raises(GridMalformed, match="entities"):
        fetch(next(case for case in CASES if case.name == "entsoe"), server)


def test_unknown_places_are_never_answered_by_where_we_are(server):
    fetch(CASES[3], server)
    asked = [query for path, query, _ in server.requests if path.startswith("/electricity-maps/")]
    assert asked
    assert all(query["disableCallerLookup"] == ["true"] for query in asked)


@pytest.mark.parametrize(
    ("name", "status", "body", "error", "message"),
    [
        ("electricity-maps", 403, '{"error": "Token unauthorized for zoneKey=DE"}', ZoneNotCovered, "plan"),
        (
            "electricity-maps",
            400,
            '{"status": "error", "message": "Zone \'DE\' does not exist."}',
            ZoneNotCovered,
            "unknown",
        ),
        (
            "electricity-maps",
            404,
            '{"status": "error", "message": "No recent data for zone \\"DE\\""}',
            GridNoData,
            "no values",
        ),
        ("electricity-maps", 401, '{"error": "Your trial has expired"}', GridAuth, "Renew"),
        ("watttime", 403, '{"message": "This endpoint requires a subscription for region X"}', ZoneNotCovered, "plan"),
        ("energy-charts", 422, '{"detail": "country not known"}', ZoneNotCovered, "country"),
        ("carbon-aware-sdk", 400, '{"errors": {"location": ["not found"]}}', ZoneNotCovered, "location"),
        ("eia-930", 403, '{"error": {"code": "API_KEY_MISSING"}}', GridAuth, "Register"),
        ("entsoe", 400, "<Reason>No matching data found</Reason>", GridNoData, "no values"),
    ],
)
def test_a_providers_own_words_are_understood(name, status, body, error, message, server):
    server.fault, server.fault_body = status, body
    with pytest.raises(error, match=message):
        fetch(next(case for case in CASES if case.name == name), server)


def test_a_plan_without_forecasts_still_gives_the_past(server):
    answer = server.answers["electricity-maps"]

    def without_forecast(grid, path, query, headers):
        if path.endswith("forecast"):
            return 403, {"error": "Forecast not in your plan"}
        return answer(grid, path, query, headers)

    server.answers["electricity-maps"] = without_forecast
    readings = fetch(CASES[3], server)
    check_line(readings)
    assert readings[-1].start <= NOW


def test_a_token_that_ends_early_is_renewed_once(server):
    case = next(case for case in CASES if case.name == "watttime")
    provider = provider_of(case, server)
    provider.fetch(case.zone, NOW - HOUR, NOW, NOW)
    server.tokens.append("revoked-meanwhile")
    check_line(provider.fetch(case.zone, NOW - HOUR, NOW, NOW))
    logins = [path for path, _, _ in server.requests if path.endswith("/login")]
    assert len(logins) == 2


# with memory ---------------------------------------------------------------------------------------------------------


@every
def test_a_revised_value_is_a_further_reading_issued_later(case, server):
    clock, seen = StoppedClock(NOW), []
    source = CachedSource(provider_of(case, server, clock=clock), on_new=seen.extend)
    first = source.readings(case.zone, NOW - 3 * HOUR, NOW, NOW)
    server.value = lambda at: daily(at) + 10
    later = NOW + timedelta(hours=1, minutes=1)
    clock.pass_s((later - clock.at).total_seconds())
    server.now = later
    second = source.readings(case.zone, NOW - 3 * HOUR, NOW, later)
    assert [(r.start, r.end) for r in first] == [(r.start, r.end) for r in second][: len(first)]
    for old, new in zip(first, second, strict=False):
        assert new.intensity_mg_per_kwh == pytest.approx(old.intensity_mg_per_kwh + 10_000, abs=600)
        assert new.issued_at >= old.issued_at
        assert old in seen
        assert new in seen


@every
def test_asked_again_and_unchanged_nothing_is_new(case, server):
    clock, seen = StoppedClock(NOW), []
    source = CachedSource(provider_of(case, server, clock=clock), on_new=seen.extend)
    source.readings(case.zone, NOW - 3 * HOUR, NOW, NOW)
    count = len(seen)
    later = NOW + timedelta(hours=1, minutes=1)
    clock.pass_s((later - clock.at).total_seconds())
    source.readings(case.zone, NOW - 3 * HOUR, NOW, later)
    again = [r for r in seen[count:] if r.end <= NOW - HOUR]
    assert again == []


@every
def test_errors_keep_their_type_through_memory(case, server):
    server.fault = 401
    source = CachedSource(provider_of(case, server))
    for _ in range(3):
        with pytest.raises(GridError):
            source.readings(case.zone, NOW - 3 * HOUR, NOW, NOW)
    data = [path for path, _, _ in server.requests if not path.endswith("/login")]
    assert len(data) <= 2, "asked once per interval (and once more with a new token)"
