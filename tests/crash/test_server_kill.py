"""kill -9 and SIGTERM of the real server process: whatever it was at goes on, once, with the next command."""

from __future__ import annotations

import random
import signal
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest

from tests.fakes.real_server import Trap, place

__all__ = ["place"]

# The moment, and the request to the head that marks it: method, path, and whether the head has done it.
MOMENTS = [
    ("amid the upload of the runtime", "PUT", r"/api/packages/gcs/.*", False),
    ("before the submission arrives", "POST", r"/api/jobs/\?", False),
    ("after the submission arrived", "POST", r"/api/jobs/\?", True),
    ("while it runs", "GET", r"/api/v0/logs\?carbon-sched-cs-.*", True),
    ("while its energy is collected", "GET", r"/api/v0/logs\?carbon-sched-\*\.seg", True),
]


def soon(seconds: float) -> str:
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).isoformat()


def test_killed_at_named_moments_it_goes_on_with_the_next_command(place):
    place.add_cluster()
    place.finished(place.submit("first", then="sleep 1"))  # before the machine's first reading something is missing
    trap = Trap(place.head, place.server.kill)
    jobs = {"while it is delayed": place.submit("delayed", then="sleep 1", earliest=soon(6))}
    place.server.kill()
    for number, (moment, method, path, after) in enumerate(MOMENTS):
        place.server.up()
        place.head.packages.clear()  # as Ray does after ten minutes
        trap.arm(method, path, after=after)
        jobs[moment] = place.submit(f"job-{number}", then="sleep 1")
        assert trap.sprung.wait(60), moment
    receipts = {moment: place.finished(job_id) for moment, job_id in jobs.items()}
    assert {moment: receipt["state"] for moment, receipt in receipts.items()} == dict.fromkeys(jobs, "succeeded")
    assert {moment: receipt["missing"] for moment, receipt in receipts.items()} == {moment: [] for moment in jobs}
    assert place.runs() == sorted(["first", "delayed", *(f"job-{number}" for number in range(len(MOMENTS)))])
    assert place.server.up().verify()["ok"]


def test_told_to_end_amid_a_submission_it_ends_in_order_and_the_next_one_goes_on(place):
    place.add_cluster()
    told = threading.Event()
    place.head.lie("rewrite", "/api/jobs/", method="POST", change=lambda answer: told.set() or time.sleep(1) or answer)
    job = place.submit("job", then="sleep 1")
    assert told.wait(60)
    process = place.server.signal(signal.SIGTERM)
    place.server.gone(process)
    assert place.server.local.find() is None
    assert not place.server.local.crashed(), "it took its word back"
    client = place.server.up()
    events = [event["event"] for event in client.events(job)]
    assert "submitted" in events, "the submission under way was brought to its end"
    assert place.finished(job)["state"] == "succeeded"
    assert place.runs() == ["job"]
    assert place.head.count("POST", "/api/jobs/") == 1


@pytest.mark.slow
def test_two_first_commands_at_once_start_one_server(place):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(place.server.cli("list"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.returncode for answer in answers] == [0, 0], answers
    assert place.server.log().count("Uvicorn running") + place.server.log().count("Started server process") == 1
    assert place.server.running().pid


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_twenty_random_moments(place):
    """The same at moments that nobody chose, its own start among them; see the one with Ray in tests/e2e."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    draw = random.Random(seed)
    place.add_cluster()
    jobs = {}
    for number in range(20):
        name = f"job-{number}"
        more = {"earliest": soon(draw.uniform(0, 5))} if draw.random() < 0.4 else {}
        jobs[name] = place.submit(name, then=f"sleep {draw.uniform(0, 3):.1f}", **more)
        time.sleep(draw.uniform(0, 3))
        place.server.kill()
        if draw.random() < 0.3:  # once more, while it starts
            child = place.server.local._launch()
            time.sleep(draw.uniform(0, 1.5))
            child.kill()
            child.wait()
    receipts = {name: place.finished(job_id) for name, job_id in jobs.items()}
    assert {name: receipt["state"] for name, receipt in receipts.items()} == dict.fromkeys(jobs, "succeeded")
    assert place.runs() == sorted(jobs)
    assert place.server.up().verify()["ok"]
