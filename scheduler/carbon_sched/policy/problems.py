"""What is wrong in a file that does not have its form: every problem with line, column, field and remedy."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from carbon_sched.domain.errors import InvalidFile, Problem

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from carbon_sched.policy.document import Document, Location

Form = TypeVar("Form", bound=BaseModel)

MOST_PROBLEMS = 300
"""Nobody mends more at once, and each costs the search for the likely meant key."""


def validated(document: Document, root: type[Form]) -> Form:
    """A file's values in the form `root`; raises InvalidFile with every problem found, in the file's order."""
    try:
        return root.model_validate(document.values)
    except ValidationError as error:
        found = error.errors(include_url=False)[:MOST_PROBLEMS]
        problems = [_problem(details, document, root) for details in found]
        raise InvalidFile(tuple(sorted(problems, key=lambda p: (p.line, p.column)))) from None


def _problem(details: ErrorDetails, document: Document, root: type[BaseModel]) -> Problem:
    location = details["loc"]
    unknown = details["type"] == "extra_forbidden"
    place = document.place(location, key=unknown)
    field = ".".join(map(str, location)) or "the file"
    remedy = _known_keys(location, root) if unknown else _description(location, root)
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


def _known_keys(location: Location, root: type[BaseModel]) -> str:
    """Name the keys that may stand there, the likely meant one first."""
    form = _form(location[:-1], root)
    known = [_key(form, name) for name in form.model_fields]
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    meant = f"Did you mean {close[0]}? " if close else ""
    return f"{meant}Known here: {', '.join(known)}"


def _description(location: Location, root: type[BaseModel]) -> str:
    """What the schema says to write there."""
    if not location:
        required = [_key(root, name) for name, field in root.model_fields.items() if field.is_required()]
        return f"Begin with {' and '.join(required)}"
    form = _form(location[:-1], root)
    for name, field in form.model_fields.items():
        if _key(form, name) == location[-1] and field.description:
            return field.description.rstrip(".")
    return _description(location[:-1], root)


def _form(location: Location, root: type[BaseModel]) -> type[BaseModel]:
    """The schema class of the mapping at `location`; items of lists have the class of the list."""
    form = root
    for step in location:
        annotations = {_key(form, name): field.annotation for name, field in form.model_fields.items()}
        form = _inner(annotations.get(str(step))) or form
    return form


def _inner(annotation: Any) -> type[BaseModel] | None:
    """The schema class in an annotation such as `SettingsForm | None` or `list[RuleForm]`."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _key(form: type[BaseModel], name: str) -> str:
    """A field's name as it stands in the file."""
    return form.model_fields[name].alias or name
