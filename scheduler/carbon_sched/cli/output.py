"""What every command prints with: results to stdout, our own words to stderr, JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def say(text: str) -> None:
    """A remark to the person at the terminal; never mixed into what programs read."""
    click.echo(click.style(_wrapped(text), dim=True), err=True, color=coloured(sys.stderr))


def warn(text: str) -> None:
    """A remark that must not be overlooked."""
    click.echo(click.style("note: ", fg="yellow", bold=True) + _wrapped(text, 6), err=True, color=coloured(sys.stderr))


def fail(text: str) -> None:
    """The last words of a command that did not work."""
    click.echo(click.style("error: ", fg="red", bold=True) + _wrapped(text, 7), err=True, color=coloured(sys.stderr))


def _wrapped(text: str, indent: int = 0) -> str:
    """Lines broken at blanks on a terminal; elsewhere as they are, for programs and searches."""
    if not sys.stderr.isatty():
        return text
    import shutil
    import textwrap

    width = max(40, shutil.get_terminal_size().columns - 1)
    wrap = textwrap.TextWrapper(
        width, initial_indent=" " * indent, break_long_words=False, break_on_hyphens=False, replace_whitespace=False
    )
    return "\n".join(wrap.fill(line) for line in text.split("\n"))[indent:]


def print_json(value: Any) -> None:
    """One JSON document on stdout, in the shapes of `wire`."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def coloured(stream: Any) -> bool:
    """Whether colours belong there: a terminal, unless NO_COLOR is set (https://no-color.org)."""
    return not os.environ.get("NO_COLOR") and stream.isatty() and os.environ.get("TERM") != "dumb"


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--json`, handed over as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON (the API's own shapes).")(command)
