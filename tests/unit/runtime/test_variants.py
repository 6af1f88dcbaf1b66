"""Choosing among variants, and trying them: real processes in the wrapper's own place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from carbon_sched.domain.variant import Outcome
from carbon_sched_runtime import variants
from carbon_sched_runtime.variants import Found, Offer, chosen
from carbon_sched_runtime.window_file import parse_windows, windows_name

ATTEMPT = "cs-0123456789-a1"
OFFER = Offer(
    arguments={"fp32": "fp32", "int8": "int8", "nf4": "nf4"}, metric="accuracy", floor=0.8, at_least=True,
    item="image", slice=10, choose="leanest", least_gain=0.02,
)  # fmt: skip


def test_both_sides_call_outcomes_by_the_same_names():
    assert {one.value for one in Outcome} == {
        variants.TRIED, variants.SERVED, variants.FAILED, variants.BELOW_FLOOR,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("found", "choose", "served"),
    [
        ({"fp32": (10, 0.9), "int8": (8, 0.85), "nf4": (6, 0.7)}, "leanest", "int8"),
        ({"fp32": (10, 0.9), "int8": (8, 0.85), "nf4": (6, 0.7)}, "best", "fp32"),
        ({"fp32": (10, 0.9), "int8": (8, 0.85), "nf4": (6, 0.95)}, "best", "nf4"),
        ({"fp32": (10, 0.9), "int8": (12, 0.9)}, "leanest", "fp32"),  # dearer: not for its name
        ({"fp32": (10, 0.9), "int8": (9.9, 0.9)}, "leanest", "fp32"),  # by less than noise
        ({"fp32": (10, 0.9), "int8": (None, 0.9)}, "leanest", "fp32"),  # its energy is not known
        ({"fp32": (None, 0.9), "int8": (8, 0.9)}, "leanest", "fp32"),  # nothing to be leaner than
        ({"int8": (8, 0.9)}, "leanest", "fp32"),  # the baseline could not be measured
        ({"fp32": (10, 0.9), "int8": (8, None)}, "leanest", "fp32"),  # its quality is not known
        ({"fp32": (10, 0.5), "int8": (12, 0.9)}, "leanest", "int8"),  # the baseline does not keep the floor
        ({"fp32": (10, 0.5), "int8": (8, 0.5)}, "leanest", "fp32"),  # nothing does
        ({"fp32": (10, 0.5), "int8": (8, 0.5)}, "best", "fp32"),
        ({"fp32": (10, 0.9), "gone": (1, 0.99)}, "leanest", "fp32"),  # is no variant any more
        ({}, "leanest", "fp32"),
        ({}, "best", "fp32"),
    ],
)
def test_what_serves(found, choose, served):
    known = {name: Found(*one) for name, one in found.items()}
    assert chosen(replace(OFFER, choose=choose), known) == served


def test_a_loss_is_better_when_it_is_smaller():
    known = {"fp32": Found(10, 2.0), "int8": Found(8, 2.4), "nf4": Found(7, 2.6)}
    offer = replace(OFFER, metric="loss", floor=2.5, at_least=False)
    assert chosen(offer, known) == "int8"
    assert chosen(replace(offer, choose="best"), known) == "fp32"


# with processes -------------------------------------------------------------------------------------------------------

SCRIPT = """
import os, sys, time
from carbon_sched_runtime import windows
variant, slice = sys.argv[1], os.environ.get("CARBON_SCHED_SLICE")
print(variant, "slice" if slice else "all", flush=True)
if variant == "crash":
    raise RuntimeError("cannot load")
with windows.window("work", images=int(slice or 100)):
    end = time.monotonic() + {"slow": 0.3, "fast": 0.02, "bad": 0.02}[variant]
    while time.monotonic() < end:
        pass
if variant != "mute":
    windows.report(accuracy=0.5 if variant == "bad" else 0.9)
"""


@pytest.fixture
def run(tmp_path):
    """Runs a job with variants as the wrapper does: its output, what was said, and the marks it left."""
    (tmp_path / "job.py").write_text(SCRIPT, encoding="utf-8")

    def call(*names: str, known=None, **changes):
        offer = {
            "arguments": {name: name for name in names}, "metric": "accuracy", "floor": 0.8, "at_least": True,
            "item": "image", "slice": 10, "choose": "leanest", "least_gain": 0.02, "known": known or {}, **changes,
        }  # fmt: skip
        env = {
            **os.environ, "CARBON_SCHED_VARIANTS": json.dumps(offer), "CARBON_SCHED_ATTEMPT": ATTEMPT,
            "CARBON_SCHED_JOURNAL_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "carbon_sched_runtime.variants", f"{sys.executable} job.py"],
            cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        path = tmp_path / windows_name(ATTEMPT)
        records = parse_windows(path.read_bytes(), ATTEMPT).windows if path.exists() else ()
        marks = [(one.name.split(":")[1], one.units[0][0]) for one in records if one.name.startswith(variants.MARK)]
        return done, marks

    return call


def test_what_was_never_measured_is_tried_and_the_leanest_that_keeps_the_floor_serves(run):
    done, marks = run("slow", "fast", "bad")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["slow slice", "fast slice", "bad slice", "fast all"]
    assert marks == [
        ("slow", "variant-tried"), ("fast", "variant-tried"), ("bad", "variant-tried"),
        ("bad", "variant-below-floor"), ("fast", "variant-served"),
    ]  # fmt: skip
    assert "variant bad lies below the floor of quality" in done.stderr


def test_what_crashes_falls_back_to_the_baseline_and_is_named(run):
    done, marks = run("slow", "crash")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "slow all"
    assert "variant crash failed when it was tried and does not serve: it ended with exit code 1" in done.stderr
    assert marks[1:] == [("crash", "variant-tried"), ("crash", "variant-failed"), ("slow", "variant-served")]


def test_what_is_known_to_be_lean_is_tried_before_it_serves_and_nothing_else_is(run):
    known = {"slow": {"joules": 3.0, "quality": 0.9}, "fast": {"joules": 1.0, "quality": 0.9}}
    done, _ = run("slow", "fast", known=known)
    assert done.stdout.splitlines() == ["fast slice", "fast all"]
    known["crash"] = {"joules": 0.5, "quality": 0.9}
    done, marks = run("slow", "fast", "crash", known=known)
    assert done.stdout.splitlines() == ["crash slice", "fast slice", "fast all"]
    assert ("crash", "variant-failed") in marks
    done, _ = run("slow", "fast", known=known, choose="best")
    assert done.stdout.splitlines() == ["slow all"], "as good as the other, and first"


def test_what_the_ledger_measured_is_not_outdone_by_a_slice_on_a_busy_machine(run):
    known = {"slow": {"joules": 2e-9, "quality": 0.9}, "fast": {"joules": 1e-9, "quality": 0.9}}
    done, _ = run("slow", "fast", known=known)
    assert done.stdout.splitlines() == ["fast slice", "fast all"]
    known["bad"] = {"joules": 1e-10, "quality": 0.9}
    done, _ = run("slow", "fast", "bad", known=known)
    assert done.stdout.splitlines() == ["bad slice", "fast slice", "fast all"], "its quality is not what it was"


def test_one_that_tells_no_quality_does_not_serve_and_a_baseline_that_fails_is_the_jobs_own_failure(run):
    done, _ = run("crash", "mute")
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["crash slice", "mute slice", "crash all"]
