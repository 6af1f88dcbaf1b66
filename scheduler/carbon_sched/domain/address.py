"""Which addresses a cluster may have: written plainly, and nowhere that a machine keeps its own credentials.

Clusters stand on private networks and on loopback, so those are fine. Refused are the places where clouds answer with a
machine's credentials (link-local addresses), what is no single host, and numbers in disguise: parsers disagree about
them, so that one would check what another then connects to.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from carbon_sched.domain.errors import InvalidInput

METADATA = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})
METADATA_ADDRESSES = frozenset({ipaddress.ip_address("fd00:ec2::254"), ipaddress.ip_address("100.100.100.200")})
NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?", re.IGNORECASE | re.ASCII)
IN_DISGUISE = re.compile(r"0x[0-9a-f]*|[0-9]+", re.IGNORECASE | re.ASCII)
REMEDY = "Give http(s)://HOST:PORT of its Ray dashboard; secrets belong into `token`"


def require_address(address: str) -> None:
    """Raise InvalidInput unless it is `http(s)://HOST[:PORT][/PREFIX]` with a host that a cluster may have."""
    try:
        parts = urlsplit(address)
        host, usable = parts.hostname or "", parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:
        host, usable = "", False
    odd = not (address.isascii() and address.isprintable()) or set(address) & set(" \\@?#%")
    if not usable or not host or odd:
        raise InvalidInput("address", address, "is not a dashboard URL", REMEDY)
    if problem := _of_host(host):
        raise InvalidInput("address", address, problem, REMEDY)


def forbidden(text: str) -> str:
    """Why no cluster may have this IP address; empty where one may."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or address.sixtofour or address.teredo):
        return "is an IPv4 address in disguise"
    if address.is_link_local or address in METADATA_ADDRESSES:
        return "is where machines keep their credentials, not a cluster"
    if address.is_unspecified or address.is_multicast or address == ipaddress.ip_address("255.255.255.255"):
        return "is not one machine"
    return ""


def _of_host(host: str) -> str:
    try:
        return forbidden(host)
    except ValueError:  # a name
        pass
    if not NAME.fullmatch(host) or IN_DISGUISE.fullmatch(host.rstrip(".").rpartition(".")[2]):
        return "names no host plainly"
    return "is where machines keep their credentials, not a cluster" if host.rstrip(".") in METADATA else ""
