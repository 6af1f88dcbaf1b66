"""What people read is checked for what it must say and for its width, not for every blank."""

from __future__ import annotations

import io

import pytest

from carbon_sched.cli import render
from tests.fakes.api_views import (
    attempt_view,
    candidate_view,
    cluster_view,
    decision_view,
    job_view,
    receipt_view,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def shown(monkeypatch):
    """What `render.show` prints, into a file or to a terminal."""

    def call(what: object, *, terminal: bool = False) -> str:
        out = Terminal() if terminal else io.StringIO()
        monkeypatch.setattr("sys.stdout", out)
        render.show(what)
        return out.getvalue()

    return call


LONG = {"cluster": "a-cluster-with-a-very-long-name", "zone": "US-MIDW-MISO-LONG"}
NOTHING = {"start": None, "energy_kwh": None, "co2e_g": None, "now_co2e_g": None, "intensity_g_per_kwh": None}

VIEWS = {
    "decision": render.decision(decision_view()),
    "long names": render.decision(decision_view(candidates=[candidate_view(**LONG), candidate_view(**LONG)])),
    "nothing known": render.decision(decision_view(candidates=[candidate_view(**NOTHING, pue=None, grade=None)])),
    "refused": render.decision(decision_view(verdict="refuse", cluster=None, start=None, candidates=[])),
    "receipt": render.receipt(receipt_view()),
    "jobs": render.jobs([job_view(name="x" * 200, cluster="c" * 64), job_view(planned_start="2026-11-24T00:00:00Z")]),
    "job": render.job(job_view(reason="r " * 100, entrypoint="python " + "x" * 300, attempts=[attempt_view()])),
    "clusters": render.clusters([cluster_view(), cluster_view("w" * 64, problem="nothing answers " * 9)]),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_nothing_is_wider_than_eighty_columns_or_coloured_when_piped(shown, view):
    text = shown(view)
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_a_terminal_gets_colours_unless_it_asks_for_none(shown, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b" in shown(VIEWS["receipt"], terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in shown(VIEWS["receipt"], terminal=True)


BATCH = {
    "done": 640, "total": 1000, "at": "2026-11-23T18:00:00Z", "energy_j": 1280.0, "co2e_g": 0.064, "j_per_item": 2.0,
    "co2e_g_per_item": 0.0001, "expected_end": "2026-11-23T19:00:00Z", "deadline": "2026-11-23T18:30:00Z", "late": True,
}  # fmt: skip


def test_a_batch_tells_how_far_it_is_what_an_item_costs_and_that_it_will_be_late(shown):
    text = " ".join(shown(render.job(job_view(state="running", batch=BATCH))).split())
    assert "640 of 1,000 items, 2.00 J and 0.100 mg CO2e per item, done about" in text
    assert "after its deadline" in text
    assert "64 % of 1,000" in shown(render.jobs([job_view(state="running", batch=BATCH)]))


def test_a_receipt_divides_the_whole_job_by_what_it_counted(shown):
    assert "per token     0.176 J, 0.00645 mg CO2e, of 4,096 in all" in shown(render.receipt(receipt_view()))


def test_the_chosen_cluster_stands_first_then_the_cleanest(shown):
    names = {"dirty": 9.0, "chosen": 3.0, "clean": 1.0}
    candidates = [candidate_view(name, co2e_g=grams) for name, grams in names.items()]
    text = shown(render.decision(decision_view(cluster="chosen", candidates=candidates)))
    rows = [line.split() for line in text.splitlines() if line.endswith("120 D  1.10")]
    assert [row[0] if row[0] != "=>" else row[1] for row in rows] == ["chosen", "clean", "dirty"]
    assert [row[0] for row in rows].count("=>") == 1


def test_what_cannot_take_the_job_is_listed_with_its_reason(shown):
    out = candidate_view("west", feasible=False, reason="no GPU of type H100", **NOTHING)
    text = shown(render.decision(decision_view(candidates=[candidate_view(), out])))
    assert "west: no GPU of type H100" in text


def test_figures_that_are_not_known_are_not_shown_as_zero(shown):
    row = next(line for line in shown(VIEWS["nothing known"]).splitlines() if "=>" in line)
    assert row.split()[3:] == ["-"] * 6


def test_expected_figures_are_called_estimates_with_their_source(shown):
    text = shown(VIEWS["decision"])
    assert "estimated     a run of 25 s at 36.0 W (duration said by the user)" in text
    assert "D: yearly average of the zone" in text


def test_estimated_energy_is_called_so_in_the_headline_and_by_device(shown):
    text = shown(VIEWS["receipt"])
    assert "200 mWh x PUE 1.10 = 220 mWh  (50 % estimated)" in text
    assert "ESTIMATED +/-40 %" in text
    counted = receipt_view(energy_by_source_j={"counter": 720.0}, devices=receipt_view()["devices"][:1])
    assert "estimated" not in shown(render.receipt(counted)).lower()


@pytest.mark.parametrize(("error", "text"), [(99.7, "+/-100 %"), (5.0, "+/-5 %"), (0.25, "+/-0.25 %")])
def test_error_bounds_have_two_digits(shown, error, text):
    device = receipt_view()["devices"][0] | {"error_pct": error}
    assert text in shown(render.receipt(receipt_view(devices=[device])))


def test_a_receipt_that_lacks_something_says_what(shown):
    text = shown(render.receipt(receipt_view(final=False, missing=["segment 3 of m1"])))
    assert "not final" in text
    assert "missing       segment 3 of m1" in text


def test_no_energy_is_not_zero_energy(shown):
    empty = receipt_view(devices=[], energy_kwh=0.0, energy_by_source_j={}, references=[])
    assert "none measured" in shown(render.receipt(empty))


def test_unknown_use_is_not_shown_as_free(shown):
    assert "?/8" in shown(render.clusters([cluster_view(gpus=8.0, gpus_used=None)]))
