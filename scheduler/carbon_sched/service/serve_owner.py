"""Ray Serve's declared applications of a cluster, which can only be put as a whole: ours are put by nobody else.

Every change reads the whole set, puts ours into it and leaves the others as they are, and reads again what the cluster
made of it. What stands there under our app's name is known by a digest: another one tells that somebody else was there.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from carbon_sched.domain.errors import ClusterUnclear, InvalidInput
from carbon_sched.domain.units import PPM
from carbon_sched.service.runtime_env import package_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.domain.serve_app import AppSpec, Site
    from carbon_sched.ports import Bundles, ClusterClient, Served, ServedApp, Vault
    from carbon_sched.service.fleet import Fleet
    from carbon_sched.service.runtime_env import RuntimePackage

log = logging.getLogger(__name__)

DEFAULT_PORT = 8000
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Stands:
    """An app as it stands on a cluster: what Serve says of it, the digest of what was put, and where clients reach it.

    `ready`: it answers there. `foreign`: somebody else had changed or removed it, and it was put back.
    """

    app: ServedApp
    digest: str
    address: str
    ready: bool
    foreign: bool


class ServeOwner:
    """The one place that puts applications; the leader's loop calls it, one cluster at a time."""

    def __init__(self, fleet: Fleet, bundles: Bundles, package: RuntimePackage, vault: Vault) -> None:
        self._fleet, self._bundles, self._package, self._vault = fleet, bundles, package, vault

    def require_stored(self, spec: AppSpec) -> None:
        """InvalidInput where the folder that goes with the app was not uploaded."""
        if spec.bundle_sha256 and not self._bundles.has(spec.bundle_sha256):
            remedy = "Upload it first with PUT /v1/bundles/SHA256"
            raise InvalidInput("bundle_sha256", spec.bundle_sha256, "is not stored here", remedy)

    def ensure(self, cluster: Cluster, spec: AppSpec, site: Site, attempt_id: str) -> Stands:
        """Have the app stand there for this attempt; the site's digest is what it was last seen as.

        ClusterError when the cluster gives no clear answer: nothing is lost by asking again.
        """
        client = self._fleet.client(cluster)
        served = client.served()
        mine = served.app(spec.name)
        foreign = bool(site.digest) and (mine is None or _digest(mine) != site.digest)
        if not site.digest or foreign or mine is None:
            ours = {"CARBON_SCHED_ATTEMPT": attempt_id, **_carbon(cluster, site)}
            self._put(client, cluster, served, spec.name, self._config(client, spec, ours))
            served = client.served()
            mine = served.app(spec.name)
        if mine is None:
            raise ClusterUnclear(f"cluster {cluster.name!r} took the app {spec.name}, and does not show it")
        ready = mine.status == "RUNNING" and served.answers
        return Stands(mine, _digest(mine), _address(cluster, served, spec.route_prefix), ready, foreign)

    def remove(self, cluster: Cluster, name: str) -> None:
        """Have the app go from there; requests under way are answered by Serve's own graceful shutdown."""
        client = self._fleet.client(cluster)
        served = client.served()
        if served.app(name) is not None:
            self._put(client, cluster, served, name, None)

    def _put(
        self, client: ClusterClient, cluster: Cluster, served: Served, name: str, config: dict[str, Any] | None
    ) -> None:
        others = [app.config for app in served.apps if app.name != name and app.config is not None]
        host, port = _listen(cluster)
        client.serve([*others, *([config] if config else [])], host=host, port=port)
        log.info("serve applications put cluster=%s app=%s removed=%s", cluster.name, name, config is None)

    def _config(self, client: ClusterClient, spec: AppSpec, variables: Mapping[str, str]) -> dict[str, Any]:
        """Serve's description of the app, with our package and our variables in its environment."""
        application = json.loads(self._vault.unseal(spec.sealed_application))
        environment = dict(application.get("runtime_env", {}))
        if spec.bundle_sha256:
            path = self._bundles.open(spec.bundle_sha256)
            environment["working_dir"] = client.ensure_package(path, package_name(spec.bundle_sha256))
        ours = client.ensure_package(self._package.path, self._package.name)
        environment["py_modules"] = [ours, *environment.get("py_modules", [])]
        environment["env_vars"] = {**environment.get("env_vars", {}), **variables}
        return {**application, "name": spec.name, "route_prefix": spec.route_prefix, "runtime_env": environment}


def _carbon(cluster: Cluster, site: Site) -> dict[str, str]:
    """What the header of an answer multiplies joules with: the intensity expected when the site was chosen."""
    pue = cluster.pue.ppm / PPM
    return {"CARBON_SCHED_INTENSITY": f"{site.expected_g_per_kwh / pue:.3f}", "CARBON_SCHED_PUE": f"{pue:g}"}


def _digest(app: ServedApp) -> str:
    """Of what was put, as the cluster tells it."""
    return hashlib.sha256(json.dumps(app.config, sort_keys=True).encode()).hexdigest()


def _listen(cluster: Cluster) -> tuple[str, int]:
    """Where Serve's proxies listen, should they not run yet: on loopback alone where clients come from there."""
    told = urlsplit(cluster.serve_address)
    port = told.port or DEFAULT_PORT if told.scheme != "https" else DEFAULT_PORT
    return ("127.0.0.1" if told.hostname in LOOPBACK else "0.0.0.0", port)  # noqa: S104 - clients are elsewhere


def _address(cluster: Cluster, served: Served, route: str) -> str:
    """Where clients reach the app."""
    base = cluster.serve_address
    if not base:
        host = urlsplit(cluster.address).hostname or "127.0.0.1"
        base = f"http://{host if ':' not in host else f'[{host}]'}:{served.port or DEFAULT_PORT}"
    return base + route.rstrip("/")
