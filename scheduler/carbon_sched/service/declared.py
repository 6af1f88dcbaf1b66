"""Clusters and policies that stand in files, as a chart or a repository keeps them: followed while the server runs.

`clusters.yaml` maps a cluster's name to what PUT /v1/clusters/{name} takes; the policies are the `*.yaml` files of a
folder. They are read at the start and whenever one of them changes. What a file says is put in force as if an operator
had said it, so it is checked, versioned and told to the ledger in the same way; a file that cannot be used changes
nothing, and is named in the log until it is mended. What is taken out of the files stays in force until somebody
removes it by command: jobs may still be there.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from carbon_sched.domain.errors import CarbonSchedError, InvalidFile, InvalidInput, Problem, Unchanged
from carbon_sched.policy.document import read_document
from carbon_sched.service.registration import cluster_of
from carbon_sched.wire import ClusterRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.service.fleet import Fleet
    from carbon_sched.service.policies import Policies
    from carbon_sched.service.signals import Signals

log = logging.getLogger(__name__)

LOOK_S = 2.0
BY = "configuration"
_CLUSTERS = TypeAdapter(dict[str, ClusterRequest])


class Declared:
    """Puts the files in force. `problems` are those of the last look, by file; the leader's `step` looks."""

    def __init__(
        self,
        clusters: Path | None,
        policies: Path | None,
        *,
        fleet: Fleet,
        in_force: Policies,
        known_zone: Callable[[str], str],
        signals: Signals,
    ) -> None:
        self._clusters, self._policies = clusters, policies
        self._fleet, self._in_force, self._known_zone, self._signals = fleet, in_force, known_zone, signals
        self._seen: dict[Path, str] = {}
        self.problems: dict[Path, str] = {}

    def step(self) -> float:
        """Put in force what changed since the last look; returns the seconds until the next."""
        if self._clusters is not None and (changed := self._changed([self._clusters])):
            self._each(changed, self._register)
        if self._policies is not None and (changed := self._changed(sorted(self._policies.glob("*.yaml")))):
            self._apply(changed)
        return LOOK_S

    def _changed(self, files: list[Path]) -> list[Path]:
        """Those whose bytes are others than at the last look; one that cannot be read is a problem of its own."""
        found = []
        for file in files:
            try:
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
            except OSError as error:
                digest = f"unreadable: {error.strerror}"
            if self._seen.get(file) != digest:
                self._seen[file] = digest
                found.append(file)
        return found

    def _each(self, files: list[Path], use: Callable[[Path], None]) -> list[Path]:
        """Use every file; returns those that could not be, and notes why."""
        failed = []
        for file in files:
            try:
                use(file)
            except CarbonSchedError as error:
                failed.append(file)
                self.problems[file] = str(error)
            else:
                self.problems.pop(file, None)
        for file in failed:
            log.error("declared file not used file=%s: %s", file, self.problems[file])
        return failed

    # clusters ----------------------------------------------------------------------------------------------------

    def _register(self, file: Path) -> None:
        """All of a file's clusters, or none where one of them is wrong."""
        there = {cluster.name: cluster for cluster in self._fleet.all()}
        for cluster in clusters_of(file, self._known_zone):
            before = there.get(cluster.name)
            wanted = replace(cluster, cordoned=before.cordoned) if before else cluster
            if wanted != before:
                self._fleet.put(wanted)
                log.info("declared cluster registered cluster=%s", cluster.name)

    # policies ----------------------------------------------------------------------------------------------------

    def _apply(self, files: list[Path]) -> None:
        """Each file once; those that extend a policy of a file further on come again after it."""
        waiting = files
        while waiting:
            failed = self._each(waiting, self._apply_one)
            if len(failed) == len(waiting):
                break
            waiting = failed

    def _apply_one(self, file: Path) -> None:
        content = read_document(file).content.decode("utf-8")
        try:
            version = self._in_force.apply(content, by=BY, reason=f"from {file.name}")
        except Unchanged:
            return
        log.info("declared policy applied policy=%s version=%d", version.name, version.version)
        self._signals.decide.set()


def clusters_of(file: Path, known_zone: Callable[[str], str]) -> list[Cluster]:
    """The clusters that a file declares; InvalidFile or InvalidInput naming file, place, field and remedy."""
    document = read_document(file)
    try:
        requests = _CLUSTERS.validate_python(document.values)
    except ValidationError as error:
        problems = []
        for one in error.errors(include_url=False):
            place = document.place(one["loc"], key=one["type"] == "extra_forbidden")
            what = "is not a known key" if one["type"] == "extra_forbidden" else f"is wrong: {one['msg']}"
            known = ", ".join(ClusterRequest.__annotations__)
            field, remedy = ".".join(map(str, one["loc"])) or "the file", f"A cluster's name, then any of: {known}"
            problems.append(Problem(str(file), place.line, place.column, field, what, remedy))
        raise InvalidFile(tuple(problems)) from None
    found = []
    for name, request in requests.items():
        try:
            found.append(cluster_of(name, request, known_zone))
        except InvalidInput as error:
            place, field = document.place((name, error.field)), f"{name}.{error.field}"
            what = f"is {error.value!r}, which {error.problem}"
            raise InvalidFile((Problem(str(file), place.line, place.column, field, what, error.remedy),)) from None
    for name in [cluster.name for cluster in found if cluster.home][1:]:
        place, remedy = document.place((name, "home")), "Leave it true for one cluster"
        raise InvalidFile((Problem(str(file), place.line, place.column, f"{name}.home", "is the second home", remedy),))
    return found
