"""Waiting jobs and clusters as arrays on a grid of slots: what prices, placing and bounds work on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]


PRESSING = 2
"""Who has fewer price slots than this left to start in is placed before those that can still wait."""


@dataclass(frozen=True, eq=False)
class Segments:
    """One stretch of a row of a `[G, S]` table per job, as flat indices: `flat[begin[j] : begin[j + 1]]` is job j's."""

    flat: Ints
    begin: Ints
    owner: Ints

    @staticmethod
    def of(row: Ints, first: Ints, last: Ints, width: int) -> Segments:
        """Columns `first` to `last` (inclusive) of `row`, per job."""
        count = last - first + 1
        begin = np.concatenate([[0], np.cumsum(count)])
        owner = np.repeat(np.arange(len(row)), count)
        inside = np.arange(int(begin[-1])) - begin[owner]
        return Segments(row[owner] * width + first[owner] + inside, begin[:-1], owner)

    def least(self, table: Singles | Floats) -> Floats:
        """`[J]` the smallest entry of every stretch."""
        if len(self.begin) == 0:
            return np.empty(0)
        out: Floats = np.minimum.reduceat(table.ravel()[self.flat], self.begin).astype(np.float64)
        return out


class Asked(NamedTuple):
    """What one job asks for in plain numbers, which Python reads much faster than single elements of arrays.

    It may start in slots `first` to `end` (exclusive), and holds `units` for `slots` slots.
    """

    group: int
    first: int
    end: int
    slots: int
    units: float


@dataclass(frozen=True, eq=False)
class Problem:
    """J jobs in G groups (same expected cost per unit, same length) on L lanes, with S start slots and T >= S slots.

    A lane is capacity of one kind in one place: a cluster's GPUs of one type, or its CPUs. A unit is one such GPU or
    CPU. Lengths are the slots a job holds its units for: the same on every lane, so on another type of GPU than a job
    was learnt on its room is held for as long as there, while its grams are those of the converted run.

    Attributes:
        step_h: length of a slot in hours.
        coarse: how many slots share one price; prices whose slots straddle the steps of the forecast are poor ones
            (hourly forecast, 75-minute prices: the gap to the bound trebles), so this many slots make one such step.
        cost: `[G, L, S]` expected grams per unit of a run begun in a slot; infinite where the lane is not allowed.
        slots: `[G]` how many slots a run holds its units.
        capacity: `[L, T]` free units per lane and slot (may be infinite).
        group, units, first, last: `[J]` group, units, and the inclusive window of start slots of each job.
        level: `[J]` jobs of a lower level are planned before all others, whatever it costs those.
        urgency: `[J]` above 0 for jobs that should start in their first slot, by one for each time that the hours by
            which they are late have doubled; among their level the most urgent are placed first.
    """

    step_h: float
    coarse: int
    cost: Singles
    slots: Ints
    capacity: Floats
    group: Ints
    units: Floats
    first: Ints
    last: Ints
    level: Ints
    urgency: Ints

    def __post_init__(self) -> None:
        groups, lanes, starts = self.cost.shape
        if self.slots.shape != (groups,) or self.capacity.shape[0] != lanes:
            raise ValueError(f"cost {self.cost.shape}, slots {self.slots.shape}, capacity {self.capacity.shape}")
        if self.capacity.shape[1] < starts + int(self.slots.max(initial=1)):
            raise ValueError("the capacity must reach to the end of the longest run begun last")

    def only(self, which: Ints, capacity: Floats) -> Problem:
        """Some of the jobs, with what capacity is left to them."""
        names = ("group", "units", "first", "last", "level", "urgency")
        return replace(self, capacity=capacity, **{name: getattr(self, name)[which] for name in names})

    def dearer(self, prices: Floats) -> Problem:
        """The same with `prices` (g per unit-hour) as part of the cost."""
        return replace(self, cost=self.cost + self.charges(prices))

    def hastened(self, share: float) -> Problem:
        """The same without the last `share` of every job's window."""
        return replace(self, last=self.last - np.floor(share * (self.last - self.first)).astype(np.int64))

    def joined(self, other: Problem, counts: float) -> Problem:
        """With the jobs of another problem on the same lanes and starts, each of them `counts` as a share of itself.

        Their runs end with the horizon of this problem, and cost as much less.
        """
        slots = np.minimum(other.slots, self.horizon - self.starts)
        cut = (slots / other.slots).astype(np.float32)[:, None, None]
        return replace(
            self,
            cost=np.concatenate([self.cost, other.cost * cut]),
            slots=np.concatenate([self.slots, slots]),
            group=np.concatenate([self.group, other.group + len(self.slots)]),
            units=np.concatenate([self.units, other.units * counts]),
            first=np.concatenate([self.first, other.first]),
            last=np.concatenate([self.last, other.last]),
            level=np.concatenate([self.level, other.level]),
            urgency=np.concatenate([self.urgency, other.urgency]),
        )

    @cached_property
    def asked(self) -> list[Asked]:
        """What every job asks for."""
        slots, units = self.slots[self.group].tolist(), self.units.tolist()
        columns = self.group.tolist(), self.first.tolist(), (self.last + 1).tolist(), slots, units
        return [Asked(*row) for row in zip(*columns, strict=True)]

    @property
    def urgent(self) -> Bools:
        """`[J]` who should start in the first slot."""
        out: Bools = self.urgency > 0
        return out

    @cached_property
    def pressing(self) -> Bools:
        """`[J]` who is late unless this plan finds a place."""
        out: Bools = self.urgent | (self.last - self.first < PRESSING * self.coarse)
        return out

    @cached_property
    def windows(self) -> Segments:
        """Every job's allowed starts as flat indices into `[G, S]`."""
        return Segments.of(self.group, self.first, self.last, self.starts)

    @cached_property
    def by_start(self) -> Singles:
        """The costs with the lanes last, `[G, S, L]`."""
        return np.ascontiguousarray(self.cost.swapaxes(1, 2))

    @cached_property
    def wishes(self) -> Floats:
        """`[J]` grams of every job's best offer, as if it were alone."""
        return self.windows.least(self.cost.min(axis=1, initial=np.inf)) * self.units

    @property
    def work(self) -> Floats:
        """`[J]` unit-slots of every job."""
        return self.units * self.slots[self.group]

    @property
    def load(self) -> float:
        """All work as a share of the free capacity from the first start to the last; 0 where that is without limit."""
        if not self.jobs:
            return 0.0
        ahead = slice(int(self.first.min()), int(self.last.max()) + 1)
        return float(self.work.sum() / max(float(self.capacity[:, ahead].sum()), 1e-9))

    @property
    def jobs(self) -> int:
        """How many jobs there are."""
        return int(self.group.shape[0])

    @property
    def lanes(self) -> int:
        """How many lanes there are."""
        return int(self.cost.shape[1])

    @property
    def starts(self) -> int:
        """How many start slots there are."""
        return int(self.cost.shape[2])

    @property
    def horizon(self) -> int:
        """How many slots there are."""
        return int(self.capacity.shape[1])

    def grams(self, lane: Ints, start: Ints) -> Floats:
        """`[J]` expected grams of every job on its lane from its start slot on."""
        out: Floats = self.cost[self.group, lane, start].astype(np.float64) * self.units
        return out

    @cached_property
    def price_slots(self) -> int:
        """How many prices a lane has."""
        return -(-self.horizon // self.coarse)

    @cached_property
    def price_capacity(self) -> Floats:
        """`[L, price slots]` unit-hours on offer per price slot."""
        borders = np.arange(0, self.horizon, self.coarse)
        summed: Floats = np.add.reduceat(self.capacity, borders, axis=1) * self.step_h
        return summed

    def paid(self, prices: Floats) -> Floats:
        """`[L, T + 1]` what a unit held from slot 0 up to each slot pays at `prices` (g per unit-hour)."""
        each = np.repeat(prices, self.coarse, axis=1)[:, : self.horizon] * self.step_h
        return np.concatenate([np.zeros((self.lanes, 1)), np.cumsum(each, axis=1)], axis=1)

    def charges(self, prices: Floats) -> Singles:
        """`[G, L, S]` what a run of each group pays per unit at `prices` (g per unit-hour, `[L, price slots]`)."""
        paid = self.paid(prices).astype(np.float32)
        begin = np.arange(self.starts)
        ends = np.minimum(begin[None, :] + self.slots[:, None], self.horizon)
        out: Singles = (paid[:, ends] - paid[:, None, begin]).swapaxes(0, 1)
        return out
