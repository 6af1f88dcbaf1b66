"""Ray Serve over the dashboard's REST: what is declared there, read and put as a whole.

PUT replaces every application that was declared by REST; what came another way (`serve.run`) is left alone by Ray. HTTP
options count only where Serve did not run before. Seen on Ray 2.60.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from carbon_sched.clusters.http import HTTP_NOT_FOUND, HTTP_OK, Limits
from carbon_sched.domain.errors import ClusterRefused
from carbon_sched.ports import Served, ServedApp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from carbon_sched.clusters.ray_http import RayHttp

APPLICATIONS = "/api/serve/applications/"
PUT_LIMITS = Limits(read_s=120.0, total_s=150.0)
"""The first PUT starts Serve's controller and proxies, and answers after that."""
NOT_INSTALLED = 501
HEALTHY = "HEALTHY"


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Replica(_Answer):
    node_id: str | None = None


class _Deployment(_Answer):
    replicas: list[_Replica] = []


class _App(_Answer):
    status: str
    message: str = ""
    deployed_app_config: dict[str, Any] | None = None
    deployments: dict[str, _Deployment] = {}


class _Proxy(_Answer):
    status: str = ""


class _HttpOptions(_Answer):
    port: int = 8000


class _Details(_Answer):
    applications: dict[str, _App] = {}
    proxies: dict[str, _Proxy] = {}
    http_options: _HttpOptions | None = None


def served(http: RayHttp) -> Served:
    """What Serve does there now; ClusterRefused where it is not installed."""
    answer = http.ask("GET", APPLICATIONS)
    if answer.status in (NOT_INSTALLED, HTTP_NOT_FOUND):
        raise ClusterRefused(f"cluster {http.name!r} has no Ray Serve: install ray[serve] there")
    if answer.status != HTTP_OK:
        raise http.failure(answer, APPLICATIONS)
    details = http.parse(_Details, answer, APPLICATIONS)
    return Served(
        apps=tuple(_app(name, app) for name, app in sorted(details.applications.items())),
        port=details.http_options.port if details.http_options else None,
        answers=any(proxy.status == HEALTHY for proxy in details.proxies.values()),
    )


def serve(http: RayHttp, applications: Sequence[Mapping[str, Any]], *, host: str, port: int) -> None:
    """Put the whole set. ClusterUnclear when the outcome is not known: read it then."""
    body = {
        "proxy_location": "EveryNode",
        "http_options": {"host": host, "port": port},
        "applications": [dict(one) for one in applications],
    }
    answer = http.request("PUT", APPLICATIONS, json=body, limits=PUT_LIMITS)
    if answer.status != HTTP_OK:
        raise http.failure(answer, APPLICATIONS)


def _app(name: str, app: _App) -> ServedApp:
    nodes = {replica.node_id for one in app.deployments.values() for replica in one.replicas if replica.node_id}
    return ServedApp(name, app.status, app.message[:500], app.deployed_app_config, tuple(sorted(nodes)))
