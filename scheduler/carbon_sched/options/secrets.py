"""Secrets of a job: `NAME=file:PATH` or `NAME=env:VARIABLE`, from flags and files. No error shows what was given.

A reference travels, never a secret; whoever writes the secret itself in its place must not find it in a log.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.options.given import NOT_SHOWN, Given

if TYPE_CHECKING:
    from collections.abc import Sequence

FORM = "Write NAME=file:PATH or NAME=env:VARIABLE; secrets themselves are never given here"
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parse_secrets(label: str, value: Any) -> dict[str, str]:
    """References by the name of the variable; from a list of `NAME=REFERENCE`, one such text, or a table.

    Raises InvalidInput for anything else, without showing it.
    """
    if isinstance(value, dict):
        pairs = list(value.items())
    else:
        pairs = [_pair(label, item) for item in (value if isinstance(value, (list, tuple)) else [value])]
    found: dict[str, str] = {}
    for name, reference in pairs:
        if not isinstance(name, str) or not VARIABLE.fullmatch(name):
            raise InvalidInput(label, NOT_SHOWN, "does not begin with the name of a variable", FORM)
        if name in found:
            raise InvalidInput(label, name, "is given twice", "Give each secret once")
        kind, _, where = reference.partition(":") if isinstance(reference, str) else ("", "", "")
        if kind not in ("file", "env") or not where:
            raise InvalidInput(label, f"{name}={NOT_SHOWN}", "does not say where it is read", FORM)
        found[name] = reference
    return found


def anchored_secrets(given: Sequence[tuple[Given | None, Path]]) -> Given | None:
    """The secrets of all places, later ones winning name by name; files are meant as seen from each place's folder.

    Paths travel whole: the server runs in another folder.
    """
    merged: dict[str, str] = {}
    label = ""
    for one, folder in given:
        if one is None:
            continue
        label = one.label
        for name, reference in parse_secrets(label, one.value).items():
            kind, _, where = reference.partition(":")
            merged[name] = f"file:{(folder / Path(where).expanduser()).absolute()}" if kind == "file" else reference
    return Given(merged, label) if merged else None


def _pair(label: str, item: Any) -> tuple[str, str]:
    name, equals, reference = item.partition("=") if isinstance(item, str) else ("", "", "")
    if not equals:
        raise InvalidInput(label, NOT_SHOWN, "is not NAME=REFERENCE", FORM)
    return name, reference
