"""Ray Serve over HTTP, as Ray 2.60 answers; tests/e2e/test_serve_app.py asks a real one."""

from __future__ import annotations

import pytest

from carbon_sched.clusters.http import Endpoint
from carbon_sched.clusters.ray_client import RayClient
from carbon_sched.domain.errors import ClusterRefused, ClusterUnclear
from carbon_sched.ports import Served, ServedApp
from tests.fakes.ray_cluster import RealClock
from tests.fakes.ray_head import FakeRayHead

APP = {"name": "chat", "import_path": "chat:app", "route_prefix": "/chat"}
OTHER = {"name": "theirs", "import_path": "x:y", "route_prefix": "/theirs"}


@pytest.fixture
def head():
    with FakeRayHead(execute=False) as head:
        yield head


def client_of(head):
    return RayClient("c", lambda: Endpoint("c", head.address, None), RealClock())


def test_before_the_first_app_serve_does_not_run(head):
    assert client_of(head).served() == Served((), None, answers=False)


def test_the_whole_set_is_put_and_read_as_the_cluster_holds_it(head):
    client = client_of(head)
    client.serve([APP, OTHER], host="127.0.0.1", port=8123)
    served = client.served()
    assert (served.port, served.answers) == (8123, True)
    assert served.app("chat") == ServedApp("chat", "RUNNING", "", APP, (head.node_id,))
    client.serve([OTHER], host="127.0.0.1", port=9999)
    served = client.served()
    assert (served.port, [app.name for app in served.apps]) == (8123, ["theirs"])


def test_a_set_that_ray_refuses_is_refused_in_its_words(head):
    with pytest.raises(ClusterRefused, match="import_path: Field required"):
        client_of(head).serve([{"name": "chat"}], host="127.0.0.1", port=8123)


def test_a_cluster_without_serve_says_what_to_install(head):
    head.serve_installed = False
    with pytest.raises(ClusterRefused, match=r"no Ray Serve: install ray\[serve\]"):
        client_of(head).served()


@pytest.mark.parametrize("body", ["<html>", '{"applications": {"chat": {}}}', "[]"])
def test_an_answer_that_serve_does_not_give_is_unclear(head, body):
    head.lie("answer", "/api/serve/applications/", body=body.encode())
    with pytest.raises(ClusterUnclear):
        client_of(head).served()
