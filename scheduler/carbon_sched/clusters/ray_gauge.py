"""Ray's own power gauge: what its dashboard says of the GPUs of every node, and which submissions hold them.

`GET /nodes?view=summary` shows power since early 2026 (`powerMw`, refreshed every 5 s) and the GPU slots of each worker
(every 15 s). Both are internal to Ray; what an answer lacks is said to be unknown, never guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from carbon_sched.clusters import ray_answers
from carbon_sched.ports import GpuPower

if TYPE_CHECKING:
    from collections.abc import Iterable

    from carbon_sched.clusters.ray_http import RayHttp

SUPERVISOR = "_ray_internal_job_actor_"
"""With a submission's id: the name of the actor that runs its entrypoint, and holds the GPUs asked for it."""


def gpu_power(http: RayHttp) -> list[GpuPower]:
    """Every GPU of every node that Ray shows; ClusterError when it gives no clear answer."""
    nodes = http.read(ray_answers.HardwareSummary, "/nodes", view="summary").data.summary
    if not any(node.gpus for node in nodes):
        return []
    workers = [worker for node in nodes for worker in node.raylet.workers if worker.slots()]
    submissions = _by_job(http) if workers else {}
    if any(worker.job_id not in submissions for worker in workers):
        submissions |= _by_supervisor(http)
    answer = http.read(ray_answers.Nodes, "/api/v0/nodes", detail="1", limit="10000").data.result.result
    counts = {node.node_id: (node.resources_total or {}).get("GPU", 0.0) for node in answer}
    return [gpu for node in nodes for gpu in _of_node(node, counts, submissions)]


def _of_node(
    node: ray_answers.NodeSummary, counts: dict[str, float], submissions: dict[str, str]
) -> Iterable[GpuPower]:
    """A slot is an index into the GPUs the raylet may use: it names a device only where those are all of the node's."""
    held: dict[int, dict[str, int]] = {}
    for worker in node.raylet.workers:
        who = submissions.get(worker.job_id) or submissions.get(worker.actor_id, "")
        for slot, part in worker.slots().items() if who else ():
            mine = held.setdefault(slot, {})
            mine[who] = mine.get(who, 0) + part
    told = counts.get(node.raylet.node_id) == len(node.gpus)
    for gpu in node.gpus:
        holders = held.get(gpu.index, {}) if told else {}
        yield GpuPower(node.raylet.node_id, gpu.uuid, gpu.power_mw, holders)


def _by_job(http: RayHttp) -> dict[str, str]:
    """Submissions by the Ray job of their driver."""
    answer = http.ask_well("/api/jobs/")
    try:
        jobs = ray_answers.JOB_LIST.validate_json(answer.body)
    except ValidationError as error:
        raise http.not_ray(answer, "/api/jobs/", error) from None
    return {job.job_id: job.submission_id for job in jobs if job.job_id and job.submission_id}


def _by_supervisor(http: RayHttp) -> dict[str, str]:
    """Submissions by the actor that runs their entrypoint."""
    only = {"filter_keys": "class_name", "filter_predicates": "=", "filter_values": "JobSupervisor"}
    actors = http.read(ray_answers.Actors, "/api/v0/actors", detail="1", limit="10000", **only).data.result.result
    return {a.actor_id: a.name.removeprefix(SUPERVISOR) for a in actors if a.name and a.name.startswith(SUPERVISOR)}
