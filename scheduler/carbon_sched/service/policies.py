"""The policies in force: which one a job follows, and applying, restoring and explaining them.

What was applied stands above a preset of the same name. A job that names no policy follows its team's, else the one for
every team (`team: "*"`), else the default preset.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import Conflict, InvalidInput, NotFound, Unchanged
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.intensity import Ranking
from carbon_sched.domain.policy_version import PolicyVersion
from carbon_sched.policy.load import parse_policy
from carbon_sched.policy.matching import Selected
from carbon_sched.policy.model import EVERY_TEAM, Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from carbon_sched.domain.job import JobSpec
    from carbon_sched.domain.policy_version import Trial
    from carbon_sched.policy.budget import Budget
    from carbon_sched.policy.settings import Settings
    from carbon_sched.ports import Clock, Store, Transaction

DEFAULT = "balanced"


@dataclass(frozen=True, eq=False)
class PolicySet:
    """Every policy that can be followed at one moment; `version` is the last one applied.

    `applied` are those that were applied, by name, `budgets` the quotas of all of them, `teams` whose policy is whose;
    `preset` finds a shipped one, InvalidInput naming those there are.
    """

    version: int
    applied: dict[str, Policy]
    preset: Callable[[str], Policy]
    teams: dict[str, str]
    budgets: tuple[Budget, ...] = ()

    def get(self, name: str) -> Policy:
        """By name; raises InvalidInput for one that is not known."""
        if name in self.applied:
            return self.applied[name]
        try:
            return self.preset(name)
        except InvalidInput as error:
            own = f"; applied here: {', '.join(sorted(self.applied))}" if self.applied else ""
            raise InvalidInput("policy", name, "is not a known policy", error.remedy + own) from None

    def followed(self, spec: JobSpec) -> Policy:
        """The policy of a job."""
        return self.get(spec.policy or self.teams.get(spec.team) or self.teams.get(EVERY_TEAM) or DEFAULT)

    @property
    def ranking(self) -> Ranking:
        """What all jobs are ranked by, as the policy for every team says."""
        settings = self.get(self.teams.get(EVERY_TEAM) or DEFAULT).settings(Selected())
        return Ranking(settings.ranked_signal, settings.ranked_basis)

    def settings(self, spec: JobSpec) -> Settings:
        """What that policy means for the job."""
        return self.followed(spec).settings(Selected.of(spec))


class Policies:
    """Reads, applies and restores policies; what another replica applied is seen at the next reading."""

    def __init__(self, store: Store, preset: Callable[[str], Policy], clock: Clock) -> None:
        self._store, self._preset, self._clock = store, preset, clock
        self._seen = PolicySet(-1, {}, preset, {})

    def in_force(self, tx: Transaction) -> PolicySet:
        """The policies as they are in this transaction."""
        if tx.last_policy_version() != self._seen.version:
            versions = tx.policies_in_force()
            self._seen = policy_set(versions, tx.last_policy_version(), self._preset)
        return self._seen

    def now(self) -> PolicySet:
        """The policies in force."""
        with self._store.transaction(write=False) as tx:
            return self.in_force(tx)

    def check(self, content: str) -> Policy:
        """What `apply` would put in force, with its errors, and nothing stored."""
        with self._store.transaction(write=False) as tx:
            name, known = self._with(tx, content)
            return known.applied[name]

    def compared(self, content: str) -> tuple[PolicySet, PolicySet]:
        """The policies in force, and as they would be with this file."""
        with self._store.transaction(write=False) as tx:
            return self.in_force(tx), self._with(tx, content)[1]

    def apply(
        self, content: str, *, by: str, reason: str = "", after: int | None = None, trial: Trial | None = None
    ) -> PolicyVersion:
        """Put a file in force as a new version, with a fact of it that holds the trial it passed.

        Raises InvalidFile for a file that cannot be used, also by a policy that extends it, and Conflict when its team
        has another policy, when nothing would change, when `after` is no longer the last version, or when the trial
        found it worse.
        """
        if trial is not None and trial.worse:
            raise Conflict(f"nothing was applied: the backtest is worse than the margin allows, {trial.told}")
        with self._store.transaction() as tx:
            after = trial.after_version if after is None and trial is not None else after
            return self._put(tx, content, by=by, reason=reason, after=after, trial=trial)

    def roll_back(self, name: str, *, to: int | None, by: str, reason: str = "") -> PolicyVersion:
        """Put an earlier version of a policy in force again, by default the one before the present one."""
        with self._store.transaction() as tx:
            versions = tx.policy_versions(name)
            if not versions:
                raise NotFound(f"no policy {name!r} was ever applied. `carbon-sched policy list` shows those there are")
            earlier = [
                v for v in versions[1:] if (v.version == to if to is not None else v.content != versions[0].content)
            ]
            if not earlier:
                known = ", ".join(str(v.version) for v in versions)
                raise Conflict(f"policy {name} has no earlier version to go back to (versions: {known})")
            return self._put(tx, earlier[0].content, by=by, reason=reason, restored=earlier[0].version)

    def _put(
        self,
        tx: Transaction,
        content: str,
        *,
        by: str,
        reason: str,
        after: int | None = None,
        restored: int | None = None,
        trial: Trial | None = None,
    ) -> PolicyVersion:
        name, known = self._with(tx, content)
        policy, at = known.applied[name], self._clock.now()
        added = tx.add_policy(policy.name, content, at=at, by=by, reason=reason, restored=restored, after=after)
        body = {
            "name": policy.name,
            "version": added.version,
            "label": policy.label,
            "sha256": hashlib.sha256(content.encode()).hexdigest(),
            "by": tx.pseudonym(by),
            "reason": reason,
            "restored": restored,
            **({"backtest": trial.body()} if trial else {}),
        }
        tx.append_fact(Fact(FactKind.POLICY_APPLIED, at, body))
        return added

    def _with(self, tx: Transaction, content: str) -> tuple[str, PolicySet]:
        """The name of a file's policy, and the policies in force as they would be with it."""
        before = tx.policies_in_force()
        name = parse_policy(content.encode(), "the file", policy_set(before, 0, self._preset).get).name
        if any(version.name == name and version.content == content for version in before):
            raise Unchanged(f"policy {name} is in force just so; nothing was applied")
        new = PolicyVersion(0, name, content, self._clock.now(), "")
        others = [version for version in before if version.name != name]
        return name, policy_set([*others, new], 0, self._preset)


def policy_set(versions: list[PolicyVersion], last: int, preset: Callable[[str], Policy]) -> PolicySet:
    """Parse the newest version of each name; raises InvalidFile or Conflict where they do not fit together."""
    texts = {version.name: version for version in versions}
    parsed: dict[str, Policy] = {}

    def find(name: str, above: tuple[str, ...] = ()) -> Policy:
        if name in above:
            raise InvalidInput("extends", name, "extends itself through others", "Break the circle")
        if name in texts and name not in parsed:
            version = texts[name]
            source = f"{name}@{version.version}" if version.version else name
            parsed[name] = parse_policy(version.content.encode(), source, lambda up: find(up, (*above, name)))
        return parsed.get(name) or preset(name)

    for name in texts:
        find(name)
    return together(list(parsed.values()), preset, last)


def together(policies: Sequence[Policy], preset: Callable[[str], Policy], last: int = 0) -> PolicySet:
    """Policies in force side by side; raises Conflict where two are for one team."""
    named = {policy.name: policy for policy in policies}
    budgets = tuple(budget for name in sorted(named) for budget in named[name].budgets)
    return PolicySet(last, named, preset, _teams(named), budgets)


def _teams(policies: dict[str, Policy]) -> dict[str, str]:
    teams: dict[str, str] = {}
    for policy in policies.values():
        if policy.team and policy.team in teams:
            both = f"{teams[policy.team]} and {policy.name}"
            raise Conflict(f"{both} are both for team {policy.team!r}. Leave `team` out of one, or merge them")
        if policy.team:
            teams[policy.team] = policy.name
    return teams
