"""A value somebody gave, with the name of the place it stands in; and JSON given as text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from carbon_sched.domain.errors import InvalidInput

NOT_SHOWN = "(not shown)"
"""Stands for a value that may be a secret in the wrong place."""


@dataclass(frozen=True)
class Given:
    """A value and where it stands, as an error should name it."""

    value: Any
    label: str


def json_object(label: str, text: str, *, secret: bool = False) -> dict[str, Any]:
    """A JSON object given as text; where it may hold a `secret`, errors do not show it."""
    shown = NOT_SHOWN if secret else text
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidInput(label, shown, f"is not JSON ({error})", """Write it as '{"key": "value"}'""") from None
    if not isinstance(value, dict):
        raise InvalidInput(label, shown, "is not a JSON object", """Write it as '{"key": "value"}'""")
    return value
