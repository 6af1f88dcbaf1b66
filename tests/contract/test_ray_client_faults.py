"""A cluster that fails or lies: each failure must say whether the request can have been executed."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import pytest

from carbon_sched.clusters.http import Endpoint, Limits
from carbon_sched.clusters.ray_client import RayClient
from carbon_sched.domain.cluster import SecretRef
from carbon_sched.domain.errors import (
    ClusterError,
    ClusterRefused,
    ClusterUnauthorized,
    ClusterUnclear,
    ClusterUnreachable,
)
from carbon_sched.ports import RaySubmission
from tests.fakes.certificates import authority_and_server
from tests.fakes.ray_cluster import RealClock
from tests.fakes.ray_head import FakeRayHead, Server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

JOB = "cs-aaaaaaaaaa-a1"
SUBMISSION = RaySubmission(JOB, "true", {}, {})
UNCLEAR_LIES = ["cut", "lost", "error", "error-done", "html", "html-502", "garbage"]


def client(address: str, **more: Any) -> RayClient:
    limits = more.pop("limits", Limits(connect_s=2, read_s=5, total_s=5))
    endpoint = Endpoint("blue", address, **more)
    return RayClient("blue", lambda: endpoint, RealClock(), limits)


@pytest.fixture
def head():
    with FakeRayHead(execute=False) as fake:
        yield fake


CALLS: dict[str, Callable[[RayClient, FakeRayHead], object]] = {
    "epoch": lambda c, h: c.epoch(),
    "submit": lambda c, h: c.submit(SUBMISSION),
    "job": lambda c, h: c.job(JOB),
    "jobs": lambda c, h: c.jobs(),
    "stop": lambda c, h: c.stop(JOB),
    "logs": lambda c, h: c.logs(JOB),
    "list_files": lambda c, h: c.list_files(h.node_id, "*"),
}


@pytest.mark.parametrize("lie", UNCLEAR_LIES)
@pytest.mark.parametrize("call", CALLS)
def test_an_answer_that_cannot_be_understood_is_unclear(head: FakeRayHead, call: str, lie: str):
    head.lie(lie)
    with pytest.raises(ClusterUnclear, match="cluster 'blue'"):
        CALLS[call](client(head.address), head)


@pytest.mark.parametrize("lie", UNCLEAR_LIES)
def test_the_status_tells_any_trouble_and_raises_nothing(head: FakeRayHead, lie: str):
    head.lie(lie, "/api/v0/nodes")
    status = client(head.address).status()
    assert status.problem
    assert not status.usable
    assert client(head.address).status().usable


@pytest.mark.parametrize(("lie", "known"), [("lost", True), ("error-done", True), ("cut", False), ("error", False)])
def test_after_an_unclear_submission_asking_tells(head: FakeRayHead, lie: str, known: bool):
    head.lie(lie, "/api/jobs/", method="POST")
    with pytest.raises(ClusterUnclear):
        client(head.address).submit(SUBMISSION)
    assert (client(head.address).job(JOB) is not None) == known
    client(head.address).submit(SUBMISSION)  # posted again, or adopted
    assert list(head.jobs) == [JOB]


def test_an_answer_that_comes_too_late_is_unclear(head: FakeRayHead):
    head.lie("late", "/api/jobs/", method="POST", delay_s=0.4)
    with pytest.raises(ClusterUnclear, match="no answer in time"):
        client(head.address, limits=Limits(read_s=0.1)).submit(SUBMISSION)
    assert client(head.address).job(JOB) is not None


def test_where_nobody_listens_nothing_happened():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ClusterUnreachable, match="nothing answers"):
        client(address).submit(SUBMISSION)


def test_a_name_that_does_not_resolve_is_unreachable():
    with pytest.raises(ClusterUnreachable, match="nothing answers"):
        client("http://no-such-host.invalid:8265").jobs()


@pytest.mark.parametrize(
    "address", ["ray://127.0.0.1:10001", "127.0.0.1:8265", "http://a:b@host", "http://", "http://h:x"]
)
def test_an_address_that_is_no_dashboard_is_refused(address: str):
    with pytest.raises(ClusterRefused, match="HOST:PORT"):
        client(address).jobs()


def test_a_redirect_is_not_followed(head: FakeRayHead):
    with FakeRayHead(execute=False) as elsewhere, redirecting_to(elsewhere.address) as address:
        with pytest.raises(ClusterRefused, match="redirects"):
            client(address).submit(SUBMISSION)
        assert elsewhere.seen == []


def test_what_the_cluster_clearly_refuses_is_refused(head: FakeRayHead):
    head.version = "2.40.0"
    told_new = client(head.address)
    head.lie("answer", "/api/version", body=json.dumps({"ray_version": "2.60.0"}).encode())
    selecting = RaySubmission(JOB, "true", {}, {}, entrypoint_label_selector={"disk": "fast"})
    with pytest.raises(ClusterRefused, match="unexpected keyword argument 'entrypoint_label_selector'"):
        told_new.submit(selecting)
    head.lie("answer", "/api/packages/.*", method="PUT", code=413, body=b"too large", media_type="text/plain")


def test_a_smaller_limit_of_a_proxy_is_refused(head: FakeRayHead, tmp_path: Path):
    package = tmp_path / "package.zip"
    package.write_bytes(b"content")
    head.lie("answer", "/api/packages/.*", method="PUT", code=413, body=b"too large", media_type="text/plain")
    with pytest.raises(ClusterRefused, match="413"):
        client(head.address).ensure_package(package, "_ray_pkg_x.zip")


def test_a_package_that_vanished_is_our_fault(head: FakeRayHead, tmp_path: Path):
    with pytest.raises(ClusterError, match="cannot be read"):
        client(head.address).ensure_package(tmp_path / "none.zip", "_ray_pkg_x.zip")


@pytest.mark.parametrize("code", [408, 429])
def test_a_busy_cluster_did_nothing(head: FakeRayHead, code: int):
    head.lie("answer", method="POST", code=code, body=b"later", media_type="text/plain")
    with pytest.raises(ClusterUnreachable, match="busy"):
        client(head.address).submit(SUBMISSION)


def test_a_proxys_404_does_not_mean_that_the_job_is_unknown(head: FakeRayHead):
    head.lie("answer", code=404, body=b"<html>no backend</html>", media_type="text/html", times=2)
    with pytest.raises(ClusterUnclear):
        client(head.address).job(JOB)
    with pytest.raises(ClusterUnclear):
        client(head.address).logs(JOB)


def test_nothing_for_a_file_that_is_not_there_is_no_empty_file(head: FakeRayHead):
    # Real Ray 2.60 loses the error now and then.
    head.lie("answer", "/api/v0/logs/file", body=b"", media_type="text/plain")
    with pytest.raises(ClusterRefused, match="not found"):
        client(head.address).read_file(head.node_id, "cs-gone[1].seg", limit=100)
    head.put_file("cs-here[1].seg", b"")
    assert client(head.address).read_file(head.node_id, "cs-here[1].seg", limit=100) == b""


@pytest.mark.parametrize(
    "change",
    [
        {"status": "SLEEPING"},
        {"status": None},
        {"submission_id": "cs-bbbbbbbbbb-a1"},
        {"driver_exit_code": "zero"},
    ],
)
def test_a_job_that_cannot_be_is_unclear(head: FakeRayHead, change: dict[str, object]):
    client(head.address).submit(SUBMISSION)
    head.lie("rewrite", change=lambda true: {**true, **change})
    with pytest.raises(ClusterUnclear):
        client(head.address).job(JOB)


def test_the_answer_to_a_submission_must_be_about_it(head: FakeRayHead):
    head.lie("answer", method="POST", body=b'{"job_id": "x", "submission_id": "x"}')
    with pytest.raises(ClusterUnclear, match="about 'x'"):
        client(head.address).submit(SUBMISSION)


def test_a_job_list_with_an_unknown_state_is_unclear(head: FakeRayHead):
    client(head.address).submit(SUBMISSION)
    head.lie("rewrite", change=lambda jobs: [{**job, "status": "SLEEPING"} for job in jobs])
    with pytest.raises(ClusterUnclear):
        client(head.address).jobs()


def nodes_with(**change: object) -> Callable[[Any], Any]:
    def apply(answer: Any) -> Any:
        for node in answer["data"]["result"]["result"]:
            node.update(change)
        return answer

    return apply


@pytest.mark.parametrize("resources", [{"CPU": "many"}, {"CPU": float("nan")}, {"CPU": float("inf")}, "none", []])
def test_resources_that_are_no_numbers_are_a_problem(head: FakeRayHead, resources: object):
    head.lie("rewrite", "/api/v0/nodes", change=nodes_with(resources_total=resources))
    assert "Ray does not say" in client(head.address).status().problem


def test_a_dead_node_is_no_node(head: FakeRayHead):
    head.lie("rewrite", "/api/v0/nodes", change=nodes_with(state="DEAD", resources_total=None))
    status = client(head.address).status()
    assert status.nodes == ()
    assert "no node is alive" in status.problem


def test_a_dashboard_without_a_node_is_not_ready(head: FakeRayHead):
    head.ready = False
    assert "no node is alive" in client(head.address).status().problem
    head.ready = True
    assert client(head.address).status().usable


def test_a_ray_that_is_too_old_is_named(head: FakeRayHead):
    head.version = "2.8.1"
    assert "2.8.1; 2.9 or newer" in client(head.address).status().problem


# usage ------------------------------------------------------------------------------------------


def occupied(head: FakeRayHead) -> FakeRayHead:
    client(head.address).submit(RaySubmission(JOB, "true", {}, {}, entrypoint_num_cpus=3))
    head.begin(JOB)
    return head


@pytest.mark.parametrize("autoscaler", ["v1", "v2"])
def test_usage_is_known_under_either_autoscaler(head: FakeRayHead, autoscaler: str):
    head.autoscaler = autoscaler
    (node,) = client(occupied(head).address).status().nodes
    assert node.used["CPU"] == 3.0


def test_usage_that_is_not_told_is_unknown(head: FakeRayHead):
    head.autoscaler = "none"
    status = client(occupied(head).address).status()
    assert status.usable
    assert status.nodes[0].used is None


def test_a_head_that_nobody_ever_used_is_free(head: FakeRayHead):
    head.autoscaler = "none"
    (node,) = client(head.address).status().nodes
    assert node.used == dict.fromkeys(node.resources, 0.0)


def test_the_last_words_of_a_dead_monitor_are_not_believed(head: FakeRayHead):
    head.autoscaler = "v1"
    head.version = "2.40.0"  # the summary tells nothing either

    def old(answer: Any) -> Any:
        answer["data"]["clusterStatus"]["time"] -= 3600
        return answer

    head.lie("rewrite", "/api/cluster_status", change=old)
    assert client(occupied(head).address).status().nodes[0].used is None


# restarts ---------------------------------------------------------------------------------------


def test_a_head_that_comes_back_empty_has_another_epoch(head: FakeRayHead):
    asked = client(head.address)
    asked.submit(SUBMISSION)
    before = asked.epoch()
    head.restart()
    assert asked.epoch() != before
    assert asked.job(JOB) is None


def test_logs_wake_the_job_manager_of_a_head_that_remembers(head: FakeRayHead):
    asked = client(head.address)
    asked.submit(SUBMISSION)
    head.begin(JOB)
    before = asked.epoch()
    head.restart(fault_tolerant=True)
    assert asked.epoch() == before
    assert asked.job(JOB).status == "RUNNING"
    asked.logs(JOB)
    assert asked.job(JOB).status == "FAILED"


# secrets ----------------------------------------------------------------------------------------

SECRET = "canary-4f1d"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{SECRET}\n")
    return path


def test_the_token_is_read_at_every_use(token_file: Path):
    with FakeRayHead(token=SECRET, execute=False) as head:
        asked = client(head.address, token=SecretRef(file=str(token_file)))
        assert asked.jobs() == []
        head.token = "rotated"
        with pytest.raises(ClusterUnauthorized):
            asked.jobs()
        token_file.write_text("rotated")
        assert asked.jobs() == []


def test_the_token_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BLUE_TOKEN", SECRET)
    with FakeRayHead(token=SECRET, execute=False) as head:
        assert client(head.address, token=SecretRef(env="BLUE_TOKEN")).jobs() == []


def test_a_cluster_that_wants_a_token_says_so():
    with FakeRayHead(token=SECRET, execute=False) as head, pytest.raises(ClusterUnauthorized, match="wants a token"):
        client(head.address).jobs()


@pytest.mark.parametrize("content", ["", "two\nlines", "é", None])
def test_a_token_that_cannot_be_sent_is_not(token_file: Path, content: str | None):
    token_file.unlink()
    if content is not None:
        token_file.write_text(content)
    with FakeRayHead(execute=False) as head:
        with pytest.raises(ClusterUnauthorized, match="token"):
            client(head.address, token=SecretRef(file=str(token_file))).jobs()
        assert head.seen == []


@pytest.mark.parametrize("code", [400, 401, 403, 500, 200])
def test_no_error_repeats_a_secret_that_the_cluster_echoes(token_file: Path, code: int):
    with FakeRayHead(execute=False) as head:
        head.lie("answer", code=code, body=f"you sent Bearer {SECRET}".encode(), media_type="text/plain")
        with pytest.raises(ClusterError) as error:
            client(head.address, token=SecretRef(file=str(token_file))).job(JOB)
        assert SECRET not in str(error.value)


def test_a_secret_does_not_leave_the_machine_in_clear(token_file: Path):
    secret = SecretRef(file=str(token_file))
    for given in ({"token": secret}, {"headers": {"X-Key": secret}}):
        with pytest.raises(ClusterUnauthorized, match="allow_plain_http_token"):
            client("http://192.0.2.1:8265", **given).jobs()


def test_in_clear_only_where_it_is_allowed(token_file: Path):
    # Nothing answers at this name; what matters is that it was tried.
    given = {"token": SecretRef(file=str(token_file)), "allow_plain_http_token": True}
    with pytest.raises(ClusterUnreachable):
        client("http://no-such-host.invalid:8265", **given).jobs()


def test_a_proxy_may_have_the_authorization_header(token_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PROXY_LOGIN", "Basic abc")
    with FakeRayHead(token=SECRET, execute=False) as head:
        headers = {"Authorization": SecretRef(env="PROXY_LOGIN")}
        assert client(head.address, token=SecretRef(file=str(token_file)), headers=headers).jobs() == []
        assert head.received[-1]["Authorization"] == "Basic abc"


def test_speaks_as_no_browser_does(head: FakeRayHead):
    client(head.address).jobs()
    assert head.received[-1]["User-Agent"].startswith("carbon-sched/")


def test_nothing_is_taken_from_the_environment(head: FakeRayHead, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", "http://no-such-host.invalid:1")
    client(head.address).jobs()
    assert "Authorization" not in head.received[-1]


# answers without measure ------------------------------------------------------------------------


def test_an_answer_above_the_limit_is_not_read(head: FakeRayHead):
    head.lie("answer", body=b"[" + b" " * 200_000 + b"]")
    with pytest.raises(ClusterUnclear, match="larger than 1000 bytes"):
        client(head.address, limits=Limits(answer_bytes=1000)).jobs()


def test_an_answer_that_a_proxy_compressed_is_read():
    def pack(handler: BaseHTTPRequestHandler) -> None:
        body = gzip.compress(json.dumps([{"type": "DRIVER", "status": "RUNNING"}] * 5000).encode())
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with serving(pack) as address:
        assert client(address).jobs() == []
        with pytest.raises(ClusterUnclear, match="larger"):
            client(address, limits=Limits(answer_bytes=100_000)).jobs()


def test_an_answer_that_drips_is_given_up():
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b" ")
            time.sleep(0.05)

    start = time.monotonic()
    with serving(drip) as address, pytest.raises(ClusterUnclear, match="took longer"):
        client(address, limits=Limits(read_s=1, total_s=0.3)).jobs()
    assert time.monotonic() - start < 4, "it was read to its end"


def test_an_answer_that_is_cut_short_is_unclear():
    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"[]")
        handler.close_connection = True

    with serving(cut) as address, pytest.raises(ClusterUnclear, match="broke"):
        client(address).jobs()


def test_an_answer_in_chunks_that_is_cut_short_is_unclear():
    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"2\r\n[]\r\n")
        handler.close_connection = True

    with serving(cut) as address, pytest.raises(ClusterUnclear, match="broke"):
        client(address).jobs()


# TLS --------------------------------------------------------------------------------------------


def test_a_certificate_of_a_private_authority_needs_its_ca_file(tmp_path: Path):
    ca_file, certificate, key = authority_and_server(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def empty(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"[]")

    with serving(empty, context) as address:
        assert client(address, ca_file=str(ca_file)).jobs() == []
        with pytest.raises(ClusterUnreachable, match="ca_file"):
            client(address).jobs()
        with pytest.raises(ClusterUnreachable, match="does not exist"):
            client(address, ca_file=str(tmp_path / "none.pem")).jobs()


def test_https_to_a_plain_server_says_so(head: FakeRayHead):
    with pytest.raises(ClusterUnclear, match="really https"):
        client(head.address.replace("http:", "https:")).jobs()


class serving:  # noqa: N801 - used like a function
    """A server on a free port whose every answer one function writes."""

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler], None], context: ssl.SSLContext | None = None) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                try:
                    answer(self)
                except ConnectionError:
                    self.close_connection = True

            do_POST = do_GET  # noqa: N815 - the name is the library's

            def log_message(self, *_: object) -> None:
                pass

        class QuietServer(Server):
            def handle_error(self, *_: object) -> None:  # a client that did not like the certificate
                pass

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        self.scheme = "http"
        if context is not None:
            self.scheme = "https"
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)

    def __enter__(self) -> str:
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        return f"{self.scheme}://127.0.0.1:{self.server.server_address[1]}"

    def __exit__(self, *exception: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def redirecting_to(address: str) -> serving:
    def redirect(handler: BaseHTTPRequestHandler) -> None:
        handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        handler.send_response(307)
        handler.send_header("Location", f"{address}/api/jobs/")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return serving(redirect)
