"""RayJobs as they stand on a Kubernetes cluster: listed once, then watched, and listed again when a watch expires."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from carbon_sched.clusters.kubernetes.api import Expired
from carbon_sched.domain.errors import CarbonSchedError, ClusterUnclear

if TYPE_CHECKING:
    from carbon_sched.clusters.kubernetes.api import KubernetesApi
    from carbon_sched.ports import Clock

    Json = dict[str, Any]

log = logging.getLogger(__name__)

FIRST_LIST_S = 20.0
STALE_S = 30.0
"""After so long without a watch what was seen is no evidence any more."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 15.0


class Mirror:
    """One namespace, or all; a thread follows the server from the first question on, until `close`."""

    def __init__(self, api: KubernetesApi, namespace: str, selector: str, clock: Clock) -> None:
        self._api, self._namespace, self._selector, self._clock = api, namespace, selector, clock
        self._lock = threading.Lock()
        self._objects: dict[str, Json] = {}
        self._listed, self._closed = threading.Event(), threading.Event()
        self._broken_since: float | None = None
        self._problem = "the first list has not come yet"
        self._thread: threading.Thread | None = None

    def all(self) -> list[Json]:
        """Every RayJob as last seen; ClusterUnclear where that is too long ago to be evidence."""
        self._start()
        broken = self._broken_since
        stale = broken is not None and self._clock.monotonic() - broken > STALE_S
        if stale or not self._listed.wait(FIRST_LIST_S):
            raise ClusterUnclear(f"cluster {self._api.endpoint.name!r}: its RayJobs are not known now: {self._problem}")
        with self._lock:
            return list(self._objects.values())

    def keep(self, written: Json) -> None:
        """Take in what the server just answered to a write, before the watch tells it."""
        with self._lock:
            uid = written["metadata"]["uid"]
            known = self._objects.get(uid)
            if known is None or _version(known) < _version(written):
                self._objects[uid] = written

    def close(self) -> None:
        """Stop following; the thread ends with its present watch."""
        self._closed.set()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                name = f"kubernetes {self._api.endpoint.name} {self._namespace}".strip()
                self._thread = threading.Thread(target=self._follow, name=name, daemon=True)
                self._thread.start()

    def _follow(self) -> None:
        since, wait_s = "", FIRST_WAIT_S
        while not self._closed.is_set():
            try:
                since = since or self._list()
                since, wait_s = self._watch(since), FIRST_WAIT_S
            except Expired as error:
                log.info("watch expired, listing anew cluster=%s: %s", self._api.endpoint.name, error)
                since = ""
            except CarbonSchedError as error:
                self._break(str(error))
                self._closed.wait(wait_s)
                since, wait_s = "", min(LONGEST_WAIT_S, 2 * wait_s)
            except Exception as error:
                log.exception("watch met a bug cluster=%s", self._api.endpoint.name)
                self._break(f"a bug ({type(error).__name__})")
                self._closed.wait(LONGEST_WAIT_S)
                since = ""

    def _list(self) -> str:
        found, version = self._api.rayjobs(self._namespace, self._selector)
        with self._lock:
            newer = {uid: one for uid, one in self._objects.items() if _version(one) > int(version)}
            self._objects = {one["metadata"]["uid"]: one for one in found} | newer
        self._broken_since = None
        self._listed.set()
        return version

    def _watch(self, since: str) -> str:
        """Take in changes until the server ends the watch; returns the version to go on from."""
        for kind, changed in self._api.watch_rayjobs(self._namespace, self._selector, since):
            self._broken_since = None
            since = changed["metadata"]["resourceVersion"]
            if kind in ("ADDED", "MODIFIED"):
                self.keep(changed)
            elif kind == "DELETED":
                with self._lock:
                    self._objects.pop(changed["metadata"]["uid"], None)
            if self._closed.is_set():
                break
        return since

    def _break(self, problem: str) -> None:
        self._problem = problem
        if self._broken_since is None:
            self._broken_since = self._clock.monotonic()
            log.warning("RayJobs are not followed cluster=%s: %s", self._api.endpoint.name, problem)


def _version(one: Json) -> int:
    """Versions of one kind of object on one server grow."""
    return int(one["metadata"]["resourceVersion"])
