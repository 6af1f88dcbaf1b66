"""The policies in force, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from carbon_sched.policy.model import Policy


class Policies:
    """Looks a policy up by name, once; `find` raises InvalidInput for a name that is not known."""

    def __init__(self, find: Callable[[str], Policy]) -> None:
        self._find = find
        self._known: dict[str, Policy] = {}

    def get(self, name: str) -> Policy:
        """The policy, or InvalidInput naming those there are."""
        if name not in self._known:
            self._known[name] = self._find(name)
        return self._known[name]
