"""What `clusters check` looks at, said in plain language: can this cluster be used, metered and trusted?"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from carbon_sched.clusters.http import is_loopback
from carbon_sched.clusters.ray_client import LABEL_SELECTOR_RAY, UNMARKED_FILES_RAY, parse_version
from carbon_sched.domain.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from carbon_sched.clusters.ray_client import RayClient
    from carbon_sched.domain.cluster import Cluster, ClusterStatus, Node

ACCELERATOR = "accelerator_type:"
# The time fence of an attempt is told by the cluster's clock and judged by ours.
SKEW_WARNING_S = 5.0
SKEW_PROBLEM_S = 60.0
ASKED_NODES = 8


class Level(str, Enum):
    """How much a finding matters: nothing to do, worth knowing, or in the way of jobs."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `topic` names it in a word or two, `text` says what was found and what to do."""

    level: Level
    topic: str
    text: str


def check_cluster(client: RayClient, cluster: Cluster) -> list[Finding]:
    """Look at everything that can be seen from here; a cluster that does not answer ends the list early."""
    findings = list(_channel(cluster))
    status = client.status()
    if status.problem is not None:
        return [*findings, Finding(Level.PROBLEM, "reachable", status.problem)]
    findings.append(Finding(Level.OK, "reachable", f"answers at {status.address}"))
    for look in (_token, _version, _nodes, _usage, _clock, _log_pull):
        try:
            findings += look(client, cluster, status)
        except ClusterError as error:
            findings.append(Finding(Level.PROBLEM, look.__name__.strip("_").replace("_", " "), str(error)))
    return [*findings, *_journal_store(cluster), *on_demand_sinks(cluster), *_teams()]


def _channel(cluster: Cluster) -> Iterator[Finding]:
    parts = urlsplit(cluster.address)
    secret = cluster.token is not None or bool(cluster.headers)
    if cluster.local is not None or not secret or parts.scheme != "http" or is_loopback(parts.hostname or ""):
        return
    if cluster.allow_plain_http_token:
        yield Finding(
            Level.WARNING,
            "channel",
            "its token travels in clear (allow_plain_http_token): whoever reads it on the way can run code there. "
            "Put https in front of the dashboard",
        )
    else:
        yield Finding(Level.PROBLEM, "channel", "its token is not sent over plain http. Give an https address")


def _token(client: RayClient, cluster: Cluster, _status: ClusterStatus) -> Iterator[Finding]:
    wanted = client.wants_token()
    if wanted:
        yield Finding(Level.OK, "token", "the cluster wants a token and takes ours")
        return
    reason = "this Ray is too old for tokens" if wanted is None else "it has token authentication switched off"
    given = " (the one configured here is not looked at)" if cluster.token else ""
    yield Finding(
        Level.WARNING,
        "token",
        f"{reason}{given}: whoever reaches its dashboard can run code there. Keep it in a closed network, or start it "
        "with RAY_AUTH_MODE=token",
    )


def _version(_client: RayClient, _cluster: Cluster, status: ClusterStatus) -> Iterator[Finding]:
    version = parse_version(status.ray_version)
    missing = []
    if version < LABEL_SELECTOR_RAY:
        missing.append("entrypoint label selectors are refused")
    if version < UNMARKED_FILES_RAY:
        missing.append("files above 64 KiB cannot be read from its nodes (energy journals are smaller)")
    text = f"Ray {status.ray_version}"
    yield Finding(Level.WARNING if missing else Level.OK, "version", "; ".join([text, *missing]))


def _nodes(_client: RayClient, cluster: Cluster, status: ClusterStatus) -> Iterator[Finding]:
    kinds = Counter(kind for node in status.nodes for kind in _accelerators(node))
    gpus = f"{status.total('GPU'):g} GPUs" + (f" ({', '.join(sorted(kinds))})" if kinds else "")
    yield Finding(Level.OK, "nodes", f"{len(status.nodes)} alive, {status.total('CPU'):g} CPUs, {gpus}")
    for pool in cluster.pools:
        if pool.gpu_type and pool.node_lifetime == "always-on" and pool.gpu_type not in kinds:
            yield Finding(
                Level.WARNING,
                "nodes",
                f"no node shows the GPU type {pool.gpu_type!r} of pool {pool.name!r} (resource {ACCELERATOR}...)",
            )


def _accelerators(node: Node) -> list[str]:
    return [name.removeprefix(ACCELERATOR) for name in node.resources if name.startswith(ACCELERATOR)]


def _usage(_client: RayClient, _cluster: Cluster, status: ClusterStatus) -> Iterator[Finding]:
    silent = sum(1 for node in status.nodes if node.used is None)
    if silent:
        yield Finding(
            Level.WARNING,
            "usage",
            f"{silent} of {len(status.nodes)} nodes do not say what is in use; "
            "unknown is not free: no job is sent there",
        )
    else:
        yield Finding(Level.OK, "usage", "every node says what is in use")


def _clock(client: RayClient, _cluster: Cluster, _status: ClusterStatus) -> Iterator[Finding]:
    skew_s = client.clock_skew_s()
    if skew_s is None:
        yield Finding(Level.WARNING, "clock", "it does not tell its time, so a difference to ours would stay unseen")
        return
    side = "ahead of" if skew_s > 0 else "behind"
    text = f"its clock is {abs(skew_s):.0f} s {side} ours"
    if abs(skew_s) < SKEW_WARNING_S:
        yield Finding(Level.OK, "clock", "its clock agrees with ours within seconds")
    elif abs(skew_s) < SKEW_PROBLEM_S:
        yield Finding(Level.WARNING, "clock", f"{text}; energy is booked to the wrong minute. Synchronise both (NTP)")
    else:
        text += "; jobs may refuse to start as too late, and energy meets the wrong intensity. Synchronise both (NTP)"
        yield Finding(Level.PROBLEM, "clock", text)


def _log_pull(client: RayClient, _cluster: Cluster, status: ClusterStatus) -> Iterator[Finding]:
    """Energy journals lie in the log directory of every node; ask some nodes whether we can look into it."""
    asked = status.nodes[:ASKED_NODES]
    failed = []
    for node in asked:
        try:
            client.list_files(node.node_id, "raylet*")
        except ClusterError as error:
            failed.append(f"{node.ip}: {error}")
    if failed:
        yield Finding(
            Level.PROBLEM,
            "energy journals",
            f"cannot be fetched from {len(failed)} of {len(asked)} nodes asked; the energy used there would be lost. "
            f"{failed[0]}",
        )
    else:
        yield Finding(Level.OK, "energy journals", f"can be fetched from all {len(asked)} nodes asked")


def _journal_store(cluster: Cluster) -> Iterator[Finding]:
    """Whether the folder that nodes leave journals in can be read here; of theirs nothing is seen from here."""
    if not cluster.journal_store:
        return
    if os.access(cluster.journal_store, os.R_OK | os.X_OK) and Path(cluster.journal_store).is_dir():
        text = f"{cluster.journal_store} can be read here; nodes must mount it there too, and their jobs may write it"
        yield Finding(Level.OK, "journal store", text)
    else:
        text = (
            f"{cluster.journal_store} is no folder that this server can read. Mount it here, at the same path as there"
        )
        yield Finding(Level.PROBLEM, "journal store", text)


def on_demand_sinks(cluster: Cluster) -> Iterator[Finding]:
    """Whether nodes that come for a job leave its energy behind before they go."""
    names = [pool.name for pool in cluster.pools if pool.node_lifetime == "on-demand"]
    sink = cluster.push_to or cluster.journal_store
    if names and sink:
        text = f"nodes of {', '.join(names)} leave their energy journals at {sink} before they vanish"
        yield Finding(Level.OK, "on-demand nodes", text)
    elif names:
        yield Finding(
            Level.WARNING,
            "on-demand nodes",
            f"nodes of {', '.join(names)} vanish with their energy journals after a job, and the last seconds of each "
            "job are booked as missing. Have them delivered: clusters add --push-to URL-OF-THIS-SERVER, or "
            "--journal-store file:PATH",
        )


def _teams() -> Iterator[Finding]:
    yield Finding(
        Level.OK,
        "teams",
        "team boundaries inside one Ray cluster are advisory: every job there can use the cluster's token. "
        "Give teams that must not reach each other clusters of their own",
    )
