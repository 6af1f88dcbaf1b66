"""Reading JSON lines that a hostile job may have written: one flat object each, every field by type and range."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

LINE_LIMIT = 4096
TEXT_LIMIT = 400
LARGEST = 2**63 - 1

OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
WORD = re.compile(r"[a-z0-9][a-z0-9+_-]{0,39}")
BOOT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class WireError(ValueError):
    """Bytes that are not a segment or record of ours. The message says what is wrong, never echoes the bytes."""


class Fields:
    """One line's flat JSON object; each field is taken once, by type and range."""

    def __init__(self, line: str) -> None:
        if len(line) > LINE_LIMIT:
            refuse(f"a line of {len(line)} characters; at most {LINE_LIMIT}")
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            refuse("a line is not JSON")
        if not isinstance(values, dict):
            refuse("a line is not a JSON object")
        self._values: dict[str, Any] = values

    def text(self, key: str, pattern: re.Pattern[str] | None = None, limit: int = TEXT_LIMIT) -> str:
        """Printable text of at most `limit` characters that matches the pattern as a whole."""
        value = self._take(key)
        if not isinstance(value, str) or len(value) > limit or (pattern and not pattern.fullmatch(value)):
            refuse(f"field {key} is not the text expected")
        if not value.isprintable():
            refuse(f"field {key} holds control characters")
        return value

    def optional_text(self, key: str, pattern: re.Pattern[str] | None = None) -> str | None:
        """The same, or None where the field is absent or null."""
        if self._values.get(key) is None:
            self._values.pop(key, None)
            return None
        return self.text(key, pattern)

    def integer(self, key: str, low: int = 0, high: int = LARGEST) -> int:
        """A whole number from `low` to `high`; true and 1.0 are none."""
        value = self._take(key)
        if type(value) is not int or not low <= value <= high:
            refuse(f"field {key} is not an integer in its range")
        return value

    def optional_integer(self, key: str, low: int = 0, high: int = LARGEST) -> int | None:
        """The same, or None where the field is absent or null."""
        if self._values.get(key) is None:
            self._values.pop(key, None)
            return None
        return self.integer(key, low, high)

    def words(self, key: str) -> tuple[str, ...]:
        """A list of at most 16 lower-case words; none where the field is absent."""
        value = self._values.pop(key, [])
        if not isinstance(value, list) or len(value) > 16:
            refuse(f"field {key} is not a list of words")
        if not all(isinstance(word, str) and WORD.fullmatch(word) for word in value):
            refuse(f"field {key} is not a list of words")
        return tuple(value)

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        """One of the texts allowed."""
        value = self._take(key)
        if value not in allowed:
            refuse(f"field {key} is not one of {', '.join(allowed)}")
        return str(value)

    def done(self) -> None:
        """Refuse what nobody asked for."""
        if self._values:
            refuse("a line has fields of no meaning")

    def _take(self, key: str) -> Any:
        if key not in self._values:
            refuse(f"field {key} is missing")
        return self._values.pop(key)


def ascii_text(data: bytes) -> str:
    """Bytes as text; all else is escaped on the wire."""
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        refuse("bytes outside ASCII (text is escaped)")


def refuse(message: str) -> NoReturn:
    """Raise WireError."""
    raise WireError(message)
