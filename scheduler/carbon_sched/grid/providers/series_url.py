"""A CSV or JSON series behind a URL (formats: `series_text`), for instance one that a site's operator publishes."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import GridMalformed, InvalidFile
from carbon_sched.domain.intensity import Comparability, Kind
from carbon_sched.grid.http import read_secret
from carbon_sched.grid.provider import HOUSE, Collector, Method
from carbon_sched.grid.series_text import parse_series

if TYPE_CHECKING:
    from datetime import datetime

    from carbon_sched.domain.cluster import SecretRef
    from carbon_sched.domain.intensity import Reading
    from carbon_sched.grid.http import Channel

NAME = "series-url"


class SeriesUrl:
    """Implements `provider.Provider` for one zone; the whole series is fetched each time."""

    name = NAME
    lookback = timedelta(days=28)
    horizon = timedelta(days=7)
    max_span = timedelta(days=400)

    def __init__(
        self,
        channel: Channel,
        zone: str,
        key: SecretRef | None = None,
        like: Comparability = HOUSE,
        *,
        ttl: timedelta = timedelta(minutes=15),
        licence: str = "user-supplied",
    ) -> None:
        """The channel's base is the URL; `key`, if there is one, is sent as a bearer token."""
        self._channel, self._zone, self._key, self.ttl = channel, zone, key, ttl
        self._method = Method(NAME, like, licence)

    def zones(self) -> frozenset[str]:
        """The one zone of the series."""
        return frozenset({self._zone})

    def fetch(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        """Values that have begun are measured or estimated, later ones forecasts, as in a series file."""
        secrets = (read_secret(self._key, NAME, "Name a readable file or environment variable"),) if self._key else ()
        headers = {"Authorization": f"Bearer {secrets[0]}"} if secrets else {}
        answer = self._channel.get("", headers=headers, secrets=secrets)
        try:
            series = parse_series(answer.text, NAME, self._method.like)
        except InvalidFile as error:
            raise GridMalformed(f"{NAME}: {zone}: {str(error).splitlines()[0][:300]}") from None
        collector = Collector(self._method, zone, now, answer)
        columns = zip(series.starts, series.ends, series.intensity_mg_per_kwh, series.estimated, strict=True)
        for first, last, intensity_mg_per_kwh, estimated in columns:
            past = Kind.ESTIMATED if estimated or last > now else Kind.MEASURED
            collector.add(first, last, intensity_mg_per_kwh / 1000, past if first <= now else Kind.FORECAST)
        return collector.readings(start, end)
