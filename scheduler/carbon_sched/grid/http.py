"""The one way we speak HTTP to intensity providers: deadline, size cap, paced retries, no foreign redirects.

A call ends within its deadline whatever the other side does, and keys appear in no message, log or shown URL. Proxies
of the environment are used (a provider is on the internet); `.netrc` is not.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urljoin, urlsplit

import requests
import urllib3.exceptions

from carbon_sched import __version__
from carbon_sched.domain.errors import (
    GridAuth,
    GridError,
    GridKeyMissing,
    GridMalformed,
    GridRateLimited,
    GridTransient,
    InvalidInput,
)
from carbon_sched.grid.answers import (
    Answer,
    RedactQuery,
    default_error,
    no_answer,
    parse_json,
    quoted,
    retry_after_s,
    shown,
)
from carbon_sched.grid.deadline import Watchdog, watched_session
from carbon_sched.grid.pacing import Breaker, Rate, TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from carbon_sched.domain.cluster import SecretRef
    from carbon_sched.ports import Clock

    Classify = Callable[[int, str], GridError | None]

REDIRECTS = 3
CHUNK = 64 * 1024
AUTH_PAUSE_S = 900.0
RATE_PAUSE_S = 60.0


@dataclass(frozen=True)
class Limits:
    """What one call may cost; `total_s` includes retries and waiting."""

    connect_s: float = 5.0
    read_s: float = 15.0
    total_s: float = 30.0
    max_bytes: int = 16 * 1024 * 1024
    tries: int = 3
    backoff_s: float = 0.5
    longest_wait_s: float = 5.0


class Web:
    """Makes single requests within a deadline; `sleep` and `jitter` (in [0, 1)) are for its channels' retries."""

    def __init__(
        self, clock: Clock, sleep: Callable[[float], None], jitter: Callable[[], float], limits: Limits | None = None
    ) -> None:
        self.clock, self.sleep, self.jitter, self.limits = clock, sleep, jitter, limits or Limits()
        logger = logging.getLogger("urllib3.connectionpool")
        if not any(isinstance(one, RedactQuery) for one in logger.filters):
            logger.addFilter(RedactQuery())

    def get(self, name: str, url: str, headers: Mapping[str, str], deadline: float) -> Answer:
        """One GET by `deadline` (monotonic), following redirects only on the same host; any status is returned.

        Raises GridTransient (no answer), GridMalformed (too large, redirected away, unreadable encoding).
        """
        for _ in range(REDIRECTS + 1):
            answer = self._once(name, url, headers, deadline)
            if not 300 <= answer.status < 400 or "location" not in answer.headers:
                return answer
            target = urljoin(url, answer.headers["location"])
            if not _same_place(url, target):
                host = urlsplit(target).hostname or "nowhere"
                raise GridMalformed(f"{name}: redirects to another place ({host}); not followed. Has it moved?")
            url = target
        raise GridMalformed(f"{name}: redirects in a circle")

    def _once(self, name: str, url: str, headers: Mapping[str, str], deadline: float) -> Answer:
        left = deadline - self.clock.monotonic()
        if left <= 0:
            raise GridTransient(f"{name}: no answer within {self.limits.total_s:g} s")
        with Watchdog(left) as dog, _translated(name, dog, self.limits.total_s), watched_session(dog) as session:
            timeout = (min(self.limits.connect_s, left), min(self.limits.read_s, left))
            response = session.get(url, headers=dict(headers), timeout=timeout, allow_redirects=False, stream=True)
            with contextlib.closing(response):
                body = self._body(name, response)
                if dog.expired:  # a head that was cut off reads like a complete one
                    raise requests.Timeout
                found = {key.lower(): value for key, value in response.headers.items()}
                return Answer(response.status_code, body, shown(url), self.clock.now(), found)

    def _body(self, name: str, response: requests.Response) -> bytes:
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("identity", "", "gzip"):
            raise GridMalformed(f"{name}: answers in encoding {encoding!r}, which was not asked for")
        chunks: list[bytes] = []
        size = 0
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 16) if encoding == "gzip" else None
        for raw in response.raw.stream(CHUNK, decode_content=False):
            chunk = unpack.decompress(raw, self.limits.max_bytes + 1) if unpack else raw
            size += len(chunk)
            if size > self.limits.max_bytes:
                raise GridMalformed(f"{name}: the answer is larger than {self.limits.max_bytes} bytes")
            chunks.append(chunk)
        return b"".join(chunks)


class Channel:
    """Requests to one provider: its address, its rate, its breaker, its secrets."""

    def __init__(self, web: Web, name: str, base: str, rate: Rate = Rate()) -> None:  # noqa: B008 - frozen
        if not _is_address(base):
            problem = "is not an address"
            raise InvalidInput(
                f"grid provider {name}", base, problem, "Give http(s)://HOST[:PORT][/PATH]; keys go elsewhere"
            )
        self.web, self.name, self.base = web, name, base.rstrip("/")
        self._bucket = TokenBucket(rate, web.clock.monotonic)
        self._breaker = Breaker(web.clock.monotonic)

    def get(
        self,
        path: str,
        params: Mapping[str, str | list[str]] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        secrets: tuple[str, ...] = (),
        classify: Classify | None = None,
    ) -> Answer:
        """GET `base + path`; returns a 2xx answer or raises a GridError whose message shows none of `secrets`.

        `classify(status, text)` may say what a 4xx of this provider means; by default 401 and 403 are GridAuth, 404 is
        GridNoData, 429 is GridRateLimited, another 4xx is GridMalformed (we asked in a way it does not understand).
        Transient failures are tried again with jitter while the provider is healthy; once it fails, once per call.
        """
        query = urlencode(list(_pairs(params or {})))
        url = f"{self.base}{path}{'?' + query if query else ''}"
        self._check_secrets(url, secrets)
        refusal = self._breaker.enter()
        if refusal is not None:
            raise refusal
        try:
            answer = self._tried(url, headers or {}, secrets, classify)
        except GridRateLimited as error:
            self._breaker.pause(error, error.retry_after_s or RATE_PAUSE_S)
            raise
        except GridTransient as error:
            self._breaker.failed(error)
            raise
        except GridAuth as error:
            self._breaker.pause(error, AUTH_PAUSE_S)
            raise
        except BaseException:
            self._breaker.succeeded()  # it answered, if not as we wished
            raise
        self._breaker.succeeded()
        return answer

    def get_json(
        self,
        path: str,
        params: Mapping[str, str | list[str]] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        secrets: tuple[str, ...] = (),
        classify: Classify | None = None,
    ) -> tuple[Any, Answer]:
        """Like `get`, parsed; GridMalformed when the body is not JSON (a login page, a truncated answer)."""
        answer = self.get(path, params, headers=headers, secrets=secrets, classify=classify)
        return parse_json(self.name, answer, secrets), answer

    def _tried(
        self, url: str, headers: Mapping[str, str], secrets: tuple[str, ...], classify: Classify | None
    ) -> Answer:
        limits, clock = self.web.limits, self.web.clock
        deadline = clock.monotonic() + limits.total_s
        tries = limits.tries if self._breaker.healthy else 1
        for attempt in range(tries):
            try:
                self._take_token(deadline)
                answer = self.web.get(self.name, url, {**_polite(), **headers}, deadline)
                self._raise_for_status(answer, secrets, classify)
            except (GridTransient, GridRateLimited) as error:
                wait = limits.backoff_s * 2**attempt * (0.5 + self.web.jitter())
                if isinstance(error, GridRateLimited) and error.retry_after_s is not None:
                    wait = error.retry_after_s
                too_late = clock.monotonic() + wait >= deadline or wait > limits.longest_wait_s
                if attempt + 1 >= tries or too_late:
                    raise
                self.web.sleep(wait)
            else:
                return answer
        raise AssertionError("unreachable: the last try raises")

    def _take_token(self, deadline: float) -> None:
        while wait := self._bucket.take():
            if wait > self.web.limits.longest_wait_s or self.web.clock.monotonic() + wait >= deadline:
                raise GridRateLimited(f"{self.name}: we ask too often; next in {wait:.0f} s", wait)
            self.web.sleep(wait)

    def _check_secrets(self, url: str, secrets: tuple[str, ...]) -> None:
        parts = urlsplit(url)
        if secrets and parts.scheme != "https" and not _loopback(parts.hostname or ""):
            raise GridAuth(f"{self.name}: its key is not sent to {parts.hostname} over plain http. Use https")

    def _raise_for_status(self, answer: Answer, secrets: tuple[str, ...], classify: Classify | None) -> None:
        status = answer.status
        if 200 <= status < 300:
            return
        said = quoted(answer.text, secrets)
        if status == 429:
            after = retry_after_s(answer.headers.get("retry-after"), self.web.clock.now())
            raise GridRateLimited(f"{self.name}: asks to slow down (HTTP 429: {said})", after)
        if status >= 500 or status == 408:
            raise GridTransient(f"{self.name}: failed (HTTP {status}: {said}); it will be asked again")
        known = classify(status, said) if classify else None
        raise known or default_error(self.name, status, said)


def read_secret(ref: SecretRef | None, name: str, remedy: str) -> str:
    """The key behind a reference, read at the moment of use; GridKeyMissing when there is none that can be sent."""
    if ref is None:
        raise GridKeyMissing(f"{name}: needs a key, and none is configured. {remedy}")
    try:
        value = Path(ref.file).read_text("utf-8").strip() if ref.file else os.environ.get(ref.env or "", "").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise GridKeyMissing(f"{name}: its key cannot be read from {ref} ({type(error).__name__}). {remedy}") from None
    if not value:
        raise GridKeyMissing(f"{name}: there is no key in {ref}. {remedy}")
    if not (value.isascii() and value.isprintable()):
        raise GridKeyMissing(f"{name}: the key in {ref} holds characters that HTTP does not allow. {remedy}")
    return value


def _pairs(params: Mapping[str, str | list[str]]) -> Iterator[tuple[str, str]]:
    for key, value in params.items():
        for one in [value] if isinstance(value, str) else value:
            yield key, one


def _polite() -> dict[str, str]:
    return {
        "User-Agent": f"carbon-sched/{__version__}",
        "Accept": "application/json, */*;q=0.5",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }


def _is_address(base: str) -> bool:
    try:
        parts = urlsplit(base)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
        )
    except ValueError:
        return False


def _same_place(url: str, target: str) -> bool:
    if not _is_address(target):
        return False
    a, b = urlsplit(url), urlsplit(target)
    upgraded = a.scheme == "http" and b.scheme == "https" and a.port is None and b.port is None
    return a.hostname == b.hostname and (upgraded or (a.scheme, a.port) == (b.scheme, b.port))


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def _translated(name: str, dog: Watchdog, total_s: float) -> Iterator[None]:
    """Turn what requests and urllib3 raise into a GridError; their texts hold whole URLs, so they are not repeated."""
    try:
        yield
    except GridError:
        raise
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError, zlib.error) as error:
        if dog.expired:
            raise GridTransient(f"{name}: no complete answer within {total_s:g} s") from None
        raise no_answer(name, error) from None
