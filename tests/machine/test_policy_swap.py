"""Policies are swapped while jobs arrive and are decided: every decision names one version that was in force."""

from __future__ import annotations

import threading

import pytest

from carbon_sched.client import Client
from tests.fakes.served import TOKEN, served

__all__ = ["served"]

TEXT = "apiVersion: carbon-sched/v1\nname: acme\nextends: balanced\nteam: '*'\nminimum_gain: {gain}\n"
SWAPS, JOBS = 30, 60


@pytest.fixture
def labels(served):
    """Applies one version after another from a thread of its own, over HTTP; the labels as they were answered."""
    found = [served.client.apply_policy({"content": TEXT.format(gain=0.5)})["label"]]

    def swap():
        with Client(served.url, TOKEN) as client:
            texts = (TEXT.format(gain=number / 1000) for number in range(SWAPS))
            found.extend(client.apply_policy({"content": text})["label"] for text in texts)

    thread = threading.Thread(target=swap)
    thread.start()
    yield found
    thread.join()


def test_each_decision_names_one_version_and_no_job_is_lost_or_decided_twice(served, labels):
    jobs = []
    for number in range(JOBS):
        jobs.append(served.world.submit(name=f"j{number}"))
        served.world.decide.step()
    while len(labels) <= SWAPS:
        served.world.decide.step()
    for _ in range(3):  # a turn submits a batch
        served.world.settle()
    decided = {job.job_id: served.client.decision(job.job_id)["policy"] for job in jobs}
    assert set(decided.values()) <= set(labels)
    assert len(set(labels)) == SWAPS + 1
    for job in jobs:
        attempts = served.world.attempts(job)
        assert len(attempts) <= 1
        assert attempts or served.world.job(job).reason
    assert sum(len(served.world.attempts(job)) for job in jobs) == len(served.world.clusters["clean"].submissions)
    assert served.world.statements.verify().ok
