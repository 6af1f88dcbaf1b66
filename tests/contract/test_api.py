"""Our API as the client meets it: the real application over loopback, the real services, fake clusters."""

from __future__ import annotations

import hashlib
import threading
import time
import zipfile
from datetime import timedelta

import pytest
import requests

from carbon_sched.client import Client
from carbon_sched.domain.errors import Conflict, InvalidInput, NotAllowed, NotFound
from carbon_sched.domain.facts import Entry
from carbon_sched.ledger.verify import verify_entries
from carbon_sched_runtime.sinks import Refused, Server
from carbon_sched_runtime.wire import format_segment
from tests.fakes.cluster import FakeCluster
from tests.fakes.served import TOKEN, served

__all__ = ["served"]


def test_a_job_from_bundle_to_receipt(served, tmp_path):
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("job.py", "print()")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert not served.client.has_bundle(digest)
    served.client.put_bundle(digest, path)
    assert served.client.has_bundle(digest)

    job = served.client.submit({"entrypoint": "python job.py", "bundle_sha256": digest}, idempotency_key="k")
    assert served.client.submit({"entrypoint": "python job.py", "bundle_sha256": digest}, idempotency_key="k") == job
    served.world.settle()
    moved = served.client.job(job["job_id"], wait_version=job["version"])
    assert (moved["state"], moved["cluster"]) == ("starting", "clean")
    assert served.client.decision(job["job_id"])["cluster"] == "clean"
    with served.world.store.transaction(write=False) as tx:
        stored = tx.job(job["job_id"])
    served.world.run_to_end(stored)
    receipt = served.client.receipt(job["job_id"])
    assert receipt["final"]
    assert receipt["co2e_ug"] == 55_000
    assert [event["event"] for event in served.client.events(job["job_id"])][-1] == "succeeded"
    assert [view["job_id"] for view in served.client.jobs()["jobs"]] == [job["job_id"]]
    assert served.client.report(job=job["job_id"])


def test_an_auditor_verifies_the_exported_ledger_alone(served):
    served.client.submit({"entrypoint": "true"}, idempotency_key="k")
    rows = list(served.client.entries())
    entries = [Entry(row["seq"], row["prev"], row["hash"], row["payload"].encode()) for row in rows]
    assert verify_entries(entries).ok
    assert served.client.verify()["size"] == len(entries)
    broken = [*entries[:-1], entries[-1]._replace(payload=entries[-1].payload.replace(b"ada", b"bob") + b" ")]
    assert verify_entries(broken).first_bad_seq == entries[-1].seq


def test_a_dry_run_decides_and_stores_nothing(served):
    before = served.client.verify()["size"]
    preview = served.client.preview({"entrypoint": "true", "duration_s": 60})
    assert (preview["verdict"], preview["cluster"], preview["job_id"]) == ("place", "clean", "")
    assert served.client.jobs()["jobs"] == []
    assert served.client.verify()["size"] == before


def test_a_waiting_job_is_given_more_time_and_then_started_at_once(served):
    job = served.client.submit({"entrypoint": "true", "earliest": "2026-03-01T18:00:00Z"}, idempotency_key="k")
    served.world.settle()
    longer = served.client.amend(job["job_id"], {"deadline": "2026-03-03T00:00:00Z"})
    assert (longer["deadline"], longer["amendments"], longer["state"]) == ("2026-03-03T00:00:00Z", 1, "queued")
    with pytest.raises(Conflict):
        served.client.amend(job["job_id"], {"now": True, "amendments": 0})
    started = served.client.amend(job["job_id"], {"now": True, "amendments": 1})
    assert (started["now"], started["earliest"]) == (True, None)
    served.world.settle()
    assert served.client.job(job["job_id"])["state"] == "starting"
    with pytest.raises(InvalidInput):
        served.client.amend(job["job_id"], {"priority": "high"})


def test_clusters_come_and_go(served):
    served.world.fleet._clusters.by_name["new"] = FakeCluster("new", served.world.clock)
    view = served.client.put_cluster("new", {"zone": "DE", "address": "http://new:8265", "pue": 1.3, "home": True})
    assert (view["zone"], view["pue"], view["problem"]) == ("DE", 1.3, "not asked yet")
    assert {one["name"]: one["home"] for one in served.client.clusters()} == {"clean": False, "new": True}
    assert served.client.check_cluster("new")["findings"]
    served.client.remove_cluster("new")
    with pytest.raises(NotFound):
        served.client.cluster("new")


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("zone", {"zone": "NARNIA", "address": "http://x"}),
        ("address", {"zone": "DE"}),
        ("address", {"zone": "DE", "address": "ftp://x"}),
        ("address", {"zone": "DE", "address": "http://x", "local": {}}),
        ("push_to", {"zone": "DE", "address": "http://x", "push_to": "us.example:8443"}),
        ("serve_address", {"zone": "DE", "address": "http://x", "serve_address": "us.example:8000"}),
        ("journal_store", {"zone": "DE", "address": "http://x", "journal_store": "s3://bucket/journals"}),
        ("journal_store", {"zone": "DE", "address": "http://x", "journal_store": "file:relative"}),
        ("journal_store", {"zone": "DE", "address": "http://x", "journal_store": "/mnt/journals"}),
        ("pue", {"zone": "DE", "address": "http://x", "pue": 0.5}),
        ("token", {"zone": "DE", "address": "http://x", "token": "hunter2"}),
        ("unknown_key", {"zone": "DE", "address": "http://x", "unknown_key": 1}),
        ("start_grace_s", {"zone": "DE", "address": "http://x", "start_grace_s": 1}),
    ],
)
def test_a_cluster_that_makes_no_sense_is_refused_with_its_field(served, field, request_):
    with pytest.raises(InvalidInput) as caught:
        served.client.put_cluster("c", request_)
    assert caught.value.field == field
    assert "hunter2" not in str(caught.value)


def test_every_route_but_health_wants_the_token(served):
    paths = requests.get(f"{served.url}/v1/openapi.json", timeout=5).json()["paths"]
    assert len(paths) > 15
    for path, operations in paths.items():
        for method in operations:
            answer = requests.request(method, served.url + path.replace("{", "").replace("}", ""), timeout=5)
            assert answer.status_code == (200 if path in ("/healthz", "/readyz") else 401), (method, path)
    with pytest.raises(NotAllowed), Client(served.url, "wrong") as client:
        client.jobs()


def test_logs_are_served_by_byte_and_wait_for_more(served):
    job = served.client.submit({"entrypoint": "true"}, idempotency_key="k")
    nothing_yet = {"attempt": 0, "text": "", "next_offset": 0, "final": False}
    assert served.client.logs(job["job_id"], wait_s=0.1) == nothing_yet
    served.world.settle()
    attempt = f"cs-{job['job_id']}-a1"
    served.world.clusters["clean"].files[f"job-driver-{attempt}.log"] = "one\nzwei ☕".encode()
    chunk = served.client.logs(job["job_id"], offset=4, wait_s=5)
    assert chunk["text"] == "zwei ☕"


def test_a_nodes_segments_are_taken_from_the_runtime_as_it_pushes_them(served):
    job, world = served.client.submit({"entrypoint": "true"}, idempotency_key="k"), served.world
    world.settle()
    with world.store.transaction(write=False) as tx:
        attempt = tx.attempt(f"cs-{job['job_id']}-a1")
    start = world.clock.now()
    made = [world.made_segment(start, start + timedelta(seconds=30), {attempt.attempt_id: energy}) for energy in (7, 8)]
    name, (data, other) = str(made[0].name), map(format_segment, made)

    sink = Server(served.url, world.push_token(attempt), attempt.attempt_id)
    for content in (data, data, other):  # again is fine, and other content is known by then: nothing to try again
        sink.take(name, content)
    with pytest.raises(Refused, match="401"):
        Server(served.url, "wrong", attempt.attempt_id).take(name, data)
    with pytest.raises(Refused, match=r"400|422"):
        sink.take(name, data[:-1])
    with world.store.transaction(write=False) as tx:
        assert [span.energy_uj for span in tx.spans([attempt.attempt_id])] == [7]


def test_what_is_not_there_and_what_contradicts(served):
    for call in (
        served.client.job,
        served.client.decision,
        served.client.receipt,
        served.client.logs,
        served.client.stop,
    ):
        with pytest.raises(NotFound):
            call("nosuchjob0")
    served.client.submit({"entrypoint": "true"}, idempotency_key="k")
    with pytest.raises(Conflict):
        served.client.submit({"entrypoint": "false"}, idempotency_key="k")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"entrypoint": 7}', b'{"entrypoint": "x", "nonsense": 1}', b"\xff"]
)
def test_a_malformed_request_is_answered_as_a_problem(served, body):
    answer = requests.post(f"{served.url}/v1/jobs", data=body, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5)
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["exit_code"] == 120


def test_shutdown_is_passed_on_after_the_answer(served):
    served.client.shutdown(stop_local_clusters=True)
    for _ in range(100):
        if served.stopped_with:
            break
        time.sleep(0.02)
    assert served.stopped_with == [True]


def test_every_error_reaches_the_client_as_itself(served):
    with pytest.raises(InvalidInput) as caught:
        served.client.jobs(state=["dancing"])
    assert (caught.value.exit_code, caught.value.field) == (120, "state")


@pytest.mark.parametrize("path", ["jobs", "statement", "report"])
def test_a_phase_that_there_is_not_selects_nothing_in_silence(served, path):
    header = {"Authorization": f"Bearer {TOKEN}"}
    answer = requests.get(f"{served.url}/v1/{path}?phase=training", headers=header, timeout=5)
    assert (answer.status_code, answer.json()["exit_code"]) == (400, 120)
    assert "phase" in answer.text
    assert "pretraining" in answer.text


# the server about itself -----------------------------------------------------------------------------------------


def test_ready_says_who_leads_and_what_is_in_the_way(served):
    answer = requests.get(f"{served.url}/readyz", timeout=5)
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "faults": [], "leader": True})
    served.faults.append("the loop decide has ended")
    answer = requests.get(f"{served.url}/readyz", timeout=5)
    assert (answer.status_code, answer.json()["faults"]) == (503, ["the loop decide has ended"])


def test_metrics_tell_jobs_clusters_and_answers_by_route(served):
    served.client.submit({"entrypoint": "python job.py"}, idempotency_key="one")
    served.world.fleet.poll(served.world.fleet.get("clean"))
    served.client.job(served.client.jobs()["jobs"][0]["job_id"])
    answer = requests.get(f"{served.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5)
    lines = answer.text.splitlines()
    assert 'carbon_sched_jobs{state="queued"} 1.0' in lines
    assert 'carbon_sched_cluster_usable{cluster="clean"} 1.0' in lines
    assert "carbon_sched_leader 1.0" in lines
    assert "carbon_sched_up 1.0" in lines
    route = 'carbon_sched_request_seconds_count{method="GET",route="/v1/jobs/{job_id}",status="200"}'
    assert any(line.startswith(route) for line in lines)
    assert requests.get(f"{served.url}/metrics", timeout=5).status_code == 401


def test_a_stream_tells_states_and_output_to_the_end_and_goes_on_where_a_reader_left(served):
    job = served.client.submit({"entrypoint": "true"}, idempotency_key="k")
    events: list[tuple[str, dict]] = []
    began = threading.Event()

    def read() -> None:
        with Client(served.url, TOKEN) as client:
            for event in client.stream(job["job_id"]):
                events.append(event)
                began.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert began.wait(20)
    served.world.settle()
    served.world.clusters["clean"].files[f"job-driver-cs-{job['job_id']}-a1.log"] = "eins ☕\nzwei\n".encode()
    with served.world.store.transaction(write=False) as tx:
        stored = tx.job(job["job_id"])
    served.world.run_to_end(stored)
    reader.join(20)
    assert not reader.is_alive()
    states = [data for name, data in events if name == "state"]
    assert (states[0]["state"], states[-1]["state"]) == ("queued", "succeeded")
    versions = [view["version"] for view in states]
    assert versions == sorted(set(versions))
    assert "".join(data["text"] for name, data in events if name == "log") == "eins ☕\nzwei\n"
    assert events[-1] == ("end", {})

    url, headers = f"{served.url}/v1/jobs/{job['job_id']}/stream", {"Authorization": f"Bearer {TOKEN}"}
    whole = requests.get(url, headers=headers, timeout=5).text
    last = [line.removeprefix("id: ") for line in whole.splitlines() if line.startswith("id: ")][-1]
    rest = requests.get(url, headers={**headers, "Last-Event-ID": last}, timeout=5).text
    assert [line for line in rest.splitlines() if line.startswith("event: ")] == ["event: end"]
    assert requests.get(url, headers={**headers, "Last-Event-ID": "x"}, timeout=5).status_code == 400
    assert "event: log" not in requests.get(url, params={"logs": "false"}, headers=headers, timeout=5).text


@pytest.mark.parametrize("name", ["after", "limit"])
def test_a_place_that_no_ledger_has_is_refused_before_anything_is_sent(served, name):
    asked = {"params": {name: 2**63}, "headers": {"Authorization": f"Bearer {TOKEN}"}}
    answer = requests.get(f"{served.url}/v1/ledger/entries", timeout=30, **asked)
    assert answer.status_code in (400, 422)
