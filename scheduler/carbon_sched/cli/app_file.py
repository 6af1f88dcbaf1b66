"""APP.yaml of `serve-app deploy`: an application as Ray Serve takes it, and where it may run.

name: chat
application:                      # as in Ray Serve's own configuration
  import_path: chat:app
  route_prefix: /chat
  runtime_env: {working_dir: .}   # a folder beside this file is zipped and uploaded
replicas: 2
gpus_per_replica: 1
gpu_type: H100
power: 900                        # watts of all replicas under load, for planning
model: chat-7b
clusters: [north, south]          # default: all
latency: {max_ms: 60, clusters: {north: 25, south: 48}}
horizon: 6h                       # expected emissions are compared over this time
min_gain: 15%                     # a move saves this much at least
min_stay: 1h
max_age: 10s                      # clients may keep its address for so long
drain: 1m
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from carbon_sched.domain.errors import InvalidFile, InvalidInput, Problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from carbon_sched.policy.document import Document
    from carbon_sched.wire import AppRequest


def _text(field: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidInput(field, value, "is not text", "Write a word")
    return value


def _number(field: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidInput(field, value, "is not a number", "Write a number")
    return value


def _whole(field: str, value: Any) -> int:
    if type(value) is not int:
        raise InvalidInput(field, value, "is not a whole number", "Write 1 or more")
    return value


def _mapping(field: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InvalidInput(field, value, "is not a mapping", "Write name: value, one a line")
    return value


def _texts(field: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_text(field, one) for one in value]
    return {key: _text(f"{field}.{key}", one) for key, one in _mapping(field, value).items()}


def _duration(field: str, value: Any) -> float:
    from carbon_sched.options.times import parse_duration

    return parse_duration(field, str(value), zero=True)


def _share(field: str, value: Any) -> float:
    try:
        return float(value.removesuffix("%")) / 100 if isinstance(value, str) else _number(field, value)
    except ValueError:
        raise InvalidInput(field, value, "is not a share", "Write 15% or 0.15") from None


FIELDS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "name": ("name", _text),
    "application": ("application", _mapping),
    "replicas": ("replicas", _whole),
    "gpus_per_replica": ("gpus_per_replica", _number),
    "gpu_type": ("gpu_type", _text),
    "power": ("power_w", _number),
    "clusters": ("clusters", _texts),
    "model": ("model", _text),
    "project": ("project", _text),
    "team": ("team", _text),
    "policy": ("policy", _text),
    "metadata": ("metadata", _texts),
    "horizon": ("horizon_s", _duration),
    "min_gain": ("min_gain", _share),
    "min_stay": ("min_stay_s", _duration),
    "max_age": ("max_age_s", _duration),
    "drain": ("drain_s", _duration),
}
LATENCY = ("max_ms", "clusters")
UNKNOWN = "is not known"
SHOWN = 60
"""So much of a wrong value is shown."""


def read_app(path: Path) -> AppRequest:
    """The request that a file makes; its `working_dir` is still a path. InvalidFile with the line of what is wrong."""
    from carbon_sched.policy.document import read_document

    document = read_document(path)
    if not isinstance(document.values, dict):
        raise InvalidFile((Problem(document.file, 1, 1, "the file", "holds no service", "Begin with name: NAME"),))
    request: dict[str, Any] = {}
    for key, value in document.values.items():
        try:
            request |= _read(key, value)
        except InvalidInput as error:
            raise InvalidFile((_placed(document, key, error),)) from None
    for key in ("name", "application"):
        if key not in request:
            raise InvalidFile((Problem(document.file, 1, 1, key, "is missing", f"Add {key}: ..."),))
    return request  # type: ignore[return-value]  # checked key by key


def _placed(document: Document, key: str, error: InvalidInput) -> Problem:
    place = document.place((key,))
    shown = "" if error.problem == UNKNOWN else f"{error.value[:SHOWN]!r} "
    return Problem(document.file, place.line, place.column, error.field, f"{shown}{error.problem}", error.remedy)


def _read(key: str, value: Any) -> dict[str, Any]:
    if key == "latency":
        return _latency(_mapping(key, value))
    if key not in FIELDS:
        raise InvalidInput(key, value, UNKNOWN, f"Use: {', '.join([*FIELDS, 'latency'])}")
    name, read = FIELDS[key]
    return {name: read(key, value)}


def _latency(value: dict[str, Any]) -> dict[str, Any]:
    for key, one in value.items():
        if key not in LATENCY:
            raise InvalidInput(f"latency.{key}", one, UNKNOWN, f"Use: {', '.join(LATENCY)}")
    clusters = _mapping("latency.clusters", value.get("clusters", {}))
    return {
        "max_latency_ms": _number("latency.max_ms", value["max_ms"]) if "max_ms" in value else None,
        "latencies_ms": {name: _number(f"latency.clusters.{name}", one) for name, one in clusters.items()},
    }
