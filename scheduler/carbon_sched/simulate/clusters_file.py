"""The clusters that a backtest plans for, from a YAML file with the keys of `PUT /v1/clusters/{name}`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from carbon_sched.domain.cluster import DEFAULT_PUE_PPM, DEFAULT_PUE_SOURCE, Cluster, Pool, Pue
from carbon_sched.domain.errors import InvalidFile, Problem
from carbon_sched.domain.units import pue_ppm
from carbon_sched.policy.document import read_document
from carbon_sched.policy.problems import validated

if TYPE_CHECKING:
    from pathlib import Path

    from carbon_sched.policy.document import Document

NAME = r"^[A-Za-z0-9_-]{1,64}$"


class _Form(BaseModel):
    """Unknown keys are refused, and values are taken as they are written, never converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class PoolForm(_Form):
    """Nodes of one kind."""

    name: str = Field(pattern=NAME, description="Letters, digits, - and _, at most 64.")
    node_resources: dict[str, float] = Field(
        min_length=1, description="One node in Ray's resource names, such as {GPU: 8, CPU: 96}."
    )
    max_nodes: int = Field(ge=1, le=100_000, description="How many such nodes there are: 1 or more.")
    gpu_type: str | None = Field(None, description="Ray's name of the accelerator, such as A100.")

    def pool(self) -> Pool:
        """The frozen value."""
        return Pool(self.name, dict(self.node_resources), self.max_nodes, self.gpu_type)


class ClusterForm(_Form):
    """One cluster."""

    name: str = Field(pattern=NAME, description="Letters, digits, - and _, at most 64.")
    zone: str = Field(min_length=1, description="The grid zone: the name of its intensity file without .csv.gz.")
    pue: float | None = Field(None, ge=1.0, le=5.0, description="Facility energy / IT energy, between 1.0 and 5.0.")
    home: bool = Field(default=False, description="true for the one cluster that all jobs come from, else false.")
    residency: list[str] = Field([], description="Tags of where its data lies, as a list.")
    pools: list[PoolForm] = Field([], description="Its nodes, as a list of pools; without any it has room for all.")

    def cluster(self) -> Cluster:
        """The frozen value."""
        assumed = Pue(DEFAULT_PUE_PPM, "2025", DEFAULT_PUE_SOURCE)
        pue = assumed if self.pue is None else Pue(pue_ppm(self.pue), "", "declared by the operator")
        pools = tuple(pool.pool() for pool in self.pools)
        return Cluster(self.name, self.zone, pue, residency=tuple(self.residency), pools=pools, home=self.home)


class ClustersForm(_Form):
    """The file."""

    api_version: Literal["carbon-sched/v1"] = Field(alias="apiVersion", description="Write carbon-sched/v1.")
    clusters: list[ClusterForm] = Field(min_length=1, description="The clusters, as a list of mappings.")


def load_clusters(path: Path) -> tuple[Cluster, ...]:
    """Read a clusters file; raises InvalidFile with every problem found, line by line."""
    document = read_document(path)
    form = validated(document, ClustersForm)
    names = [cluster.name for cluster in form.clusters]
    homes = [i for i, cluster in enumerate(form.clusters) if cluster.home]
    twice = [(i, "name", "is used twice", "Names must differ") for i, name in enumerate(names) if name in names[:i]]
    second = [(i, "home", "is a second home", "Declare one home at most") for i in homes[1:]]
    if problems := tuple(_problem(document, *what) for what in (*twice, *second)):
        raise InvalidFile(problems)
    return tuple(cluster.cluster() for cluster in form.clusters)


def _problem(document: Document, index: int, key: str, problem: str, remedy: str) -> Problem:
    location = ("clusters", index, key)
    place = document.place(location)
    return Problem(document.file, place.line, place.column, ".".join(map(str, location)), problem, remedy)
