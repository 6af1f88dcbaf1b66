"""What people read of a backtest in the terminal; programs read `--json`, and the report has the charts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from carbon_sched.cli.figures import grams
from carbon_sched.cli.render import listing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType


def results(document: Mapping[str, Any]) -> RenderableType:
    """A line of setup, one row per policy and rule, and the bounds."""
    setup, limits = document["setup"], document["bounds"]
    used = "with room for everybody" if setup["utilisation"] is None else f"at {setup['utilisation']:.0%}"
    head = (
        f"{setup['jobs']:,} jobs, {setup['days']:g} days from {setup['start'][:10]}, {len(setup['clusters'])} clusters "
        f"{used}, slack {setup['slack']}, forecast {setup['forecast']}"
    )
    table = listing(
        *(("policy or rule", 22), ("CO2e", 8), ("saves", 6), ("% of oracle", 16)),
        *(("wait h", 6), ("95 %", 6), ("late", 5), ("month", 6)),
    )
    for row in document["results"]:
        table.add_row(
            *(row["policy"].partition("@")[0], grams(row["co2e_g"]), f"{row['saving_pct']:.1f}", _share(row)),
            *(f"{row['mean_wait_h']:.1f}", f"{row['p95_wait_h']:.1f}", str(row["deadline_misses"])),
            f"{row['worst_month_regret_pct']:+.1f}",
        )
    bound = f"no schedule within capacity emits less than {grams(limits['capacity_bound_g'])}"
    free = f"with room for everybody {grams(limits['start_time_oracle_g'])}"
    return Group(Text(head), table, Text(f"{bound}; {free}. saves: % of run-now-here; month: the worst one,"
                                         " % against best-fixed", "dim"))  # fmt: skip


def _share(row: Mapping[str, Any]) -> str:
    """Percent of the oracle's saving with its 90 % interval."""
    if row["oracle_pct"] is None:
        return "-"
    return f"{row['oracle_pct']:.1f} ({row['oracle_pct_low']:.0f}..{row['oracle_pct_high']:.0f})"
