"""`grid check`: ask a provider once and say in plain language what is wrong and what to do (layer: grid adapters)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import (
    GridAuth,
    GridError,
    GridExpired,
    GridKeyMissing,
    GridMalformed,
    GridNoData,
    GridRateLimited,
    GridTransient,
    GridUnreachable,
    InvalidInput,
    ZoneNotCovered,
)
from carbon_sched.grid.registry import make_provider

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from carbon_sched.domain.intensity import Reading
    from carbon_sched.grid.http import Web
    from carbon_sched.grid.provider import Provider
    from carbon_sched.grid.registry import ProviderConfig

LOOK = timedelta(hours=6)
HEADLINES: dict[type[GridError], tuple[str, str]] = {
    GridKeyMissing: (
        "it needs a key, and none can be read",
        "Get a key, and point `key` at the variable or file it is in",
    ),
    GridExpired: ("the trial or contract of the key has ended", "Renew it with the provider, or take the provider out"),
    GridAuth: (
        "the key is wrong, or not allowed to ask this",
        "Put a valid key where the configuration points; it is read again within 15 minutes",
    ),
    ZoneNotCovered: (
        "the zone is not covered, or not in this plan",
        "Choose a plan that holds it, correct the zone, or leave the zone to another provider",
    ),
    GridNoData: ("it has no value for the last hours", "Nothing to do now; the chain uses the next best value"),
    GridRateLimited: ("it asks us to slow down", "Wait; if it stays so, raise the plan or restrict `zones`"),
    GridUnreachable: (
        "there is no connection to it",
        "Check this machine's network, its name resolution and proxy, and the provider's address",
    ),
    GridTransient: ("it does not answer, or with an error", "Wait; if it stays so, see the provider's status page"),
    GridMalformed: ("its answer is not what it documents", "Check `url`; a proxy or a changed API may be in between"),
}


@dataclass(frozen=True)
class Diagnosis:
    """How one provider is: `problem` and `remedy` are empty when all is well, `detail` is its own message."""

    provider: str
    zone: str
    problem: str = ""
    detail: str = ""
    remedy: str = ""
    newest: Reading | None = None
    forecast_until: datetime | None = None

    @property
    def ok(self) -> bool:
        """Whether it can be used."""
        return not self.problem


def check_providers(
    configs: Sequence[ProviderConfig], web: Web, zones: Sequence[str], now: datetime
) -> list[Diagnosis]:
    """Call each configured provider once, for the first of `zones` that it covers (else for one it does)."""
    found = []
    for config in configs:
        try:
            provider = make_provider(config, web)
        except InvalidInput as error:
            found.append(Diagnosis(config.name, "", "its configuration is not complete", str(error), error.remedy))
            continue
        covered = [zone for zone in (*config.zones, *zones) if zone in provider.zones()]
        found.append(diagnose(provider, (covered or sorted(provider.zones()) or [""])[0], now))
    return found


def diagnose(provider: Provider, zone: str, now: datetime) -> Diagnosis:
    """Ask one provider for the last hours and the next ones of one zone, past its memory and its cache."""
    if not zone:
        remedy = "Name at least one under `locations`"
        return Diagnosis(provider.name, zone, "no zone is configured for it", "", remedy)
    try:
        readings = provider.fetch(zone, now - LOOK, now + min(LOOK, provider.horizon), now)
    except GridError as error:
        headline, remedy = next(HEADLINES[kind] for kind in type(error).__mro__ if kind in HEADLINES)
        return Diagnosis(provider.name, zone, headline, str(error), remedy)
    past = [reading for reading in readings if reading.start <= now]
    if not past:
        headline, remedy = HEADLINES[GridNoData]
        return Diagnosis(provider.name, zone, headline, "", remedy)
    ahead = readings[-1].end if readings[-1].end > now else None
    return Diagnosis(provider.name, zone, newest=past[-1], forecast_until=ahead)
