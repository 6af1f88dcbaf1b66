"""Options that stand beside the job: PEP 723 metadata in the script, or a `job.yaml`. Flags win over both. Pure.

In a script (the format is https://peps.python.org/pep-0723/; `dependencies` become the job's runtime environment):

    # /// script
    # dependencies = ["numpy>=1.26"]
    # [tool.carbon-sched]
    # duration = "30m"
    # ///
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.errors import InvalidFile, Problem
from carbon_sched.options.given import Given
from carbon_sched.options.request import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SCRIPT_OPTIONS = (*OPTIONS, "installer")
JOB_FILE_OPTIONS = (*OPTIONS, "script", "args", "entrypoint")
INSTALLERS = ("pip", "uv")

_OPEN = re.compile(r"# /// ([A-Za-z0-9-]+)")
_CLOSE = "# ///"
_TOML_PLACE = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(frozen=True)
class Beside:
    """What stood beside the job: `options` by name, and what a script says of its own environment."""

    options: Mapping[str, Given] = field(default_factory=dict)
    dependencies: tuple[str, ...] = ()
    requires_python: str = ""
    installer: str = "pip"


def read_script(text: str, file: str) -> Beside:
    """Options and dependencies in the metadata of a script's `text`; nothing where there is none.

    Raises InvalidFile with the script's own line for metadata that is not TOML, stands twice, or holds unknown options.
    """
    blocks = [block for block in _blocks(text) if block.kind == "script"]
    if not blocks:
        return Beside()
    if len(blocks) > 1:
        raise _wrong(file, blocks[1].line, "# /// script", "stands twice", "Keep one block of metadata")
    block = blocks[0]
    document = _toml(block, file)
    tool = document.get("tool", {})
    table = tool.get("carbon-sched", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        remedy = "Write [tool.carbon-sched] above the options"
        raise _wrong(file, block.line, "tool.carbon-sched", "is not a table", remedy)
    options = {}
    for key, value in table.items():
        name, line = key.replace("_", "-"), block.line_of(key)
        if name not in SCRIPT_OPTIONS:
            raise _unknown(file, line, 1, f"tool.carbon-sched.{key}", name, SCRIPT_OPTIONS)
        options[name] = Given(_plain(value), f"{name} ({file}, line {line})")
    installer = options.pop("installer", Given("pip", "")).value
    if installer not in INSTALLERS:
        raise _wrong(file, block.line_of("installer"), "installer", f"is {installer!r}", "Use pip or uv")
    return Beside(options, _dependencies(document, block, file), _requires(document, block, file), installer)


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The RayJob that a file is; None where it is something else. InvalidFile for what is not YAML."""
    from carbon_sched.policy.document import read_document

    values = read_document(path).values
    return values if isinstance(values, dict) and values.get("kind") == "RayJob" else None


def read_job_file(path: Path) -> Beside:
    """Options of a `job.yaml`; raises InvalidFile with line and column for what is not YAML or not known."""
    from carbon_sched.policy.document import read_document

    document = read_document(path)
    if not isinstance(document.values, dict):
        remedy = "Write options such as `duration: 30m`, one per line"
        raise _wrong(str(path), 1, "the file", "is not a mapping", remedy)
    options = {}
    for key, value in document.values.items():
        place, name = document.place((key,), key=True), key.replace("_", "-")
        if name not in JOB_FILE_OPTIONS:
            raise _unknown(str(path), place.line, place.column, key, name, JOB_FILE_OPTIONS)
        options[name] = Given(value, f"{name} ({path.name}, line {place.line})")
    return Beside(options)


@dataclass(frozen=True)
class _Block:
    """One block of metadata: its kind, its TOML text, and the script's line above its first line."""

    kind: str
    text: str
    line: int

    def line_of(self, key: str) -> int:
        """The script's line on which `key` is set; the block's own where that cannot be told."""
        pattern = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*(?:=|\.)")
        numbers = (number for number, line in enumerate(self.text.split("\n"), self.line + 1) if pattern.match(line))
        return next(numbers, self.line)


def _blocks(text: str) -> Iterator[_Block]:
    """Blocks as PEP 723 defines them: an opening line, comment lines, and the last closing line among them."""
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        opening = _OPEN.fullmatch(lines[number])
        if opening is None:
            number += 1
            continue
        end = number + 1
        while end < len(lines) and (lines[end] == "#" or lines[end].startswith("# ")):
            end += 1
        closing = [at for at in range(number + 1, end) if lines[at] == _CLOSE]
        if not closing:
            number += 1
            continue
        content = (line[2:] for line in lines[number + 1 : closing[-1]])
        yield _Block(opening[1], "\n".join(content), number + 1)
        number = closing[-1] + 1


def _toml(block: _Block, file: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(block.text)
    except tomllib.TOMLDecodeError as error:
        place = _TOML_PLACE.search(str(error))
        line, column = (int(place[1]), int(place[2]) + 2) if place and place[1] else (1, 1)
        problem = _TOML_PLACE.sub("", str(error))
        problem = f"is not TOML: {problem[:1].lower()}{problem[1:]}"
        remedy = 'Write options as `name = "value"`; text needs quotes'
        raise InvalidFile((Problem(file, block.line + line, column, "the metadata", problem, remedy),)) from None


def _dependencies(document: dict[str, Any], block: _Block, file: str) -> tuple[str, ...]:
    value = document.get("dependencies", [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        remedy = 'Write them as dependencies = ["numpy>=1.26"]'
        raise _wrong(file, block.line_of("dependencies"), "dependencies", "is not a list of text", remedy)
    return tuple(value)


def _requires(document: dict[str, Any], block: _Block, file: str) -> str:
    value = document.get("requires-python", "")
    if not isinstance(value, str):
        remedy = 'Write it as requires-python = ">=3.10"'
        raise _wrong(file, block.line_of("requires-python"), "requires-python", "is not text", remedy)
    return value


def _plain(value: Any) -> Any:
    """TOML's own dates and times as text, so that they are read as everywhere else."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if hasattr(value, "isoformat") else value


def _unknown(file: str, line: int, column: int, shown: str, name: str, known: tuple[str, ...]) -> InvalidFile:
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    remedy = f"Did you mean {close[0]}?" if close else f"Known are: {', '.join(known)}"
    return InvalidFile((Problem(file, line, column, shown, "is not an option", remedy),))


def _wrong(file: str, line: int, what: str, problem: str, remedy: str) -> InvalidFile:
    return InvalidFile((Problem(file, line, 1, what, problem, remedy),))
