"""What came back over HTTP and what it means: bodies, errors in plain words, and no key in any of them."""

from __future__ import annotations

import email.utils
import hashlib
import json
import logging
import re
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import requests
import urllib3.exceptions

from carbon_sched.domain.errors import (
    GridAuth,
    GridError,
    GridExpired,
    GridMalformed,
    GridNoData,
    GridTransient,
    GridUnreachable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

QUOTED = 200
LONGEST_RETRY_AFTER_S = 86_400.0
ENDED = re.compile(r"\b(?:expired|trial|has ended)\b", re.IGNORECASE)
SECRET_IN_QUERY = re.compile(r"([?&](?:securityToken|api_key|apikey|key|token|auth-token)=)[^&\s\"]*", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """A complete answer; `url` is safe to show and store (keys removed)."""

    status: int
    body: bytes
    url: str
    at: datetime
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Hash of the body as it came."""
        return hashlib.sha256(self.body).hexdigest()

    @property
    def text(self) -> str:
        """The body as UTF-8, undecodable bytes replaced."""
        return self.body.decode("utf-8", "replace")


class RedactQuery(logging.Filter):
    """Takes keys out of what urllib3 logs: it writes whole request lines at debug level."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the message in place; every record passes."""
        record.msg, record.args = SECRET_IN_QUERY.sub(r"\1***", record.getMessage()), ()
        return True


def parse_json(name: str, answer: Answer, secrets: tuple[str, ...] = ()) -> Any:
    """The body as JSON without NaN or infinities; GridMalformed otherwise, quoting its beginning without `secrets`."""

    def refuse(text: str) -> None:
        raise ValueError(f"{text} is not a number")

    try:
        return json.loads(answer.body.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError):
        start = quoted(answer.text, secrets)[:QUOTED]
        kind = "a web page" if start.lower().startswith(("<!doctype", "<html")) else "something that is not JSON"
        message = f"{name}: answered with {kind} where JSON is documented ({start or 'nothing'}). A proxy in between?"
        raise GridMalformed(message) from None


def shown(url: str) -> str:
    """The URL without keys."""
    return SECRET_IN_QUERY.sub(r"\1***", url)


def quoted(text: str, secrets: tuple[str, ...]) -> str:
    """One short line of what the other side said, without control characters or any secret it may have echoed."""
    for secret in secrets:
        text = text.replace(secret, "***")
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 20 * QUOTED]).split())
    return line if len(line) <= QUOTED else f"{line[:QUOTED]}..."


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for (a number or an HTTP date), at most a day; None without one."""
    if not value:
        return None
    if value.strip().isdigit():
        return min(float(value), LONGEST_RETRY_AFTER_S)
    try:
        seconds = (email.utils.parsedate_to_datetime(value) - now).total_seconds()
    except (TypeError, ValueError):
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)


def default_error(name: str, status: int, said: str) -> GridError:
    """What a refusal means when the provider's own words are not known."""
    if status in (401, 402, 403):
        if status == 402 or ENDED.search(said):
            return GridExpired(f"{name}: the key's trial or contract has ended (HTTP {status}: {said}). Renew it")
        return GridAuth(f"{name}: does not accept us (HTTP {status}: {said}). Check the key and the plan it belongs to")
    if status == 404:
        return GridNoData(f"{name}: has nothing there (HTTP 404: {said})")
    return GridMalformed(f"{name}: refuses the request (HTTP {status}: {said})")


def no_answer(name: str, error: Exception) -> GridError:
    """What it means that requests or urllib3 raised; their texts hold whole URLs, so they are not repeated."""
    if isinstance(error, zlib.error):
        return GridMalformed(f"{name}: the answer's compression is damaged")
    if isinstance(error, ValueError):
        # requests reads a Location even when it is not to follow it; its own InvalidURL is a ValueError too
        return GridMalformed(f"{name}: an address or a header cannot be read")
    if isinstance(error, requests.exceptions.SSLError):
        return GridUnreachable(f"{name}: no trusted TLS connection. Check this machine's clock and certificates")
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return GridTransient(f"{name}: no answer in time")
    if isinstance(error, requests.ConnectionError) and "NameResolution" in repr(error):
        return GridUnreachable(f"{name}: its name cannot be resolved. Is this machine online?")
    return GridUnreachable(f"{name}: no connection, or it broke ({type(error).__name__}). Is this machine online?")
