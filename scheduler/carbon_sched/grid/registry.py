"""The providers there are, and how a configured one is made (layer: grid adapters)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.intensity import Basis, Comparability, Perimeter, Signal
from carbon_sched.grid.cache import CachedSource
from carbon_sched.grid.http import Channel
from carbon_sched.grid.pacing import Rate
from carbon_sched.grid.provider import HOUSE
from carbon_sched.grid.providers import (
    carbon_aware_sdk,
    eia930,
    electricity_maps,
    energidataservice,
    energy_charts,
    entsoe,
    neso,
    openelectricity,
    rte_odre,
    series_url,
    watttime,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from carbon_sched.domain.cluster import SecretRef
    from carbon_sched.domain.intensity import Reading
    from carbon_sched.grid.http import Web
    from carbon_sched.grid.provider import Provider


@dataclass(frozen=True)
class ProviderConfig:
    """One configured provider. `key` is where its secret is, never the secret.

    zones: restrict it to these (none given: all it covers). locations: zone -> the provider's own name for it.
    like: how values are counted, for providers that do not say. options: `basis`, `signal`, `horizon_hours`,
    `lookback_days`, `header` (electricity-maps), `non_commercial` (openelectricity), `user` (watttime).
    """

    name: str
    key: SecretRef | None = None
    url: str | None = None
    zones: tuple[str, ...] = ()
    locations: Mapping[str, str] = field(default_factory=dict)
    like: Comparability | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class About:
    """What `grid providers` shows of one: coverage, how it counts, whether it needs a key, licence, base address."""

    name: str
    coverage: str
    counts: str
    forecast: str
    key: str
    licence: str
    base: str
    make: Callable[[ProviderConfig, Channel], Provider]
    rate: Rate = field(default_factory=Rate)
    options: frozenset[str] = frozenset()


def _electricity_maps(config: ProviderConfig, channel: Channel) -> Provider:
    options = config.options
    return electricity_maps.ElectricityMaps(
        channel,
        config.key,
        Basis(options.get("basis", "lifecycle")),
        horizon=timedelta(hours=float(options.get("horizon_hours", 72))),
        lookback=timedelta(days=float(options.get("lookback_days", 28))),
        header=str(options.get("header", "auth-token")),
    )


def _watttime(config: ProviderConfig, channel: Channel) -> Provider:
    user, signal = str(config.options.get("user", "")), Signal(config.options.get("signal", "marginal"))
    if not user:
        raise InvalidInput("grid provider watttime", "user", "is missing", "Give the user name you registered with")
    return watttime.WattTime(channel, user, config.key, signal, regions=config.locations or None)


def _carbon_aware_sdk(config: ProviderConfig, channel: Channel) -> Provider:
    return carbon_aware_sdk.CarbonAwareSdk(channel, config.locations, config.like or carbon_aware_sdk.MARGINAL)


def _open_electricity(config: ProviderConfig, channel: Channel) -> Provider:
    allowed = config.options.get("non_commercial") is True
    return openelectricity.OpenElectricity(channel, config.key, non_commercial=allowed)


def _series_url(config: ProviderConfig, channel: Channel) -> Provider:
    if len(config.zones) != 1:
        raise InvalidInput("grid provider series-url", config.zones, "is not one zone", "Name the zone of the series")
    return series_url.SeriesUrl(channel, config.zones[0], config.key, config.like or HOUSE)


PROVIDERS = {
    about.name: about
    for about in (
        About(
            energy_charts.NAME,
            "about 35 European countries (GB is asked for, not confirmed)",
            "average, lifecycle (not confirmed), consumption",
            "to the end of tomorrow",
            "none",
            "CC BY 4.0",
            energy_charts.BASE,
            lambda config, channel: energy_charts.EnergyCharts(channel, config.like or HOUSE),
        ),
        About(
            neso.NAME,
            "Great Britain and its regions",
            "average, direct, consumption",
            "48 h",
            "none",
            "CC BY 4.0",
            neso.BASE,
            lambda _, channel: neso.Neso(channel),
        ),
        About(
            electricity_maps.NAME,
            "350 zones",
            "average, lifecycle or direct, consumption",
            "72 h, by plan",
            "required",
            "contract",
            electricity_maps.BASE,
            _electricity_maps,
            options=frozenset({"basis", "horizon_hours", "lookback_days", "header"}),
        ),
        About(
            watttime.NAME,
            "configured regions (free: US-CAL-CISO)",
            "marginal or average, direct, consumption",
            "72 h, by plan",
            "required",
            "contract",
            watttime.BASE,
            _watttime,
            Rate(per_s=5.0, burst=20),
            frozenset({"user", "signal"}),
        ),
        About(
            energidataservice.NAME,
            "DK-DK1, DK-DK2",
            "average, direct, consumption",
            "to the end of tomorrow",
            "none",
            "CC BY 4.0",
            energidataservice.BASE,
            lambda _, channel: energidataservice.EnergiDataService(channel),
        ),
        About(
            rte_odre.NAME,
            "FR",
            "average, direct, generation",
            "none",
            "none",
            "Licence Ouverte 2.0",
            rte_odre.BASE,
            lambda _, channel: rte_odre.RteOdre(channel),
            Rate(per_s=2.0, burst=12),
        ),
        About(
            entsoe.NAME,
            "about 40 European bidding zones",
            "average, lifecycle, generation (mix x factors)",
            "none",
            "required (free)",
            "ENTSO-E terms",
            entsoe.BASE,
            lambda config, channel: entsoe.Entsoe(channel, config.key),
            Rate(per_s=5.0, burst=20),
        ),
        About(
            eia930.NAME,
            "US balancing authorities",
            "average, lifecycle, generation (mix x factors)",
            "none",
            "required (free)",
            "public domain",
            eia930.BASE,
            lambda config, channel: eia930.Eia930(channel, config.key),
        ),
        About(
            carbon_aware_sdk.NAME,
            "configured locations of your own server",
            "as configured",
            "24 h",
            "none",
            "of the wrapped provider",
            "",
            _carbon_aware_sdk,
        ),
        About(
            openelectricity.NAME,
            "AU-NSW, AU-QLD, AU-SA, AU-TAS, AU-VIC",
            "average, direct, generation",
            "none",
            "required (free)",
            "CC BY-NC 4.0: off unless switched on",
            openelectricity.BASE,
            _open_electricity,
            options=frozenset({"non_commercial"}),
        ),
        About(
            series_url.NAME,
            "the zone you name",
            "as configured",
            "as published",
            "optional",
            "yours",
            "",
            _series_url,
        ),
    )
}
KEYLESS = (energy_charts.NAME, neso.NAME, energidataservice.NAME, rte_odre.NAME)
"""Providers that answer without any configuration, in order of preference."""


def make_provider(config: ProviderConfig, web: Web) -> Provider:
    """The provider a configuration names; InvalidInput says what is wrong with it."""
    about = PROVIDERS.get(config.name)
    if about is None:
        problem = "is not an intensity provider"
        raise InvalidInput("grid provider", config.name, problem, f"Choose from {', '.join(sorted(PROVIDERS))}")
    unknown = sorted(set(config.options) - about.options)
    if unknown:
        known = ", ".join(sorted(about.options)) or "none"
        raise InvalidInput(f"grid provider {config.name}", unknown[0], "is not an option of it", f"It has: {known}")
    base = config.url or about.base
    if not base:
        raise InvalidInput(f"grid provider {config.name}", "url", "is missing", "Give the address of your server")
    try:
        return about.make(config, Channel(web, config.name, base, about.rate))
    except ValueError as error:
        raise InvalidInput(f"grid provider {config.name}", config.options, str(error), "Correct the option") from None


def make_source(
    config: ProviderConfig, web: Web, on_new: Callable[[Sequence[Reading]], None] | None = None
) -> CachedSource:
    """The configured provider with its memory, as the chain wants it."""
    return CachedSource(make_provider(config, web), on_new, config.zones or None)


def comparability(signal: str = "average", basis: str = "lifecycle", perimeter: str = "consumption") -> Comparability:
    """A comparability from the words of a configuration; ValueError for an unknown word."""
    return Comparability(Signal(signal), Basis(basis), Perimeter(perimeter))
