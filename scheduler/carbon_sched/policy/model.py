"""A policy as the rest of the system sees it: levels of files, resolved into frozen settings for one job.

A policy file extends another (shipped preset <- organisation <- team). Within a file, the values at its top come first,
then those of the job's phase, then every rule that matches, in order; a later value replaces an earlier one. A key that
a file locks may only be tightened by the files that extend it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from carbon_sched.policy.settings import KEYS, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
        return (
            all(getattr(job, feature) in wanted for feature, wanted in self.values.items())
            and self.gpus_at_least <= job.gpus <= self.gpus_at_most
            and all(job.labels.get(key) == value for key, value in self.labels.items())
        )


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

    def applying(self, job: Selected) -> Iterator[Layer]:
        """Its layers that apply to a job, in order."""
        found = {index for feature, table in self._index.items() for index in table.get(getattr(job, feature), ())}
        for index in sorted(found.union(self._rest)):
            if self.layers[index].selector.matches(job):
                yield self.layers[index]

    @cached_property
    def _index(self) -> dict[str, dict[str, list[int]]]:
        """Layers by the value of the most telling feature they name, so that a job meets few of many rules."""
        index: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for number, layer in enumerate(self.layers):
            if feature := _telling(layer):
                for value in layer.selector.values[feature]:
                    index[feature][value].append(number)
        return index

    @cached_property
    def _rest(self) -> tuple[int, ...]:
        return tuple(number for number, layer in enumerate(self.layers) if not _telling(layer))


def _telling(layer: Layer) -> str | None:
    return next((feature for feature in FEATURES if feature in layer.selector.values), None)


@dataclass(frozen=True)
class Origin:
    """Where a value comes from: the level's name and `FILE:LINE`; both empty for what no file sets.

    `locked_by` names the level whose lock kept the value from being loosened further down.
    """

    level: str = ""
    place: str = ""
    locked_by: str = ""


@dataclass(frozen=True)
class Effective:
    """The settings of one job and the origin of each, by dotted key; `label` names policy and version."""

    label: str
    settings: Settings
    origins: Mapping[str, Origin]


@dataclass(frozen=True, eq=False)
class Policy:
    """A policy file with everything it extends, outermost first in `levels`.

    `digest` is a SHA-256 in hex over the bytes of all its files, `source` the last file's path or name, for people.
    `team` is the team whose jobs follow it unless they name another; `EVERY_TEAM` stands for all that have none.
    """

    name: str
    levels: tuple[Level, ...]
    description: str = ""
    team: str = ""
    digest: str = ""
    source: str = ""

    @property
    def label(self) -> str:
        """Name and version, as stored with every decision: `balanced@1f0c9a7b2d3e`."""
        return f"{self.name}@{self.digest[:12]}" if self.digest else self.name

    @cached_property
    def _label_keys(self) -> tuple[str, ...]:
        layers = (layer for level in self.levels for layer in level.layers)
        return tuple(sorted({key for layer in layers for key in layer.selector.labels}))

    def features(self, job: Selected) -> tuple[object, ...]:
        """What can make a difference to this policy; jobs that agree in it have the same settings."""
        labels = tuple(job.labels.get(key) for key in self._label_keys)
        return (*(getattr(job, feature) for feature in FEATURES), job.gpus, labels)

    def settings(self, job: Selected) -> Settings:
        """What applies to a job."""
        return self.effective(job).settings

    def effective(self, job: Selected) -> Effective:
        """What applies to a job, and where each value comes from."""
        values: dict[str, Any] = dict(_DEFAULTS)
        origins = dict.fromkeys(KEYS, Origin())
        bounds: dict[str, tuple[str, Any]] = {}
        for level in self.levels:
            for layer in level.applying(job):
                for key, value in layer.values.items():
                    values[key], origins[key] = value, Origin(level.name, layer.places[key])
                    if key in bounds:
                        _hold(key, values, origins, *bounds[key])
            bounds |= {key: (level.name, values[key]) for key in level.locked if key not in bounds}
        return Effective(self.label, Settings(**{KEYS[key].attribute: v for key, v in values.items()}), origins)


def _hold(key: str, values: dict[str, Any], origins: dict[str, Origin], locked_by: str, bound: Any) -> None:
    """Keep a value within what a level further up has locked."""
    held = KEYS[key].tighter(bound, values[key])
    if held != values[key]:
        origins[key] = Origin(origins[key].level, origins[key].place, locked_by)
        values[key] = held


_DEFAULTS = {key: {f.name: f.default for f in fields(Settings)}[entry.attribute] for key, entry in KEYS.items()}
