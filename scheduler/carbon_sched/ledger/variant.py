"""Variants in the ledger: what became of each in an attempt, and what is known of their energy and quality.

The job's side marks in windows of no length when a variant is tried, fails, or begins to serve. Work and quality that
are told between two marks are those of the variant that was marked before them. What was told while variants were tried
is no part of the job's own work.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from carbon_sched.domain.energy import QUALITY, VARIANT, Window
from carbon_sched.domain.variant import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

OUTCOMES = frozenset(one.value for one in Outcome)


@dataclass(frozen=True)
class VariantUse:
    """A variant between one mark and the next: `key` is its name and a digest of its command."""

    key: str
    outcome: Outcome
    windows: tuple[Window, ...] = ()

    @property
    def name(self) -> str:
        """The variant's name."""
        return self.key.rpartition(":")[0]

    @property
    def quality(self) -> Mapping[str, int]:
        """The newest word on each metric, in millionths."""
        told = sorted((one for one in self.windows if one.name == QUALITY), key=lambda one: one.end)
        return {metric: value for window in told for metric, value in window.units.items()}

    def counted(self, item: str) -> list[tuple[Window, int]]:
        """The windows that counted items, with how many (in millionths)."""
        work = ((one, one.units.get(item, one.units.get(f"{item}s", 0))) for one in self.windows if one.name != QUALITY)
        return [(window, amount) for window, amount in work if amount]


@dataclass
class _Open:
    mark: Window
    outcome: Outcome
    windows: list[Window] = field(default_factory=list)


def uses(windows: Iterable[Window]) -> tuple[list[Window], tuple[VariantUse, ...]]:
    """The windows of the job's own work, and its variants in the order of their marks."""
    own: list[Window] = []
    marked: list[_Open] = []
    for window in sorted(windows, key=lambda one: (one.start, not _outcome(one))):
        if outcome := _outcome(window):
            marked.append(_Open(window, outcome))
        elif marked:
            marked[-1].windows.append(window)
        else:
            own.append(window)
    own += [window for one in marked if one.outcome is Outcome.SERVED for window in one.windows]
    return own, tuple(
        VariantUse(one.mark.name.removeprefix(VARIANT), one.outcome, tuple(one.windows)) for one in marked
    )


def _outcome(window: Window) -> Outcome | None:
    """What a window marks, if it is a mark."""
    if not window.name.startswith(VARIANT):
        return None
    return next((Outcome(unit) for unit in window.units if unit in OUTCOMES), None)


def served(variants: Sequence[VariantUse]) -> str | None:
    """The name of the variant that did the work."""
    return next((one.name for one in reversed(variants) if one.outcome is Outcome.SERVED), None)
