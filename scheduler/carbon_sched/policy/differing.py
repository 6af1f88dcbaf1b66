"""What differs between two policies for the jobs that follow them, phase by phase."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.job import Phase
from carbon_sched.policy.matching import Selected
from carbon_sched.policy.settings import KEYS
from carbon_sched.policy.written import written

if TYPE_CHECKING:
    from carbon_sched.policy.model import Policy


@dataclass(frozen=True)
class Difference:
    """One setting that is `before` under the one policy and `after` under the other, for jobs of these phases."""

    key: str
    phases: tuple[str, ...]
    before: Any
    after: Any


def differing(before: Policy, after: Policy) -> list[Difference]:
    """Every setting that differs for a job without team, model or labels; rules that ask for more are not seen."""
    found: dict[tuple[str, str], Difference] = {}
    for phase in Phase:
        one, other = (policy.settings(Selected(phase=phase.value)) for policy in (before, after))
        for key, of in KEYS.items():
            was, becomes = (written(key, getattr(settings, of.attribute)) for settings in (one, other))
            if was != becomes:
                known = found.get((key, repr((was, becomes))))
                phases = (*(known.phases if known else ()), phase.value)
                found[key, repr((was, becomes))] = Difference(key, phases, was, becomes)
    return sorted(found.values(), key=lambda one: (list(KEYS).index(one.key), one.phases))
