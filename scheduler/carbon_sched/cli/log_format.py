"""How the server logs: lines for people, or JSON objects whose keys are those that stand in the message."""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime, timezone

KEY = re.compile(r"([a-z_]+)=$")
SPECIFIER = re.compile(r"%(?:%|[#0\- +]*\d*(?:\.\d+)?[a-z])")


def configure(level: str, form: str) -> None:
    """Log from `level` on to standard error, in the form `text` or `json`."""
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonLines() if form == "json" else text)
    logging.basicConfig(level=level.upper(), handlers=[handler])


class JsonLines(logging.Formatter):
    """One object per line: time, level, logger, message, and every `key=%s` of the message as a field of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """As JSON; a traceback goes into `exception`, so that a record stays one line."""
        line = fields(record) | {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def fields(record: logging.LogRecord) -> dict[str, object]:
    """The arguments that stand behind a `key=` in the message's template, by that key."""
    if not isinstance(record.args, tuple) or not isinstance(record.msg, str):
        return {}
    found: dict[str, object] = {}
    arguments = iter(record.args)
    end = 0
    for match in SPECIFIER.finditer(record.msg):
        before, end = record.msg[end : match.start()], match.end()
        if match.group() == "%%":
            continue
        value = next(arguments, None)
        if key := KEY.search(before):
            found[key.group(1)] = value if isinstance(value, (int, float)) else str(value)
    return found
