"""The grid as a whole server has it: settings to providers over loopback HTTP, to outlooks, archive, API and client."""

from __future__ import annotations

import socket
import threading
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
import requests
import uvicorn

from carbon_sched.api.app import create_app
from carbon_sched.client import Client
from carbon_sched.compose import build
from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.intensity import Grade
from carbon_sched.domain.time import UTC
from carbon_sched.grid.chain import Grid
from carbon_sched.grid.configured import ConfiguredGrid
from carbon_sched.grid.http import Limits, Web
from carbon_sched.grid.pacing import TokenBucket
from carbon_sched.grid.yearly import YearlyTable
from carbon_sched.service.refresh import Archive, Refresh
from carbon_sched.settings import GridSettings, ProviderSetting, load_settings
from tests.fakes.grid_server import KEY, GridServer
from tests.fakes.world import World, a_cluster

TOKEN = "cs_test"
KEYLESS = ("energy-charts", "neso", "energidataservice", "rte-odre")
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def running():
    with GridServer(datetime.now(UTC)) as server:
        yield server


@pytest.fixture
def grid(running):
    running.reset(datetime.now(UTC))
    return running


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _no_rate(monkeypatch):
    """Providers are asked as fast as they answer: the rate has tests of its own, and a month takes RTE 27 pages."""
    monkeypatch.setattr(TokenBucket, "take", lambda _: 0.0)


class Running:
    """A composed server whose loops are turned by hand, behind its real API."""

    def __init__(self, folder) -> None:
        settings = load_settings({"data_dir": folder}, None)
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        events = {"shutdown": threading.Event(), "stop_local": threading.Event()}
        self.server = build(settings, token=TOKEN, url=url, **events)
        self.context = self.server.context
        self.http = uvicorn.Server(uvicorn.Config(create_app(self.context), log_config=None))
        self.listener.listen()
        self.thread = threading.Thread(target=self.http.run, kwargs={"sockets": [self.listener]})
        self.thread.start()
        self.client = Client(url, TOKEN)

    def refresh(self) -> None:
        """What the loops of all providers do until nothing is due."""
        for step in self.server.loops._steps:
            while step.name.startswith("refresh ") and step.run() == 0.0:
                pass

    def fit(self) -> None:
        """What the loop of our own forecasts does until nothing is due."""
        step = next(step for step in self.server.loops._steps if step.name == "forecast")
        while step.run() == 0.0:
            pass

    def clusters(self, *zones: str) -> None:
        for zone in zones:
            self.client.put_cluster(zone.lower(), {"zone": zone, "address": "http://127.0.0.1:9"})

    def close(self) -> None:
        self.client.close()
        self.http.should_exit = True
        self.thread.join()
        self.server.closing.close()


@pytest.fixture
def start(tmp_path, grid):
    """Starts a server on one data folder; a second call is its next life."""
    lives: list[Running] = []

    def call(*more: str) -> Running:
        entries = [f"    - {{provider: {name}, url: '{grid.base(name)}'}}" for name in KEYLESS]
        text = "\n".join(["grid:", "  providers:", *entries, *more])
        (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
        for life in lives:
            life.close()
        lives[:] = [Running(tmp_path)]
        return lives[0]

    yield call
    for life in lives:
        life.close()


def test_three_countries_without_any_key_can_be_ranked(start, grid):
    server = start()
    server.clusters("DE", "FR", "GB")
    assert {view["intensity_grade"] for view in server.client.clusters()} == {"D-zone-year"}
    assert grid.requests == [], "adding a cluster waits for nobody"
    server.refresh()
    assert {view["intensity_grade"] for view in server.client.clusters()} == {"A-live"}
    now = server.context.clock.now()
    outlooks = server.context.outlooks.of(["DE", "FR", "GB"], now, now + 7 * DAY)
    assert len({r.comparability for o in outlooks.values() for r in o.readings}) == 1
    for outlook in outlooks.values():
        grades = list(dict.fromkeys(r.grade for r in outlook.readings))
        assert grades[:3] == [Grade.LIVE, Grade.PROVIDER_FORECAST, Grade.OWN_FORECAST]
        assert outlook.readings[-1].end >= now + 7 * DAY
    asked = len(grid.requests)
    server.context.outlooks.best_fixed(server.context.fleet.all(), now)
    assert len(grid.requests) == asked, "planning asked a provider"
    assert server.client.grid_forecast(["DE"])["zones"][0]["skill"] is None
    server.fit()
    skill = server.client.grid_forecast(["DE"])["zones"][0]["skill"]
    assert skill["issues"] == 28 * 24
    assert skill["captured"] > 0.9, "the scripted grid repeats itself"
    assert skill["damped_captured"] > 0.9
    assert 0.0 < skill["possible"] < 1.0
    assert skill["mape_pct"] < 10.0


LEVELS = {"de": 400.0, "fr": 50.0, "uk": 200.0}


def test_a_job_goes_where_the_chain_says_it_is_clean(grid, tmp_path):
    """Decision and candidates over the real chain: FR is cleanest, each candidate tells its grade."""
    world = World(tmp_path, [a_cluster(name, name) for name in ("DE", "FR", "GB")], {})
    grid.reset(world.clock.now())
    energy_charts, turn = grid.answers["energy-charts"], threading.Lock()

    def by_country(server, path, query, headers):
        with turn:  # zones are asked for side by side, and the server has one value
            server.value = lambda _: LEVELS[query["country"][0]]
            return energy_charts(server, path, query, headers)

    grid.answers["energy-charts"] = by_country
    web = Web(world.clock, lambda _: None, lambda: 0.0, Limits(tries=1))
    entries = tuple(ProviderSetting(provider=name, url=grid.base(name)) for name in KEYLESS)
    configured = ConfiguredGrid(GridSettings(providers=entries), web, lambda _: None)
    archive = Archive(world.store)
    refresh = Refresh(configured.live, archive, world.store, world.fleet.zones, world.clock, world.signals)
    refresh.ask(world.fleet.zones())
    world.outlooks._grid = Grid(configured.sources(), YearlyTable.load())
    decision = world.decide.preview(world.accept.spec({"entrypoint": "x", "duration_s": 3600}, submitter="ada"))
    assert decision.cluster == "FR"
    found = {c.cluster: (round(c.intensity_g_per_kwh), c.grade) for c in decision.candidates}
    assert {name: level for name, (level, _) in found.items()} == {"DE": 400, "FR": 50, "GB": 200}
    assert {grade for _, grade in found.values()} <= {Grade.LIVE, Grade.PROVIDER_FORECAST}
    refresh.close()
    world.close()


def test_forecast_and_history_of_any_place(start, grid):
    server = start()
    found = server.client.grid_forecast(["aws:eu-west-2", "NL"], hours=72)
    assert [one["zone"] for one in found["zones"]] == ["GB", "NL"]
    for one in found["zones"]:
        readings = one["readings"]
        assert all(a["end"] == b["start"] for a, b in pairwise(readings))
        assert readings[0]["provider"] == "energy-charts" or "energy-charts" in readings[0]["model_version"]
        ours = [r for r in readings if r["grade"].startswith("C")]
        assert ours
        assert all(r["low_g_per_kwh"] <= r["g_per_kwh"] <= r["high_g_per_kwh"] for r in ours)
    assert any("neso" in note for note in found["notes"])
    since = datetime.now(UTC) - 10 * DAY
    history = server.client.grid_history("DE", since=since)
    assert {r["grade"] for r in history["readings"]} == {"A-live"}
    assert len(history["readings"]) >= 10 * 96
    now = server.client.grid_now(["DK-DK1"])["readings"][0]
    assert now["provider"] == "energidataservice"
    assert now["basis"] == "lifecycle", "brought to a comparable level"
    with pytest.raises(InvalidInput, match="at most 90 days"):
        server.client.grid_history("DE", since=since - 365 * DAY)
    with pytest.raises(InvalidInput, match="Near matches"):
        server.client.grid_now(["DEE"])


def test_without_zones_those_of_the_clusters_are_told(start):
    server = start()
    assert server.client.grid_now()["readings"] == []
    server.clusters("DE", "NL")
    assert [one["zone"] for one in server.client.grid_now()["readings"]] == ["DE", "NL"]


def test_history_survives_a_restart_without_network(start, grid):
    server = start()
    server.clusters("DE", "NL")
    server.refresh()
    grid.fault = 503
    again = start()
    again.refresh()
    now = again.context.clock.now()
    outlooks = again.context.outlooks.of(["DE", "NL"], now, now + DAY)
    assert {outlook.readings[0].grade for outlook in outlooks.values()} == {Grade.LIVE}
    past = again.context.outlooks.actual("DE", now - 27 * DAY, now - HOUR, now)
    assert {r.grade for r in past} == {Grade.LIVE}
    assert len(past) >= 26 * 96
    problems = {view["provider"]: view["problems"] for view in again.client.grid_providers() if view["configured"]}
    assert "HTTP 503" in problems["energy-charts"]["DE"]


def test_every_provider_is_listed_with_what_it_needs(start):
    views = {view["provider"]: view for view in start().client.grid_providers()}
    assert len(views) >= 11
    assert [name for name, view in views.items() if view["configured"]] == list(KEYLESS)
    assert views["electricity-maps"]["needs_key"] == "required"
    assert "header" in views["electricity-maps"]["options"]


TROUBLES = {
    "a wrong key": (None, "", "the key is wrong", "valid key"),
    "an expired trial": (
        401,
        '{"error": "Your trial period has ended"}',
        "trial or contract of the key has ended",
        "Renew",
    ),
    "a zone outside the plan": (403, '{"error": "Token unauthorized for zoneKey=DE"}', "not in this plan", "plan"),
}


@pytest.mark.parametrize(("fault", "body", "problem", "remedy"), TROUBLES.values(), ids=TROUBLES)
def test_check_names_the_problem_and_its_remedy(start, grid, monkeypatch, fault, body, problem, remedy):
    monkeypatch.setenv("EM_KEY", KEY if fault else "wrong-C4N4RY")
    server = start(f"    - {{provider: electricity-maps, url: '{grid.base('electricity-maps')}', key: 'env:EM_KEY'}}")
    grid.fault, grid.fault_body = fault, body
    found = {one["provider"]: one for one in server.client.check_grid(["DE"])["findings"]}
    em = found["electricity-maps"]
    assert not em["ok"]
    assert problem in em["problem"]
    assert remedy in em["remedy"]
    assert "C4N4RY" not in str(found)
    if fault is None:
        assert found["energy-charts"]["ok"]
        assert found["energy-charts"]["zone"] == "DE"
        assert found["energy-charts"]["forecast_until"] > found["energy-charts"]["newest_at"]


def test_check_without_a_network(start, tmp_path):
    server = start("    - {provider: series-url, url: 'http://127.0.0.1:9', zones: [DE]}")
    server.clusters("FR")
    found = server.client.check_grid()["findings"]
    dead = next(one for one in found if one["provider"] == "series-url")
    assert dead["problem"] == "there is no connection to it"
    assert "network" in dead["remedy"]
    assert next(one["zone"] for one in found if one["provider"] == "energy-charts") == "FR", "the clusters' zones"


def test_check_looks_at_files_too(start, tmp_path):
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    rows = [f"{(now + h * HOUR).isoformat()},{200 + h}" for h in range(-3, 5)]
    (tmp_path / "de.csv").write_text("\n".join(["start,g_per_kwh", *rows]) + "\n", encoding="utf-8")
    (tmp_path / "fr.csv").write_text("start,g_per_kwh\n2020-01-01T00:00Z,50\n2020-01-01T01:00Z,60\n", encoding="utf-8")
    series = "  series:\n    - {zone: DE, file: de.csv}\n    - {zone: FR, file: fr.csv}"
    found = {one["provider"]: one for one in start(series).client.check_grid()["findings"]}
    assert found["series:de.csv"]["ok"]
    assert found["series:de.csv"]["g_per_kwh"] == 200
    assert "no value for now" in found["series:fr.csv"]["problem"]


ROUTES = [
    ("GET", "/v1/grid/now"),
    ("GET", "/v1/grid/forecast"),
    ("GET", "/v1/grid/history?zone=DE"),
    ("GET", "/v1/grid/providers"),
    ("POST", "/v1/grid/check"),
]


def test_every_route_wants_the_token(start):
    server = start()
    for method, path in ROUTES:
        answer = requests.request(method, server.client.url + path, timeout=10)
        assert answer.status_code == 401, path
