"""Variants of a job: other ways to do the same work, of which the leanest that keeps a quality may serve."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from carbon_sched.domain.errors import InvalidInput

NAME = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,38}[a-z0-9])?")
WORD = re.compile(r"[a-z_][a-z0-9_-]{0,39}")
MOST = 20
_FLOOR = re.compile(r"\s*([a-z_][a-z0-9_-]*)\s*(>=|<=)\s*([0-9.eE+-]+)\s*")


class Choice(str, Enum):
    """Which of a job's variants serves: the one of best quality, or the leanest that keeps the floor."""

    BEST = "best"
    LEANEST = "leanest"


class Outcome(str, Enum):
    """What became of a variant in an attempt; the names under which the job's side tells it."""

    TRIED = "variant-tried"
    SERVED = "variant-served"
    FAILED = "variant-failed"
    BELOW_FLOOR = "variant-below-floor"


@dataclass(frozen=True)
class Floor:
    """A quality that must be kept: `accuracy >= 0.8`, or `loss <= 2.5`."""

    metric: str
    value: float
    at_least: bool

    def keeps(self, quality: float) -> bool:
        """Whether that is good enough."""
        return quality >= self.value if self.at_least else quality <= self.value

    def __str__(self) -> str:
        return f"{self.metric}{'>=' if self.at_least else '<='}{self.value:g}"


@dataclass(frozen=True)
class Variants:
    """Arguments by variant, the baseline first; `item` is the unit of work in which their energy is told.

    `slice` is how many items a variant is tried with.
    """

    arguments: tuple[tuple[str, str], ...]
    floor: Floor
    item: str = "item"
    slice: int = 100


def parse_floor(field: str, text: str) -> Floor:
    """`accuracy>=0.8`; raises InvalidInput for anything else."""
    match = _FLOOR.fullmatch(text)
    try:
        return Floor(match[1], float(match[3]), match[2] == ">=")  # type: ignore[index]
    except (TypeError, ValueError):
        raise InvalidInput(field, text, "is not a floor of quality", "Write accuracy>=0.8 or loss<=2.5") from None


def variants_of(arguments: dict[str, str], floor: str, item: str, items: int) -> Variants:
    """Checked; raises InvalidInput for the first thing that cannot be meant."""
    if not 2 <= len(arguments) <= MOST:
        remedy = f"Give 2 to {MOST}, the baseline first: --variant fp32='--model a.pt' --variant int8='--model b.pt'"
        raise InvalidInput("variants", ", ".join(arguments), f"are {len(arguments)}", remedy)
    for name, text in arguments.items():
        if not NAME.fullmatch(name):
            raise InvalidInput("variants", name, "is not a name", "Use up to 40 of a-z, 0-9, '-', '_' and '.'")
        if "\0" in text or len(text) > 2000:
            raise InvalidInput(f"variants.{name}", text, "are no arguments", "Give up to 2,000 characters")
    if not WORD.fullmatch(item):
        raise InvalidInput("item", item, "is not a unit", "Name it as the job's windows count it: token, image")
    if not 1 <= items <= 10**9:
        raise InvalidInput("slice", items, "is no number of items", "Give 1 to 1,000,000,000")
    return Variants(tuple(arguments.items()), parse_floor("quality_floor", floor), item, items)
