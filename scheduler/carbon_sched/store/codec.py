"""The JSON documents in the store: job specs, decisions, clusters; field by field, one pair of functions each.

Reading is tolerant of what another version wrote: unknown keys are ignored, and keys that came later have the value's
default. Times are RFC 3339 text, enums their values; floats survive exactly (Python writes the shortest text that reads
back as the same number).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.cluster import Cluster, LocalHead, Pool, Pue, SecretRef
from carbon_sched.domain.decision import Candidate, Decision, StartCost, Verdict
from carbon_sched.domain.intensity import Grade
from carbon_sched.domain.job import (
    Bundle,
    DataInput,
    Dependency,
    Estimate,
    Flexibility,
    JobSpec,
    Phase,
    Placement,
    Resources,
)
from carbon_sched.domain.kubernetes import Kubernetes, RayJobObject
from carbon_sched.domain.run import PastRun
from carbon_sched.domain.time import from_rfc3339, to_rfc3339
from carbon_sched.domain.variant import Floor, Variants

if TYPE_CHECKING:
    from datetime import datetime

Json = dict[str, Any]

# ---------------------------------------------------------------------------------------------------------------- jobs


def spec_to_json(spec: JobSpec) -> Json:
    """A job's spec as accepted."""
    return {
        "entrypoint": spec.entrypoint,
        "name": spec.name,
        "runtime_env": dict(spec.runtime_env),
        "sealed_env": spec.sealed_env,
        "secrets": {name: {"file": ref.file, "env": ref.env} for name, ref in spec.secrets.items()},
        "bundle_sha256": spec.bundle_sha256,
        "metadata": dict(spec.metadata),
        "phase": spec.phase.value,
        "stage": spec.stage,
        "model": spec.model,
        "project": spec.project,
        "team": spec.team,
        "submitter": spec.submitter,
        "resources": _resources_to_json(spec.resources),
        "flexibility": _flexibility_to_json(spec.flexibility),
        "estimate": {"duration_s": spec.estimate.duration_s, "power_w": spec.estimate.power_w},
        "data": [{"uri": item.uri, "size_bytes": item.size_bytes, "zone": item.zone} for item in spec.data],
        "clusters": list(spec.clusters),
        "policy": spec.policy,
        "start_now": spec.start_now,
        "after": [[one.job_id, one.ok] for one in spec.after],
        "rayjob": asdict(spec.rayjob) if spec.rayjob else None,
        "variants": spec.variants and _variants_to_json(spec.variants),
    }


def spec_from_json(j: Json) -> JobSpec:
    """Inverse of `spec_to_json`."""
    return JobSpec(
        entrypoint=j["entrypoint"],
        name=j["name"],
        runtime_env=j["runtime_env"],
        sealed_env=j.get("sealed_env", ""),
        secrets={name: SecretRef(ref["file"], ref["env"]) for name, ref in j.get("secrets", {}).items()},
        bundle_sha256=j["bundle_sha256"],
        metadata=j["metadata"],
        phase=Phase(j["phase"]),
        stage=j["stage"],
        model=j["model"],
        project=j["project"],
        team=j["team"],
        submitter=j["submitter"],
        resources=_resources_from_json(j["resources"]),
        flexibility=_flexibility_from_json(j["flexibility"]),
        estimate=Estimate(j["estimate"]["duration_s"], j["estimate"]["power_w"]),
        data=tuple(DataInput(item["uri"], item["size_bytes"], item["zone"]) for item in j["data"]),
        clusters=tuple(j["clusters"]),
        policy=j["policy"],
        start_now=j.get("start_now", False),
        after=tuple(Dependency(job_id, ok) for job_id, ok in j.get("after", ())),
        rayjob=_rayjob_from_json(j.get("rayjob")),
        variants=_variants_from_json(j["variants"]) if j.get("variants") else None,
    )


def _rayjob_from_json(j: Json | None) -> RayJobObject | None:
    return RayJobObject(j["namespace"], j["name"], j["uid"], j["sealed_manifest"]) if j else None


def _variants_to_json(variants: Variants) -> Json:
    floor = {"metric": variants.floor.metric, "value": variants.floor.value, "at_least": variants.floor.at_least}
    arguments = [list(one) for one in variants.arguments]
    return {"arguments": arguments, "floor": floor, "item": variants.item, "slice": variants.slice}


def _variants_from_json(j: Json) -> Variants:
    arguments = tuple((name, text) for name, text in j["arguments"])
    return Variants(arguments, Floor(**j["floor"]), j["item"], j["slice"])


def _resources_to_json(resources: Resources) -> Json:
    return {
        "entrypoint_cpus": resources.entrypoint_cpus,
        "entrypoint_gpus": resources.entrypoint_gpus,
        "entrypoint_memory": resources.entrypoint_memory,
        "entrypoint_resources": dict(resources.entrypoint_resources),
        "entrypoint_label_selector": dict(resources.entrypoint_label_selector),
        "bundles": [
            {"cpus": b.cpus, "gpus": b.gpus, "memory": b.memory, "resources": dict(b.resources)}
            for b in resources.bundles
        ],
        "placement": resources.placement.value,
        "gpu_type": resources.gpu_type,
        "gpu_memory_gb": resources.gpu_memory_gb,
    }


def _resources_from_json(j: Json) -> Resources:
    return Resources(
        entrypoint_cpus=j["entrypoint_cpus"],
        entrypoint_gpus=j["entrypoint_gpus"],
        entrypoint_memory=j["entrypoint_memory"],
        entrypoint_resources=j["entrypoint_resources"],
        entrypoint_label_selector=j["entrypoint_label_selector"],
        bundles=tuple(Bundle(b["cpus"], b["gpus"], b["memory"], b["resources"]) for b in j["bundles"]),
        placement=Placement(j["placement"]),
        gpu_type=j["gpu_type"],
        gpu_memory_gb=j.get("gpu_memory_gb", 0.0),
    )


def _flexibility_to_json(flexibility: Flexibility) -> Json:
    return {
        "earliest": _time_to_json(flexibility.earliest),
        "deadline": _time_to_json(flexibility.deadline),
        "max_delay_s": flexibility.max_delay_s,
        "interruptible": flexibility.interruptible,
        "restart_s": flexibility.restart_s,
        "storage": flexibility.storage,
    }


def _flexibility_from_json(j: Json) -> Flexibility:
    return Flexibility(
        earliest=_time_from_json(j["earliest"]),
        deadline=_time_from_json(j["deadline"]),
        max_delay_s=j["max_delay_s"],
        interruptible=j["interruptible"],
        restart_s=j.get("restart_s"),
        storage=j.get("storage", ""),
    )


# ---------------------------------------------------------------------------------------------------------------- runs


def run_to_json(run: PastRun) -> Json:
    """A finished run but its name and number, which have columns of their own."""
    return {
        "phase": run.phase.value,
        "resources": _resources_to_json(run.resources),
        "gpu_type": run.gpu_type,
        "duration_s": run.duration_s,
        "power_w": run.power_w,
        "profile": list(run.profile),
        "start_up_s": run.start_up_s,
    }


def run_from_json(j: Json, *, name: str, number: int) -> PastRun:
    """Inverse of `run_to_json`."""
    return PastRun(
        name=name,
        resources=_resources_from_json(j["resources"]),
        duration_s=j["duration_s"],
        power_w=j["power_w"],
        phase=Phase(j["phase"]),
        gpu_type=j["gpu_type"],
        profile=tuple(j["profile"]),
        start_up_s=j["start_up_s"],
        number=number,
    )


# ----------------------------------------------------------------------------------------------------------- decisions


def decision_to_json(decision: Decision) -> Json:
    """A decision with all its candidates."""
    return {
        "job_id": decision.job_id,
        "verdict": decision.verdict.value,
        "decided_at": to_rfc3339(decision.decided_at),
        "reason": decision.reason,
        "cluster": decision.cluster,
        "start": _time_to_json(decision.start),
        "candidates": [_candidate_to_json(candidate) for candidate in decision.candidates],
        "expected_energy_kwh": decision.expected_energy_kwh,
        "expected_co2e_g": decision.expected_co2e_g,
        "expected_duration_s": decision.expected_duration_s,
        "expected_power_w": decision.expected_power_w,
        "estimate_source": decision.estimate_source,
        "references": [[name, grams] for name, grams in decision.references],
        "policy": decision.policy,
        "next_look": _time_to_json(decision.next_look),
        "curve": [[to_rfc3339(one.start), one.co2e_g, one.low_g, one.high_g] for one in decision.curve],
        "latest_start": _time_to_json(decision.latest_start),
        "deadline_confidence": decision.deadline_confidence,
        "amendments": decision.amendments,
    }


def decision_from_json(j: Json) -> Decision:
    """Inverse of `decision_to_json`."""
    return Decision(
        job_id=j["job_id"],
        verdict=Verdict(j["verdict"]),
        decided_at=from_rfc3339(j["decided_at"]),
        reason=j["reason"],
        cluster=j["cluster"],
        start=_time_from_json(j["start"]),
        candidates=tuple(_candidate_from_json(item) for item in j["candidates"]),
        expected_energy_kwh=j["expected_energy_kwh"],
        expected_co2e_g=j["expected_co2e_g"],
        expected_duration_s=j["expected_duration_s"],
        expected_power_w=j["expected_power_w"],
        estimate_source=j["estimate_source"],
        references=tuple((name, grams) for name, grams in j["references"]),
        policy=j["policy"],
        next_look=_time_from_json(j["next_look"]),
        curve=tuple(StartCost(from_rfc3339(start), *grams) for start, *grams in j.get("curve", ())),
        latest_start=_time_from_json(j.get("latest_start")),
        deadline_confidence=j.get("deadline_confidence"),
        amendments=j.get("amendments", 0),
    )


def _candidate_to_json(candidate: Candidate) -> Json:
    return {
        "cluster": candidate.cluster,
        "zone": candidate.zone,
        "feasible": candidate.feasible,
        "reason": candidate.reason,
        "start": _time_to_json(candidate.start),
        "end": _time_to_json(candidate.end),
        "energy_kwh": candidate.energy_kwh,
        "co2e_g": candidate.co2e_g,
        "now_co2e_g": candidate.now_co2e_g,
        "room_g_per_kwh": candidate.room_g_per_kwh,
        "intensity_g_per_kwh": candidate.intensity_g_per_kwh,
        "pue": candidate.pue,
        "grade": candidate.grade.value if candidate.grade else None,
        "overhead_g": candidate.overhead_g,
        "transfer_g": candidate.transfer_g,
        "embodied_g": list(candidate.embodied_g) if candidate.embodied_g else None,
    }


def _candidate_from_json(j: Json) -> Candidate:
    return Candidate(
        cluster=j["cluster"],
        zone=j["zone"],
        feasible=j["feasible"],
        reason=j["reason"],
        start=_time_from_json(j["start"]),
        end=_time_from_json(j["end"]),
        energy_kwh=j["energy_kwh"],
        co2e_g=j["co2e_g"],
        now_co2e_g=j["now_co2e_g"],
        room_g_per_kwh=j.get("room_g_per_kwh"),
        intensity_g_per_kwh=j["intensity_g_per_kwh"],
        pue=j["pue"],
        grade=Grade(j["grade"]) if j["grade"] else None,
        overhead_g=j.get("overhead_g", 0.0),
        transfer_g=j.get("transfer_g", 0.0),
        embodied_g=(low_high[0], low_high[1]) if (low_high := j.get("embodied_g")) else None,
    )


# ------------------------------------------------------------------------------------------------------------ clusters


def cluster_to_json(cluster: Cluster) -> Json:
    """A cluster's configuration; secrets are references to where they are read from."""
    return {
        "name": cluster.name,
        "zone": cluster.zone,
        "pue": {"ppm": cluster.pue.ppm, "period": cluster.pue.period, "source": cluster.pue.source},
        "address": cluster.address,
        "local": {"cpus": cluster.local.cpus, "gpus": cluster.local.gpus} if cluster.local else None,
        "token": _secret_to_json(cluster.token) if cluster.token else None,
        "ca_file": cluster.ca_file,
        "headers": {name: _secret_to_json(secret) for name, secret in cluster.headers.items()},
        "allow_plain_http_token": cluster.allow_plain_http_token,
        "residency": list(cluster.residency),
        "pools": [_pool_to_json(pool) for pool in cluster.pools],
        "price_per_gpu_hour": cluster.price_per_gpu_hour,
        "start_grace_s": cluster.start_grace_s,
        "home": cluster.home,
        "cordoned": cluster.cordoned,
        "push_to": cluster.push_to,
        "journal_store": cluster.journal_store,
        "serve_address": cluster.serve_address,
        "meter_keys": list(cluster.meter_keys),
        "kubernetes": asdict(cluster.kubernetes) if cluster.kubernetes else None,
    }


def cluster_from_json(j: Json) -> Cluster:
    """Inverse of `cluster_to_json`."""
    return Cluster(
        name=j["name"],
        zone=j["zone"],
        pue=Pue(j["pue"]["ppm"], j["pue"]["period"], j["pue"]["source"]),
        address=j["address"],
        local=LocalHead(j["local"]["cpus"], j["local"]["gpus"]) if j["local"] else None,
        token=_secret_from_json(j["token"]) if j["token"] else None,
        ca_file=j["ca_file"],
        headers={name: _secret_from_json(secret) for name, secret in j["headers"].items()},
        allow_plain_http_token=j["allow_plain_http_token"],
        residency=tuple(j["residency"]),
        pools=tuple(_pool_from_json(pool) for pool in j["pools"]),
        price_per_gpu_hour=j["price_per_gpu_hour"],
        start_grace_s=j["start_grace_s"],
        home=j["home"],
        cordoned=j["cordoned"],
        push_to=j.get("push_to", ""),
        journal_store=j.get("journal_store", ""),
        serve_address=j.get("serve_address", ""),
        meter_keys=tuple(j.get("meter_keys", ())),
        kubernetes=_kubernetes_from_json(j.get("kubernetes")),
    )


def _kubernetes_from_json(j: Json | None) -> Kubernetes | None:
    return Kubernetes(tuple(j["namespaces"]), tuple(j["create_in"]), discover=j["discover"]) if j else None


def _pool_to_json(pool: Pool) -> Json:
    return {
        "name": pool.name,
        "node_resources": dict(pool.node_resources),
        "max_nodes": pool.max_nodes,
        "gpu_type": pool.gpu_type,
        "node_lifetime": pool.node_lifetime,
        "provisioning_s": pool.provisioning_s,
        "idle_timeout_s": pool.idle_timeout_s,
    }


def _pool_from_json(j: Json) -> Pool:
    return Pool(
        name=j["name"],
        node_resources=j["node_resources"],
        max_nodes=j["max_nodes"],
        gpu_type=j["gpu_type"],
        node_lifetime=j["node_lifetime"],
        provisioning_s=j["provisioning_s"],
        idle_timeout_s=j.get("idle_timeout_s", 300.0),
    )


def _secret_to_json(secret: SecretRef) -> Json:
    return {"file": secret.file, "env": secret.env}


def _secret_from_json(j: Json) -> SecretRef:
    return SecretRef(j["file"], j["env"])


def _time_to_json(value: datetime | None) -> str | None:
    return None if value is None else to_rfc3339(value)


def _time_from_json(value: str | None) -> datetime | None:
    return None if value is None else from_rfc3339(value)
