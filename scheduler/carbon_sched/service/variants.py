"""Which of a job's variants may serve: the offer that travels with an attempt, with what the ledger knows of them.

The choice falls on the cluster (carbon_sched_runtime/variants.py), where a variant can be tried.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from carbon_sched.ledger.measured import measured
from carbon_sched_runtime.variants import MARK, VARIANTS, command, mark_name

if TYPE_CHECKING:
    from carbon_sched.domain.job import Attempt, JobSpec
    from carbon_sched.service.policies import Policies
    from carbon_sched.service.statements import Statements

LEAST_GAIN = 0.02
"""A variant must save this share of energy at least, whatever the policy asks of other moves: less is noise."""


class Offers:
    """Writes offers, by the policy in force and the ledger as it stands."""

    def __init__(self, policies: Policies, statements: Statements) -> None:
        self._policies, self._statements = policies, statements

    def environment(self, spec: JobSpec, attempt: Attempt) -> dict[str, str]:
        """The variable that tells an attempt of its variants; none for a job without any."""
        if spec.variants is None:
            return {}
        variants, settings = spec.variants, self._policies.now().settings(spec)
        keys = {name: _key(spec, name, text) for name, text in variants.arguments}
        known = self._statements.of(
            self._statements.jobs(lambda job: (job.name, job.team) == (spec.name, spec.team)),
            partial(
                measured, job=spec.name, team=spec.team, cluster=attempt.cluster, variants=variants, keys=keys,
            ),
        )  # fmt: skip
        told = {
            "arguments": dict(variants.arguments),
            "metric": variants.floor.metric,
            "floor": variants.floor.value,
            "at_least": variants.floor.at_least,
            "item": variants.item,
            "slice": variants.slice,
            "choose": settings.variants.value,
            "least_gain": max(LEAST_GAIN, settings.minimum_gain),
            "known": {name: asdict(one) for name, one in known.items()},
        }
        return {VARIANTS: json.dumps(told)}


def _key(spec: JobSpec, name: str, arguments: str) -> str:
    return mark_name(name, command(spec.entrypoint, arguments)).removeprefix(MARK)
