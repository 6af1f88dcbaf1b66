"""Texts that shells, templates, terminals and spreadsheets would run arrive as they were written, or are refused."""

from __future__ import annotations

import itertools
import shlex
import subprocess

import pytest

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.job import JobSpec
from carbon_sched.service.runtime_env import entrypoint_for
from tests.fakes.served import served

__all__ = ["served"]

PAYLOADS = [
    "$(touch /tmp/x)", "`id`", "; id", "& id", "| id", "|| id", "&& id", "\n id", "> /tmp/x", "< /etc/passwd",
    "${IFS}id",
    "$HOME", "~root", "*", "?", "[a-z]", "{a,b}", "!!", "\\", "'", '"', "''", '""', "#", "--help", "-rf /", "%s%n",
    "%00",
    "{{7*7}}", "${7*7}", "<%= 7 %>", "#{7}", "{% raw %}", "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)", "' OR 1=1 --", "'; DROP TABLE jobs; --", "=1+1", "+1", "-1", "@SUM(A1)", "=cmd|'/c calc'!A1",
    "\x1b[2J", "\x07", "\x1b]0;x\x07", "\u202e", "\u2028", "\ufeff", "../../etc/passwd", "..\\..", "file:///etc/passwd",
    "a\r\nX: y", "é" * 40, "\u4f60\u597d", "\U0001f600", "[link](http://evil)", "<b>", "&lt;", "\t",
]  # fmt: skip
AROUND = ("{}", "a {} b", "'{}'", '"{}"', "$({})")
STRINGS = [around.replace("{}", payload) for payload, around in itertools.product(PAYLOADS, AROUND)]


def test_there_are_enough_of_them():
    assert len(set(STRINGS)) >= 290


def test_an_entrypoint_reaches_the_wrapper_as_one_argument():
    for text in STRINGS:
        *_, argument = shlex.split(entrypoint_for(JobSpec(text, "name")))
        assert argument == text


def test_a_shell_sees_that_argument_too():
    """What Ray runs is a shell's command line: the wrapper's module is stood in for by `printf`."""
    lines = [entrypoint_for(JobSpec(text, "name")).partition(" -- ")[2] for text in STRINGS]
    script = "\n".join(f"printf '%s\\0' {line}" for line in lines)
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True, timeout=60)
    assert done.stdout.decode().split("\0")[:-1] == STRINGS


@pytest.mark.parametrize("field", ["name", "model", "project"])
def test_labels_are_shown_as_they_were_given_or_refused(served, field):
    for number, text in enumerate(STRINGS[:: len(AROUND)]):
        request = {"entrypoint": "true", field: f"x{text}", "metadata": {"note": text}}
        if any(character < " " or character == "\x7f" for character in text):
            with pytest.raises(InvalidInput, match=f"^{field}: "):
                served.client.submit(request, idempotency_key=f"{field}{number}")
        else:
            job = served.client.submit(request, idempotency_key=f"{field}{number}")
            assert (job[field], job["metadata"]["note"]) == (f"x{text}", text)
