"""YAML text -> plain values together with the place of each, so that every error can name its line.

A narrow YAML on purpose: one document, YAML 1.2's scalars (`on`, `no` and `18:00` are text), unique text keys, no
aliases and no tags, bounded in size and depth. What is left out is what makes files ambiguous or unbounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from carbon_sched.domain.errors import InvalidFile, Problem

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 64 * 1024
"""Room for hundreds of rules; a larger file is refused before it is parsed."""
MAX_DEPTH = 16

Location = tuple[str | int, ...]


@dataclass(frozen=True)
class Place:
    """A line and column of a file, both counted from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Document:
    """A parsed file: its values, and the place of every key and value by location (`("signal", "on_missing")`)."""

    file: str
    content: bytes
    values: Any
    keys: dict[Location, Place]
    places: dict[Location, Place]

    def place(self, location: Location, *, key: bool = False) -> Place:
        """The place of a value (of its key with `key`), or of the nearest thing around it that stands in the file."""
        table = self.keys if key else self.places
        while location and location not in table:
            location, table = location[:-1], self.places
        return table.get(location, Place(1, 1))


class _Loader(yaml.SafeLoader):
    """The events of PyYAML, composed with our limits; recursion is bounded before it happens."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own shape
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it out
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise _Refused(mark, f"*{event.anchor}", "is an alias", "Write the value again in its place")
        if getattr(event, "tag", None):
            raise _Refused(mark, event.tag, "is a tag", "Remove it: values are plain")
        if self.depth >= MAX_DEPTH:
            raise _Refused(mark, "a value", f"is nested deeper than {MAX_DEPTH} levels", "Flatten it")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Refused(Exception):
    """A place in the file that cannot be used; becomes an InvalidFile once the file's name is known."""

    def __init__(self, mark: yaml.Mark | Place, what: str, problem: str, remedy: str) -> None:
        self.place = mark if isinstance(mark, Place) else Place(mark.line + 1, mark.column + 1)
        self.what, self.problem, self.remedy = what, problem, remedy
        super().__init__(problem)


# YAML 1.2's core schema (https://yaml.org/spec/1.2.2/, section 10.3.2), without octal and hexadecimal numbers.
_SCALARS: tuple[tuple[str, str, str], ...] = (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
)
for _name, _pattern, _first in _SCALARS:
    _characters = [*_first, ""] if _name == "null" else [*_first]
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"^(?:{_pattern})$"), _characters)


def read_document(path: Path) -> Document:
    """Read and parse a file; raises InvalidFile, also when it is missing, unreadable or too large."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidFile(
            (Problem(str(path), 0, 0, "", f"cannot be read: {error.strerror}", "Check its path"),)
        ) from None
    return parse_document(content, str(path))


def parse_document(content: bytes, file: str) -> Document:
    """Parse bytes that came from `file`; raises InvalidFile for anything that is not one plain YAML document."""
    try:
        root = _compose(content)
        document = Document(file, content, None, {}, {})
        return Document(file, content, _value(root, (), document), document.keys, document.places)
    except _Refused as refused:
        place, field = refused.place, refused.what
        raise InvalidFile((Problem(file, place.line, place.column, field, refused.problem, refused.remedy),)) from None


def _compose(content: bytes) -> yaml.Node:
    if len(content) > MAX_BYTES:
        raise _Refused(Place(1, 1), "the file", f"is larger than {MAX_BYTES // 1024} KiB", "Split it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _Refused(Place(line, 1), f"byte {error.start}", "is not UTF-8", "Save the file as UTF-8") from None
    try:
        root = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        raise _refused_by_yaml(error) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        shown = f"character U+{ord(text[error.position]):04X}"
        raise _Refused(Place(line, 1), shown, "is not allowed in YAML", "Remove it") from None
    if root is None:
        raise _Refused(Place(1, 1), "the file", "is empty", "Begin with `apiVersion:`")
    return root


def _refused_by_yaml(error: yaml.MarkedYAMLError) -> _Refused:
    mark = error.problem_mark or error.context_mark or Place(1, 1)
    problem = error.problem or "is not YAML"
    if isinstance(error, yaml.composer.ComposerError) and "another document" in problem:
        return _Refused(mark, "---", "starts a second document", "Keep one document per file")
    if "\\t" in problem:
        return _Refused(mark, "a tab", "is used for indentation", "Indent with spaces")
    context = f" ({error.context})" if error.context else ""
    return _Refused(mark, "the file", f"is not YAML: {problem}{context}", "Check quotes, colons and indentation here")


def _value(node: yaml.Node, location: Location, document: Document) -> Any:
    """Turn a node into plain values, noting where each stood."""
    document.places[location] = Place(node.start_mark.line + 1, node.start_mark.column + 1)
    if isinstance(node, yaml.MappingNode):
        return {key: _value(value, (*location, key), document) for key, value in _pairs(node, location, document)}
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*location, index), document) for index, item in enumerate(node.value)]
    return _scalar(node)


def _pairs(node: yaml.MappingNode, location: Location, document: Document) -> list[tuple[str, yaml.Node]]:
    pairs = []
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or not isinstance(_scalar(key), str):
            shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            raise _Refused(key.start_mark, shown[:40], "is used as a key and is not text", "Quote it")
        at = (*location, key.value)
        if at in document.keys:
            first = document.keys[at].line
            raise _Refused(key.start_mark, _dotted(at), f"is given twice, first in line {first}", "Keep one of them")
        document.keys[at] = Place(key.start_mark.line + 1, key.start_mark.column + 1)
        pairs.append((key.value, value))
    return pairs


def _scalar(node: yaml.Node) -> str | int | float | bool | None:
    kind = node.tag.rsplit(":", 1)[-1]
    if kind == "null":
        return None
    if kind == "bool":
        return str(node.value).lower() == "true"
    if kind in {"int", "float"}:
        return _number(node, int if kind == "int" else float)
    return str(node.value)


def _number(node: yaml.Node, kind: type[int | float]) -> int | float:
    if len(node.value) > 30:  # longer than any quantity; Python refuses to read 4,300 digits
        raise _Refused(node.start_mark, f"{node.value[:12]}...", "has too many digits", "Shorten it")
    return kind(node.value)


def _dotted(location: Location) -> str:
    return ".".join(map(str, location))
