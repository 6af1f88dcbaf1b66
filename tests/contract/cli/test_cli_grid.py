"""`carbon-sched grid ...` against a loopback server."""

from __future__ import annotations

import io
import json
from datetime import datetime, timezone

import pytest

from carbon_sched.cli.main import run
from tests.fakes.api_views import finding_view, grid_views, provider_view, skill_view


@pytest.fixture(autouse=True)
def _a_week_later_in_utc(monkeypatch):
    """Times of today are shown without their date, so today must not be the day of the data."""
    monkeypatch.setenv("TZ", "UTC")
    for place in ("carbon_sched.cli.render_grid.now", "carbon_sched.cli.clock.now"):
        monkeypatch.setattr(place, lambda: datetime(2026, 11, 30, tzinfo=timezone.utc))


def test_now_names_intensity_grade_and_source(api, shell):
    api.grid["now"]["notes"] = ["GB: neso publishes average/direct/consumption; used at the level of energy-charts"]
    code, out, _ = shell("grid", "now", "DE")
    assert code == 0
    assert out.splitlines()[1].split() == ["DE", "312", "A", "measured", "Nov", "23", "19:00", "energy-charts"]
    assert "A: live signal of the zone" in out
    assert "note: GB: neso" in out
    assert api.made("GET", "/v1/grid/now")[0].query == {"zone": ["DE"]}


def test_no_cluster_and_no_zone(api, shell):
    api.grid["now"]["readings"] = []
    api.grid["forecast"]["zones"] = []
    for command in ("now", "forecast"):
        code, out, err = shell("grid", command)
        assert (code, out) == (0, "")
        assert "no zone was named" in err


def test_a_forecast_is_drawn_with_its_band(api, shell):
    code, out, _ = shell("grid", "forecast", "DE", "FR", "--hours", "48")
    assert code == 0
    assert api.made("GET", "/v1/grid/forecast")[0].query == {"zone": ["DE", "FR"], "hours": ["48.0"]}
    lines = out.splitlines()
    assert lines[0] == "DE  300 g/kWh on average"
    assert "lowest 200 at Nov 24 12:00, highest 400 at Nov 24 00:00; times in UTC" in lines[1]
    drawing = lines[2:10]
    assert 440 <= int(drawing[0].split()[0]) <= 450
    assert 150 <= int(drawing[-1].split()[0]) <= 160
    assert any("•" in line for line in drawing)
    assert any("░" in line for line in drawing)
    assert "A energy-charts until Nov 24 00:00; C carbon-sched until Nov 25 18:00" in out


def test_a_forecast_says_how_far_it_could_be_trusted_lately(api, shell):
    said = "own forecasts, last 28 days: off by 12.3 % in the first day, 79 % of hours within the band of 80 %,"
    assert f"{said} 86 % (simple profile 82 %) of the 21 % to save" in " ".join(shell("grid", "forecast")[1].split())
    nothing = {"captured": None, "damped_captured": None, "covered": None}
    for skill, line in ((skill_view(**nothing), "off by 12.3 % in the first day"), (None, "too few have come true")):
        api.grid["forecast"]["zones"][0]["skill"] = skill
        assert line in shell("grid", "forecast")[1]


def test_history_asks_for_each_zone(api, shell):
    assert shell("grid", "history", "DE", "FR", "--since", "2026-11-20T00:00:00Z")[0] == 0
    asked = [call.query for call in api.made("GET", "/v1/grid/history")]
    assert asked == [{"zone": [z], "since": ["2026-11-20T00:00:00+00:00"]} for z in ("DE", "FR")]
    assert shell("grid", "history")[0] == 120
    assert shell("grid", "history", "DE", "--since", "soon")[0] == 120


def test_json_is_what_the_api_said(api, shell):
    assert json.loads(shell("grid", "forecast", "--json")[1]) == grid_views()["forecast"]
    assert json.loads(shell("grid", "history", "DE", "--json")[1]) == [grid_views()["history"]]
    assert json.loads(shell("grid", "check", "--json")[1]) == grid_views()["check"]


def test_providers_show_what_they_ran_into_and_where_keys_are_read(api, shell):
    api.grid["providers"][0] = provider_view("entsoe", key="env:ENTSOE", problems={"DE": "entsoe: there is no key"})
    out = shell("grid", "providers")[1]
    assert (
        out.index("in use")
        < out.index("env:ENTSOE")
        < out.index("DE: entsoe: there is no key")
        < out.index("to be had")
    )


def test_check_exits_124_and_tells_problem_and_remedy(api, shell):
    assert shell("grid", "check")[0] == 0
    bad = finding_view(
        "electricity-maps", ok=False, problem="the zone is not covered, or not in this plan",
        remedy="Choose a plan that holds it", detail="HTTP 403", newest_at=None, g_per_kwh=None, forecast_until=None,
    )  # fmt: skip
    api.grid["check"]["findings"].append(bad)
    code, out, _ = shell("grid", "check", "DE")
    assert code == 124
    assert "electricity-maps" in out
    for words in (bad["problem"], bad["remedy"], bad["detail"]):
        assert words in out
    assert "ok  312 g/kWh at" in out
    api.grid["check"]["findings"] = []
    code, out, _ = shell("grid", "check")
    assert code == 0
    assert "yearly averages" in out


@pytest.mark.parametrize("name", ["forecast.svg", "forecast.PNG"])
def test_a_chart_is_written(api, shell, tmp_path, name):
    pytest.importorskip("matplotlib")
    code, _, err = shell("grid", "forecast", "DE", "--chart", str(tmp_path / name))
    assert code == 0
    assert name in err
    written = (tmp_path / name).read_bytes()
    if name.endswith("svg"):
        assert b"g CO2e / kWh" in written
        assert b">DE<" in written
        assert b"energy-charts: CC BY 4.0" in written
        assert shell("grid", "forecast", "DE", "--chart", str(tmp_path / "again.svg"))[0] == 0
        assert (tmp_path / "again.svg").read_bytes() == written
    else:
        assert written.startswith(b"\x89PNG")


CHARTS = {
    "x.pdf": "ends in .svg or .png",
    "no-folder/x.svg": "Make the folder first",
}


@pytest.mark.parametrize(("name", "words"), CHARTS.items())
def test_a_chart_that_cannot_be_drawn_is_said_before_anybody_is_asked(api, shell, name, words):
    code, _, err = shell("grid", "forecast", "DE", "--chart", name)
    assert code == 120
    assert words in err
    assert api.calls == []


def test_without_matplotlib_the_remedy_is_named(api, shell, monkeypatch):
    monkeypatch.setattr("carbon_sched.cli.chart.find_spec", lambda _: None)
    code, _, err = shell("grid", "history", "DE", "--chart", "x.svg")
    assert code == 120
    assert "pip install 'carbon-sched[reports]'" in err
    assert api.calls == []


def test_what_the_output_cannot_show_is_drawn_plainly(api, monkeypatch):
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", ascii_only)
    assert run(["grid", "forecast", "DE"]) == 0
    ascii_only.flush()
    text = ascii_only.buffer.getvalue().decode()
    assert "*" in text
    assert "::" in text
