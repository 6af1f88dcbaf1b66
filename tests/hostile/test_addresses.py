"""Addresses that would lead the server somewhere it must not go: refused before anything is connected to."""

from __future__ import annotations

import socket

import pytest

from carbon_sched.clusters.http import ClusterHttp, Endpoint
from carbon_sched.domain.address import require_address
from carbon_sched.domain.errors import ClusterUnreachable, InvalidInput
from tests.fakes.ray_cluster import RealClock
from tests.fakes.served import served

__all__ = ["served"]

TRICKS = [
    "http://169.254.169.254", "http://169.254.169.254:80/latest", "https://169.254.170.2", "http://[fe80::1]",
    "http://[fd00:ec2::254]", "http://100.100.100.200", "http://metadata.google.internal", "http://metadata",
    "http://METADATA.google.internal.", "http://metadata.goog", "http://instance-data",
    "http://2852039166", "http://0xa9fea9fe", "http://0251.0376.0251.0376", "http://0xa9.0xfe.0xa9.0xfe",
    "http://169.254.43518", "http://169.16689662", "http://0251.254.169.254", "http://169.254.169.0xfe",
    "http://2130706433", "http://0x7f000001", "http://017700000001", "http://127.1", "http://127.0.1", "http://0",
    "http://0x7f.1", "http://1", "http://[::ffff:169.254.169.254]", "http://[::ffff:a9fe:a9fe]",
    "http://[::ffff:127.0.0.1]", "http://[2002:a9fe:a9fe::]", "http://[2001:0:0:0:0:0:5601:5601]",
    "http://[fe80::1%25eth0]", "http://[::]", "http://0.0.0.0", "http://255.255.255.255", "http://224.0.0.1",
    "http://[ff02::1]", "http://user@host", "http://user:secret@169.254.169.254", "http://host@169.254.169.254",
    "http://169.254.169.254#@host", "http://host#@169.254.169.254", "http://host?@169.254.169.254",
    "http://host\\@169.254.169.254", "http://host/%2e%2e", "http://ho st", "http://host\r\nX: y", "http://host\x00",
    "http://\u2460\u2460.example", "http://\uff11\uff16\uff19.254.169.254", "http://host\u3002example",
    "http://", "http:///path", "http://host:0", "http://host:99999", "http://host:port", "http://-host", "http://ho..st",
    "file:///etc/passwd", "gopher://host:70/_x", "ftp://host", "ldap://host", "dict://host:11211/x", "unix:///run/docker.sock",
    "javascript:alert(1)", "//host", "host:8265", "",
]  # fmt: skip


@pytest.mark.parametrize("address", TRICKS, ids=range(len(TRICKS)))
def test_an_address_in_disguise_or_out_of_bounds_is_refused(address):
    with pytest.raises(InvalidInput) as refused:
        require_address(address)
    assert refused.value.field == "address"


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:8265", "http://localhost:8265", "http://ray-head.team.svc.cluster.local:8265", "http://[::1]:80",
     "https://10.0.0.7/ray", "http://192.168.1.20", "https://ray.example.com:443/a/b/", "http://head_1:8265"],
)  # fmt: skip
def test_where_clusters_are_is_fine(address):
    require_address(address)


def test_nothing_is_connected_to_for_an_address_that_is_refused(served, monkeypatch):
    connected: list[object] = []
    real = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", lambda wire, to: connected.append(to) or real(wire, to))
    for address in TRICKS:
        with pytest.raises(InvalidInput):
            served.client.put_cluster("c", {"zone": "DE", "address": address})
    assert {to[1] for to in connected} <= {served.listener.getsockname()[1]}, "only our own API"
    assert [view["name"] for view in served.client.clusters()] == ["clean"]


@pytest.mark.parametrize("leads_to", ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1%eth0", "0.0.0.0"])
def test_a_name_that_is_bound_anew_is_checked_before_every_connection(monkeypatch, leads_to):
    family = socket.AF_INET6 if ":" in leads_to else socket.AF_INET

    def lookup(host, port, *_, **__):
        return [(family, socket.SOCK_STREAM, 6, "", (leads_to, port))]

    def connect(*_):
        raise AssertionError("connected")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(socket.socket, "connect", connect)
    for address in ("http://ray.example.com:8265", "https://ray.example.com"):
        http = ClusterHttp(lambda address=address: Endpoint("c", address), RealClock())
        with pytest.raises(ClusterUnreachable):
            http.request("GET", "/api/version")
