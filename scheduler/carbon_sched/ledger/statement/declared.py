"""Rows that rest on what people declared: boundary, market-based scope 2, scope classes, offsets (1, 3, 12, 15, 23).

The newest declaration holds. It was checked when it was made (`service/declare.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from carbon_sched import __version__
from carbon_sched.domain.emissions import co2e_ug
from carbon_sched.domain.time import from_rfc3339, to_rfc3339
from carbon_sched.domain.units import PPM
from carbon_sched.ledger.account import Period as Cut
from carbon_sched.ledger.account import facility_uj
from carbon_sched.ledger.statement.lines import summed
from carbon_sched.ledger.statement.model import Boundary, Instrument, Market, Offset, ScopeClass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from carbon_sched.ledger.book import Book
    from carbon_sched.ledger.statement.lines import Used
    from carbon_sched.ledger.statement.model import Embodied, Line

METHOD = "carbon-sched statement 1"
"""The version of the method: a change of a figure's meaning is a new number."""
NOT_DECLARED = "not declared"
CATEGORIES = {
    "own": ("scope 2", "scope 3, category 3", "scope 3, category 2"),
    "colocation": ("scope 2", "scope 3, category 3", "scope 3, category 2"),
    "cloud": ("scope 3, category 1", "scope 3, category 1", "scope 3, category 1"),
    NOT_DECLARED: ("scope 2, if the machines are your own", "scope 3", "scope 3"),
}
"""Where direct, upstream and embodied emissions of a cluster belong (GHG Protocol, corporate value chain standard)."""
RESIDUAL = "residual-mix"


def declaration(book: Book) -> Mapping[str, Any]:
    """The newest declaration, or an empty one."""
    return book.declarations[-1][1] if book.declarations else {}


def boundary(book: Book) -> Boundary:
    """Rows 1 and 3."""
    said = declaration(book)
    return Boundary(
        organisation=said.get("organisation", ""),
        accountable=said.get("accountable", ""),
        contact=said.get("contact", ""),
        statement=said.get("boundary", ""),
        declared_by=said.get("by", ""),
        declared_at=to_rfc3339(book.declarations[-1][0]) if said else "",
        tool=f"carbon-sched {__version__}",
        method=METHOD,
        config_sha256=_config_sha256(book),
    )


def _config_sha256(book: Book) -> str:
    config = {"declaration": declaration(book), "clusters": book.clusters, "policies": book.policies}
    return hashlib.sha256(json.dumps(config, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def market(book: Book, used: Sequence[Used]) -> Market:
    """Row 12: every kWh by the instruments declared for its cluster and time, the rest by the residual mix declared.

    An instrument stands for `share_ppm` of what the cluster used in its period; all of them together for no more than
    the whole. Without a residual mix for the rest there is no total.
    """
    declared = [(name, item) for name, one in _clusters(book) for item in one.get("instruments", ())]
    if not declared:
        return Market(None, "no instruments are declared", (), 0)
    instruments, uncovered_uj = [], 0
    for cluster in sorted({one.account.cluster for one in used}):
        here = [item for name, item in declared if name == cluster]
        mine = [one for one in used if one.account.cluster == cluster]
        found, left_uj = _of_cluster(cluster, here, mine)
        instruments += found
        uncovered_uj += left_uj
    problem = "part of the electricity has neither an instrument nor a residual mix" if uncovered_uj else ""
    total_ug = None if uncovered_uj else sum(one.co2e_ug for one in instruments)
    return Market(total_ug, problem, tuple(instruments), uncovered_uj)


def _of_cluster(
    cluster: str, declared: Sequence[Mapping[str, Any]], used: Sequence[Used]
) -> tuple[list[Instrument], int]:
    left_uj = sum(_facility_uj(one, Cut()) for one in used)
    instruments = []
    for item in sorted(declared, key=lambda item: item["kind"] == RESIDUAL):
        cut = Cut(from_rfc3339(item["since"]), from_rfc3339(item["until"]))
        within_uj = sum(_facility_uj(one, cut) for one in used)
        wanted_uj = left_uj if item["kind"] == RESIDUAL else within_uj * item["share_ppm"] // PPM
        energy_uj = min(wanted_uj, within_uj, left_uj)
        left_uj -= energy_uj
        emitted_ug = co2e_ug(energy_uj, PPM, item["mg_per_kwh"])
        named = {key: item[key] for key in ("kind", "name", "share_ppm", "mg_per_kwh", "since", "until", "source")}
        instruments.append(Instrument(cluster=cluster, energy_uj=energy_uj, co2e_ug=emitted_ug, **named))
    return instruments, left_uj


def _facility_uj(used: Used, cut: Cut) -> int:
    """Facility energy of an attempt within the statement's period and this one."""
    if cut == Cut():
        return used.account.facility_uj
    parts = used.account.parts
    inside = [clipped for part in parts if (clipped := cut.clip(part.start, part.end, part.energy_uj))]
    return sum(facility_uj(energy_uj, used.account.pue_ppm) for _, _, energy_uj in inside)


def scope_classes(book: Book, lines: Sequence[Line], embodied: Sequence[Embodied]) -> list[ScopeClass]:
    """Row 15, one per cluster that was used."""
    made_ug: dict[str, int] = defaultdict(int)
    for one in embodied:
        made_ug[one.cluster] += one.central_ug
    kinds = {name: one.get("scope", NOT_DECLARED) for name, one in _clusters(book)}
    found = []
    for (cluster,), line in summed(lines, ("cluster",)):
        kind = kinds.get(cluster, NOT_DECLARED)
        unseparated_ug = line.co2e_ug - line.separated_ug
        upstream_ug = line.separated_ug - line.direct_ug
        figures = (line.direct_ug, upstream_ug, unseparated_ug, made_ug[cluster])
        found.append(ScopeClass(cluster, kind, *CATEGORIES[kind], *figures))
    return found


def offsets(book: Book) -> list[Offset]:
    """Row 23."""
    return [
        Offset(item["kind"], item["name"], item.get("co2e_ug"), item.get("energy_uj"), item["source"])
        for item in declaration(book).get("offsets", ())
    ]


def _clusters(book: Book) -> list[tuple[str, Mapping[str, Any]]]:
    return sorted(declaration(book).get("clusters", {}).items())
