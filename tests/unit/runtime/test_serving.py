"""What a service counts of itself: requests, tokens, latencies, batch size; told in a file, and in a header."""

from __future__ import annotations

import asyncio
import json

import pytest

from carbon_sched import serve
from carbon_sched_runtime import serving
from carbon_sched_runtime.fields import WireError
from carbon_sched_runtime.request_counts import (
    LAST,
    SERVE,
    Counts,
    ReplicaCounts,
    bucket,
    counts_name,
    format_counts,
    parse_counts,
)

ATTEMPT = "cs-0123456789-a1"


@pytest.fixture
def process(monkeypatch):
    """A process that counts from nothing, without its thread."""
    made = serving._Process()
    monkeypatch.setattr(serving, "_process", made)
    monkeypatch.setattr(made, "begin", lambda *, rate: None)
    return made


def answer_of(*bodies, kind="application/json", status=200):
    """An ASGI app that gives this answer in these pieces."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": [(b"Content-Type", kind.encode())]})
        for body in bodies:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


def call(app, scope_type="http"):
    """What the client sees of one request."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request"}

    asyncio.run(app({"type": scope_type}, receive, send))
    return sent


USAGE = {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}}
EVENT = b"data: " + json.dumps(USAGE).encode()


@pytest.mark.parametrize(
    ("kind", "bodies", "tokens"),
    [
        ("application/json", [json.dumps(USAGE).encode()], (11, 7)),
        ("application/json", [json.dumps(USAGE)[:30].encode(), json.dumps(USAGE)[30:].encode()], (11, 7)),
        ("application/json; charset=utf-8", [b'{"usage": {"input_tokens": 4, "output_tokens": 2}}'], (4, 2)),
        ("text/event-stream", [b'data: {"usage": null}\n\n', f"data: {json.dumps(USAGE)}\n\n".encode()], (11, 7)),
        ("text/event-stream", [EVENT[:40], EVENT[40:]], (11, 7)),
        ("text/event-stream", [b'data: {"usage": {"completion_tokens": 3}}\n\ndata: [DONE]\n\n'], (0, 3)),
        ("application/json", [b'{"usage": {"prompt_tokens": -5, "completion_tokens": "many"}}'], (0, 0)),
        ("application/json", [b'{"usage": [1, 2]}'], (0, 0)),
        ("application/json", [b'not "usage" json'], (0, 0)),
        ("text/plain", [json.dumps(USAGE).encode()], (0, 0)),
    ],
)  # fmt: skip
def test_tokens_are_read_from_openai_style_usage(process, kind, bodies, tokens):
    sent = call(serve.Middleware(answer_of(*bodies, kind=kind)))
    assert b"".join(message.get("body", b"") for message in sent) == b"".join(bodies)
    counted = process.requests.counts()
    assert (counted.requests, counted.failed) == (1, 0)
    assert (counted.input_tokens, counted.output_tokens) == tokens


def test_failures_are_answers_of_the_server_and_exceptions(process):
    call(serve.Middleware(answer_of(b"{}", status=503)))
    call(serve.Middleware(answer_of(b"{}", status=404)))

    async def broken(scope, receive, send):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        call(serve.Middleware(broken))
    counted = process.requests.counts()
    assert (counted.requests, counted.failed) == (3, 2)


def test_what_is_no_request_passes_uncounted(process):
    call(serve.Middleware(answer_of(b"{}")), scope_type="websocket")
    assert process.requests.counts().requests == 0


def test_what_is_no_asgi_app_counts_itself(process):
    with serve.request() as seen:
        seen.tokens(input=5, output=9)
    counted = process.requests.counts()
    assert (counted.requests, counted.input_tokens, counted.output_tokens) == (1, 5, 9)


def test_batch_size_is_the_mean_number_in_flight_while_there_are_any(monkeypatch):
    now = [1_000_000_000]
    monkeypatch.setattr(serving.time, "monotonic_ns", lambda: now[0])
    requests = serving.Requests()

    def pass_s(seconds):
        now[0] += round(seconds * 1e9)

    first = requests.request()
    pass_s(5)  # nothing in flight
    first.__enter__()
    pass_s(1)
    second = requests.request()
    second.__enter__()
    pass_s(2)
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    pass_s(9)
    counted = requests.counts()
    assert (counted.busy_us, counted.waited_us) == (3_000_000, 5_000_000)
    assert counted.batch_size == pytest.approx(5 / 3)
    assert counted.latency_s(0.5) == pytest.approx(2.0, rel=0.1)
    assert counted.latency_s(0.95) == pytest.approx(3.0, rel=0.1)


def test_sums_are_told_beside_the_journal_when_they_moved(monkeypatch, tmp_path, process):
    monkeypatch.setenv("CARBON_SCHED_ATTEMPT", ATTEMPT)
    monkeypatch.setenv("CARBON_SCHED_JOURNAL_DIR", str(tmp_path))
    process.tell()
    assert list(tmp_path.iterdir()) == []
    call(serve.Middleware(answer_of(json.dumps(USAGE).encode())))
    process.tell()
    (path,) = tmp_path.iterdir()
    assert path.name == counts_name(ATTEMPT, process.requests.replica)
    told = parse_counts(path.read_bytes(), ATTEMPT)
    assert told.counts == process.requests.counts()
    path.unlink()
    process.tell()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told_once_and_harms_no_request(monkeypatch, tmp_path, process, caplog):
    monkeypatch.setenv("CARBON_SCHED_ATTEMPT", ATTEMPT)
    monkeypatch.setenv("CARBON_SCHED_JOURNAL_DIR", str(tmp_path / "missing"))
    for _ in range(2):
        call(serve.Middleware(answer_of(b"{}")))
        process.tell()
    assert process.requests.counts().requests == 2
    assert sum("not told" in record.getMessage() for record in caplog.records) == 1


def test_the_header_is_there_once_grams_are_known(process):
    app = serve.Middleware(answer_of(b"{}"), header=True)
    process.rate = rate = type("Rate", (), {"grams": None})()
    assert serving.HEADER not in dict(call(app)[0]["headers"])
    rate.grams = 0.00123456789
    assert dict(call(app)[0]["headers"])[serving.HEADER] == b"0.00123457"
    assert serving.HEADER not in dict(call(serve.Middleware(answer_of(b"{}")))[0]["headers"])


def test_grams_of_a_request_are_those_of_the_window_over_its_requests(monkeypatch):
    class Measured:
        def __init__(self, *arguments, **options):
            assert options == {"kept": False}

        def start(self):
            return self

        def stop(self):
            return type("Measurement", (), {"co2e_g": 0.6})()

    monkeypatch.setattr(serving, "Window", Measured)
    requests = serving.Requests()
    rate = serving.Rate(requests)
    rate.turn()
    assert rate.grams is None  # idle: no request to divide by
    for _ in range(3):
        with requests.request():
            pass
    rate.turn()
    assert rate.grams == pytest.approx(0.2)


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 0), (0.0005, 0), (0.001, 0), (0.0011, 1), (1e9, LAST)])
def test_buckets_are_a_tenth_wide(seconds, expected):
    assert bucket(seconds) == expected


def test_sums_are_added_and_subtracted_field_by_field():
    one, other = Counts(3, 1, 4, 5, 6, 7, {1: 2, 4: 1}), Counts(1, 0, 1, 1, 1, 1, {4: 1})
    assert one - other + other == one
    assert (one - other).latencies == {1: 2}


GOOD = ReplicaCounts(ATTEMPT, "0123abcd", 10, 20, Counts(3, 1, 4, 5, 6, 7, {1: 2, 4: 1}))


def test_the_file_is_read_as_it_was_written():
    assert parse_counts(format_counts(GOOD), ATTEMPT) == GOOD


@pytest.mark.parametrize(
    "change",
    [
        {"n": 4}, {"bad": 9}, {"t1": 9}, {"busy": 8}, {"lat": "1:2 4"}, {"lat": "999:3"}, {"replica": "../x"},
        {"attempt": "cs-other-a1"}, {"v": 2}, {"out": -1}, {"more": 1}, {"replica": SERVE},
    ],
)  # fmt: skip
def test_sums_that_cannot_be_are_refused(change):
    line = json.dumps(json.loads(format_counts(GOOD)) | change).encode() + b"\n"
    with pytest.raises(WireError):
        parse_counts(line, ATTEMPT)
