"""A policy as the rest of the system sees it: levels of files, resolved into frozen settings for one job.

A policy file extends another (shipped preset <- organisation <- team). Within a file, the values at its top come first,
then those of the job's phase, then every rule that matches, in order; a later value replaces an earlier one. A key that
a file locks may only be tightened by the files that extend it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, fields
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from carbon_sched.policy.settings import KEYS, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from carbon_sched.domain.job import JobSpec
    from carbon_sched.policy.budget import Budget


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


EVERY_TEAM = "*"
FEATURES = ("team", "project", "submitter", "model", "stage", "phase")
"""What a rule may name values of, the most telling first."""


@dataclass(frozen=True)
class Selector:
    """When a layer applies: every feature that is named must be one of its values; empty applies to every job."""

    values: Mapping[str, frozenset[str]] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    gpus_at_least: float = 0.0
    gpus_at_most: float = float("inf")

    def matches(self, job: Selected) -> bool:
        """Whether the job is one of those meant."""
        for feature, wanted in self.values.items():
            if getattr(job, feature) not in wanted:
                return False
        for key, value in self.labels.items():
            if job.labels.get(key) != value:
                return False
        return self.gpus_at_least <= job.gpus <= self.gpus_at_most


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

    def applying(self, job: Selected) -> tuple[int, ...]:
        """Which of its layers apply to a job, in order."""
        likely = [number for ask, table in self._index for number in table.get(ask(job), ())]
        return tuple(sorted(number for number in likely if self.layers[number].selector.matches(job)))

    @cached_property
    def _index(self) -> list[tuple[Callable[[Selected], str | None], dict[str | None, list[int]]]]:
        """Layers by the value of the most telling feature or label they name, so that a job meets few of many rules."""
        tables: dict[str, dict[str | None, list[int]]] = defaultdict(lambda: defaultdict(list))
        for number, layer in enumerate(self.layers):
            feature, values = _telling(layer.selector)
            for value in values:
                tables[feature][value].append(number)
        return [(_asking(feature), dict(table)) for feature, table in tables.items()]


def _telling(selector: Selector) -> tuple[str, Iterable[str | None]]:
    """A feature and its values, a label (`labels.KEY`) and its value, or nothing and None."""
    for feature in FEATURES:
        if feature in selector.values:
            return feature, selector.values[feature]
    for key, value in selector.labels.items():
        return f"labels.{key}", [value]
    return "", [None]


def _asking(feature: str) -> Callable[[Selected], str | None]:
    if feature.startswith("labels."):
        key = feature.removeprefix("labels.")
        return lambda job: job.labels.get(key)
    return attrgetter(feature) if feature else lambda _job: None


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
        chosen = self._chosen(job)
        if chosen not in self._resolved:
            values = dict(_DEFAULTS)
            values.update((key, value) for key, value, _, _, _ in self._steps(chosen))
            self._resolved[chosen] = Settings(**{KEYS[key].attribute: value for key, value in values.items()})
        return self._resolved[chosen]

    def origins(self, job: Selected) -> dict[str, Origin]:
        """Where each value that applies to a job comes from, by dotted key."""
        found = dict.fromkeys(KEYS, Origin())
        for key, _, level, layer, held_by in self._steps(self._chosen(job)):
            found[key] = Origin(level.name, layer.places[key], held_by)
        return found

    @cached_property
    def _resolved(self) -> dict[tuple[tuple[int, ...], ...], Settings]:
        return {}

    def _chosen(self, job: Selected) -> tuple[tuple[int, ...], ...]:
        return tuple(level.applying(job) for level in self.levels)

    def _steps(self, chosen: tuple[tuple[int, ...], ...]) -> Iterator[tuple[str, Any, Level, Layer, str]]:
        """Key, value, level, layer, and who held it back if a lock did; of each key the last one applies."""
        values = dict(_DEFAULTS)
        bounds: dict[str, tuple[str, Any]] = {}
        for level, numbers in zip(self.levels, chosen, strict=True):
            for layer in (level.layers[number] for number in numbers):
                for key, value in layer.values.items():
                    holder, bound = bounds.get(key, ("", value))
                    values[key] = KEYS[key].tighter(bound, value) if holder else value
                    yield key, values[key], level, layer, holder if values[key] != value else ""
            bounds |= {key: (level.name, values[key]) for key in level.locked if key not in bounds}


_DEFAULTS: dict[str, Any] = {
    key: {f.name: f.default for f in fields(Settings)}[entry.attribute] for key, entry in KEYS.items()
}
