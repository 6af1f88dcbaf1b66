"""Policy file -> Policy, or every problem in it with file, line, column, field and remedy."""

from __future__ import annotations

import difflib
import hashlib
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import InvalidFile, InvalidInput, Problem
from carbon_sched.policy.document import parse_document, read_document
from carbon_sched.policy.layers import budgets, level
from carbon_sched.policy.matching import Selected
from carbon_sched.policy.model import EVERY_TEAM, Policy
from carbon_sched.policy.problems import validated
from carbon_sched.policy.schema import PolicyForm
from carbon_sched.policy.settings import KEYS, SHARED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from carbon_sched.policy.document import Document
    from carbon_sched.policy.model import Layer, Level

    Find = Callable[[str], Policy]
    """Looks up the policy that a file extends; raises InvalidInput naming those there are."""

MOST_LEVELS = 5


def load_policy(path: Path, find: Find) -> Policy:
    """Read a policy file; raises InvalidFile with every problem found."""
    return _policy(read_document(path), find)


def parse_policy(content: bytes, source: str, find: Find) -> Policy:
    """Read a policy from bytes that came from `source`; raises InvalidFile with every problem found."""
    return _policy(parse_document(content, source), find)


def _policy(document: Document, find: Find) -> Policy:
    form = validated(document, PolicyForm)
    parent = _parent(form, document, find)
    own = level(form, document)
    above = parent.levels if parent else ()
    problems = [*_twice(form, document), *_not_shared(own, form.team, document)]
    if problems := [*problems, *_unknown_locks(own, document), *_loosened(own, above, document)]:
        raise InvalidFile(tuple(sorted(problems, key=lambda p: (p.line, p.column))))
    digest = hashlib.sha256(document.content + (parent.digest.encode() if parent else b"")).hexdigest()
    return Policy(form.name, (*above, own), form.description, form.team or "", digest, document.file, budgets(form))


def _parent(form: PolicyForm, document: Document, find: Find) -> Policy | None:
    """What the file extends; refused where that is itself, unknown, or too long a chain."""
    if form.extends is None:
        return None
    try:
        parent = None if form.extends == form.name else find(form.extends)
    except InvalidInput as error:
        what, remedy = f"is '{form.extends}', which {error.problem}", error.remedy
    else:
        if parent and len(parent.levels) < MOST_LEVELS:
            return parent
        what, remedy = "is the policy itself", "Give this one another name, or name another"
        if parent:
            what, remedy = f"makes more than {MOST_LEVELS} levels", "Merge some of the policies above"
    place = document.place(("extends",))
    raise InvalidFile((Problem(document.file, place.line, place.column, "extends", what, remedy),))


def _twice(form: PolicyForm, document: Document) -> list[Problem]:
    """Budgets of one name."""
    names = [budget.name for budget in form.budgets]
    places = [(name, document.place(("budgets", n, "name"))) for n, name in enumerate(names) if name in names[:n]]
    return [
        Problem(document.file, place.line, place.column, "budgets", f"names '{name}' twice", "Give each its own name")
        for name, place in places
    ]


def _not_shared(own: Level, team: str | None, document: Document) -> list[Problem]:
    """Keys that hold for all jobs alike, set for some of them."""
    top = own.layers[0] if team == EVERY_TEAM else None
    found = []
    for layer, key in [(layer, key) for layer in own.layers if layer is not top for key in sorted(SHARED)]:
        if key in layer.values:
            place, field = document.place(layer.locations[key]), ".".join(map(str, layer.locations[key]))
            what = "is set for some jobs only, but the jobs of a plan are ranked alike"
            remedy = f"Set {key} at the top of the policy for every team (team: '*')"
            found.append(Problem(document.file, place.line, place.column, field, what, remedy))
    return found


# locks -------------------------------------------------------------------------------------------


def _unknown_locks(own: Level, document: Document) -> list[Problem]:
    found = []
    for number, key in enumerate(document.values.get("locked", [])):
        if key in own.locked and key not in KEYS:
            close = difflib.get_close_matches(key, KEYS, n=1)
            remedy = f"Did you mean {close[0]}? Known: {', '.join(KEYS)}" if close else f"Known: {', '.join(KEYS)}"
            place = document.place(("locked", number))
            found.append(Problem(document.file, place.line, place.column, "locked", f"names no key: '{key}'", remedy))
    return found


def _loosened(own: Level, above: tuple[Level, ...], document: Document) -> list[Problem]:
    """Values that would undo what a level above has locked for every job."""
    locked = {key: holder.name for holder in reversed(above) for key in holder.locked}
    if not locked:
        return []
    settings = Policy("", above).settings(Selected())
    found = []
    for layer in own.layers:
        for key in sorted(locked.keys() & layer.values.keys()):
            bound, value = getattr(settings, KEYS[key].attribute), layer.values[key]
            if KEYS[key].tighter(bound, value) != value:
                found.append(_loose(layer, key, locked[key], document))
    return found


def _loose(layer: Layer, key: str, holder: str, document: Document) -> Problem:
    place = document.place(layer.locations[key])
    field = ".".join(map(str, layer.locations[key]))
    what = f"is looser than {holder} allows, which has locked {key}"
    return Problem(document.file, place.line, place.column, field, what, "Tighten it, or leave it out")
