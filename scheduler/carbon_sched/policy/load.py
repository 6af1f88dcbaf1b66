"""Policy file -> Policy, or every problem in it with file, line, column, field and remedy."""

from __future__ import annotations

import difflib
import hashlib
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from carbon_sched.domain.errors import InvalidFile, Problem
from carbon_sched.policy.document import Document, Location, parse_document, read_document
from carbon_sched.policy.schema import PolicyForm

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic_core import ErrorDetails

    from carbon_sched.policy.model import Policy


def load_policy(path: Path) -> Policy:
    """Read a policy file; raises InvalidFile with every problem found."""
    return _policy(read_document(path))


def parse_policy(content: bytes, source: str) -> Policy:
    """Read a policy from bytes that came from `source`; raises InvalidFile with every problem found."""
    return _policy(parse_document(content, source))


def _policy(document: Document) -> Policy:
    try:
        form = PolicyForm.model_validate(document.values)
    except ValidationError as error:
        problems = [_problem(details, document) for details in error.errors(include_url=False)]
        raise InvalidFile(tuple(sorted(problems, key=lambda p: (p.line, p.column)))) from None
    return form.policy(digest=hashlib.sha256(document.content).hexdigest(), source=document.file)


def _problem(details: ErrorDetails, document: Document) -> Problem:
    location = details["loc"]
    unknown = details["type"] == "extra_forbidden"
    place = document.place(location, key=unknown)
    field = ".".join(map(str, location)) or "the file"
    remedy = _known_keys(location) if unknown else _description(location)
    return Problem(document.file, place.line, place.column, field, _what(details), remedy)


def _what(details: ErrorDetails) -> str:
    """What is wrong, with the value as it was read."""
    kind = details["type"]
    if kind == "extra_forbidden":
        return "is not a known key"
    if kind == "missing":
        return "is missing"
    if kind in {"model_type", "model_attributes_type"}:
        return f"is {_shown(details['input'])}, not a mapping"
    message = details["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"is {_shown(details['input'])}: {message}"


def _shown(value: Any) -> str:
    """A value as a person would recognise it, at most 40 characters."""
    if value is None:
        return "empty"
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _known_keys(location: Location) -> str:
    """Name the keys that may stand there, the likely meant one first."""
    form = _form(location[:-1])
    known = [_key(form, name) for name in form.model_fields]
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    meant = f"Did you mean {close[0]}? " if close else ""
    return f"{meant}Known here: {', '.join(known)}"


def _description(location: Location) -> str:
    """What the schema says to write there."""
    if not location:
        return f"Begin with the keys {', '.join(_key(PolicyForm, name) for name in PolicyForm.model_fields)}"
    form = _form(location[:-1])
    for name, field in form.model_fields.items():
        if _key(form, name) == location[-1] and field.description:
            return field.description.rstrip(".")
    return _description(location[:-1])


def _form(location: Location) -> type[BaseModel]:
    """The schema class of the mapping at `location`."""
    form: type[BaseModel] = PolicyForm
    for step in location:
        annotations = {_key(form, name): field.annotation for name, field in form.model_fields.items()}
        form = _inner(annotations.get(str(step))) or form
    return form


def _inner(annotation: Any) -> type[BaseModel] | None:
    """The schema class in an annotation such as `PatienceForm | None`."""
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _key(form: type[BaseModel], name: str) -> str:
    """A field's name as it stands in the file."""
    return form.model_fields[name].alias or name
