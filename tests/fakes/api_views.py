"""Answers of our API as a healthy server gives them, for tests to change one thing in."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

from carbon_sched.domain.time import to_rfc3339

AT = "2026-11-23T18:00:00Z"


def job_view(job_id: str = "0123456789", **changes: Any) -> dict[str, Any]:
    """A job as the API shows it, queued unless told otherwise."""
    view: dict[str, Any] = {
        "job_id": job_id,
        "name": "train.py",
        "state": "queued",
        "reason": "accepted, not planned yet",
        "cause": "",
        "position": 1,
        "after": [],
        "version": 0,
        "entrypoint": "python train.py",
        "phase": "other",
        "stage": "",
        "model": "",
        "project": "",
        "team": "",
        "submitter": "ada",
        "submitted_at": AT,
        "planned_start": None,
        "now": False,
        "earliest": None,
        "deadline": None,
        "max_delay_s": None,
        "amendments": 0,
        "cluster": None,
        "finished_at": None,
        "exit_code": None,
        "metadata": {},
        "batch": None,
        "attempts": [],
    }
    return view | changes


def attempt_view(job_id: str = "0123456789", **changes: Any) -> dict[str, Any]:
    """An attempt that succeeded."""
    view: dict[str, Any] = {
        "attempt_id": f"cs-{job_id}-a1",
        "number": 1,
        "cluster": "north",
        "opened_at": AT,
        "started_at": AT,
        "ended_at": "2026-11-23T18:00:25Z",
        "exit_code": 0,
        "outcome": "succeeded",
        "reason": "",
        "cause": "",
        "collected": True,
    }
    return view | changes


def candidate_view(cluster: str = "north", **changes: Any) -> dict[str, Any]:
    """A cluster that can take the job now."""
    view: dict[str, Any] = {
        "cluster": cluster,
        "zone": "SE-SE3",
        "feasible": True,
        "reason": "",
        "start": AT,
        "end": "2026-11-23T18:00:25Z",
        "energy_kwh": 0.00025,
        "co2e_g": 0.033,
        "now_co2e_g": 0.033,
        "room_g_per_kwh": None,
        "intensity_g_per_kwh": 120.0,
        "pue": 1.1,
        "grade": "D-zone-year",
        "overhead_g": 0.0,
        "transfer_g": 0.0,
        "embodied_low_g": None,
        "embodied_high_g": None,
    }
    return view | changes


def decision_view(**changes: Any) -> dict[str, Any]:
    """A decision to run on `north` now rather than on `south`."""
    view: dict[str, Any] = {
        "job_id": "0123456789",
        "verdict": "place",
        "decided_at": AT,
        "reason": "starts now on north: least CO2e of 2 clusters",
        "cluster": "north",
        "start": AT,
        "expected_energy_kwh": 0.00025,
        "expected_co2e_g": 0.033,
        "expected_duration_s": 25.0,
        "expected_power_w": 36.0,
        "estimate_source": "duration said by the user",
        "references": {"run-now-home": 0.033},
        "candidates": [
            candidate_view(),
            candidate_view("south", zone="DE", co2e_g=0.147, now_co2e_g=0.147, intensity_g_per_kwh=420.0, pue=1.4),
        ],
        "policy": "balanced",
        "curve": [],
        "latest_start": None,
        "deadline_confidence": None,
    }
    return view | changes


def receipt_view(**changes: Any) -> dict[str, Any]:
    """A final receipt, half of its energy estimated."""
    view: dict[str, Any] = {
        "job_id": "0123456789",
        "name": "train.py",
        "state": "succeeded",
        "final": True,
        "missing": [],
        "cluster": "north",
        "zone": "SE-SE3",
        "started_at": AT,
        "ended_at": "2026-11-23T18:00:25Z",
        "duration_s": 25.0,
        "energy_kwh": 0.0002,
        "energy_by_source_j": {"counter": 360.0, "estimated": 360.0},
        "devices": [
            {
                "machine": "m1",
                "device": "package-0",
                "kind": "cpu",
                "source": "counter",
                "reporter": "self-reported",
                "rule": "share of CPU time",
                "energy_j": 360.0,
                "error_pct": 5.0,
            },
            {
                "machine": "m1",
                "device": "rest",
                "kind": "node",
                "source": "estimated",
                "reporter": "self-reported",
                "rule": "share of CPU time",
                "energy_j": 360.0,
                "error_pct": 40.0,
            },
        ],
        "pue": 1.1,
        "pue_source": "declared by the operator",
        "facility_kwh": 0.00022,
        "intensity_g_per_kwh": 120.0,
        "intensity_provider": "Ember",
        "intensity_basis": "lifecycle",
        "intensity_grade": "D-zone-year",
        "co2e_g": 0.0264,
        "co2e_ug": 26400,
        "expected_co2e_g": 0.033,
        "references": [
            {
                "name": "run-now-home",
                "cluster": "south",
                "zone": "DE",
                "start": AT,
                "co2e_g": 0.1294,
                "saved_g": 0.103,
                "note": "",
            },
            {
                "name": "best-fixed",
                "cluster": "west",
                "zone": "FR",
                "start": AT,
                "co2e_g": 0.02,
                "saved_g": -0.0064,
                "note": "",
            },
        ],
        "notes": [],
        "quality": {"accuracy": 0.83},
        "windows": [
            {
                "attempt": "cs-0123456789-a1",
                "name": "epoch-1",
                "start": AT,
                "end": "2026-11-23T18:00:10Z",
                "energy_j": 240.0,
                "co2e_g": 0.0088,
                "units": {"tokens": 4096.0},
                "j_per_unit": {"tokens": 0.05859375},
                "co2e_g_per_unit": {"tokens": 2.1484375e-06},
            }
        ],
        "per_unit": {"tokens": {"amount": 4096.0, "energy_j": 0.17578125, "co2e_g": 6.4453125e-06}},
        "suspensions": 0,
        "overhead": [],
        "ledger_head": "ab" * 32,
    }
    return view | changes


def cluster_view(name: str = "north", **changes: Any) -> dict[str, Any]:
    """A local cluster that answers."""
    view: dict[str, Any] = {
        "name": name,
        "zone": "SE-SE3",
        "pue": 1.1,
        "pue_period": "2025",
        "pue_source": "declared by the operator",
        "address": "http://127.0.0.1:8265",
        "local": True,
        "home": True,
        "residency": [],
        "cordoned": False,
        "jobs_open": 0,
        "problem": None,
        "checked_at": AT,
        "ray_version": "2.60.0",
        "nodes": 1,
        "cpus": 2.0,
        "cpus_used": 0.0,
        "gpus": 0.0,
        "gpus_used": 0.0,
        "intensity_g_per_kwh": 120.0,
        "intensity_grade": "D-zone-year",
        "intensity_provider": "Ember",
    }
    return view | changes


def intensity_view(start: str = AT, end: str = "2026-11-23T19:00:00Z", **changes: Any) -> dict[str, Any]:
    """An hour of a zone, live."""
    view: dict[str, Any] = {
        "zone": "DE",
        "start": start,
        "end": end,
        "g_per_kwh": 312.0,
        "low_g_per_kwh": None,
        "high_g_per_kwh": None,
        "signal": "average",
        "basis": "lifecycle",
        "perimeter": "consumption",
        "kind": "measured",
        "grade": "A-live",
        "provider": "energy-charts",
        "model_version": "",
        "issued_at": AT,
        "fetched_at": AT,
        "licence": "CC BY 4.0",
    }
    return view | changes


def outlook_views(zone: str = "DE", hours: int = 48) -> list[dict[str, Any]]:
    """Hourly: 200 to 400 g/kWh, lowest at noon UTC; from the sixth hour on our own forecast with a band of +-50."""
    start = datetime.fromisoformat(AT.replace("Z", "+00:00"))
    found = []
    for hour in range(hours):
        at, until = start + timedelta(hours=hour), start + timedelta(hours=hour + 1)
        value = 300.0 + 100.0 * math.cos(2 * math.pi * at.hour / 24)
        view = intensity_view(to_rfc3339(at), to_rfc3339(until), zone=zone, g_per_kwh=value)
        if hour >= 6:
            view |= {"low_g_per_kwh": value - 50, "high_g_per_kwh": value + 50, "kind": "forecast"}
            view |= {"grade": "C-own-forecast", "provider": "carbon-sched", "model_version": "ridge on energy-charts"}
        found.append(view)
    return found


def finding_view(provider: str = "energy-charts", **changes: Any) -> dict[str, Any]:
    """A provider that is well."""
    view: dict[str, Any] = {
        "provider": provider, "zone": "DE", "ok": True, "problem": "", "detail": "", "remedy": "",
        "newest_at": AT, "g_per_kwh": 312.0, "forecast_until": "2026-11-23T23:00:00Z",
    }  # fmt: skip
    return view | changes


def provider_view(provider: str = "energy-charts", **changes: Any) -> dict[str, Any]:
    """A provider in use."""
    view: dict[str, Any] = {
        "provider": provider, "configured": True, "zones": ["DE", "FR"], "coverage": "about 35 European countries",
        "counts": "average, lifecycle, consumption", "forecast": "to the end of tomorrow", "needs_key": "none",
        "key": "", "licence": "CC BY 4.0", "options": [], "problems": {},
    }  # fmt: skip
    return view | changes


def skill_view(**changes: Any) -> dict[str, Any]:
    """Four weeks of forecasts, better than a simple profile."""
    view = {"issues": 672, "captured": 0.86, "damped_captured": 0.82, "possible": 0.21, "mape_pct": 12.3}
    return view | {"covered": 0.79} | changes


def grid_views() -> dict[str, Any]:
    """The answers of /v1/grid/..., by their last word."""
    readings = outlook_views()
    return {
        "now": {"at": AT, "readings": [intensity_view()], "notes": []},
        "forecast": {
            "at": AT,
            "until": readings[-1]["end"],
            "zones": [{"zone": "DE", "readings": readings, "skill": skill_view()}],
            "notes": [],
        },
        "history": {"zone": "DE", "since": AT, "until": readings[-1]["end"], "readings": readings},
        "providers": [
            provider_view(),
            provider_view("entsoe", configured=False, zones=[], needs_key="required (free)"),
        ],
        "check": {"findings": [finding_view()]},
    }


def server_view(**changes: Any) -> dict[str, Any]:
    """A server with nothing to do."""
    view: dict[str, Any] = {
        "version": "0.1.0",
        "pid": 1,
        "started_at": AT,
        "url": "http://127.0.0.1:1",
        "data_dir": "/data",
        "database": "sqlite",
        "jobs_live": 0,
        "leader": True,
        "local_clusters": ["north"],
        "ledger_size": 0,
        "ledger_head": "",
    }
    return view | changes


def problem(code: str, status: int, exit_code: int, detail: str, **more: str) -> dict[str, Any]:
    """A problem+json."""
    return {"type": f"about:blank#{code}", "title": code, "status": status, "detail": detail, "code": code} | {
        "exit_code": exit_code,
        **more,
    }
