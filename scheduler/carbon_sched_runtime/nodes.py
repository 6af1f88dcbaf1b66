"""`python -m carbon_sched_runtime.nodes ATTEMPT`: has every other node metered where a job has workers.

A helper of the job's wrapper, started on clusters of several nodes only. It attaches to Ray as a driver of its own,
asks the state API where the job has workers, and keeps one zero-resource actor on each such node (`node_meter.py`);
30 s after the last worker left a node its actor ends, because any actor keeps its node from scaling down. It never
touches the job. The wrapper's closed pipe, or the word `end` in it, ends it and all its actors.

The only module of this package that imports Ray, and only here.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
import time
from typing import Any, Callable, Protocol

from carbon_sched_runtime.others import ALONE
from carbon_sched_runtime.run import shield_imports, sink_settings

POLL_S = 5.0
EAGER_S = 1.0  # between the first looks: what a worker uses before its node's first reading may never be known
EAGER_LOOKS = 15
LEAVE_S = 30.0
FINISH_S = 5.0
QUICK_S = 0.2  # between two looks at actors that are being started or ended
STATE_TIMEOUT_S = 10
STATE_LIMIT = 10_000
NAMESPACE = "carbon_sched"
RESTARTS = 3

Report = Callable[..., None]


class Gone(Exception):
    """The actor or its node is no more."""


class Meter(Protocol):
    """One node's metering actor. Answers without waiting; None is "not yet". Raises Gone."""

    def begun(self) -> dict[str, Any] | None:
        """Machine, boot and role, once."""

    def hurry(self) -> None:
        """Have it close a segment now."""

    def finish(self) -> None:
        """Have it close its journal."""

    def finished(self) -> dict[str, Any] | None:
        """Segments and reason, after `finish`."""

    def end(self) -> None:
        """Take the actor away."""


class Cluster(Protocol):
    """What is asked of Ray. Raises OSError when it does not answer."""

    own_node: str

    def alive(self) -> set[str]:
        """Ids of the nodes that live."""

    def busy(self) -> set[str]:
        """Ids of the nodes on which the job has actors or running tasks."""

    def meter(self, node: str) -> Meter:
        """Start the actor on a node."""


class Watch:
    """Keeps a meter on every other node that has workers of the job; plain state, driven by `step` and `finish`."""

    def __init__(self, cluster: Cluster, report: Report) -> None:
        self._cluster, self._report = cluster, report
        self._meters: dict[str, Meter] = {}
        self._seen_s: dict[str, float] = {}
        self._silent: set[str] = set()
        self._leaving: set[str] = set()

    @property
    def unsettled(self) -> bool:
        """Whether an actor is about to begin or to end."""
        return bool(self._silent or self._leaving)

    def step(self, now_s: float) -> None:
        """Look where the job has workers; begin and end meters."""
        alive, busy = self._cluster.alive(), self._cluster.busy()
        for node in sorted((busy & alive) - {self._cluster.own_node}):
            self._seen_s[node] = now_s
            if node not in self._meters:
                self._meters[node] = self._cluster.meter(node)
                self._silent.add(node)
        for node in sorted(self._meters):
            if node not in alive:
                self._lost(node, "the node is gone")
            elif now_s - self._seen_s[node] >= LEAVE_S and node not in self._leaving:
                self._guarded(node, self._leave)
        self.settle()

    def settle(self) -> None:
        """Hear from the actors that are about to begin or to end."""
        for node in sorted(self._silent):
            self._guarded(node, self._begin)
        for node in sorted(self._leaving):
            self._guarded(node, self._close)

    def hurry(self) -> None:
        """A stop signal came to the job."""
        for node in sorted(self._meters):
            self._guarded(node, lambda node: self._meters[node].hurry())

    def finish(self, wait: Callable[[], bool]) -> None:
        """The job ended: close every journal. `wait` pauses for a moment and says whether there is time left."""
        for node in sorted(self._meters.keys() - self._leaving):
            self._guarded(node, self._leave)
        self.settle()
        while self._leaving and wait():
            self.settle()
        for node in sorted(self._leaving):
            self._lost(node, "its meter did not answer in time")

    def _begin(self, node: str) -> None:
        said = self._meters[node].begun()
        if said is not None:
            self._silent.discard(node)
            self._report("node", node_id=node, machine=said["machine"], boot=said["boot"], role=said["role"])
            for fault in said["faults"]:
                self._report("fault", reason=f"node {node[:12]}: {fault}")

    def _leave(self, node: str) -> None:
        self._leaving.add(node)
        self._meters[node].finish()

    def _close(self, node: str) -> None:
        said = self._meters[node].finished()
        if said is None:
            return
        if node in self._silent:
            self._begin(node)  # it began after all: actors answer in order
        fields = {name: said[name] for name in ("segments", "reason", "journal")}
        self._report("node-closed", node_id=node, **fields)
        self._meters[node].end()
        self._forget(node)

    def _guarded(self, node: str, action: Callable[[str], None]) -> None:
        try:
            action(node)
        except Gone as error:
            self._lost(node, str(error))

    def _lost(self, node: str, why: str) -> None:
        """Its actor may be begun again by the next step; what it had not closed is a hole until someone else reads."""
        self._report("fault", reason=f"node {node[:12]}: {why}: the end of its journal is missing")
        self._forget(node)

    def _forget(self, node: str) -> None:
        self._meters.pop(node, None)
        self._seen_s.pop(node, None)
        self._silent.discard(node)
        self._leaving.discard(node)


# Ray -------------------------------------------------------------------------------------------------------------


class RayMeter:
    """A `NodeMeter` actor."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor
        self._begun = actor.begin.remote()
        self._finished: Any = None

    def begun(self) -> dict[str, Any] | None:
        """Its answer to `begin`."""
        return self._answer(self._begun)

    def hurry(self) -> None:
        """Passed on; nothing is waited for."""
        self._actor.hurry.remote()

    def finish(self) -> None:
        """Passed on; `finished` has the answer."""
        self._finished = self._actor.finish.remote()

    def finished(self) -> dict[str, Any] | None:
        """Its answer to `finish`."""
        return self._answer(self._finished)

    def end(self) -> None:
        """For good: it is not restarted."""
        self._ray.kill(self._actor)

    def _answer(self, reference: Any) -> dict[str, Any] | None:
        ready, _ = self._ray.wait([reference], timeout=0)
        if not ready:
            return None
        try:
            answer: dict[str, Any] = self._ray.get(reference)
        except Exception as error:
            raise Gone(f"its meter ended: {type(error).__name__}") from error
        return answer


class RayCluster:
    """The cluster that this process attached to with `ray.init`."""

    def __init__(self, ray: Any, address: str, attempt: str, packages: list[str]) -> None:
        self._ray, self._address, self._attempt = ray, address, attempt
        self._environment = {"py_modules": packages} if packages else None
        self._state = importlib.import_module("ray.util.state")
        self._strategies = importlib.import_module("ray.util.scheduling_strategies")
        self._node_meter = importlib.import_module("carbon_sched_runtime.node_meter").NodeMeter
        self._jobs: set[str] = set()
        self.own_node = str(ray.get_runtime_context().get_node_id())

    def alive(self) -> set[str]:
        """From the control store itself."""
        return {str(node["NodeID"]) for node in self._ray.nodes() if node["Alive"]}

    def busy(self) -> set[str]:
        """By actors alive and tasks running; of the drivers of an entrypoint Ray shows the last, so they are kept."""
        mine = (job for job in self._list("jobs") if job.submission_id == self._attempt and job.job_id)
        self._jobs |= {str(job.job_id) for job in mine}
        found = set()
        for job in sorted(self._jobs):
            for kind, state in (("actors", "ALIVE"), ("tasks", "RUNNING")):
                found |= {str(one.node_id) for one in self._list(kind, job_id=job, state=state) if one.node_id}
        return found | self._replicas()

    def _replicas(self) -> set[str]:
        """Where the replicas of the service are that this attempt meters, if it meters one: they are Serve's actors."""
        service = os.environ.get("CARBON_SCHED_SERVE_APP")
        actors = self._list("actors", state="ALIVE") if service else []
        mine = f"ServeReplica:{service}:"
        return {str(one.node_id) for one in actors if one.node_id and str(one.class_name).startswith(mine)}

    def meter(self, node: str) -> Meter:
        """Without resources, pinned to the node; started again if its process dies."""
        affinity = self._strategies.NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        options: dict[str, Any] = {"num_cpus": 0, "num_gpus": 0, "max_restarts": RESTARTS, "max_concurrency": 4}
        remote = self._ray.remote(self._node_meter).options(
            scheduling_strategy=affinity, runtime_env=self._environment, **options
        )
        return RayMeter(
            self._ray, remote.remote(self._attempt, os.environ.get("CARBON_SCHED_GPUS"), sink_settings(os.environ))
        )

    def _list(self, kind: str, **wanted: str) -> list[Any]:
        filters = [(name, "=", value) for name, value in wanted.items()] or None
        try:
            found: list[Any] = getattr(self._state, f"list_{kind}")(
                address=self._address, filters=filters, limit=STATE_LIMIT, timeout=STATE_TIMEOUT_S,
                raise_on_missing_output=False,
            )  # fmt: skip
        except Exception as error:
            raise OSError(f"Ray's state API does not list {kind}: {type(error).__name__}: {error}"[:300]) from error
        return found


# the process -------------------------------------------------------------------------------------------------------


class Ears:
    """The wrapper's words on standard input: `hurry`, `end`; its end is the end as well."""

    def __init__(self) -> None:
        self.hurried = self.ended = False

    def listen(self, timeout_s: float) -> None:
        """Until something is said, at most this long."""
        ready, _, _ = select.select([0], [], [], timeout_s)
        if ready:
            words = os.read(0, 4096)
            self.hurried |= b"hurry" in words
            self.ended |= b"end" in words or not words


def say(event: str, **fields: Any) -> None:
    """One line to the wrapper."""
    os.write(1, (json.dumps({"event": event, **fields}) + "\n").encode())


def watch(cluster: Cluster, ears: Ears, report: Report) -> None:
    """Until the wrapper says `end`."""
    keeper, complaint, next_look, looks = Watch(cluster, report), "", 0.0, 0
    while not ears.ended:
        if time.monotonic() >= next_look:
            looks += 1
            next_look = time.monotonic() + (EAGER_S if looks < EAGER_LOOKS else POLL_S)
            try:
                keeper.step(time.monotonic())
                complaint = ""
            except OSError as error:
                if str(error) != complaint:
                    complaint = str(error)
                    report("fault", reason=f"workers on other nodes may go unmetered: {complaint}")
        keeper.settle()
        ears.listen(QUICK_S if keeper.unsettled else max(0.0, next_look - time.monotonic()))
        if ears.hurried:
            ears.hurried = False
            keeper.hurry()
    deadline = time.monotonic() + FINISH_S

    def wait() -> bool:
        time.sleep(0.05)
        return time.monotonic() < deadline

    keeper.finish(wait)


def ignore_signals() -> None:
    """Ray's stop of the job reaches this process too; the wrapper says when the job has ended."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)


def main(attempt: str) -> int:
    """Attach, watch, detach; ALONE when there is but one node after all."""
    ignore_signals()
    shield_imports()
    address = os.environ["RAY_ADDRESS"]
    packages = [str(uri) for uri in json.loads(os.environ.get("CARBON_SCHED_PACKAGES", "[]"))]
    try:
        ray = importlib.import_module("ray")
        ray.init(
            address=address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False,
            runtime_env={"py_modules": packages} if packages else None,
        )  # fmt: skip
        ignore_signals()  # again: ray.init made SIGTERM end the process
        if sum(bool(node["Alive"]) for node in ray.nodes()) <= 1:
            return ALONE
        watch(RayCluster(ray, address, attempt, packages), Ears(), say)
    except Exception as error:  # noqa: BLE001 - standard error leads nowhere: the wrapper's record is told
        say("fault", reason=f"other nodes are not metered: {type(error).__name__}: {error}"[:300])
        return 1
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1])
    os._exit(code)
