"""Variants of a job, from the request over what its side marked to what the next job is told of them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from carbon_sched.domain.energy import QUALITY
from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.variant import Floor, Variants, variants_of
from carbon_sched.service.remarks import WINDOWS
from carbon_sched_runtime.variants import mark_name, parse_offer
from carbon_sched_runtime.window_file import WindowRecord, format_window, windows_name
from tests.fakes.world import BOOT, MACHINE, START, World, a_cluster

WH = 3_600_000_000
ASKED = {
    "name": "answers", "variants": {"fp32": "--model a", "int8": "--model b", "nf4": ""}, "quality_floor": "f1>=0.8",
    "item": "token", "slice": 7,
}  # fmt: skip


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path, [a_cluster("c", "DE")], {"DE": [(0, 100.0)]})
    yield world
    world.close()


def window(attempt, number, start_s, end_s, name="w", **units):
    t0, t1 = (round((START.timestamp() + at) * 1e6) for at in (start_s, end_s))
    amounts = tuple((unit.replace("_", "-") if unit.startswith("variant") else unit, round(amount * 1e6))
                    for unit, amount in units.items())  # fmt: skip
    return WindowRecord(
        f"{number:08x}", attempt, name, t0, t1, t0, t1, MACHINE, BOOT, 7, None, 0, None, None, None, None, units=amounts
    )


def ran(world, windows, **asked):
    """A job with variants from its start to its receipt; the receipt, and what its attempt was told."""
    job = world.submit(**{**ASKED, **asked})
    world.settle()
    attempt = world.attempts(job)[-1]
    me = attempt.attempt_id
    submission = world.clusters["c"].submissions[-1]
    world.record(attempt, {"event": "started", "pid": 1}, {"event": "spawned", "child_pid": 2})
    world.clusters["c"].run(me)
    world.settle()
    world.segment(attempt, START, START + timedelta(seconds=100), {me: WH})
    world.clusters["c"].files[windows_name(me)] = b"".join(format_window(one) for one in windows(me))
    world.record(attempt, {"event": "ended", "exit_code": 0}, {"event": "closed", "exit_code": 0, "segments": 1})
    world.clusters["c"].end(me, "SUCCEEDED", 0)
    world.settle()
    for _ in range(3):
        world.clock.pass_s(61)
        world.settle()
    receipt = world.statements.receipt(job.job_id)
    assert receipt["final"]
    return receipt, submission


def marked(me):
    """100 s at 36 W: fp32 is tried for 10 s, int8 for 5 s, nf4 crashes, int8 serves from 20 s on."""

    def mark(number, at, name, arguments, outcome):
        key = mark_name(name, f"python job.py {arguments}".rstrip())
        return window(me, number, at, at, key, **{outcome: 1})

    def told(number, at, value):
        return window(me, number, at, at + 1, QUALITY, f1=value)

    return [
        mark(1, 0, "fp32", "--model a", "variant_tried"), window(me, 2, 0, 10, tokens=7), told(3, 10, 0.9),
        mark(4, 11, "int8", "--model b", "variant_tried"), window(me, 5, 11, 16, tokens=7), told(6, 16, 0.84),
        mark(7, 17, "nf4", "", "variant_tried"), mark(8, 18, "nf4", "", "variant_failed"),
        mark(9, 20, "int8", "--model b", "variant_served"), window(me, 10, 20, 90, tokens=93), told(11, 90, 0.86),
    ]  # fmt: skip


def test_an_attempt_is_told_its_variants_and_runs_under_the_chooser(world):
    _, submission = ran(world, marked)
    offer = parse_offer(submission.runtime_env["env_vars"]["CARBON_SCHED_VARIANTS"])
    assert offer.arguments == ASKED["variants"]
    assert (offer.metric, offer.floor, offer.at_least, offer.item, offer.slice) == ("f1", 0.8, True, "token", 7)
    assert (offer.choose, offer.known) == ("leanest", {})
    assert "carbon_sched_runtime.run -- 'python -m carbon_sched_runtime.variants" in submission.entrypoint


def test_what_served_is_booked_and_what_was_tried_is_no_work_of_the_job(world):
    receipt, _ = ran(world, marked)
    assert receipt["variant"] == "int8"
    assert receipt["quality"] == {"f1": 0.86}
    assert [one["units"] for one in receipt["windows"]] == [{"tokens": 93.0}]
    assert receipt["per_unit"]["tokens"]["amount"] == 93.0
    assert "variant nf4 failed when it was tried, and did not serve" in receipt["notes"]


def test_the_next_job_is_told_what_the_ledger_measured(world):
    """36 W: fp32 10 s for 7 tokens; int8 5 s and 70 s for 100 tokens."""
    ran(world, marked)
    _, submission = ran(world, lambda _me: [])
    told = json.loads(submission.runtime_env["env_vars"]["CARBON_SCHED_VARIANTS"])["known"]
    assert told == {
        "fp32": {"joules": pytest.approx(360 / 7), "quality": 0.9},
        "int8": {"joules": pytest.approx(75 * 36 / 100), "quality": pytest.approx((0.84 + 0.86) / 2)},
    }
    for other in ({"name": "else"}, {"team": "nlp"}, {"entrypoint": "python job.py --new"}):
        _, submission = ran(world, lambda _me: [], **other)
        assert json.loads(submission.runtime_env["env_vars"]["CARBON_SCHED_VARIANTS"])["known"] == {}, other


def test_marks_are_kept_however_many_windows_there_are(world):
    def many(me):
        return [*marked(me), *(window(me, 100 + n, 21, 22) for n in range(WINDOWS))]

    receipt, _ = ran(world, many)
    assert receipt["variant"] == "int8"
    assert "variant nf4 failed when it was tried, and did not serve" in receipt["notes"]


def test_a_policy_may_ask_for_the_best(world):
    world.policies.apply(
        "apiVersion: carbon-sched/v1\nname: careful\nflexibility: {variants: best}\nminimum_gain: 0.1\n", by="ada"
    )
    _, submission = ran(world, lambda _me: [], policy="careful")
    offer = parse_offer(submission.runtime_env["env_vars"]["CARBON_SCHED_VARIANTS"])
    assert (offer.choose, offer.least_gain) == ("best", 0.1)


def test_a_job_without_variants_is_told_of_none(world):
    world.submit()
    world.settle()
    (submission,) = world.clusters["c"].submissions
    assert "CARBON_SCHED_VARIANTS" not in submission.runtime_env["env_vars"]
    assert "variants" not in submission.entrypoint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": {"a": ""}}, "variants: 'a' are 1"),
        ({"variants": {"a": "", "B!": ""}}, "is not a name"),
        ({"quality_floor": "good"}, "Write accuracy>=0.8"),
        ({"quality_floor": "f1>=high"}, "is not a floor of quality"),
        ({"quality_floor": "f1>=nan"}, "is not a floor of quality"),
        ({"quality_floor": None}, "is missing beside variants"),
        ({"item": "Two words"}, "is not a unit"),
        ({"slice": 0}, "is no number of items"),
        ({"variants": None}, "is for jobs with variants"),
        ({"runtime_env": {"image_uri": "x"}}, "cannot be tried in an image"),
    ],
)
def test_what_cannot_be_meant_is_refused(world, changes, message):
    with pytest.raises(InvalidInput) as caught:
        world.submit(**{**ASKED, **changes})
    assert message in str(caught.value)


def test_a_floor_holds_on_its_own_side():
    found = variants_of({"a": "", "b": "-x"}, " loss <= 2.5e0", "token", 3)
    assert found == Variants((("a", ""), ("b", "-x")), Floor("loss", 2.5, at_least=False), "token", 3)
    assert (str(found.floor), found.floor.keeps(2.5), found.floor.keeps(2.6)) == ("loss<=2.5", True, False)
    assert replace(found.floor, at_least=True).keeps(2.6)
