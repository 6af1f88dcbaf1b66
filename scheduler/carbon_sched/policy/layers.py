"""A checked file -> the layers of its level: dotted keys, frozen values, and the place of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from carbon_sched.domain.intensity import Basis, Signal
from carbon_sched.domain.units import UG_PER_G, UJ_PER_KWH
from carbon_sched.domain.variant import Choice
from carbon_sched.policy.budget import Budget, Every, Over
from carbon_sched.policy.matching import Selector
from carbon_sched.policy.model import Layer, Level
from carbon_sched.policy.schema import DAYS, Form, PolicyForm, QuietHoursForm, SettingsForm, WhenForm, minutes
from carbon_sched.policy.settings import KEYS, Declared, OnMissing, Priority, QuietHours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from carbon_sched.policy.document import Document, Location


def level(form: PolicyForm, document: Document) -> Level:
    """The level of one file: what stands at its top, then its phases, then its rules, each as it was written."""
    layers = [_layer(form, (), Selector(), document)]
    for name, field in type(form.phases).model_fields.items():
        if (settings := getattr(form.phases, name)) is not None:
            phase = field.alias or name
            layers.append(_layer(settings, ("phases", phase), Selector({"phase": frozenset([phase])}), document))
    for number, rule in enumerate(form.rules):
        layers.append(_layer(rule.settings, ("rules", number, "set"), _selector(rule.when), document))
    return Level(form.name, tuple(layers), frozenset(form.locked))


def budgets(form: PolicyForm) -> tuple[Budget, ...]:
    """The budgets of one file."""
    return tuple(
        Budget(
            key=f"{form.name}/{one.name}",
            of=Selector({k: frozenset(v) for k in ("team", "project", "model") if (v := getattr(one.of, k))}),
            every=Every(one.every),
            zone=ZoneInfo(one.zone),
            limit_ug=None if one.co2e_kg is None else round(one.co2e_kg * 1000 * UG_PER_G),
            limit_uj=None if one.energy_kwh is None else round(one.energy_kwh * UJ_PER_KWH),
            over=Over(one.over),
        )
        for one in form.budgets
    )


def _layer(form: SettingsForm, location: Location, selector: Selector, document: Document) -> Layer:
    values, locations = {}, {}
    for key, at, value in _written(form, location, ""):
        values[key], locations[key] = FROZEN.get(key, _plain)(value), at
    places = {key: f"{document.file}:{document.place(at).line}" for key, at in locations.items()}
    return Layer(selector, values, places, locations)


def _written(form: Form, location: Location, prefix: str) -> Iterator[tuple[str, Location, Any]]:
    """The settings that stand in the file: dotted key, location and value."""
    for name in form.model_fields_set:
        key = type(form).model_fields[name].alias or name
        value, dotted = getattr(form, name), f"{prefix}{key}"
        if dotted in KEYS:
            yield dotted, (*location, key), value
        elif isinstance(value, Form) and any(known.startswith(f"{dotted}.") for known in KEYS):
            yield from _written(value, (*location, key), f"{dotted}.")


def _selector(when: WhenForm) -> Selector:
    listed = {name: getattr(when, name) for name in ("team", "project", "submitter", "model", "stage", "phase")}
    return Selector(
        {name: frozenset(values) for name, values in listed.items() if values},
        when.labels,
        when.gpus_at_least,
        float("inf") if when.gpus_at_most is None else when.gpus_at_most,
    )


def _plain(value: Any) -> Any:
    return value


def _names(value: list[str] | None) -> frozenset[str] | None:
    return None if value is None else frozenset(value)


def _quiet(forms: list[QuietHoursForm]) -> tuple[QuietHours, ...]:
    return tuple(
        QuietHours(minutes(f.begin), minutes(f.end), ZoneInfo(f.zone), frozenset(DAYS.index(day) for day in f.days))
        for f in forms
    )


FROZEN: dict[str, Callable[[Any], Any]] = {
    "flexibility.declared": Declared,
    "flexibility.variants": Choice,
    "signal.on_missing": OnMissing,
    "signal.kind": Signal,
    "signal.basis": lambda basis: None if basis is None else Basis(basis),
    "clusters.allowed": _names,
    "clusters.denied": _names,
    "clusters.preferred": _names,
    "data.residency": _names,
    "data.classes": lambda classes: {name: frozenset(tags) for name, tags in classes.items()},
    "queue.priority": Priority,
    "quiet_hours": _quiet,
    "runtime_env.allowed": _names,
}
"""How a written value becomes a frozen one, by dotted key; the others are taken as they are."""
