"""The public client against a loopback server: every route, every error, and the other side misbehaving."""

from __future__ import annotations

import hashlib
import ssl
from datetime import datetime, timezone

import pytest
import requests

from carbon_sched.client import Client
from carbon_sched.domain import errors
from tests.fakes.api_server import TOKEN, Fault, RunningApi
from tests.fakes.api_views import job_view, problem
from tests.fakes.certificates import authority_and_server


@pytest.fixture
def api():
    with RunningApi() as running:
        yield running


@pytest.fixture
def client(api):
    with Client(api.url, TOKEN) as made:
        yield made


def submitted(client: Client) -> str:
    return client.submit({"entrypoint": "python train.py"}, idempotency_key="k1")["job_id"]


# every route ----------------------------------------------------------------------------------------------------------


def test_health_and_server(client):
    assert client.health()["ok"] is True
    assert client.server()["jobs_live"] == 0


def test_shutdown_says_whether_local_heads_end_too(client, api):
    client.shutdown(stop_local_clusters=True)
    assert api.shut_down == {"stop_local_clusters": True}


def test_a_bundle_travels_whole_and_only_once_needed(client, api, tmp_path):
    content = bytes(range(256)) * 1000
    file = tmp_path / "bundle.zip"
    file.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    assert client.has_bundle(sha256) is False
    client.put_bundle(sha256, file)
    assert api.bundles[sha256] == content
    assert client.has_bundle(sha256) is True


def test_the_same_key_is_the_same_job(client, api):
    first = client.submit({"entrypoint": "python a.py"}, idempotency_key="k1")
    again = client.submit({"entrypoint": "python a.py"}, idempotency_key="k1")
    other = client.submit({"entrypoint": "python a.py"}, idempotency_key="k2")
    assert first["job_id"] == again["job_id"] != other["job_id"]
    assert api.calls[0].json() == {"entrypoint": "python a.py"}


def test_a_preview_stores_nothing(client, api):
    assert client.preview({"entrypoint": "python a.py"})["verdict"] == "place"
    assert api.jobs == {}


def test_a_long_poll_asks_for_something_newer(client, api):
    api.tell(job_view(), job_view(state="running"))
    job_id = submitted(client)
    assert client.job(job_id)["state"] == "queued"
    assert client.job(job_id, wait_version=0, timeout_s=3.5)["state"] == "running"
    assert api.calls[-1].query == {"wait_version": ["0"], "timeout_s": ["3.5"]}


def test_filters_travel_and_empty_ones_do_not(client, api):
    client.jobs(state=["running", "queued"], team="nlp", limit=5)
    assert api.calls[-1].query == {"state": ["running", "queued"], "team": ["nlp"], "limit": ["5"]}


def test_reading_routes_of_a_job(client, api):
    api.tell(job_view(), text="hello\n")
    job_id = submitted(client)
    assert client.decision(job_id)["cluster"] == "north"
    assert client.receipt(job_id)["final"] is True
    assert client.events(job_id)[0]["event"] == "accepted"
    assert client.logs(job_id, offset=0, wait_s=1)["text"] == "hello\n"
    assert client.stop(job_id)["state"] == "stopped"


def test_clusters_come_and_go(client):
    assert client.put_cluster("lab", {"zone": "DE", "address": "http://head:8265"})["zone"] == "DE"
    assert [view["name"] for view in client.clusters()] == ["lab"]
    assert client.cluster("lab")["name"] == "lab"
    assert client.check_cluster("lab")["findings"][0]["level"] == "ok"
    client.remove_cluster("lab")
    with pytest.raises(errors.NotFound, match="no cluster is called 'lab'"):
        client.cluster("lab")


def test_a_name_is_one_segment_of_the_path(client, api):
    with pytest.raises(errors.NotFound):
        client.cluster("../v1/server")
    assert api.calls[-1].path == "/v1/clusters/..%2Fv1%2Fserver"


def test_entries_arrive_one_by_one(client, api):
    api.entries = [{"seq": n, "prev": "", "hash": "", "payload": "{}"} for n in (1, 2, 3)]
    assert [entry["seq"] for entry in client.entries(after=1)] == [2, 3]


def test_a_report_is_text_in_the_wanted_format(client, api):
    since = datetime(2026, 11, 1, tzinfo=timezone.utc)
    assert client.report(format="csv", team="nlp", since=since) == "report as csv\n"
    assert api.calls[-1].query["since"] == ["2026-11-01T00:00:00+00:00"]
    assert client.verify()["ok"] is True


# errors ---------------------------------------------------------------------------------------------------------------


def test_errors_arrive_as_the_server_raised_them(client, api):
    detail = "deadline: 'x' is not a time. Use RFC 3339"
    api.refuse = problem("invalid-input", 400, 120, detail, field="deadline", value="x", remedy="Use RFC 3339")
    with pytest.raises(errors.InvalidInput) as caught:
        submitted(client)
    error = caught.value
    assert (str(error), error.field, error.value, error.remedy) == (detail, "deadline", "x", "Use RFC 3339")
    assert error.exit_code == 120


EVERY_CODE = {
    "not-found": errors.NotFound,
    "conflict": errors.Conflict,
    "stale-version": errors.StaleVersion,
    "not-allowed": errors.NotAllowed,
    "cluster-unreachable": errors.ClusterUnreachable,
    "grid-rate-limited": errors.GridRateLimited,
    "store-error": errors.StoreError,
    "schema-too-new": errors.SchemaTooNew,
    "ledger-broken": errors.LedgerBroken,
    "invalid-file": errors.InvalidFile,
    "internal": errors.Internal,
}


@pytest.mark.parametrize(("code", "kind"), EVERY_CODE.items())
def test_each_code_is_its_class(api, monkeypatch, code, kind):
    monkeypatch.setattr("carbon_sched.client.TRIES", 1)
    client = Client(api.url, TOKEN)
    api.refuse = problem(code, kind.http_status, kind.exit_code, "what happened, and what to do")
    with pytest.raises(kind, match="what happened, and what to do") as caught:
        submitted(client)
    assert type(caught.value) is kind
    assert caught.value.exit_code == kind.exit_code


def test_an_unknown_code_keeps_the_servers_words_and_exit_code(client, api):
    api.refuse = problem("quota-exceeded", 429, 121, "the team's budget is used up")
    with pytest.raises(errors.CarbonSchedError, match="budget is used up") as caught:
        submitted(client)
    assert caught.value.exit_code == 121


def test_a_wrong_token_is_said_to_be_wrong(api):
    with pytest.raises(errors.NotAllowed, match="missing, wrong"):
        Client(api.url, "cs_other").server()


HTML = Fault(200, b"<!doctype html><title>Ray Dashboard</title>", content_type="text/html")


@pytest.mark.parametrize(
    "fault",
    [
        HTML,
        Fault(404, b"<html>"),
        Fault(500, b'{"detail": 5}'),
        Fault(302),
        Fault(418, b"[]"),
        Fault(404, b'{"detail":"Not Found"}'),
    ],
)
def test_a_stranger_is_recognised(client, api, fault):
    api.faults = [fault]
    with pytest.raises(errors.ServerUnavailable, match="nothing that a carbon-sched server says"):
        client.server()


def test_a_proxy_that_refuses_is_not_a_stranger(client, api):
    api.faults = [Fault(403, b"forbidden")]
    with pytest.raises(errors.NotAllowed, match="HTTP 403"):
        client.server()


def test_nobody_listening(api):
    words = r"cannot reach the carbon-sched server at http://127\.0\.0\.1:1 \("
    with Client("http://127.0.0.1:1", TOKEN) as client, pytest.raises(errors.ServerUnavailable, match=words):
        client.server()


def test_an_answer_without_end_is_cut_off(client, api, monkeypatch):
    monkeypatch.setattr("carbon_sched.client.MAX_ANSWER", 1 << 20)
    api.faults = [Fault(200, b"x" * ((1 << 20) + 1))]
    with pytest.raises(errors.ServerUnavailable, match="larger than 1 MiB"):
        client.server()


# repeating ------------------------------------------------------------------------------------------------------------


def test_reads_are_repeated_when_no_clear_answer_came(client, api):
    api.faults = [Fault(503), Fault(hang_up=True)]
    assert client.server()["jobs_live"] == 0
    assert len(api.calls) == 3


def test_a_submission_whose_answer_was_lost_is_repeated_with_its_key(client, api):
    api.faults = [Fault(hang_up=True, after=True)]
    job_id = submitted(client)
    assert [call.headers["idempotency-key"] for call in api.calls] == ["k1", "k1"]
    assert list(api.jobs) == [job_id]


def test_an_upload_is_sent_again_from_its_beginning(client, api, tmp_path):
    file = tmp_path / "bundle.zip"
    file.write_bytes(b"content")
    api.faults = [Fault(503)]
    client.put_bundle("ab" * 32, file)
    assert [call.body for call in api.calls] == [b"content", b"content"]


def test_what_could_happen_twice_is_not_repeated(client, api):
    api.faults = [Fault(hang_up=True)]
    with pytest.raises(errors.ServerUnavailable):
        client.shutdown(stop_local_clusters=False)
    assert len(api.calls) == 1


def test_refusals_are_not_repeated(client, api):
    api.refuse = problem("conflict", 409, 121, "no")
    with pytest.raises(errors.Conflict):
        submitted(client)
    assert len(api.calls) == 1


def test_a_server_that_stays_away_is_given_up(client, api):
    api.faults = [Fault(503)] * 10
    with pytest.raises(errors.ServerUnavailable, match="HTTP 503"):
        client.server()
    assert len(api.calls) == 4


# where the token goes -------------------------------------------------------------------------------------------------


def test_the_token_travels_as_bearer_whatever_netrc_says(tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine carbon.example.org login eve password other\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(netrc))
    session = Client("https://carbon.example.org", TOKEN)._session
    sent = session.prepare_request(requests.Request("GET", "https://carbon.example.org/v1/server"))
    assert sent.headers["Authorization"] == f"Bearer {TOKEN}"


def test_a_proxy_does_not_stand_before_loopback(api, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert Client(api.url, TOKEN).server()["jobs_live"] == 0


def test_a_redirect_is_not_followed(client, api):
    api.faults = [Fault(307, location=f"{api.url}/healthz")]
    with pytest.raises(errors.ServerUnavailable):
        client.server()
    assert len(api.calls) == 1


@pytest.mark.parametrize("url", ["http://gpu-server:8290", "http://127.evil.org", "http://10.0.0.5:80"])
def test_no_token_in_clear_to_another_machine(url):
    with pytest.raises(errors.InvalidInput, match="in clear"):
        Client(url, TOKEN)
    Client(url, TOKEN, allow_plain_http=True)


@pytest.mark.parametrize("url", ["", "localhost:80", "ftp://host", "https://"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(errors.InvalidInput, match="is not a URL"):
        Client(url, TOKEN)


def test_a_certificate_of_nobody_we_know_is_refused_with_the_remedy(tmp_path, monkeypatch):
    ca_file, certificate, key = authority_and_server(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with RunningApi(context) as api:
        with Client(api.url, TOKEN) as client, pytest.raises(errors.ServerUnavailable, match="REQUESTS_CA_BUNDLE"):
            client.server()
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca_file))
        with Client(api.url, TOKEN) as client:
            assert client.server()["jobs_live"] == 0
