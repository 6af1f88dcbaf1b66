import threading

import pytest

from carbon_sched.service.lanes import Lanes

FOREVER_S = 60.0


def test_every_lane_is_done_before_it_returns():
    done = []
    lanes = Lanes("test", FOREVER_S)
    assert lanes.run({name: lambda name=name: done.append(name) for name in "abc"}) == []
    assert sorted(done) == ["a", "b", "c"]


def test_lanes_run_side_by_side():
    meeting = threading.Barrier(3, timeout=FOREVER_S)
    Lanes("test", FOREVER_S).run(dict.fromkeys("abc", meeting.wait))


def test_a_lane_that_hangs_is_left_behind_and_passed_over_until_it_is_done():
    release, done = threading.Event(), []
    lanes = Lanes("test", 0.01)
    lanes.run({"slow": release.wait})
    patient = Lanes("test", FOREVER_S)
    patient._busy = lanes._busy
    assert patient.run({"slow": lambda: done.append("slow"), "fast": lambda: done.append("fast")}) == ["slow"]
    assert done == ["fast"]
    assert lanes.drain(0.01) == ["slow"]
    assert lanes.drain(FOREVER_S, ["fast"]) == []
    release.set()
    assert lanes.drain(FOREVER_S) == []
    assert patient.run({"slow": lambda: done.append("slow")}) == []
    assert done == ["fast", "slow"]


def test_an_error_is_raised_after_the_others_are_done():
    def fail():
        raise OSError("no")

    done = []
    lanes = Lanes("test", FOREVER_S)
    with pytest.raises(OSError, match="no"):
        lanes.run({"a": fail, "b": lambda: done.append("b"), "c": fail})
    assert done == ["b"]
    assert lanes.run({"a": lambda: done.append("a")}) == [], "it is raised once"


def test_an_error_that_comes_late_is_raised_by_the_next_run():
    release = threading.Event()

    def fail_late():
        release.wait()
        raise OSError("late")

    lanes = Lanes("test", 0.01)
    lanes.run({"a": fail_late})
    release.set()
    lanes.drain(FOREVER_S)
    with pytest.raises(OSError, match="late"):
        lanes.run({})
