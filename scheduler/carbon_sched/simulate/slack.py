"""How long the jobs of a backtest may wait: a rule in a few characters, from `--slack`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.domain.errors import InvalidInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LONGEST_H = 30 * 24.0
REMEDY = "Use none, a time (24h, 2d), a share of the run time (25%), or SHORT<BORDER:LONG (6h<2h:24h)"

_TIME = re.compile(r"(\d+(?:\.\d+)?)(m|h|d)")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")
_HOURS = {"m": 1 / 60, "h": 1.0, "d": 24.0}


@dataclass(frozen=True)
class Slack:
    """Hours by length: `short_h` for jobs below `border_h` of run time, for others `long_h` plus a `share` of it.

    A rule with a border tells the planner which jobs are short, as in every paper that uses it.
    """

    text: str
    long_h: float = 0.0
    short_h: float = 0.0
    border_h: float = 0.0
    share: float = 0.0

    def hours(self, run_h: Floats) -> Floats:
        """`[J]` hours that jobs of these run times may wait."""
        long = np.minimum(self.long_h + self.share * run_h, LONGEST_H)
        out: Floats = np.where(run_h < self.border_h, self.short_h, long)
        return out


def parse_slack(text: str) -> Slack:
    """Read a rule; raises InvalidInput with the forms there are."""
    if text == "none":
        return Slack(text)
    if share := _SHARE.fullmatch(text):
        return Slack(text, share=float(share[1]) / 100)
    if text.count("<") == 1 and text.count(":") == 1:
        short, _, rest = text.partition("<")
        border, _, long = rest.partition(":")
        return Slack(text, _hours(text, long), _hours(text, short), _hours(text, border))
    return Slack(text, _hours(text, text))


def _hours(rule: str, text: str) -> float:
    found = _TIME.fullmatch(text)
    if found is None:
        raise InvalidInput("--slack", rule, "is not a rule", REMEDY)
    hours = float(found[1]) * _HOURS[found[2]]
    if hours > LONGEST_H:
        raise InvalidInput("--slack", rule, f"is longer than {LONGEST_H / 24:g} days", REMEDY)
    return hours
