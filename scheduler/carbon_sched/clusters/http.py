"""How we speak HTTP to a cluster: one session, timeouts, size caps, no redirects, secrets read at use.

Every failure becomes a ClusterError that says whether the request can have been executed. Proxies and `.netrc` from the
environment are not used: they could see or replace a cluster's token. A cluster with a private CA names its `ca_file`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from dataclasses import dataclass, field, replace
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import SplitResult, quote, urlsplit

import requests
import requests.adapters
import urllib3.exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from carbon_sched import __version__
from carbon_sched.domain.address import forbidden
from carbon_sched.domain.errors import (
    ClusterError,
    ClusterRefused,
    ClusterUnauthorized,
    ClusterUnclear,
    ClusterUnreachable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from carbon_sched.domain.cluster import SecretRef
    from carbon_sched.ports import Clock

MEBIBYTE = 1024 * 1024
CHUNK_BYTES = 64 * 1024
# Not a browser's: Ray answers browsers differently (it redacts and refuses some requests).
USER_AGENT = f"carbon-sched/{__version__}"
QUOTED_CHARACTERS = 300

HTTP_OK = 200
HTTP_REDIRECT = 300
HTTP_BAD_REQUEST = 400
HTTP_UNAUTHORIZED = 401
HTTP_FORBIDDEN = 403
HTTP_NOT_FOUND = 404
HTTP_REQUEST_TIMEOUT = 408
HTTP_TOO_MANY_REQUESTS = 429
HTTP_SERVER_ERROR = 500


@dataclass(frozen=True)
class Endpoint:
    """Where a cluster is reached now and with which secrets; `address` is `http(s)://host[:port][/prefix]`."""

    name: str
    address: str
    token: SecretRef | None = None
    ca_file: str | None = None
    headers: Mapping[str, SecretRef] | None = None
    allow_plain_http_token: bool = False


@dataclass(frozen=True)
class Limits:
    """What one call may cost: seconds to connect, seconds without a byte, seconds in all, bytes of the answer."""

    connect_s: float = 5.0
    read_s: float = 30.0
    total_s: float = 60.0
    answer_bytes: int = 64 * MEBIBYTE


@dataclass(frozen=True)
class Answer:
    """A complete answer: status, media type without parameters, body, and the server's own `Date` header or ''."""

    status: int
    media_type: str
    body: bytes
    date: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def text(self) -> str:
        """The body as text, undecodable bytes replaced."""
        return self.body.decode("utf-8", "replace")

    def quoted(self, text: str) -> str:
        """`text` as one short line to show to people, without any secret that the other side may have echoed."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        text = " ".join(text.split())
        return text if len(text) <= QUOTED_CHARACTERS else f"...{text[-QUOTED_CHARACTERS:]}"


class ClusterHttp:
    """Requests to one cluster, from any thread.

    `endpoint` is asked before every request, so that a moved local head or a rotated token is picked up; it may raise
    ClusterError itself.
    """

    def __init__(self, endpoint: Callable[[], Endpoint], clock: Clock, limits: Limits | None = None) -> None:
        """Ask `endpoint` where to, before every request."""
        self.endpoint = endpoint
        self._clock = clock
        self.limits = limits or Limits()
        self._session = new_session()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: object = None,
        upload: Path | None = None,
        limits: Limits | None = None,
    ) -> Answer:
        """Send one request and return whatever was answered, short of redirects and refused credentials.

        Raises ClusterUnreachable (nothing was executed), ClusterUnclear (it may have been), ClusterUnauthorized
        (401, 403, or a token we may not send) and ClusterRefused (a redirect, or an address that cannot be used).
        """
        limits = limits or self.limits
        with self.stream(method, path, params=params, json=json, upload=upload, limits=limits) as (answer, body):
            return replace(answer, body=b"".join(body))

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: object = None,
        upload: Path | None = None,
        limits: Limits | None = None,
    ) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """Like `request`, but hands out the head of the answer and its body piece by piece within the limits."""
        limits = limits or self.limits
        call = _Call(self.endpoint(), method, path)
        deadline = self._clock.monotonic() + limits.total_s
        with contextlib.ExitStack() as stack:
            data = stack.enter_context(_opened(upload)) if upload else None
            with call.errors():
                response = self._session.request(
                    method,
                    call.url(),
                    params=params,
                    json=json,
                    data=data,
                    headers=call.headers(),
                    timeout=(limits.connect_s, limits.read_s),
                    verify=call.verify(),
                    allow_redirects=False,
                    stream=True,
                )
            stack.callback(response.close)
            date = response.headers.get("Date", "")
            head = Answer(response.status_code, _media_type(response), b"", date, tuple(call.secrets))
            pieces = self._pieces(call, response, deadline, limits)
            call.check(head, pieces)
            yield head, pieces

    def _pieces(self, call: _Call, response: requests.Response, deadline: float, limits: Limits) -> Iterator[bytes]:
        size = 0
        with call.errors():
            # read1 returns what has come: whole chunks would let an answer that drips wait for ever.
            while chunk := response.raw.read1(CHUNK_BYTES, decode_content=True):
                size += len(chunk)
                if size > limits.answer_bytes:
                    raise ClusterUnclear(f"{call}: the answer is larger than {limits.answer_bytes} bytes")
                if self._clock.monotonic() > deadline:
                    raise ClusterUnclear(f"{call}: the answer took longer than {limits.total_s:g} s")
                yield chunk

    def close(self) -> None:
        """Drop open connections."""
        self._session.close()


def new_session() -> requests.Session:
    """A session that takes nothing from the environment, stores no cookies and never asks twice.

    With nothing left in it that a request changes, several threads may share one.
    """
    session = requests.Session()
    session.trust_env = False
    session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter())
    return session


class _Checked(HTTPConnection):
    """A connection whose name may lead to a cluster only, whatever it led to when the cluster was registered."""

    def _new_conn(self) -> socket.socket:
        try:
            found = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise urllib3.exceptions.NameResolutionError(self.host, self, error) from error
        for *_, address in found:
            if problem := forbidden(str(address[0])):
                raise urllib3.exceptions.NewConnectionError(self, f"{self.host} leads to {address[0]}, which {problem}")
        return super()._new_conn()


class _CheckedTls(_Checked, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Checked


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _CheckedTls


class _Adapter(requests.adapters.HTTPAdapter):
    """`requests` over those connections."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Make the pools of checked connections."""
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


class _Call:
    """One request being made: what it may send where, and what its failures mean."""

    def __init__(self, endpoint: Endpoint, method: str, path: str) -> None:
        self.endpoint, self.method, self.path = endpoint, method, path
        self.secrets: list[str] = []

    def __str__(self) -> str:
        return f"cluster {self.endpoint.name!r}: {self.method} {self.path}"

    def url(self) -> str:
        parts = split_address(self.endpoint.name, self.endpoint.address)
        return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}{quote(self.path, safe='/')}"

    def verify(self) -> str | bool:
        return ca_file(self.endpoint) or True

    def headers(self) -> dict[str, str]:
        """The secrets, read now; refused where anybody on the way could read them too."""
        named = dict(self.endpoint.headers or {})
        if not named and self.endpoint.token is None:
            return {}
        require_private_channel(self.endpoint)
        sent = {name: self._secret(ref, f"header {name}") for name, ref in named.items()}
        if self.endpoint.token is not None:
            # A proxy in front may want `Authorization` for itself; Ray then takes its token from the other header.
            taken = any(name.lower() == "authorization" for name in named)
            sent["X-Ray-Authorization" if taken else "Authorization"] = (
                f"Bearer {self._secret(self.endpoint.token, 'token')}"
            )
        return sent

    def _secret(self, ref: SecretRef, what: str) -> str:
        value = read_secret(ref, f"cluster {self.endpoint.name!r}: {what}")
        self.secrets.append(value)
        return value

    def check(self, head: Answer, pieces: Iterator[bytes]) -> None:
        """Raise what is the same for every request: redirects, credentials, a server too busy to look at it."""
        status = head.status
        if status in (HTTP_UNAUTHORIZED, HTTP_FORBIDDEN):
            given = "the token was not accepted" if self.endpoint.token else "it wants a token"
            said = head.quoted(next(pieces, b"").decode("utf-8", "replace"))
            raise ClusterUnauthorized(f"{self}: {given} (HTTP {status}: {said}). Check the cluster's `token`")
        if HTTP_REDIRECT <= status < HTTP_BAD_REQUEST:
            raise ClusterRefused(
                f"{self}: it redirects (HTTP {status}), which is not followed. "
                "Configure the address that it redirects to"
            )
        if status in (HTTP_REQUEST_TIMEOUT, HTTP_TOO_MANY_REQUESTS):
            raise ClusterUnreachable(f"{self}: too busy (HTTP {status}); it will be asked again")

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what `requests` raises into a ClusterError; its own texts hold addresses, never headers."""
        try:
            yield
        except ClusterError:
            raise
        except requests.ConnectTimeout:
            raise ClusterUnreachable(f"{self}: no connection in time") from None
        except requests.Timeout:
            raise ClusterUnclear(f"{self}: no answer in time") from None
        except requests.exceptions.InvalidHeader:
            raise ClusterUnauthorized(f"{self}: a header holds characters that HTTP does not allow") from None
        except requests.exceptions.SSLError as error:
            raise self._tls_error(error) from None
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema):
            raise ClusterRefused(f"{self}: {self.endpoint.address!r} is not an address") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise self._connection_error(error) from None

    def _tls_error(self, error: Exception) -> ClusterError:
        said = " ".join(str(error).split())
        if "CERTIFICATE_VERIFY_FAILED" in said:
            return ClusterUnreachable(
                f"{self}: its certificate is not trusted. Set `ca_file` if the authority is yours. {said}"
            )
        return ClusterUnclear(f"{self}: TLS failed; is this address really https? {said}")

    def _connection_error(self, error: Exception) -> ClusterError:
        never_sent = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.NameResolutionError)
        for cause in causes(error):
            if isinstance(cause, urllib3.exceptions.ReadTimeoutError):
                return ClusterUnclear(f"{self}: no answer in time")
            if isinstance(cause, never_sent):
                return ClusterUnreachable(f"cluster {self.endpoint.name!r}: nothing answers at {self.endpoint.address}")
        return ClusterUnclear(f"{self}: the connection broke before the answer was complete ({type(error).__name__})")


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and everything it wraps; urllib3 keeps the wrapped one in `reason` or among the arguments."""
    seen: list[BaseException | None] = [error]
    while seen:
        one = seen.pop()
        if not isinstance(one, BaseException):
            continue
        yield one
        seen += [getattr(one, "reason", None), *(a for a in one.args if isinstance(a, BaseException))]


def split_address(name: str, address: str) -> SplitResult:
    """The parts of a cluster's address; ClusterRefused when it is not `http(s)://host[:port][/prefix]`."""
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc or parts.query or parts.fragment:
        raise ClusterRefused(
            f"cluster {name!r}: {address!r} is not the address of a Ray dashboard. "
            "Give http(s)://HOST:PORT as for `ray job submit --address`; secrets belong into `token`"
        )
    return parts


def is_loopback(host: str) -> bool:
    """Whether what is sent to `host` cannot leave this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def ca_file(endpoint: Endpoint) -> str | None:
    """The authority to trust beside the usual ones; ClusterUnreachable where its file is not there."""
    if endpoint.ca_file and not Path(endpoint.ca_file).is_file():
        raise ClusterUnreachable(
            f"cluster {endpoint.name!r}: ca_file {endpoint.ca_file!r} does not exist. "
            "Give the certificate (PEM) of the authority that signed the cluster's"
        )
    return endpoint.ca_file


def require_private_channel(endpoint: Endpoint) -> None:
    """Raise ClusterUnauthorized where anybody on the way could read the secrets."""
    parts = split_address(endpoint.name, endpoint.address)
    if parts.scheme == "https" or endpoint.allow_plain_http_token or is_loopback(parts.hostname or ""):
        return
    raise ClusterUnauthorized(
        f"cluster {endpoint.name!r}: its secrets are not sent to {parts.hostname} over plain http, "
        "where anybody on the way can read them. Use https, "
        "or set allow_plain_http_token for this cluster if its network is trusted"
    )


def read_secret(ref: SecretRef, what: str) -> str:
    """The secret behind a reference, read now; ClusterUnauthorized when there is none that can be sent."""
    try:
        value = Path(ref.file).read_text("utf-8").strip() if ref.file else os.environ.get(ref.env or "", "").strip()
    except (OSError, ValueError) as error:
        raise ClusterUnauthorized(f"{what} cannot be read from {ref}: {type(error).__name__}") from None
    if not value:
        raise ClusterUnauthorized(f"{what}: there is nothing in {ref}")
    if not (value.isascii() and value.isprintable()):
        raise ClusterUnauthorized(f"{what} in {ref} holds characters that HTTP does not allow")
    return value


def _media_type(response: requests.Response) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def file_size(path: Path) -> int:
    """Bytes of a file of ours that is about to be sent; ClusterError when it cannot be read."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise _unreadable(path, error) from None
    with file:
        yield file


def _unreadable(path: Path, error: OSError) -> ClusterError:
    return ClusterError(f"{path} cannot be read and so not be sent ({error.strerror})")
