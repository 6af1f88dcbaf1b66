"""What people read about policies: lists, versions, and the settings of a job with their origins."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from carbon_sched.cli import figures
from carbon_sched.cli.render import listing
from carbon_sched.domain.job import Phase
from carbon_sched.domain.units import UG_PER_G, UJ_PER_KWH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from carbon_sched.policy.differing import Difference
    from carbon_sched.wire import BudgetView, EffectiveView, PolicyView, SettingView


def policies(views: Sequence[PolicyView]) -> RenderableType:
    """One line per policy with what it is for; presets are dim where they were not replaced."""
    table = listing(("policy", 18), ("version", 8), ("team", 12), ("extends", 14), ("what it is for", 60))
    table.columns[-1].no_wrap = False  # it is what one chooses by
    for view in views:
        version = "preset" if view["version"] is None else str(view["version"])
        extends = view["levels"][-2] if len(view["levels"]) > 1 else ""
        team = "every team" if view["team"] == "*" else view["team"]
        table.add_row(view["name"], version, team, extends, Text(view["description"]))
    return table


def versions(views: Sequence[PolicyView]) -> RenderableType:
    """One line per version, newest first."""
    table = listing(("version", 8), ("applied", 20), ("by", 16), ("reason", 34))
    for view in views:
        back = f"back to {view['restored']}" if view["restored"] else ""
        reason = "; ".join(filter(None, (back, view["reason"])))
        table.add_row(str(view["version"]), (view["applied_at"] or "")[:19], view["applied_by"] or "", Text(reason))
    return table


def applied(view: PolicyView) -> str:
    """Where a policy comes from, in one sentence."""
    if view["version"] is None:
        return f"{view['label']}, a preset as it is shipped"
    reason = f": {view['reason']}" if view["reason"] else ""
    when = f"applied {view['applied_at']} by {view['applied_by']}"
    return f"{view['label']}, version {view['version']}, {when}{reason}"


def effective(view: EffectiveView) -> RenderableType:
    """Every setting of a job, its value, and the file and line that set it."""
    table = listing(("setting", 34), ("value", 22), ("from", 22))
    for row in view["settings"]:
        table.add_row(row["key"], Text(_value(row["value"])), Text(_origin(row), "" if row["place"] else "dim"))
    return Group(Text(f"policy {view['label']}"), table)


def differences(found: Sequence[Difference]) -> RenderableType:
    """One line per setting that differs, with the phases for which it does."""
    if not found:
        return Text("In effect nothing differs for a job that no rule names.")
    table = listing(("setting", 34), ("before", 18), ("after", 18), ("jobs of phase", 22))
    for one in found:
        phases = "all" if len(one.phases) == len(Phase) else ", ".join(one.phases)
        table.add_row(one.key, Text(_value(one.before)), Text(_value(one.after)), Text(phases))
    return table


def budgets(views: Sequence[BudgetView]) -> RenderableType:
    """One line per budget and limit: settled and reserved of the limit, and what the period will come to."""
    table = listing(("budget", 24), ("until", 11), ("used", 11), ("reserved", 11), ("limit", 11), ("forecast", 11))
    for view in views:
        row = (view["budget"], view["end"][:10])
        if view["limit_ug"] is not None:
            table.add_row(*row, *(_kg(view[key]) for key in ("settled_ug", "reserved_ug", "limit_ug", "forecast_ug")))
        if view["limit_uj"] is not None:
            table.add_row(*row, *(_kwh(view[key]) for key in ("settled_uj", "reserved_uj", "limit_uj", "forecast_uj")))
    return table


def _kg(ug: int | None) -> str:
    return "" if ug is None else f"{figures.digits(ug / UG_PER_G / 1000)} kg"


def _kwh(uj: int | None) -> str:
    return "" if uj is None else f"{figures.digits(uj / UJ_PER_KWH)} kWh"


def _origin(row: SettingView) -> str:
    held = f", held by {row['locked_by']}" if row["locked_by"] else ""
    return f"{row['place'] or 'default'}{held}"


def _value(value: Any) -> str:
    if value is None:
        return "any"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
