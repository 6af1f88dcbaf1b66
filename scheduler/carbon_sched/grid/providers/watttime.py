"""WattTime v3: marginal (MOER) and average (AOER) operating emission rates, forecasts up to 72 h; name and password.

`/login` (Basic) gives a token for 30 minutes. Values are lb CO2 per MWh and are refused in any other unit. Free
accounts see CAISO_NORTH only. Values are restated per model version, so `meta.model.date` is kept with each. The
perimeter of a marginal rate is the load that causes it: consumption.
"""

from __future__ import annotations

import base64
import threading
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.errors import GridAuth, GridError, GridMalformed, ZoneNotCovered
from carbon_sched.domain.intensity import Basis, Comparability, Kind, Perimeter, Reading, Signal
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.grid.answers import parse_json
from carbon_sched.grid.http import read_secret
from carbon_sched.grid.provider import (
    LB_PER_MWH_IN_G_PER_KWH,
    Collector,
    Method,
    instant,
    items,
    member,
    number,
    record,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from carbon_sched.domain.cluster import SecretRef
    from carbon_sched.grid.answers import Answer
    from carbon_sched.grid.http import Channel

NAME = "watttime"
BASE = "https://api.watttime.org"
REMEDY = "Register at watttime.org; give the user name, and the environment variable or file of the password"
REGIONS = {"US-CAL-CISO": "CAISO_NORTH"}
"""The one region of the free plan; a contract's regions are configured."""
SIGNALS = {Signal.MARGINAL: "co2_moer", Signal.AVERAGE: "co2_aoer"}
UNITS = "lbs_co2_per_mwh"
TOKEN_LIFE = timedelta(minutes=25)
"""Five minutes less than the provider's 30, so that a token never ends between check and use."""


class WattTime:
    """Implements `provider.Provider` for one signal."""

    name = NAME
    ttl = timedelta(minutes=5)
    lookback = timedelta(days=28)
    max_span = timedelta(days=28)

    def __init__(
        self,
        channel: Channel,
        user: str,
        password: SecretRef | None,
        signal: Signal = Signal.MARGINAL,
        *,
        regions: Mapping[str, str] | None = None,
        horizon: timedelta = timedelta(hours=72),
    ) -> None:
        """`regions` maps zones to WattTime regions."""
        self._channel, self._user, self._password = channel, user, password
        self._signal, self._regions = signal, dict(regions or REGIONS)
        self.horizon = horizon
        like = Comparability(signal, Basis.DIRECT, Perimeter.CONSUMPTION)
        self._method = Method(NAME, like, "WattTime contract", retention="used-only")
        self._lock = threading.Lock()
        self._token: tuple[str, datetime] | None = None

    def zones(self) -> frozenset[str]:
        """The zones with a configured region."""
        return frozenset(self._regions)

    def fetch(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        """The past by `/v3/historical`, the future by `/v3/forecast`."""
        found: list[Reading] = []
        region = self._regions[zone]
        if start < now:
            span = {"start": to_rfc3339(start), "end": to_rfc3339(min(end, now))}
            found += self._points(zone, region, "/v3/historical", span, start, end, now)
        if end > now:
            hours = {"horizon_hours": str(min(72, int((end - now) / timedelta(hours=1)) + 1))}
            after = found[-1].end if found else start
            ahead = self._points(zone, region, "/v3/forecast", hours, start, end, now)
            found += [reading for reading in ahead if reading.start >= after]
        return found

    def _points(
        self,
        zone: str,
        region: str,
        path: str,
        params: Mapping[str, str],
        start: datetime,
        end: datetime,
        now: datetime,
    ) -> list[Reading]:
        data, answer = self._get(path, {"region": region, "signal_type": SIGNALS[self._signal], **params}, now)
        meta = record(NAME, member(NAME, data, "meta"))
        step, model = self._check(meta, region)
        issued = instant(NAME, meta["generated_at"]) if meta.get("generated_at") else None
        collector = Collector(self._method, zone, now, answer)
        for item in items(NAME, data, "data"):
            row = record(NAME, item)
            at = instant(NAME, member(NAME, row, "point_time"))
            value = number(NAME, member(NAME, row, "value"))
            in_g = None if value is None else value * LB_PER_MWH_IN_G_PER_KWH
            kind = Kind.ESTIMATED if row.get("imputed_data_used") else Kind.MEASURED
            updated = instant(NAME, row["last_updated"]) if row.get("last_updated") else issued
            kind = Kind.FORECAST if path.endswith("forecast") else kind
            collector.add(at, at + step, in_g, kind, issued_at=updated, model_version=model)
        return collector.readings(start, end)

    def _check(self, meta: Mapping[str, Any], region: str) -> tuple[timedelta, str]:
        if meta.get("units") != UNITS:
            raise GridMalformed(f"{NAME}: values in {str(meta.get('units'))[:40]!r}, documented is {UNITS}; not used")
        if meta.get("region", region) != region:
            raise GridMalformed(f"{NAME}: asked for {region}, answered for {str(meta['region'])[:40]!r}; not used")
        if meta.get("signal_type", SIGNALS[self._signal]) != SIGNALS[self._signal]:
            raise GridMalformed(f"{NAME}: answered with another signal, {str(meta['signal_type'])[:40]!r}; not used")
        seconds = number(NAME, meta.get("data_point_period_seconds")) or 300.0
        if not 60 <= seconds <= 3600:
            raise GridMalformed(f"{NAME}: a period of {seconds:g} s")
        return timedelta(seconds=seconds), str((meta.get("model") or {}).get("date") or "")

    def _get(self, path: str, params: Mapping[str, str], now: datetime) -> tuple[Any, Answer]:
        """Ask with the token at hand; when it is refused, log in once more and ask again."""
        token = self._login(now)
        answer = self._with_token(path, params, token)
        if answer is None:
            self._token = None
            token = self._login(now)
            answer = self._with_token(path, params, token)
        if answer is None:
            raise GridAuth(f"{NAME}: refuses the token it has just given. Try again later")
        return parse_json(NAME, answer, (token,)), answer

    def _with_token(self, path: str, params: Mapping[str, str], token: str) -> Answer | None:
        headers = {"Authorization": f"Bearer {token}"}
        try:
            return self._channel.get(path, params, headers=headers, secrets=(token,), classify=_classify)
        except _TokenRefused:
            return None

    def _login(self, now: datetime) -> str:
        with self._lock:
            if self._token is None or now >= self._token[1]:
                password = read_secret(self._password, NAME, REMEDY)
                basic = base64.b64encode(f"{self._user}:{password}".encode()).decode()
                data, _ = self._channel.get_json(
                    "/login",
                    headers={"Authorization": f"Basic {basic}"},
                    secrets=(password, basic),
                    classify=_classify_login,
                )
                token = member(NAME, data, "token")
                if not isinstance(token, str) or not (token.isascii() and token.isprintable()):
                    raise GridMalformed(f"{NAME}: the login gives no token")
                self._token = (token, now + TOKEN_LIFE)
            return self._token[0]


class _TokenRefused(GridError):
    """The token has ended before its time."""


def _classify(status: int, said: str) -> GridError | None:
    if status == 401:
        return _TokenRefused(f"{NAME}: the token was not accepted")
    if status == 403 and "subscription" in said.lower():
        return ZoneNotCovered(f"{NAME}: the region is not in this account's plan (HTTP 403: {said})")
    if status in (400, 404, 422) and "region" in said.lower():
        return ZoneNotCovered(f"{NAME}: does not know this region (HTTP {status}: {said})")
    return None


def _classify_login(status: int, said: str) -> GridError | None:
    if status in (401, 403):
        return GridAuth(f"{NAME}: user name or password is wrong (HTTP {status}: {said}). {REMEDY}")
    return None
