"""A policy as the rest of the system sees it: levels of files, resolved into frozen settings for one job.

A policy file extends another (shipped preset <- organisation <- team). Within a file, the values at its top come first,
then those of the job's phase, then every rule that matches, in order; a later value replaces an earlier one. A key that
a file locks may only be tightened by the files that extend it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from carbon_sched.policy.matching import Compiled
from carbon_sched.policy.settings import KEYS, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from carbon_sched.policy.budget import Budget
    from carbon_sched.policy.matching import Selected, Selector
    from carbon_sched.policy.settings import Key

EVERY_TEAM = "*"


@dataclass(frozen=True)
class Layer:
    """Values set together: at the top of a file, for a phase, or by a rule.

    All are keyed by the dotted key (`flexibility.max_delay`); a place is `FILE:LINE`, a location the steps to it in the
    file (`("rules", 0, "set", "flexibility", "max_delay")`).
    """

    selector: Selector
    values: Mapping[str, Any]
    places: Mapping[str, str]
    locations: Mapping[str, tuple[str | int, ...]]


@dataclass(frozen=True, eq=False)
class Level:
    """One file: its layers in order, and the keys that files extending it may only tighten."""

    name: str
    layers: tuple[Layer, ...]
    locked: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Origin:
    """Where a value comes from: the level's name and `FILE:LINE`; both empty for what no file sets.

    `locked_by` names the level whose lock kept the value from being loosened further down.
    """

    level: str = ""
    place: str = ""
    locked_by: str = ""


@dataclass(frozen=True, eq=False)
class Policy:
    """A policy file with everything it extends, outermost first in `levels`.

    `digest` is a SHA-256 in hex over the bytes of all its files, `source` the last file's path or name, for people.
    `team` is the team whose jobs follow it unless they name another; `EVERY_TEAM` stands for all that have none.
    `budgets` are those of its own file: what it extends keeps its own.
    """

    name: str
    levels: tuple[Level, ...]
    description: str = ""
    team: str = ""
    digest: str = ""
    source: str = ""
    budgets: tuple[Budget, ...] = ()

    @property
    def label(self) -> str:
        """Name and version, as stored with every decision: `balanced@1f0c9a7b2d3e`."""
        return f"{self.name}@{self.digest[:12]}" if self.digest else self.name

    def settings(self, job: Selected) -> Settings:
        """What applies to a job; jobs with the same layers share the answer."""
        applying = self._selectors.matching(job)
        if applying not in self._resolved:
            values = {one.key.attribute: one.value(applying) for one in self._written.values()}
            self._resolved[applying] = Settings(**values)
        return self._resolved[applying]

    def origin(self, job: Selected, name: str) -> Origin:
        """Where the value of a dotted key that applies to a job comes from."""
        return self._written[name].origin(self._selectors.matching(job)) if name in self._written else Origin()

    @cached_property
    def _selectors(self) -> Compiled:
        """Of every layer, outermost first: bit i stands for layer i, here and in what is written."""
        return Compiled([layer.selector for level in self.levels for layer in level.layers])

    @cached_property
    def _written(self) -> dict[str, _Written]:
        """By key; those that no layer sets are left out."""
        found = {name: _Written.of(name, self.levels) for name in KEYS}
        return {name: one for name, one in found.items() if one.setters}

    @cached_property
    def _resolved(self) -> dict[int, Settings]:
        """By the layers that apply."""
        return {}


@dataclass(frozen=True)
class _Written:
    """One key through the layers of all levels, outermost first.

    `values` and `origins` are what each layer that sets it says, by the layer's number, and the default by -1; bit i of
    `setters` is layer i. A lock holds for layers from number `held_from` on; without one there are none.
    """

    key: Key
    values: Mapping[int, Any]
    origins: Mapping[int, Origin]
    setters: int
    held_from: int
    locked_by: str

    @classmethod
    def of(cls, name: str, levels: Sequence[Level]) -> _Written:
        """Gather a key from the levels of a policy."""
        values, origins = {-1: getattr(_DEFAULTS, KEYS[name].attribute)}, {-1: Origin()}
        layers = [(level, layer) for level in levels for layer in level.layers]
        for number, (level, layer) in enumerate(layers):
            if name in layer.values:
                values[number], origins[number] = layer.values[name], Origin(level.name, layer.places[name])
        locks = [number for number, level in enumerate(levels) if name in level.locked]
        above = levels[: locks[0] + 1] if locks else levels
        return cls(
            key=KEYS[name],
            values=values,
            origins=origins,
            setters=sum(1 << number for number in values if number >= 0),
            held_from=sum(len(level.layers) for level in above),
            locked_by=above[-1].name if locks else "",
        )

    def value(self, applying: int) -> Any:
        """What holds where the layers of these bits apply: the last one's value, as tight as a lock asks for."""
        last = self._last(applying)
        if last < self.held_from:
            return self.values[last]
        bound = self._last(applying & (1 << self.held_from) - 1)
        return self.key.tighter(self.values[bound], self.values[last])

    def origin(self, applying: int) -> Origin:
        """Who set it; and who held it, where a lock changed what was set."""
        last = self._last(applying)
        held = self.value(applying) != self.values[last]
        return replace(self.origins[last], locked_by=self.locked_by) if held else self.origins[last]

    def _last(self, applying: int) -> int:
        """The number of the last layer that sets it, -1 for none."""
        return (applying & self.setters).bit_length() - 1


_DEFAULTS = Settings()
