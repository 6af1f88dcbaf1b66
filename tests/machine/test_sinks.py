"""A wrapper whose segments are delivered: to a server that fails first, refuses or is away, and to a shared folder."""

from __future__ import annotations

import http.server
import threading

import pytest

from carbon_sched_runtime.wire import parse_segment
from tests.fakes.wrapped import A, Workplace


class Api(http.server.ThreadingHTTPServer):
    """Answers as the test says, one after another, the last for ever; keeps what it accepted."""

    def __init__(self, *answers: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.taken, self.asked = list(answers), {}, []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        api: Api = self.server
        data = self.rfile.read(int(self.headers["Content-Length"]))
        api.asked.append((self.path, self.headers["Authorization"]))
        status = api.answers.pop(0) if len(api.answers) > 1 else api.answers[0]
        if status == 204:
            api.taken[self.path.rpartition("/")[2]] = data
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def place(tmp_path):
    workplace = Workplace(tmp_path)
    yield workplace
    workplace.close()


def run(place: Workplace, api: Api) -> None:
    environment = {"CARBON_SCHED_PUSH": f"{api.url}/", "CARBON_SCHED_PUSH_TOKEN": "a-token"}
    assert place.run("sleep 0.3", A, **environment)[0] == 0
    api.shutdown()
    api.server_close()


def test_every_segment_arrives_as_it_lies_in_the_folder_though_the_server_fails_first(place):
    api = Api(500, 429, 204)
    run(place, api)

    kept = {path.name: path.read_bytes() for path in place.journal.glob("*.seg")}
    assert api.taken == kept != {}
    assert {row.owner for name, data in kept.items() for row in parse_segment(data, name).rows} >= {A}
    assert {(path.rpartition("/")[0], token) for path, token in api.asked} == {(f"/v1/journal/{A}", "Bearer a-token")}
    assert place.record().last("closed").reason is None


def test_a_server_that_will_not_have_them_is_said_and_the_folder_has_them(place):
    api = Api(401)
    run(place, api)

    assert place.segments()
    faults = [event.reason for event in place.record().events if event.event == "fault"]
    assert faults == [f"segments are not taken by the server: it answers 401 to a POST at {api.url}"]


def test_a_server_that_is_away_costs_a_job_three_seconds_and_the_record_says_what_is_left(place):
    api = Api(204)
    api.shutdown()
    api.server_close()
    assert place.run("true", A, CARBON_SCHED_PUSH=api.url, CARBON_SCHED_PUSH_TOKEN="a-token")[0] == 0
    assert place.record().last("closed").reason == f"segments that did not reach the server: {len(place.segments())}"


def test_the_journal_store_has_what_the_folder_has_and_everybody_may_read_it(place):
    store = place.folder / "store"
    store.mkdir()
    assert place.run("sleep 0.3", A, CARBON_SCHED_STORE=str(store))[0] == 0

    kept = {path.name: path.read_bytes() for path in place.journal.glob("*.seg")}
    left = {path.name: path.read_bytes() for path in (store / A).iterdir()}
    assert left == kept != {}
    assert {path.stat().st_mode & 0o777 for path in (store / A).iterdir()} == {0o644}
    assert (store / A).stat().st_mode & 0o777 == 0o755
    assert place.record().last("closed").reason is None


def test_a_store_that_is_not_mounted_is_not_made_and_what_did_not_reach_it_is_said(place):
    store = place.folder / "not-mounted"
    assert place.run("true", A, CARBON_SCHED_STORE=str(store))[0] == 0
    assert not store.exists()
    reason = place.record().last("closed").reason
    assert reason == f"segments that did not reach the journal store: {len(place.segments())}"
