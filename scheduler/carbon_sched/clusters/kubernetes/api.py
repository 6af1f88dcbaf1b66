"""Calls of one Kubernetes API server, by its official client: every failure becomes a ClusterError.

The client is an extra of its own (`carbon-sched[kubernetes]`) and is imported when the first Kubernetes cluster is met.
"""

from __future__ import annotations

import base64
import contextlib
import json
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import urllib3.exceptions

from carbon_sched import __version__
from carbon_sched.clusters.http import (
    HTTP_FORBIDDEN,
    HTTP_NOT_FOUND,
    HTTP_REQUEST_TIMEOUT,
    HTTP_SERVER_ERROR,
    HTTP_TOO_MANY_REQUESTS,
    HTTP_UNAUTHORIZED,
    ca_file,
    read_secret,
    require_private_channel,
)
from carbon_sched.domain.errors import (
    ClusterError,
    ClusterRefused,
    ClusterUnauthorized,
    ClusterUnclear,
    ClusterUnreachable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from carbon_sched.clusters.http import Endpoint

    Json = dict[str, Any]

GROUP, VERSION = "ray.io", "v1"
KUEUE_GROUP, KUEUE_VERSION = "kueue.x-k8s.io", "v1beta1"
HTTP_CONFLICT = 409
HTTP_GONE = 410
TIMEOUT_S = (5.0, 30.0)
WATCH_S = 120
"""A watch is begun anew after so long; the server ends it, and a server that hangs is noticed soon after."""
QUOTED = 300


class Moved(ClusterUnclear):
    """The object is another one than was read, or is there already: read it and decide anew."""


class Expired(ClusterUnclear):
    """A watch cannot go on from where it was: list anew."""


class KubernetesApi:
    """What we ask of an API server, and nothing else: RayJobs, RayClusters, and what belongs to them."""

    def __init__(self, endpoint: Endpoint) -> None:
        """`endpoint` names the server; its token is read before every request, for it is exchanged now and then."""
        self.endpoint = endpoint

    # RayJobs -------------------------------------------------------------------------------------

    def rayjobs(self, namespace: str, selector: str) -> tuple[list[Json], str]:
        """Those with these labels, in one namespace or ('') all, and the version of the list, to watch from."""
        answer = self._list("rayjobs", namespace, selector)
        return answer["items"], answer["metadata"]["resourceVersion"]

    def watch_rayjobs(self, namespace: str, selector: str, since: str) -> Iterator[tuple[str, Json]]:
        """Changes from version `since` on, as ('ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK', object), for a while.

        Raises Expired when the server has forgotten that version.
        """
        with self._errors("watch rayjobs"):
            watch = self._module.watch.Watch()
            try:
                for event in watch.stream(
                    self._call("list", namespace),
                    *self._resource("rayjobs", namespace),
                    label_selector=selector,
                    resource_version=since,
                    allow_watch_bookmarks=True,
                    timeout_seconds=WATCH_S,
                    _request_timeout=(TIMEOUT_S[0], WATCH_S + TIMEOUT_S[1]),
                ):
                    yield event["type"], event["object"]
            finally:
                watch.stop()

    def rayjob(self, namespace: str, name: str) -> Json | None:
        """One, as it is now; None where there is none."""
        with self._errors(f"get rayjob {namespace}/{name}"):
            try:
                return self._do("get", "rayjobs", namespace, name)
            except self._module.client.ApiException as error:
                if error.status == HTTP_NOT_FOUND:
                    return None
                raise

    def create_rayjob(self, manifest: Json) -> Json:
        """Make it; Moved where one of its name is there."""
        namespace = manifest["metadata"]["namespace"]
        with self._errors(f"create rayjob {namespace}/{manifest['metadata']['name']}"):
            return self._do("create", "rayjobs", namespace, manifest)

    def replace_rayjob(self, changed: Json) -> Json:
        """Write one that was read, changed; Moved where it is not any more what was read."""
        namespace, name = changed["metadata"]["namespace"], changed["metadata"]["name"]
        with self._errors(f"change rayjob {namespace}/{name}"):
            return self._do("replace", "rayjobs", namespace, name, changed)

    def delete_rayjob(self, namespace: str, name: str, uid: str) -> None:
        """Delete this very object; no error where it is gone."""
        with self._errors(f"delete rayjob {namespace}/{name}"):
            options = self._module.client.V1DeleteOptions(preconditions={"uid": uid})
            try:
                self._do("delete", "rayjobs", namespace, name, body=options)
            except self._module.client.ApiException as error:
                if error.status not in (HTTP_NOT_FOUND, HTTP_CONFLICT):
                    raise

    # what belongs to them ------------------------------------------------------------------------

    def rayclusters(self, namespace: str, selector: str) -> list[Json]:
        """RayClusters with these labels."""
        found: list[Json] = self._list("rayclusters", namespace, selector)["items"]
        return found

    def ensure_file(self, namespace: str, name: str, file: str, content: bytes) -> None:
        """A ConfigMap that holds one file; it is named by the content, so one that is there is right."""
        body = {
            "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "carbon-sched"}},
            "immutable": True,
            "binaryData": {file: base64.b64encode(content).decode()},
        }
        with contextlib.suppress(Moved), self._errors(f"create configmap {namespace}/{name}"):
            self._core.create_namespaced_config_map(namespace, body, _request_timeout=TIMEOUT_S)

    def tell(self, about: Json, reason: str, message: str, *, warning: bool, at: str) -> None:
        """Record an Event about a RayJob; `at` is RFC 3339."""
        metadata = about["metadata"]
        event = {
            "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": f"{GROUP}/{VERSION}",
                "kind": "RayJob",
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "reason": reason,
            "message": message[:1000],
            "type": "Warning" if warning else "Normal",
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
            "source": {"component": "carbon-sched"},
        }
        with self._errors("create event"):
            self._core.create_namespaced_event(metadata["namespace"], event, _request_timeout=TIMEOUT_S)

    def has_local_queue(self, namespace: str) -> bool:
        """Whether Kueue serves a namespace: it has a LocalQueue. False too where Kueue is not installed."""
        with self._errors("list localqueues"):
            try:
                answer = self._custom.list_namespaced_custom_object(
                    KUEUE_GROUP, KUEUE_VERSION, namespace, "localqueues", limit=1, _request_timeout=TIMEOUT_S
                )
            except self._module.client.ApiException as error:
                if error.status == HTTP_NOT_FOUND:
                    return False
                raise
            return bool(answer["items"])

    # how -----------------------------------------------------------------------------------------

    @cached_property
    def _module(self) -> ModuleType:
        try:
            import kubernetes.client  # noqa: PLC0415 - an extra
            import kubernetes.watch  # noqa: PLC0415 - an extra
        except ImportError:
            raise ClusterRefused(
                f"cluster {self.endpoint.name!r} is a Kubernetes cluster, and this server has no client for those. "
                "Install carbon-sched[kubernetes]"
            ) from None
        module: ModuleType = kubernetes
        return module

    @cached_property
    def _client(self) -> Any:
        configuration = self._module.client.Configuration()
        configuration.host = self.endpoint.address
        configuration.ssl_ca_cert = ca_file(self.endpoint)
        configuration.retries = False
        if self.endpoint.token is not None:
            require_private_channel(self.endpoint)
            self._read_token(configuration)  # without a first one the client never asks for the next
            configuration.refresh_api_key_hook = self._read_token
        client = self._module.client.ApiClient(configuration)
        client.user_agent = f"carbon-sched/{__version__}"
        return client

    def _read_token(self, configuration: Any) -> None:
        if self.endpoint.token is not None:
            token = read_secret(self.endpoint.token, f"cluster {self.endpoint.name!r}: token")
            configuration.api_key = {"authorization": token}
            configuration.api_key_prefix = {"authorization": "Bearer"}

    @cached_property
    def _custom(self) -> Any:
        return self._module.client.CustomObjectsApi(self._client)

    @cached_property
    def _core(self) -> Any:
        return self._module.client.CoreV1Api(self._client)

    def _list(self, plural: str, namespace: str, selector: str) -> Json:
        with self._errors(f"list {plural}"):
            listed = partial(self._call("list", namespace), *self._resource(plural, namespace))
            try:
                answer: Json = listed(label_selector=selector, _request_timeout=TIMEOUT_S)
            except self._module.client.ApiException as error:
                if error.status == HTTP_NOT_FOUND:
                    raise ClusterRefused(
                        f"cluster {self.endpoint.name!r}: its API server knows no {plural}. Install KubeRay there, "
                        "and check that `address` is the API server's"
                    ) from None
                raise
            return answer

    def _do(self, verb: str, plural: str, namespace: str, *arguments: Any, **more: Any) -> Json:
        place, rest = self._resource(plural, namespace), arguments
        answer: Json = self._call(verb, namespace)(*place, *rest, _request_timeout=TIMEOUT_S, **more)
        return answer

    def _call(self, verb: str, namespace: str) -> Any:
        return getattr(self._custom, f"{verb}_{'namespaced' if namespace else 'cluster'}_custom_object")

    def _resource(self, plural: str, namespace: str) -> tuple[str, ...]:
        return (GROUP, VERSION, namespace, plural) if namespace else (GROUP, VERSION, plural)

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turn what the client raises into a ClusterError that says whether the request may have been executed."""
        named = f"cluster {self.endpoint.name!r}: {what}"
        try:
            yield
        except self._module.client.ApiException as error:
            raise _failure(named, error.status or 0, _said(error)) from None
        except urllib3.exceptions.MaxRetryError as error:
            if isinstance(
                error.reason, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
            ):
                raise ClusterUnreachable(f"{named}: no connection ({error.reason})") from None
            raise ClusterUnclear(f"{named}: {error.reason}") from None
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as error:
            raise ClusterUnreachable(f"{named}: no connection ({error})") from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise ClusterUnclear(f"{named}: no clear answer ({type(error).__name__}: {error})") from None


def _failure(what: str, status: int, said: str) -> ClusterError:
    told = f"{what} answered HTTP {status}: {said}"
    if status == HTTP_CONFLICT:
        return Moved(told)
    if status == HTTP_GONE:
        return Expired(told)
    if status in (HTTP_UNAUTHORIZED, HTTP_FORBIDDEN):
        return ClusterUnauthorized(
            f"{told}. Check its `token` and the role of that account (helm/carbon-sched/README.md)"
        )
    if status in (HTTP_REQUEST_TIMEOUT, HTTP_TOO_MANY_REQUESTS) or status >= HTTP_SERVER_ERROR or not status:
        return ClusterUnclear(told)
    return ClusterRefused(told)


def _said(error: Any) -> str:
    """The message of Kubernetes' own Status, else why."""
    try:
        text = str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        text = str(error.reason)
    return " ".join(text.split())[:QUOTED]
