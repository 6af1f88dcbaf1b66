"""Options, wherever they were given, to the request the server takes. Pure: the present instant and zone are given."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.options.given import json_object
from carbon_sched.options.secrets import parse_secrets
from carbon_sched.options.times import (
    parse_amount,
    parse_count,
    parse_duration,
    parse_instant,
    parse_power,
    parse_size,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import tzinfo

    from carbon_sched.options.given import Given
    from carbon_sched.wire import DataRequest, JobRequest

    Fields = Mapping[str, tuple[str, Callable[[str, Any], Any]]]
    """By option: its name in the request, and what reads it, given how to call it in errors and its value."""

OPTIONS = (
    "name", "phase", "stage", "model", "project", "team",
    "workers", "gpus-per-worker", "gpus", "gpu-type", "gpu-memory", "placement",
    "duration", "power", "deadline", "max-delay", "earliest", "interruptible", "restart-cost", "storage",
    "priority", "now", "after", "variant", "quality-floor", "item", "slice",
    "cluster", "policy", "data", "metadata", "secret",
    "working-dir", "runtime-env",
    "entrypoint-num-cpus", "entrypoint-num-gpus", "entrypoint-memory",
    "entrypoint-resources", "entrypoint-label-selector",
)  # fmt: skip
"""Everything that may be said of a job beside its script, by the names of `submit`'s flags."""
PHASES = ("pretraining", "finetuning", "inference-batch", "inference-online", "evaluation", "other")
PLACEMENTS = ("pack", "spread", "strict-pack")


@dataclass(frozen=True)
class Built:
    """A request, and how times in it were understood."""

    request: JobRequest
    echoes: tuple[str, ...] = ()


@dataclass
class _Builder:
    now: datetime
    zone: tzinfo
    echoes: list[str] = field(default_factory=list)

    def instant(self, label: str, value: Any) -> str:
        parsed = parse_instant(label, _text(label, value), self.now, self.zone)
        if parsed.echo:
            self.echoes.append(f"{label.removeprefix('--')}: {parsed.echo}")
        return to_rfc3339(parsed.at)

    def fields(self) -> Fields:
        return {
            **{name: (name, _text) for name in ("name", "stage", "model", "project", "team", "policy")},
            "phase": ("phase", _one_of(PHASES)),
            "duration": ("duration_s", _duration),
            "power": ("power_w", _power),
            "deadline": ("deadline", self.instant),
            "earliest": ("earliest", self.instant),
            "max-delay": ("max_delay_s", _delay),
            "interruptible": ("interruptible", _flag),
            "restart-cost": ("restart_s", _delay),
            "storage": ("storage", _text),
            "priority": ("priority", _text),
            "now": ("now", _flag),
            "after": ("after", _texts),
            "variant": ("variants", _variants),
            "quality-floor": ("quality_floor", _text),
            "item": ("item", _text),
            "slice": ("slice", parse_count),
            "cluster": ("clusters", _texts),
            "data": ("data", _data),
            "metadata": ("metadata", _text_map),
            "secret": ("secrets", parse_secrets),
        }


def known_options() -> frozenset[str]:
    """The names of all options that `build` reads."""
    return frozenset(_Builder(datetime.min.replace(tzinfo=timezone.utc), timezone.utc).fields()) | RESOURCES.keys()


def build(entrypoint: str, options: Mapping[str, Given], now: datetime, zone: tzinfo) -> Built:
    """The request of a job with these options; `working-dir` and `runtime-env` are the caller's.

    Raises InvalidInput naming the first option that cannot be used, and where it was given.
    """
    builder = _Builder(now, zone)
    request: dict[str, Any] = {"entrypoint": entrypoint}
    request |= _parsed(builder.fields(), options)
    if resources := _parsed(RESOURCES, options):
        request["resources"] = resources
    return Built(request, tuple(builder.echoes))  # type: ignore[arg-type]  # the keys are those of the tables above


def _parsed(fields: Fields, options: Mapping[str, Given]) -> dict[str, Any]:
    return {
        key: parse(options[name].label, options[name].value)
        for name, (key, parse) in fields.items()
        if name in options and options[name].value is not None
    }


def parse_data(label: str, text: str) -> DataRequest:
    """`URI=SIZE@ZONE`; the URI may itself hold `=` and `@`."""
    rest, at, zone = text.rpartition("@")
    uri, equals, size = rest.rpartition("=")
    if not (at and equals and uri and zone):
        raise InvalidInput(label, text, "is not URI=SIZE@ZONE", "Write for example s3://bucket/corpus=50GB@DE")
    return {"uri": uri, "size_bytes": parse_size(label, size), "zone": zone}


def _text(label: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InvalidInput(label, value, "is not text", "Quote it")
    return str(value)


def _texts(label: str, value: Any) -> list[str]:
    items = value if isinstance(value, (list, tuple)) else [value]
    return [_text(label, item) for item in items]


def _data(label: str, value: Any) -> list[DataRequest]:
    return [parse_data(label, item) for item in _texts(label, value)]


def _flag(label: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput(label, value, "is neither true nor false", "Write true or false")
    return value


def _one_of(known: tuple[str, ...]) -> Callable[[str, Any], str]:
    def parse(label: str, value: Any) -> str:
        if value not in known:
            raise InvalidInput(label, value, "is not known", f"Use one of: {', '.join(known)}")
        return str(value)

    return parse


def _duration(label: str, value: Any) -> float:
    return parse_duration(label, _text(label, value))


def _delay(label: str, value: Any) -> float:
    return parse_duration(label, _text(label, value), zero=True)


def _power(label: str, value: Any) -> float:
    return parse_power(label, _text(label, value))


def _memory(label: str, value: Any) -> int:
    text = _text(label, value)
    return parse_count(label, text) if text.replace(".", "", 1).isdigit() else parse_size(label, text)


def _gigabytes(label: str, value: Any) -> float:
    return parse_size(label, _text(label, value)) / 1e9


def _number_map(label: str, value: Any) -> dict[str, float]:
    table = _table(label, value)
    return {key: parse_amount(f"{label}.{key}", item) for key, item in table.items()}


def _variants(label: str, value: Any) -> dict[str, str]:
    """Arguments by name: a table, or texts `NAME=ARGUMENTS`."""
    if isinstance(value, dict):
        return _text_map(label, value)
    found: dict[str, str] = {}
    for text in _texts(label, value):
        name, equals, arguments = text.partition("=")
        if not equals or name in found:
            problem = "is not NAME=ARGUMENTS" if not equals else "names a variant twice"
            raise InvalidInput(label, text, problem, "Write int8='--model int8.bin'; the first one is the baseline")
        found[name] = arguments
    return found


def _text_map(label: str, value: Any) -> dict[str, str]:
    table = _table(label, value)
    for key, item in table.items():
        if not isinstance(item, str):
            raise InvalidInput(f"{label}.{key}", item, "is not text", "Quote it: Ray takes text values only")
    return table


def _table(label: str, value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return json_object(label, value)
    if not isinstance(value, dict):
        raise InvalidInput(label, value, "is not a table", "Write keys and values")
    return value


RESOURCES: Fields = {
    "workers": ("workers", parse_count),
    "gpus-per-worker": ("gpus_per_worker", parse_amount),
    "gpus": ("gpus", parse_amount),
    "gpu-type": ("gpu_type", _text),
    "gpu-memory": ("gpu_memory_gb", _gigabytes),
    "placement": ("placement", _one_of(PLACEMENTS)),
    "entrypoint-num-cpus": ("entrypoint_num_cpus", parse_amount),
    "entrypoint-num-gpus": ("entrypoint_num_gpus", parse_amount),
    "entrypoint-memory": ("entrypoint_memory", _memory),
    "entrypoint-resources": ("entrypoint_resources", _number_map),
    "entrypoint-label-selector": ("entrypoint_label_selector", _text_map),
}
