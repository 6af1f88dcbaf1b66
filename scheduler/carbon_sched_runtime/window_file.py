"""The windows of an attempt on disk: what user code measured of itself, beside the energy journal.

`carbon-sched-<attempt>.windows` in the journal's folder of each node, at most 60 KiB, JSON lines that start with a
window and go on with its parts and units:

    {"k":"window","v":1,"w":…,"attempt":…,"n":name,"t0":…,"t1":…,"m0":…,"m1":…,"machine":…,"boot":…,"pid":…,"in":…,
     "uj":…,"ug":…,"mg":…,"grade":…,"pue":…}
    {"k":"part","w":…,"d":device,"kind":…,"scope":…,"src":…,"uj":…,"err":…,"f":[…]}
    {"k":"unit","w":…,"n":"tokens","micro":…}

`t*` are UTC microseconds, `m*` nanoseconds of the boot clock, `uj` microjoules of IT energy, `ug` micrograms CO2e,
`mg` mg/kWh, `pue` ppm, `micro` millionths of a unit; null is unknown. `in` is the window around it. The joules are
those of whole devices; the attempt's own share of the time from `m0` to `m1` is in the segments.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace
from typing import Any

from carbon_sched_runtime.fields import BOOT, LARGEST, OWNER, WORD, Fields, WireError, ascii_text, refuse
from carbon_sched_runtime.window_meter import Part
from carbon_sched_runtime.wire import KINDS, SOURCES

LIMIT = 60 * 1024
NAME_LIMIT = 100
GRADE_LIMIT = 40
UNITS = 8
_ID = re.compile(r"[0-9a-f]{8}")
_MACHINE = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class WindowRecord:
    """One closed window as its process wrote it; None is unknown. `units` are in millionths."""

    id: str
    attempt: str
    name: str
    start_us: int
    end_us: int
    start_mono_ns: int
    end_mono_ns: int
    machine: str
    boot: str
    pid: int
    parent: str | None
    energy_uj: int | None
    co2e_ug: int | None
    intensity_mg_per_kwh: int | None
    grade: str | None
    pue_ppm: int | None
    parts: tuple[Part, ...] = ()
    units: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Windows:
    """The windows of one file in the order written; `problems` says which lines were not ours or were torn."""

    windows: tuple[WindowRecord, ...]
    problems: tuple[str, ...] = ()


def windows_name(attempt: str) -> str:
    """The file name of an attempt's windows; WireError if the id could not be part of one."""
    if not OWNER.fullmatch(attempt):
        refuse("not the id of an attempt")
    return f"carbon-sched-{attempt}.windows"


def format_window(record: WindowRecord) -> bytes:
    """A window's lines; WireError when they would not be read back."""
    r = record
    head = {
        "k": "window", "v": 1, "w": r.id, "attempt": r.attempt, "n": r.name, "t0": r.start_us, "t1": r.end_us,
        "m0": r.start_mono_ns, "m1": r.end_mono_ns, "machine": r.machine, "boot": r.boot, "pid": r.pid,
        "in": r.parent, "uj": r.energy_uj, "ug": r.co2e_ug, "mg": r.intensity_mg_per_kwh, "grade": r.grade,
        "pue": r.pue_ppm,
    }  # fmt: skip
    parts = [
        {"k": "part", "w": r.id, "d": p.device, "kind": p.kind, "scope": p.scope, "src": p.source, "uj": p.energy_uj,
         "err": p.error_uj, "f": list(p.flags)}
        for p in r.parts
    ]  # fmt: skip
    units = [{"k": "unit", "w": r.id, "n": name, "micro": amount} for name, amount in r.units]
    lines: list[dict[str, Any]] = [head, *parts, *units]
    data = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode("ascii")
    problems = parse_windows(data, r.attempt).problems
    if problems:
        refuse(problems[0])
    return data


def append_window(folder: str, record: WindowRecord) -> None:
    """Add a window to its attempt's file in one write. OSError when it cannot be written, or the file is full."""
    data, path = format_window(record), f"{folder}/{windows_name(record.attempt)}"
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o644)
    try:
        if os.fstat(descriptor).st_size + len(data) > LIMIT:
            raise OSError(f"{path} is full ({LIMIT} bytes): the window is not in it")
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def parse_windows(data: bytes, attempt: str) -> Windows:
    """Read a file that a hostile job may have written; WireError only when the whole is over its size limit."""
    if len(data) > LIMIT:
        refuse(f"a file of windows of {len(data)} bytes; at most {LIMIT}")
    found: dict[str, WindowRecord] = {}
    problems: list[str] = []
    *lines, rest = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            _take(Fields(ascii_text(line)), attempt, found)
        except WireError as error:
            problems.append(f"line {number}: {error}")
    if rest:
        problems.append(f"line {len(lines) + 1}: torn")
    return Windows(tuple(found.values()), tuple(problems))


def _take(line: Fields, attempt: str, found: dict[str, WindowRecord]) -> None:
    kind, key = line.choice("k", ("window", "part", "unit")), line.text("w", _ID)
    if kind == "window":
        record = _window(line, key, attempt)
        if key in found:
            refuse("a window stands twice")
        found[key] = record
        return
    window = found.get(key)
    if window is None:
        refuse("a part of no window")
    if kind == "part":
        found[key] = replace(window, parts=(*window.parts, _part(line)))
    else:
        unit = (line.text("n", WORD), line.integer("micro"))
        found[key] = replace(window, units=(*window.units, unit))
    line.done()


def _window(line: Fields, key: str, attempt: str) -> WindowRecord:
    if line.integer("v") != 1:
        refuse("a window of another format")
    record = WindowRecord(
        id=key, attempt=line.text("attempt", OWNER), name=line.text("n", limit=NAME_LIMIT),
        start_us=line.integer("t0"), end_us=line.integer("t1"), start_mono_ns=line.integer("m0"),
        end_mono_ns=line.integer("m1"), machine=line.text("machine", _MACHINE), boot=line.text("boot", BOOT),
        pid=line.integer("pid"), parent=line.optional_text("in", _ID), energy_uj=line.optional_integer("uj"),
        co2e_ug=line.optional_integer("ug"), intensity_mg_per_kwh=line.optional_integer("mg"),
        grade=line.optional_text("grade"), pue_ppm=line.optional_integer("pue"),
    )  # fmt: skip
    line.done()
    if record.attempt != attempt:
        refuse("a window of another attempt")
    if record.end_us < record.start_us or record.end_mono_ns < record.start_mono_ns:
        refuse("a window ends before it starts")
    return record


def _part(line: Fields) -> Part:
    return Part(
        device=line.text("d", limit=NAME_LIMIT), kind=line.choice("kind", KINDS), name="",
        scope=line.text("scope", WORD), source=line.choice("src", SOURCES), energy_uj=line.integer("uj"),
        error_uj=line.integer("err", 0, LARGEST), flags=line.words("f"),
    )  # fmt: skip
