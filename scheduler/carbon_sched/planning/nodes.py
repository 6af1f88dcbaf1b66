"""The nodes of a cluster as columns, and bundles laid on them: thousands of nodes in a fraction of a millisecond."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.domain.job import Placement
from carbon_sched.planning.hardware import gpu

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from carbon_sched.domain.job import Bundle, Resources

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]
    Amounts = dict[str, float]
    Held = list[tuple[int, Amounts]]

EPSILON = 1e-9
SIZE = ("GPU", "CPU", "memory")
"""By which nodes are larger or smaller, the first that differs."""


@dataclass(frozen=True)
class NodeRoom:
    """One node: what it has, what is free of it, and what GPUs it carries (lower case, None without a name)."""

    total: Mapping[str, float]
    free: Mapping[str, float]
    gpu_type: str | None
    labels: Mapping[str, str]


class Nodes:
    """`[N]` amounts per resource of what the nodes have, and of what is free; a node is known by its number."""

    def __init__(self, rooms: Sequence[NodeRoom]) -> None:
        self._count = len(rooms)
        names = {name for room in rooms for name in room.total}
        self._total = {name: np.array([room.total.get(name, 0.0) for room in rooms]) for name in names}
        self._free = {name: np.array([room.free.get(name, 0.0) for room in rooms]) for name in names}
        self._labels = [room.labels for room in rooms]
        self._gpu_types = np.array([room.gpu_type or "" for room in rooms], dtype=np.str_)
        self.gpu_types = {str(name) for name in np.unique(self._gpu_types) if name}
        self._suited: dict[tuple[object, ...], Bools] = {}

    def __len__(self) -> int:
        return self._count

    def column(self, resource: str, *, free: bool) -> Floats:
        """`[N]` of one resource what each node has, or what is free of it."""
        known = (self._free if free else self._total).get(resource)
        return np.zeros(self._count) if known is None else known

    def of_type(self, gpu_type: str) -> Bools:
        """`[N]` which nodes carry GPUs of a type; of no named type for an empty one."""
        out: Bools = (self._gpu_types == gpu_type) & (self.column("GPU", free=False) > 0)
        return out

    def suited(self, resources: Resources) -> Bools:
        """`[N]` which nodes are of the right kind, whatever is free of them."""
        # Ray's selectors have operators of their own; only plain equality is checked here, the rest is left to Ray
        asked = resources.entrypoint_label_selector.items()
        plain = tuple(sorted((k, v) for k, v in asked if not v.startswith(("!", "in(", "!in("))))
        kind, memory_gb = (resources.gpu_type, resources.gpu_memory_gb) if resources.gpus > 0 else (None, 0.0)
        key = kind, memory_gb, plain
        if key not in self._suited:
            right = np.array([all(of.get(name) == value for name, value in plain) for of in self._labels], np.bool_)
            if kind is not None:
                right &= self._gpu_types == kind.lower()
            if memory_gb > 0:
                right &= np.isin(self._gpu_types, [name for name in self.gpu_types if _remembers(name, memory_gb)])
            self._suited[key] = right
        return self._suited[key]

    def take(self, held: Held) -> None:
        """Charge what each node is to hold; below zero where a changed cluster has no room for it any more."""
        self._change(held, -1.0)

    def give_back(self, held: Held) -> None:
        """End what was taken."""
        self._change(held, 1.0)

    def _change(self, held: Held, sign: float) -> None:
        for node, need in held:
            for name, amount in need.items():
                if name not in self._free:
                    self._free[name] = np.zeros(self._count)
                self._free[name][node] += sign * amount

    def first(self, need: Mapping[str, float]) -> int:
        """The first node with room for `need`; node 0 where none has."""
        return int(np.argmax(self._able(need, {})))

    def lay(self, resources: Resources, *, empty: bool = False) -> Held | None:
        """A node for every bundle, largest bundles first; None without room, empty for a job that asks for nothing.

        What is not free counts as free with `empty`.
        """
        suited = self.suited(resources)
        if not suited.any():
            return None
        needs = sorted((bundle.as_resources() for bundle in resources.bundles), key=_size, reverse=True)
        needs = [need for need in needs if need]
        room = {
            name: self.column(name, free=not empty).copy() for name in {*SIZE, *(n for need in needs for n in need)}
        }
        if resources.placement is Placement.STRICT_PACK:
            needs = [summed(resources.bundles)]
        spread = resources.placement is Placement.SPREAD
        return self._one_by_one(needs, np.flatnonzero(suited), room, spread=spread)

    def _one_by_one(
        self, needs: Sequence[Amounts], suited: Ints, room: dict[str, Floats], *, spread: bool
    ) -> Held | None:
        """Fill those with least to spare first (pack), or with fewest of our bundles (spread, best effort)."""
        taken = np.zeros(self._count)
        held: Held = []
        for need in needs:
            able = suited[self._able(need, room)[suited]]
            if not len(able):
                return None
            keys = [taken, *(-room[name] for name in SIZE)] if spread else [-taken, *(room[name] for name in SIZE)]
            node = _least(able, keys)
            for name, amount in need.items():
                room[name][node] -= amount
            taken[node] += 1
            held.append((node, need))
        return held

    def _able(self, need: Mapping[str, float], room: Mapping[str, Floats]) -> Bools:
        """`[N]` where `need` fits into `room`, by default into what is free."""
        out = np.ones(self._count, dtype=np.bool_)
        for name, amount in need.items():
            out &= (room[name] if room else self.column(name, free=True)) >= amount - EPSILON
        return out


def summed(bundles: Sequence[Bundle]) -> Amounts:
    """What bundles ask for together."""
    need: Amounts = {}
    for bundle in bundles:
        for name, amount in bundle.as_resources().items():
            need[name] = need.get(name, 0.0) + amount
    return need


def _least(able: Ints, keys: Sequence[Floats]) -> int:
    """The first of the nodes that are least by the first key, among those by the next, and so on."""
    for key in keys:
        values = key[able]
        able = able[values == values.min()]
    return int(able[0])


def _size(need: Mapping[str, float]) -> tuple[float, ...]:
    return tuple(need.get(name, 0.0) for name in SIZE)


def _remembers(gpu_type: str, gigabytes: float) -> bool:
    """Whether each GPU of a type has this much memory; of one that is sold with several, the least counts."""
    known = gpu(gpu_type)
    return known is not None and known.memory_gb >= gigabytes
