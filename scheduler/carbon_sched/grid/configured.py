"""The sources that settings name, best first: files, then providers, each with its memory (layer: grid adapters)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

from carbon_sched.domain.cluster import SecretRef
from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.domain.units import MG_PER_G
from carbon_sched.grid.cache import CachedSource, FromMemory
from carbon_sched.grid.check import LOOK, Diagnosis, check_providers
from carbon_sched.grid.registry import KEYLESS, PROVIDERS, ProviderConfig, comparability, make_provider
from carbon_sched.grid.series import SeriesFile
from carbon_sched.grid.zones import known_zone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from carbon_sched.domain.intensity import Reading
    from carbon_sched.grid.http import Web
    from carbon_sched.grid.registry import About
    from carbon_sched.ports import GridSource
    from carbon_sched.settings import GridSettings, ProviderSetting
    from carbon_sched.wire import GridFinding, ProviderView

FAR = timedelta(days=7)


class ConfiguredGrid:
    """What the settings say, made: raises InvalidInput for a file or a provider that cannot be used as configured.

    A zone that has a series file is left to it: a provider is asked for such a zone only where it is configured to be.
    """

    def __init__(self, settings: GridSettings, web: Web, on_new: Callable[[Sequence[Reading]], None]) -> None:
        """`on_new` is called with readings never seen before, to be archived."""
        self._web = web
        self.files = tuple(SeriesFile(item.file, item.zone) for item in settings.series)
        filed = frozenset(item.zone for item in settings.series)
        self._configs = tuple(_configs(settings))
        self.live = tuple(_source(config, web, filed, on_new) for config in self._configs)

    def sources(self) -> list[GridSource]:
        """For the chain: none of them uses the network; `live` ones are refreshed by somebody else."""
        return [*self.files, *(FromMemory(source) for source in self.live)]

    def zones(self) -> frozenset[str]:
        """Zones known from the files, whatever their names."""
        return frozenset().union(*(file.zones() for file in self.files))

    def known_zone(self, zone: str) -> str:
        """The key of a zone as people write it; InvalidInput for one that neither the files nor anybody knows."""
        return known_zone(zone, self.zones())

    def describe(self) -> list[ProviderView]:
        """Every provider there is, configured ones first, with what its newest requests ran into."""
        found = [
            _view(PROVIDERS[config.name], source.zones(), str(config.key or ""), dict(source.problems()))
            for config, source in zip(self._configs, self.live, strict=True)
        ]
        names = {config.name for config in self._configs}
        return found + [_view(about) for name, about in PROVIDERS.items() if name not in names]

    def check(self, zones: Sequence[str], now: datetime) -> list[GridFinding]:
        """Look at each file, and ask each configured provider once, all at the same time, past its memory.

        A provider is asked for the first of `zones` that it covers, or else for one that it does.
        """
        found = [_file_finding(file, now) for file in self.files]
        if self._configs:
            with ThreadPoolExecutor(len(self._configs), thread_name_prefix="grid-check") as pool:
                asked = pool.map(lambda config: check_providers([config], self._web, zones, now), self._configs)
                found += [_finding(one) for some in asked for one in some]
        return found


def _view(
    about: About, zones: Iterable[str] | None = None, key: str = "", problems: Mapping[str, str] | None = None
) -> ProviderView:
    """`zones` is None where it is not configured."""
    return {
        "provider": about.name,
        "configured": zones is not None,
        "zones": sorted(zones or ()),
        "coverage": about.coverage,
        "counts": about.counts,
        "forecast": about.forecast,
        "needs_key": about.key,
        "key": key,
        "licence": about.licence,
        "options": sorted(about.options),
        "problems": dict(problems or {}),
    }


def _finding(one: Diagnosis) -> GridFinding:
    ahead = one.forecast_until if one.newest and one.forecast_until and one.forecast_until > one.newest.end else None
    return {
        "provider": one.provider,
        "zone": one.zone,
        "ok": one.ok,
        "problem": one.problem,
        "detail": one.detail,
        "remedy": one.remedy,
        "newest_at": to_rfc3339(one.newest.start) if one.newest else None,
        "g_per_kwh": one.newest.intensity_mg_per_kwh / MG_PER_G if one.newest else None,
        "forecast_until": to_rfc3339(ahead) if ahead else None,
    }


def _file_finding(file: SeriesFile, now: datetime) -> GridFinding:
    """A file is well when it can be read and holds a value for now."""
    zone = min(file.zones())
    readings = file.readings(zone, now - LOOK, now + FAR, now)
    past = [reading for reading in readings if reading.start <= now]
    current = bool(past) and past[-1].end > now
    ahead = readings[-1].end if readings and readings[-1].end > now else None
    problem = "the file cannot be read as it is now; values read before are used" if file.problem else ""
    problem = problem or ("" if current else "the file holds no value for now")
    remedy = "Extend the file; it is read again when it changes" if problem else ""
    one = Diagnosis(file.name, zone, problem, file.problem or "", remedy, past[-1] if past else None, ahead)
    return _finding(one)


def _configs(settings: GridSettings) -> list[ProviderConfig]:
    if settings.providers is None:
        return [ProviderConfig(name) for name in KEYLESS]
    return [_config(setting) for setting in settings.providers]


def _config(setting: ProviderSetting) -> ProviderConfig:
    kind, _, where = (setting.key or "").partition(":")
    key = (SecretRef(file=where) if kind == "file" else SecretRef(env=where)) if where else None
    counts = setting.counts
    return ProviderConfig(
        setting.provider,
        key,
        setting.url,
        setting.zones,
        setting.locations,
        comparability(counts.signal, counts.basis, counts.perimeter) if counts else None,
        setting.options,
    )


def _source(
    config: ProviderConfig, web: Web, filed: frozenset[str], on_new: Callable[[Sequence[Reading]], None]
) -> CachedSource:
    provider = make_provider(config, web)
    covered = provider.zones()
    for zone in config.zones:
        if zone not in covered:
            remedy = f"It covers {PROVIDERS[config.name].coverage}; zones are Electricity Maps keys such as DE"
            raise InvalidInput(f"grid provider {config.name}", zone, "is not a zone it covers", remedy)
    return CachedSource(provider, on_new, config.zones or covered - filed)
