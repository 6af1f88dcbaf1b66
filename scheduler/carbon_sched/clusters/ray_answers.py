"""The shapes of Ray's answers that we rely on, checked at the edge; what we do not use is not looked at.

Ray 2.9 to 2.60. Resource names are exact only under `/api/v0`: elsewhere Ray rewrites every key to camel case, custom
resource names included.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeInt, TypeAdapter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Amounts = dict[str, FiniteFloat]

UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50}
_AMOUNT = r"([\d.]+(?:e[+-]?\d+)?)([KMGTP]iB|B)?"
# ` 1.0/4.0 CPU`, ` 953.67MiB/22.98GiB memory`, ` 2.0/4.0 CPU (0.0 used of 2.0 reserved in placement groups)`
_USAGE_LINE = re.compile(
    rf"{_AMOUNT}/{_AMOUNT} (\S+)(?: \({_AMOUNT} used of {_AMOUNT} reserved in placement groups\))?"
)


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class Version(_Answer):
    """`/api/version`; `session_name` is absent before Ray 2.10."""

    ray_version: str
    session_name: str = ""


class AuthenticationMode(_Answer):
    """`/api/authentication_mode`: `token`, `disabled`, or what comes later."""

    mode: str = Field(alias="authentication_mode")


class JobDetails(_Answer):
    """One job of `/api/jobs/`; drivers that nobody submitted have no `submission_id`."""

    type: str
    submission_id: str | None = None
    job_id: str | None = None
    status: Literal["PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"]
    message: str | None = None
    runtime_env: Any = None
    error_type: str | None = None
    driver_node_id: str | None = None
    driver_exit_code: int | None = None
    start_time: int | None = None
    end_time: int | None = None


class Submitted(_Answer):
    """The answer to a POST."""

    submission_id: str


class Stopped(_Answer):
    """`/api/jobs/{id}/stop`; true means that the wish was noted, no more."""

    stopped: bool


class NodeDetails(_Answer):
    """One node of `/api/v0/nodes`."""

    node_id: str
    node_ip: str = ""
    is_head_node: bool = False
    state: str
    resources_total: Amounts | None = None
    labels: dict[str, str] | None = None


class _NodeList(_Answer):
    result: list[NodeDetails]


class _NodeData(_Answer):
    result: _NodeList


class Nodes(_Answer):
    """`/api/v0/nodes`."""

    result: Literal[True]
    data: _NodeData


class _LogNames(_Answer):
    result: dict[str, list[str]]


class LogNames(_Answer):
    """`/api/v0/logs`: names by category."""

    result: Literal[True]
    data: _LogNames


class _ClusterId(_Answer):
    cluster_id: str = Field(alias="clusterId")


class ClusterId(_Answer):
    """`/cluster_id`."""

    result: Literal[True]
    data: _ClusterId


class _Slot(_Answer):
    slot: int
    allocation: FiniteFloat


class _Slots(_Answer):
    slots: list[_Slot] = Field(default=[], alias="resourceSlots")


class Worker(_Answer):
    """A worker of a raylet; ids in hexadecimal, empty for none."""

    job_id: str = Field(default="", alias="jobId")
    actor_id: str = Field(default="", alias="actorId")
    used: dict[str, _Slots] | None = Field(default=None, alias="usedResources")

    def slots(self) -> dict[int, int]:
        """Millionths of a GPU by slot; in a placement group one stands under the names of group and bundle, once."""
        found: dict[int, int] = {}
        for name, amount in (self.used or {}).items():
            for one in amount.slots if name.startswith("GPU") else ():
                found[one.slot] = max(round(one.allocation * 1e6), found.get(one.slot, 0))
        return found


class _Raylet(_Answer):
    node_id: str = Field(default="", alias="nodeId")
    workers: list[Worker] = Field(default=[], alias="coreWorkersStats")


class _Gpu(_Answer):
    index: int
    uuid: str
    power_mw: NonNegativeInt | None = Field(default=None, alias="powerMw")


class NodeSummary(_Answer):
    """One node of the summary; power of a GPU is shown by releases of 2026 and later."""

    raylet: _Raylet = _Raylet()
    gpus: list[_Gpu] = []


class _Actor(_Answer):
    actor_id: str
    name: str | None = None


class _ActorList(_Answer):
    result: list[_Actor]


class _ActorData(_Answer):
    result: _ActorList


class Actors(_Answer):
    """`/api/v0/actors`."""

    result: Literal[True]
    data: _ActorData


class PlacementGroup(_Answer):
    """Resources that a job asks for at once; `creator_job_id` is Ray's own number of the job."""

    creator_job_id: str
    state: Literal["PENDING", "PREPARED", "CREATED", "REMOVED", "RESCHEDULING"]


class _PlacementGroupList(_Answer):
    result: list[PlacementGroup]


class _PlacementGroupData(_Answer):
    result: _PlacementGroupList


class PlacementGroups(_Answer):
    """`/api/v0/placement_groups`."""

    result: Literal[True]
    data: _PlacementGroupData


class _Summary(_Answer):
    usage_text: dict[str, str] = Field(default={}, alias="nodeLogicalResources")


class Summary(_Answer):
    """`/nodes?view=summary`: usage as text by node, empty before Ray 2.41 and soon after a start."""

    result: Literal[True]
    data: _Summary


class _Hardware(_Answer):
    summary: list[NodeSummary]


class HardwareSummary(_Answer):
    """`/nodes?view=summary` again, for its GPUs and workers; Ray promises nothing about these."""

    result: Literal[True]
    data: _Hardware


class _LoadMetrics(_Answer):
    usage_by_node: dict[str, dict[str, tuple[FiniteFloat, FiniteFloat]]] = Field(default={}, alias="usageByNode")


class _Load(_Answer):
    time: FiniteFloat = 0.0
    report: _LoadMetrics | None = Field(default=None, alias="loadMetricsReport")


class _Status(_Answer):
    status: _Load | None = Field(default=None, alias="clusterStatus")


class ClusterStatusAnswer(_Answer):
    """`/api/cluster_status`; `clusterStatus` is null with the newer autoscaler and without any."""

    result: Literal[True]
    data: _Status

    def usage_by_node(self, newer_than: float) -> dict[str, dict[str, tuple[float, float]]]:
        """(used, total) by node id and camel-cased resource name; empty where Ray does not say.

        A report not newer than `newer_than` (epoch seconds of the head's clock) counts as none: Ray keeps handing out
        the last words of a monitor that died.
        """
        load = self.data.status
        return load.report.usage_by_node if load and load.report and load.time > newer_than else {}


JOB_LIST: TypeAdapter[list[JobDetails]] = TypeAdapter(list[JobDetails])


def usage_from_text(text: str) -> dict[str, float]:
    """What is taken on a node, in Ray's units (memory in bytes, to about 0.01 of the unit printed).

    Ray subtracts what placement groups reserve and do not use yet; nobody else can have it, so it is added again.
    """
    taken: dict[str, float] = {}
    for match in _USAGE_LINE.finditer(text):
        used, used_unit, _, _, name, group_used, group_used_unit, reserved, reserved_unit = match.groups()
        amount = float(used) * UNITS[used_unit or ""]
        if reserved:
            amount += float(reserved) * UNITS[reserved_unit or ""] - float(group_used) * UNITS[group_used_unit or ""]
        taken[name] = amount
    return taken


def usage_from_load(usage: Mapping[str, tuple[float, float]], names: Iterable[str]) -> dict[str, float]:
    """What is taken on a node, for those of its exact resource `names` that camel case leaves distinguishable."""
    by_camel: dict[str, list[str]] = {}
    for name in names:
        by_camel.setdefault(camel_case(name), []).append(name)
    return {same[0]: usage[camel][0] for camel, same in by_camel.items() if camel in usage and len(same) == 1}


def camel_case(name: str) -> str:
    """A key as Ray's dashboard rewrites it: `accelerator_type:H100` becomes `acceleratorType:H100`."""
    first, *others = name.split("_")
    return first + "".join(part.title() for part in others)
