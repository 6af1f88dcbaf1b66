"""Every intensity provider on one loopback server: documented shapes over a scripted grid, and every way to misbehave.

with GridServer(now) as server:
    server.fault = "html"            # or any of FAULTS, or an HTTP status such as 429
    provider = EnergyCharts(Channel(web, "energy-charts", server.base("energy-charts")))
"""

from __future__ import annotations

import base64
import gzip
import json
import math
import threading
import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from carbon_sched.domain.time import UTC, from_epoch, from_rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

HOUR = timedelta(hours=1)
KEY = "key-C4N4RY-5ecret"
"""The right key everywhere; a canary that must appear in no log, error or reading."""
TOKEN = "token-C4N4RY-session"
FAULTS = (
    "html",
    "truncated",
    "cut",
    "huge",
    "bomb",
    "drip",
    "drip-headers",
    "silent",
    "redirect",
    "loop",
    "nan",
    "deep",
    "list",
)
"""Ways in which a whole answer can be wrong, whatever the provider."""


@dataclass(frozen=True)
class Point:
    """The grid at one step, g/kWh; what a provider does not know is None."""

    start: datetime
    end: datetime
    measured: Any
    forecast: Any


class GridServer:
    """A server of one grid whose intensity is `value(instant)`; `now` divides measured from forecast.

    `fault` breaks whole answers; `change` may edit the points before they are encoded. `requests` lists
    (path, query, headers) of everything asked. `zone_answered` and `unit` make it answer for something else.
    """

    def __init__(self, now: datetime) -> None:
        server = self

        class Handler(_Handler):
            grid = server

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self.closing = threading.Event()
        self.reset(now)

    def reset(self, now: datetime) -> None:
        """As new, on the same port: starting and stopping costs more than most tests."""
        self.now = now
        self.fault: str | int | None = None
        self.fault_body: str | None = None
        self.retry_after: str | None = None
        self.redirect_to: str | None = None
        self.change: Callable[[list[Point]], list[Point]] = lambda points: points
        self.value: Callable[[datetime], float] = daily
        self.zone_answered: str | None = None
        self.unit: str | None = None
        self.requests: list[tuple[str, dict[str, list[str]], dict[str, str]]] = []
        self.faults_left = math.inf
        self.tokens: list[str] = []
        self.answers = dict(ANSWERS)

    def base(self, provider: str) -> str:
        """The address to configure for a provider."""
        return f"http://127.0.0.1:{self._http.server_port}/{provider}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()

    def points(self, start: datetime, end: datetime, step: timedelta, horizon: timedelta) -> list[Point]:
        """Aligned steps over the period, none beyond `horizon` from now; the step that holds now counts as measured."""
        at = from_epoch(start.timestamp() // step.total_seconds() * step.total_seconds())
        found = []
        while at < end and at < self.now + horizon:
            value = round(self.value(at), 3)
            found.append(Point(at, at + step, value if at <= self.now else None, value))
            at += step
        return self.change(found)


def daily(at: datetime) -> float:
    """A plain daily curve, 150 to 450 g/kWh, at its lowest at 12:00 UTC."""
    return 300 + 150 * math.cos(2 * math.pi * (at.hour + at.minute / 60) / 24)


class _Handler(BaseHTTPRequestHandler):
    grid: GridServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query, keep_blank_values=True)
        self.grid.requests.append((parts.path, query, {k.lower(): v for k, v in self.headers.items()}))
        fault = self.grid.fault
        if fault is not None and self.grid.faults_left > 0 and not parts.path.endswith("/login"):
            self.grid.faults_left -= 1
            self.misbehave(fault)
            return
        provider, _, rest = parts.path.lstrip("/").partition("/")
        try:
            status, body = self.grid.answers[provider](self.grid, f"/{rest}", query, self.headers)
        except _RefusedError as refused:
            status, body = refused.status, refused.body
        text = body if isinstance(body, str) else json.dumps(body)
        self.answer(status, text.encode())

    def answer(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def misbehave(self, fault: str | int) -> None:
        if isinstance(fault, int):
            headers = {"Retry_After": self.grid.retry_after} if self.grid.retry_after else {}
            default = self.echo(fault)
            self.answer(fault, (self.grid.fault_body or default).encode(), **headers)
            return
        getattr(self, "do_" + fault.replace("-", "_"))()

    def echo(self, fault: int) -> str:
        """An error that repeats every secret it was given, as some servers do."""
        sent = [self.headers.get(name) for name in ("Authorization", "auth-token", "X-Api-Key")]
        sent += parse_qs(urlsplit(self.path).query).get("securityToken", [])
        return json.dumps({"error": f"fault {fault}", "you_sent": [one for one in sent if one]})

    def do_echo_page(self) -> None:
        self.answer(200, f"<html>{self.echo(200)}</html>".encode(), "text/html")

    def do_html(self) -> None:
        self.answer(200, b"<!DOCTYPE html><html><body>Please log in to the hotel network</body></html>", "text/html")

    def do_truncated(self) -> None:
        self.answer(200, b'{"unix_seconds": [1773100800, 17731')

    def do_nan(self) -> None:
        self.answer(200, b'{"unix_seconds": [NaN]}')

    def do_deep(self) -> None:
        self.answer(200, b"[" * 100_000)

    def do_list(self) -> None:
        self.answer(200, b'[1, "two", null]')

    def do_cut(self) -> None:
        """Promises more than it sends."""
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        self.wfile.write(b'{"data": [')
        self.close_connection = True

    def do_huge(self) -> None:
        """100 MB, without saying so before."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.close_connection = True
        chunk = b" " * 1_000_000
        try:
            for _ in range(100):
                self.wfile.write(chunk)
        except OSError:
            return

    def do_bomb(self) -> None:
        """A small gzip that unpacks to 100 MB."""
        self.answer(200, bomb(), Content_Encoding="gzip")

    def do_drip(self) -> None:
        """One byte of the body now and then."""
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        self.close_connection = True
        self.drip(b" ")

    def do_drip_headers(self) -> None:
        """One byte of a header now and then."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        self.close_connection = True
        self.drip(b"a")

    def drip(self, byte: bytes) -> None:
        try:
            while not self.grid.closing.is_set():
                self.wfile.write(byte)
                self.wfile.flush()
                time.sleep(0.02)
        except OSError:
            return

    def do_silent(self) -> None:
        self.grid.closing.wait(30)
        self.close_connection = True

    def do_redirect(self) -> None:
        elsewhere = f"http://localhost:{self.server.server_port}/elsewhere"
        self.answer(302, b"", Location=self.grid.redirect_to or elsewhere)

    def do_loop(self) -> None:
        self.answer(302, b"", Location=self.path)


@cache
def bomb() -> bytes:
    return gzip.compress(b" " * 100_000_000, 1)


class _RefusedError(Exception):
    def __init__(self, status: int, body: Any) -> None:
        super().__init__(str(status))
        self.status, self.body = status, body


# ---------------------------------------------------------------------------------------------- documented shapes


def energy_charts(grid: GridServer, path: str, query: Any, headers: Any) -> tuple[int, Any]:
    if path != "/co2eq":
        return 404, {"detail": "Not Found"}
    points = grid.points(*_range(query, "start", "end"), timedelta(minutes=15), timedelta(hours=36))
    return 200, {
        "unix_seconds": [int(p.start.timestamp()) for p in points],
        "co2eq": [p.measured for p in points],
        "co2eq_forecast": [p.forecast for p in points],
        "deprecated": False,
    }


def neso(grid: GridServer, path: str, query: Any, headers: Any) -> tuple[int, Any]:
    parts = path.strip("/").split("/")
    regional = parts[0] == "regional"
    parts = parts[1:] if regional else parts
    start = from_rfc3339(parts[1])
    end = start + timedelta(hours=48) if parts[2] == "fw48h" else from_rfc3339(parts[2])
    if end - start > timedelta(days=14):
        raise _RefusedError(400, {"error": {"code": "400 Bad Request", "message": "The range is longer than 14 days"}})
    points = grid.points(start, end, timedelta(minutes=30), timedelta(hours=48))
    rows = []
    for p in points:
        values = {"forecast": p.forecast, "index": "moderate"}
        if not regional:
            values["actual"] = p.measured
        rows.append({"from": _minute(p.start), "to": _minute(p.end), "intensity": values})
    if not regional:
        return 200, {"data": rows}
    region = grid.zone_answered or parts[-1]
    return 200, {"data": {"regionid": int(region), "shortname": "London", "data": rows}}


def electricity_maps(grid: GridServer, path: str, query: Any, headers: Any) -> tuple[int, Any]:
    if headers.get("auth-token") != KEY:
        return 401, {"error": "Unauthorized"}
    zone, basis = query["zone"][0], query["emissionFactorType"][0]
    if query.get("disableCallerLookup") != ["true"]:
        zone = "AQ"  # where the caller's address would be
    zone = grid.zone_answered or zone
    kind = path.rpartition("/")[2]
    if kind == "forecast":
        hours = int(query["horizonHours"][0])
        points = grid.points(grid.now, grid.now + hours * HOUR, HOUR, timedelta(hours=hours))
        rows = [{"carbonIntensity": p.forecast, "datetime": _milli(p.start)} for p in points]
        return 200, {"zone": zone, "forecast": rows, "updatedAt": _milli(grid.now)}
    if kind == "history":
        start, end = grid.now - timedelta(hours=24), grid.now
    else:
        start, end = _range(query, "start", "end")
    points = [p for p in grid.points(start, end, HOUR, timedelta(hours=1)) if p.start <= grid.now]
    rows = [
        {
            "zone": zone,
            "carbonIntensity": p.measured,
            "datetime": _milli(p.start),
            "updatedAt": _milli(p.start + timedelta(minutes=50)),
            "createdAt": _milli(p.start - timedelta(days=3)),
            "emissionFactorType": grid.unit or basis,
            "isEstimated": p.start > grid.now - 3 * HOUR,
            "estimationMethod": "TIME_SLICER_AVERAGE" if p.start > grid.now - 3 * HOUR else None,
            "temporalGranularity": "hourly",
        }
        for p in points
    ]
    return 200, {"zone": zone, "history" if kind == "history" else "data": rows}


def watttime(grid: GridServer, path: str, query: Any, headers: Any) -> tuple[int, Any]:
    given = headers.get("Authorization", "")
    if path == "/login":
        if given != "Basic " + base64.b64encode(f"user:{KEY}".encode()).decode():
            return 403, {"error": "Invalid credentials"}
        grid.tokens.append(f"{TOKEN}-{len(grid.tokens)}")
        return 200, {"token": grid.tokens[-1]}
    if not grid.tokens or given != f"Bearer {grid.tokens[-1]}":
        return 401, {"error": "Unauthorized"}
    region = query["region"][0]
    if region != "CAISO_NORTH":
        return 403, {"error": "FORBIDDEN", "message": f"This endpoint requires a subscription for region {region}"}
    step = timedelta(minutes=5)
    ahead = path == "/v3/forecast"
    if ahead:
        hours = int(query["horizon_hours"][0])
        points = grid.points(grid.now, grid.now + hours * HOUR, step, timedelta(hours=hours))
    else:
        points = [p for p in grid.points(*_range(query, "start", "end"), step, HOUR) if p.start <= grid.now]
    rows = []
    for p in points:
        value = p.forecast if ahead else p.measured
        pounds = round(value / 0.45359237, 6) if _is_number(value) else value
        rows.append({"point_time": p.start.isoformat(), "value": pounds})
    meta = {
        "data_point_period_seconds": 300,
        "model": {"date": "2023-03-01"},
        "region": grid.zone_answered or region,
        "signal_type": query["signal_type"][0],
        "units": grid.unit or "lbs_co2_per_mwh",
        "warnings": [],
    }
    if ahead:
        meta["generated_at"] = grid.now.isoformat()
    return 200, {"data": rows, "meta": meta}


def energidataservice(grid: GridServer, path: str, query: Any, headers: Any) -> tuple[int, Any]:
    area = json.loads(query["filter"][0])["PriceArea"][0]
    start, end = (datetime.fromisoformat(query[name][0]).replace(tzinfo=UTC) for name in ("start", "end"))
    ahead = path == "/dataset/CO2EmisProg"
    points = grid.points(start, end, timedelta(minutes=5), timedelta(hours=40))
    points = points if ahead else [p for p in points if p.start <= grid.now]
    copenhagen = timezone(timedelta(hours=1))
    rows = [
        {
            "Minutes5UTC": p.start.strftime("%Y-%m-%dT%H:%M:%S"),
            "Minutes5DK": p.start.astimezone(copenhagen).strftime("%Y-%m-%dT%H:%M:%S"),
            "PriceArea": grid.zone_answered or area,
            "CO2Emission": p.forecast if ahead else p.measured,
        }
        for p in points
    ]
    return 200, {"total": len(rows), "dataset": path.rpartition("/")[2], "records": rows}


def rte_odre(grid: GridServer, path: str, query: Any, headers: Any) -> tuple[int, Any]:
    bounds = [part.split("'")[1] for part in query["where"][0].split(" AND ")]
    start, end = (from_rfc3339(text) for text in bounds)
    points = grid.points(start, end, timedelta(minutes=15), timedelta(hours=24))
    offset, limit = int(query["offset"][0]), int(query["limit"][0])
    rows = [
        {
            "perimetre": grid.zone_answered or "France",
            "nature": "Données temps réel",
            "date_heure": p.start.isoformat(),
            "taux_co2": p.measured,
        }
        for p in points
    ]
    return 200, {"total_count": len(rows), "results": rows[offset : offset + limit]}


def entsoe(grid: GridServer, path: str, query: Any, headers: Any) -> tuple[int, Any]:
    """Coal and wind in shares that give the wanted intensity with factors 820 and 11."""
    if query["securityToken"] != [KEY]:
        return 401, "<html><body>Unauthorized</body></html>"
    area = query["in_Domain"][0]
    start, end = (
        datetime.strptime(query[n][0], "%Y%m%d%H%M").replace(tzinfo=UTC) for n in ("periodStart", "periodEnd")
    )
    points = [p for p in grid.points(start, end, HOUR, HOUR) if p.start <= grid.now]
    if not points:
        return 200, _acknowledgement()
    series = "".join(
        _time_series(number, code, points, share, grid.zone_answered or area, grid.unit or "MAW")
        for number, (code, share) in enumerate((("B02", lambda s: s), ("B19", lambda s: 1 - s)), 1)
    )
    name = "urn:iec62325.351:tc57wg16:451-6:generationloaddocument:3:0"
    return 200, f'<?xml version="1.0" encoding="UTF-8"?><GL_MarketDocument xmlns="{name}">{series}</GL_MarketDocument>'


def _compact(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%d%H%M").replace(tzinfo=UTC)


def _time_series(number: int, code: str, points: list[Point], share: Any, area: str, unit: str) -> str:
    rows = []
    for position, p in enumerate(points, 1):
        if p.measured is not None:  # left out: in curve type A03 it repeats the one before
            amount = _amount(p.measured, share)
            rows.append(f"<Point><position>{position}</position><quantity>{amount}</quantity></Point>")
    return (
        f"<TimeSeries><mRID>{number}</mRID><inBiddingZone_Domain.mRID>{area}</inBiddingZone_Domain.mRID>"
        f"<quantity_Measure_Unit.name>{unit}</quantity_Measure_Unit.name><curveType>A03</curveType>"
        f"<MktPSRType><psrType>{code}</psrType></MktPSRType><Period><timeInterval><start>{_minute(points[0].start)}</start>"
        f"<end>{_minute(points[-1].end)}</end></timeInterval><resolution>PT60M</resolution>{''.join(rows)}</Period></TimeSeries>"
    )


def _amount(value: Any, share: Any) -> Any:
    """MW of one of two fuels; what is not a number is passed on as it is."""
    if not _is_number(value):
        return value
    return round(10_000 * share((value - 11) / (820 - 11)), 4)


def _acknowledgement() -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?><Acknowledgement_MarketDocument '
        'xmlns="urn:iec62325.351:tc57wg16:451-1:acknowledgementdocument:8:0"><Reason><code>999</code>'
        "<text>No matching data found</text></Reason></Acknowledgement_MarketDocument>"
    )


def eia930(grid: GridServer, path: str, query: Any, headers: Any) -> tuple[int, Any]:
    if headers.get("X-Api-Key") != KEY:
        return 403, {"error": {"code": "API_KEY_INVALID", "message": "An invalid api_key was supplied"}}
    start, end = (datetime.strptime(query[n][0], "%Y-%m-%dT%H").replace(tzinfo=UTC) for n in ("start", "end"))
    # A period is the hour that ends then.
    points = grid.points(start - HOUR, end, HOUR, HOUR)
    rows = []
    for p in points:
        if p.start > grid.now:
            continue
        for code, share in (("COL", lambda s: s), ("WND", lambda s: 1 - s), ("BAT", lambda _: -0.1)):
            amount = None if p.measured is None else str(_amount(p.measured, share))
            rows.append(
                {
                    "period": p.end.strftime("%Y-%m-%dT%H"),
                    "respondent": grid.zone_answered or query["facets[respondent][]"][0],
                    "fueltype": code,
                    "value": amount,
                    "value-units": grid.unit or "megawatthours",
                }
            )
    offset, length = int(query["offset"][0]), int(query["length"][0])
    return 200, {"response": {"total": str(len(rows)), "frequency": "hourly", "data": rows[offset : offset + length]}}


def carbon_aware_sdk(grid: GridServer, path: str, query: Any, headers: Any) -> tuple[int, Any]:
    location = grid.zone_answered or query["location"][0]
    if path == "/emissions/forecasts/current":
        points = grid.points(grid.now, grid.now + 24 * HOUR, timedelta(minutes=10), 24 * HOUR)
        rows = [
            {"location": "IE", "timestamp": p.start.isoformat(), "duration": 10, "value": _or_missing(p.forecast)}
            for p in points
        ]
        one = {"generatedAt": grid.now.isoformat(), "location": location, "windowSize": 10, "forecastData": rows}
        return 200, [{**one, "optimalDataPoints": rows[:1]}]
    points = [p for p in grid.points(*_range(query, "time", "toTime"), HOUR, HOUR) if p.start <= grid.now]
    return 200, [
        {"location": location, "time": p.start.isoformat(), "rating": _or_missing(p.measured), "duration": "01:00:00"}
        for p in points
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _or_missing(value: Any) -> Any:
    return -1 if value is None else value


def openelectricity(grid: GridServer, path: str, query: Any, headers: Any) -> tuple[int, Any]:
    if headers.get("Authorization") != f"Bearer {KEY}":
        return 401, {"success": False, "error": "Unauthorized"}
    east = timezone(timedelta(hours=10))
    start, end = (datetime.fromisoformat(query[n][0]).replace(tzinfo=east) for n in ("date_start", "date_end"))
    points = [p for p in grid.points(start, end, HOUR, HOUR) if p.start <= grid.now]

    def metric(name: str, unit: str, amount: Any) -> Any:
        data = [[p.start.astimezone(east).isoformat(), amount(p.measured)] for p in points]
        region = grid.zone_answered or "NSW1"
        results = [{"name": f"{name}_{region}", "columns": {"region": region}, "data": data}]
        return {"network_code": "NEM", "metric": name, "unit": grid.unit or unit, "interval": "1h", "results": results}

    emitted = metric("emissions", "t", lambda v: v * 7 if _is_number(v) else v)
    return 200, {"success": True, "data": [metric("energy", "MWh", lambda v: None if v is None else 7000.0), emitted]}


def series_url(grid: GridServer, path: str, query: Any, headers: Any) -> tuple[int, Any]:
    points = grid.points(grid.now - timedelta(days=2), grid.now + timedelta(days=1), HOUR, timedelta(days=1))
    return 200, [{"start": _minute(p.start), "end": _minute(p.end), "g_per_kwh": p.forecast} for p in points]


ANSWERS: dict[str, Callable[[GridServer, str, Any, Any], tuple[int, Any]]] = {
    "energy-charts": energy_charts,
    "neso": neso,
    "electricity-maps": electricity_maps,
    "watttime": watttime,
    "energidataservice": energidataservice,
    "rte-odre": rte_odre,
    "entsoe": entsoe,
    "eia-930": eia930,
    "carbon-aware-sdk": carbon_aware_sdk,
    "openelectricity": openelectricity,
    "series-url": series_url,
}


def _range(query: Any, first: str, last: str) -> tuple[datetime, datetime]:
    return from_rfc3339(query[first][0]), from_rfc3339(query[last][0])


def _minute(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")


def _milli(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


# ------------------------------------------------------------------------------------------------ edits of the points


def nulls(points: list[Point]) -> list[Point]:
    """Every third value is not known."""
    return [replace(p, measured=None, forecast=None) if i % 3 == 1 else p for i, p in enumerate(points)]


def duplicated(points: list[Point]) -> list[Point]:
    """Each point stands twice."""
    return [p for p in points for _ in range(2)]


def contradicting(points: list[Point]) -> list[Point]:
    """The second point stands again with another value."""
    changed = [replace(p, measured=p.measured and p.measured + 50, forecast=p.forecast + 50) for p in points[1:2]]
    return [*points, *changed]


def missing(points: list[Point]) -> list[Point]:
    """The third and fourth point are left out."""
    return points[:2] + points[4:]


def shuffled(points: list[Point]) -> list[Point]:
    """In no order."""
    return points[::2] + points[1::2]


def with_value(value: Any) -> Callable[[list[Point]], list[Point]]:
    """The second point has this value."""

    def change(points: list[Point]) -> list[Point]:
        return [replace(p, measured=value, forecast=value) if i == 1 else p for i, p in enumerate(points)]

    return change


def from_the_future(points: list[Point]) -> list[Point]:
    """Everything is said to be measured."""
    return [replace(p, measured=p.forecast) for p in points]
