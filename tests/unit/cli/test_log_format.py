from __future__ import annotations

import json
import logging
import sys

from carbon_sched.cli.log_format import JsonLines


def line(message, *arguments, **more):
    record = logging.LogRecord(
        "carbon_sched.x", logging.WARNING, "x.py", 1, message, arguments, **{"exc_info": None} | more
    )
    return json.loads(JsonLines().format(record))


def test_keys_of_the_message_are_fields():
    told = line("attempt ended attempt=%s seconds=%.1f exit=%d: %s", "cs-1-a1", 2.25, 3, "reason=no key")
    assert (told["attempt"], told["seconds"], told["exit"]) == ("cs-1-a1", 2.25, 3)
    assert told["message"] == "attempt ended attempt=cs-1-a1 seconds=2.2 exit=3: reason=no key"
    assert "reason" not in told


def test_what_always_stands_there_is_not_overwritten():
    told = line("moved level=%s 100%% done=%s", "high", True)
    assert (told["level"], told["done"], told["logger"]) == ("warning", True, "carbon_sched.x")


def test_a_traceback_stays_on_the_line():
    try:
        int("two\nlines")
    except ValueError:
        told = line("a bug", exc_info=sys.exc_info())
    assert "ValueError: invalid literal" in told["exception"]
