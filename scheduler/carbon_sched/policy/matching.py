"""Which jobs a rule or a budget is for; and many rules compiled, so that a job is looked up instead of compared.

The answer for many is an integer, whose bit i stands for selector i. Every feature that any of them names has a table
from its values to the bits that are still possible; a job's answer is the intersection of one entry of each.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from operator import attrgetter, or_
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from carbon_sched.domain.job import JobSpec


@dataclass(frozen=True)
class Selected:
    """What rules may ask about a job; `labels` are its metadata."""

    team: str = ""
    project: str = ""
    phase: str = "other"
    stage: str = ""
    model: str = ""
    submitter: str = ""
    gpus: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: JobSpec) -> Selected:
        """The features of a submitted job."""
        return cls(
            team=spec.team,
            project=spec.project,
            phase=spec.phase.value,
            stage=spec.stage,
            model=spec.model,
            submitter=spec.submitter,
            gpus=spec.resources.gpus,
            labels=spec.metadata,
        )


@dataclass(frozen=True)
class Selector:
    """Which jobs are meant: every feature that is named must be one of its values; empty means every job."""

    values: Mapping[str, frozenset[str]] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    gpus_at_least: float = 0.0
    gpus_at_most: float = float("inf")

    def matches(self, job: Selected) -> bool:
        """Whether the job is one of those meant."""
        named = all(getattr(job, feature) in wanted for feature, wanted in self.values.items())
        labelled = named and all(job.labels.get(key) == value for key, value in self.labels.items())
        return labelled and self.gpus_at_least <= job.gpus <= self.gpus_at_most


class Compiled:
    """Many selectors, asked together."""

    def __init__(self, selectors: Sequence[Selector]) -> None:
        features = sorted({feature for selector in selectors for feature in selector.values})
        labels = sorted({key for selector in selectors for key in selector.labels})
        self._features = [
            (attrgetter(feature), *_table([selector.values.get(feature) for selector in selectors]))
            for feature in features
        ]
        self._labels = [
            (key, *_table([{s.labels[key]} if key in s.labels else None for s in selectors])) for key in labels
        ]
        self._least, self._reached = _passed([selector.gpus_at_least for selector in selectors])
        self._most, self._exceeded = _passed([selector.gpus_at_most for selector in selectors])

    def matching(self, job: Selected) -> int:
        """Bit i is set where selector i matches the job."""
        bits = self._reached[bisect_right(self._least, job.gpus)] & ~self._exceeded[bisect_left(self._most, job.gpus)]
        for ask, table, others in self._features:
            bits &= table.get(ask(job), others)
        for key, table, others in self._labels:
            bits &= table.get(job.labels.get(key), others)
        return bits


def _table(wanted: Sequence[Collection[str] | None]) -> tuple[dict[str | None, int], int]:
    """Bits by value of one feature, and those of a value that nobody names; None wants any value."""
    others = _bits(i for i, values in enumerate(wanted) if values is None)
    table: dict[str | None, int] = {}
    for i, values in enumerate(wanted):
        for value in values or ():
            table[value] = table.get(value, others) | 1 << i
    return table, others


def _passed(limits: Sequence[float]) -> tuple[list[float], list[int]]:
    """The limits in order, and for each number of them from 0 on the bits of the lowest so many."""
    order = sorted(range(len(limits)), key=limits.__getitem__)
    return [limits[i] for i in order], list(accumulate((1 << i for i in order), or_, initial=0))


def _bits(numbers: Iterable[int]) -> int:
    return sum(1 << number for number in numbers)
