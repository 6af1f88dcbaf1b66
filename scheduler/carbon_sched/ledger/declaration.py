"""What an organisation declares for its statements, as a YAML file holds it, and the fact it becomes.

organisation: Example Research          accountable: Head of Sustainability      contact: carbon@example.org
boundary: All training and inference on the clusters below
clusters:
lyon:
scope: own                          # own, colocation or cloud
instruments:                        # contracts for its electricity
- {kind: ppa, name: Wind park 7, share: 0.4, g_per_kwh: 12, since: 2026-01-01, until: 2027-01-01, source: ...}
- {kind: residual-mix, name: AIB 2025, g_per_kwh: 41, since: 2026-01-01, until: 2027-01-01, source: ...}
offsets:
- {kind: offset, name: Peatland, tonnes: 5, source: registry entry 123}
"""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from carbon_sched.domain.time import UTC, from_rfc3339, to_rfc3339, utc
from carbon_sched.domain.units import MG_PER_G, PPM, UG_PER_G, UJ_PER_KWH

Text = Annotated[str, Field(max_length=2000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


def _instant(value: object) -> datetime:
    """A date is its midnight in UTC; a time needs its zone. YAML gives both as such, JSON as text."""
    try:
        if isinstance(value, str):
            value = date.fromisoformat(value) if len(value) == DATE else from_rfc3339(value)
        if isinstance(value, date) and not isinstance(value, datetime):
            return datetime.combine(value, time(), UTC)
        if isinstance(value, datetime):
            return utc(value)
    except (ValueError, OverflowError):
        pass
    raise ValueError("is no date, nor a time with its zone: write 2026-01-01, or 2026-01-01T00:00:00Z")


DATE = len("2026-01-01")
Instant = Annotated[datetime, BeforeValidator(_instant)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Instrument(_Strict):
    """A contract for a `share` (0 to 1) of a cluster's electricity then; a residual mix takes the rest."""

    kind: Literal["ppa", "certificate", "supplier", "residual-mix"]
    name: Name
    share: Decimal = Field(default=Decimal(1), gt=0, le=1)
    g_per_kwh: Decimal = Field(ge=0, le=2500)
    since: Instant
    until: Instant
    source: Name

    @model_validator(mode="after")
    def _ordered(self) -> Instrument:
        if self.since >= self.until:
            raise ValueError("until is not after since")
        return self

    def body(self) -> dict[str, Any]:
        """As it stands in the fact."""
        return {
            "kind": self.kind,
            "name": self.name,
            "share_ppm": _whole(self.share * PPM),
            "mg_per_kwh": _whole(self.g_per_kwh * MG_PER_G),
            "since": to_rfc3339(self.since),
            "until": to_rfc3339(self.until),
            "source": self.source,
        }


class DeclaredCluster(_Strict):
    """Who runs a cluster, and the contracts for its electricity."""

    scope: Literal["own", "colocation", "cloud"]
    instruments: tuple[Instrument, ...] = Field(default=(), max_length=100)


class DeclaredOffset(_Strict):
    """What is shown apart: tonnes CO2e of an offset, or MWh of a certificate."""

    kind: Literal["offset", "certificate"]
    name: Name
    tonnes: Decimal | None = Field(default=None, ge=0, le=10**12)
    mwh: Decimal | None = Field(default=None, ge=0, le=10**12)
    source: Name

    def body(self) -> dict[str, Any]:
        """As it stands in the fact."""
        amounts = {
            "co2e_ug": None if self.tonnes is None else _whole(self.tonnes * UG_PER_G * 1_000_000),
            "energy_uj": None if self.mwh is None else _whole(self.mwh * UJ_PER_KWH * 1_000),
        }
        return {"kind": self.kind, "name": self.name, "source": self.source} | amounts


class Declaration(_Strict):
    """The whole file."""

    organisation: Text = ""
    accountable: Text = ""
    contact: Text = ""
    boundary: Text = ""
    clusters: dict[Name, DeclaredCluster] = Field(default_factory=dict, max_length=1000)
    offsets: tuple[DeclaredOffset, ...] = Field(default=(), max_length=100)

    def body(self) -> dict[str, Any]:
        """The fact's body, but for who made it."""
        clusters = {
            name: {"scope": one.scope, "instruments": [instrument.body() for instrument in one.instruments]}
            for name, one in self.clusters.items()
        }
        said = {name: getattr(self, name) for name in ("organisation", "accountable", "contact", "boundary")}
        return said | {"clusters": clusters, "offsets": [one.body() for one in self.offsets]}


def _whole(value: Decimal) -> int:
    return int(value.to_integral_value())
