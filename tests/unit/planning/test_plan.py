"""What plan() decides for each situation a job can meet, and what it says about it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from carbon_sched.domain.cluster import Pool
from carbon_sched.domain.decision import Verdict
from carbon_sched.domain.intensity import Basis
from carbon_sched.domain.job import Bundle, Placement
from carbon_sched.planning.plan import plan
from carbon_sched.planning.snapshot import Reservation, Residency
from tests.fakes.planning import NOW, cluster, job, node, snapshot


def decide(clusters, *jobs, previous=None, **fields):
    return plan(snapshot(clusters, jobs, **fields), previous).decisions


def one(clusters, waiting, **fields):
    return decide(clusters, waiting, **fields)[0]


def test_an_inflexible_job_starts_now_on_the_cluster_with_least_expected_co2e():
    decision = one([cluster("coal", [800, 10, 10]), cluster("wind", [50, 50, 50])], job())
    assert (decision.verdict, decision.cluster, decision.start) == (Verdict.PLACE, "wind", NOW)
    assert decision.expected_co2e_g == pytest.approx(50.0)
    assert decision.expected_energy_kwh == pytest.approx(1.0)


def test_the_whole_run_counts_not_the_intensity_of_this_minute():
    decision = one([cluster("now", [10, 900, 900]), cluster("later", [300, 100, 100])], job(hours=3))
    assert decision.cluster == "later"
    assert decision.expected_co2e_g == pytest.approx(500.0)


def test_pue_is_part_of_the_comparison():
    assert one([cluster("a", [100], pue=1.6), cluster("b", [120], pue=1.1)], job()).cluster == "b"


def test_a_flexible_job_waits_for_the_clean_hour_and_says_what_it_saves():
    decision = one([cluster("de", [400, 400, 100, 400])], job(wait_h=5))
    assert (decision.verdict, decision.start) == (Verdict.DELAY, NOW + timedelta(hours=2))
    assert "75% less" in decision.reason
    assert decision.next_look == decision.start


def test_without_flexibility_it_never_waits_but_says_what_patience_would_save():
    decision = one([cluster("de", [400, 400, 100, 400])], job())
    assert decision.verdict is Verdict.PLACE
    assert "patience" in decision.reason
    assert "75%" in decision.reason


def test_a_start_between_edges_is_found_exactly():
    # a run of 30 minutes fits wholly into the clean 40 minutes only from minute 60 on, a run of 90 ends with them
    steps = [400] * 6 + [100] * 4 + [400] * 20
    short = one([cluster("de", steps, step_s=600)], job(hours=0.5, wait_h=4))
    long = one([cluster("de", steps, step_s=600)], job(hours=1.5, wait_h=4))
    assert short.start == NOW + timedelta(minutes=60)
    assert long.start == NOW + timedelta(minutes=10)
    assert long.expected_co2e_g == pytest.approx((400 * 50 + 100 * 40) / 60)


def test_seconds_work_like_hours():
    decision = one([cluster("demo", [400, 400, 100, 400], step_s=5.0)], job(hours=5 / 3600, wait_h=1 / 60))
    assert decision.start == NOW + timedelta(seconds=10)


def test_an_uncertain_duration_is_weighed_by_its_survival():
    # half the runs last 1 h, half 3 h: starting in the clean hour costs 50 + 0.5 x 2 x 600
    steps = [200, 50, 600, 600, 200, 200, 200]
    decision = one([cluster("de", steps)], job(hours=(1.0, 3.0), wait_h=4))
    assert decision.start == NOW + timedelta(hours=4)
    assert one([cluster("de", steps)], job(hours=1.0, wait_h=4)).start == NOW + timedelta(hours=1)


def test_ties_go_to_the_earlier_start_and_to_home():
    assert one([cluster("de", [100] * 5)], job(wait_h=4)).start == NOW
    assert one([cluster("a", [100]), cluster("b", [100])], job(), home="b").cluster == "b"


@pytest.mark.parametrize(("least", "verdict"), [(0.05, Verdict.DELAY), (0.2, Verdict.PLACE)])
def test_waiting_must_promise_the_required_gain(least, verdict):
    assert one([cluster("de", [100, 90, 100])], job(wait_h=2, min_gain=least)).verdict is verdict


def test_leaving_home_must_promise_the_required_gain():
    clusters = [cluster("home", [100]), cluster("away", [95])]
    stays = one(clusters, job(min_gain=0.1), home="home")
    assert stays.cluster == "home"
    assert "required 10%" in stays.reason
    assert one(clusters, job(min_gain=0.01), home="home").cluster == "away"


def test_a_job_told_to_wait_is_not_asked_for_the_gain_again():
    first = plan(snapshot([cluster("de", [100, 90, 80])], [job(wait_h=2, min_gain=0.15)]))
    assert first.decisions[0].verdict is Verdict.DELAY
    later = snapshot([cluster("de", [90, 80, 80])], [job(wait_h=1, min_gain=0.15)])
    assert plan(later, first).decisions[0].verdict is Verdict.DELAY
    assert plan(later, None).decisions[0].verdict is Verdict.PLACE


def test_a_job_never_starts_before_its_earliest_start():
    decision = one([cluster("de", [50, 100, 100])], job(earliest_h=1))
    assert (decision.verdict, decision.start) == (Verdict.DELAY, NOW + timedelta(hours=1))
    assert "as early as it may" in decision.reason


def test_past_its_latest_start_a_job_starts_at_once():
    late = job(latest_start=NOW - timedelta(hours=1))
    assert one([cluster("de", [400, 1, 1])], late).verdict is Verdict.PLACE


def test_the_references_are_by_the_identical_method():
    decision = one(
        [cluster("home", [300]), cluster("best", [100]), cluster("steady", [200])],
        job(),
        home="home",
        best_fixed="steady",
    )
    assert dict(decision.references) == pytest.approx({"run-now-home": 300, "best-fixed": 200, "run-now-here": 100})


@pytest.mark.parametrize(
    ("barred", "said"),
    [
        ({"problem": "connection refused"}, "unreachable: connection refused"),
        ({"asked": False}, "not answered"),
        ({"cordoned": True}, "cordoned"),
        ({"nodes": [node(gpus=4, used={"GPU": 3})]}, "full right now: 2 GPU asked, 1 of 4 free"),
        ({"nodes": [node(gpus=1)]}, "never fits: needs 2 GPU on one node, the largest has 1"),
    ],
)
def test_a_cluster_out_of_the_question_says_why_and_another_is_taken(barred, said):
    asks = job(gpus=2)
    fine = cluster("fine", [900], nodes=[node(gpus=8)])
    decision = one([cluster("best", [1], **barred), fine], asks)
    assert (decision.verdict, decision.cluster) == (Verdict.PLACE, "fine")
    out = next(c for c in decision.candidates if c.cluster == "best")
    assert not out.feasible
    assert said in out.reason


def test_cluster_lists_residency_and_gpu_types_are_obeyed():
    clusters = [
        cluster("eu", [500], residency=("eu",), nodes=[node(gpus=8, kind="H100")]),
        cluster("us", [1], residency=("us",), nodes=[node(gpus=8, kind="A100")]),
    ]
    assert one(clusters, job(clusters=["eu"])).cluster == "eu"
    assert one(clusters, job(residency=(Residency(("eu",), "a rule"),))).cluster == "eu"
    assert one(clusters, job(gpus=1, gpu_type="h100")).cluster == "eu"
    refused = one(clusters, job(gpus=1, gpu_type="B200"))
    assert refused.verdict is Verdict.REFUSE
    assert "no B200 GPU: it has A100" in refused.reason


def test_all_full_holds_and_says_for_what():
    decision = one([cluster("a", nodes=[node(cpus=4, used={"CPU": 4})])], job())
    assert decision.verdict is Verdict.HOLD
    assert "a: full right now: 1 CPU asked, 0 of 4 free" in decision.reason
    assert decision.next_look > NOW


def test_no_cluster_at_all_holds():
    decision = one([], job())
    assert decision.verdict is Verdict.HOLD
    assert "clusters add" in decision.reason


def test_everything_unreachable_holds():
    assert one([cluster("a", problem="no route to host")], job()).verdict is Verdict.HOLD


def test_what_no_pool_can_ever_offer_is_refused_even_when_old():
    old = {"submitted_at": NOW - timedelta(days=1)}
    pools = (Pool("small", {"CPU": 8.0, "GPU": 2.0}, max_nodes=4),)
    assert one([cluster("a", pools=pools)], job(gpus=4, **old)).verdict is Verdict.REFUSE
    # without declared pools nodes may come back, so only a fresh job is told no
    assert one([cluster("a")], job(gpus=4, **old)).verdict is Verdict.HOLD
    assert one([cluster("a")], job(gpus=4)).verdict is Verdict.REFUSE


def test_a_lost_deadline_is_refused():
    decision = one([cluster("a")], job(hours=2, deadline_h=1))
    assert decision.verdict is Verdict.REFUSE
    assert "cannot end by" in decision.reason


def test_a_node_that_does_not_say_what_is_used_has_nothing_free():
    from dataclasses import replace

    silent = replace(node(), used=None)
    assert one([cluster("a", nodes=[silent])], job()).verdict is Verdict.HOLD


def test_jobs_of_one_plan_charge_each_other_and_the_urgent_go_first():
    clusters = [cluster("clean", [10], nodes=[node(cpus=4)]), cluster("dirty", [500], nodes=[node(cpus=4)])]
    first, second = decide(clusters, job("a", cpus=3), job("b", cpus=3, priority=1))
    assert (first.cluster, second.cluster) == ("dirty", "clean")


def test_reservations_not_yet_visible_take_room_and_free_it_when_expected():
    taken = Reservation((Bundle(cpus=8),), NOW + timedelta(hours=1), visible=False)
    full = cluster("a", [100] * 4, reservations=[taken])
    assert one([full], job()).verdict is Verdict.HOLD
    waits = one([full], job(wait_h=3))
    assert (waits.verdict, waits.start) == (Verdict.DELAY, NOW + timedelta(hours=1))
    assert "waits for room" in waits.reason


def test_a_visible_reservation_is_not_charged_twice():
    seen = Reservation((Bundle(cpus=4),), NOW + timedelta(hours=1), visible=True)
    clusters = [cluster("a", nodes=[node(cpus=8, used={"CPU": 4})], reservations=[seen])]
    assert one(clusters, job(cpus=4)).verdict is Verdict.PLACE


def test_going_elsewhere_beats_waiting_for_the_full_cluster_only_if_cheaper():
    full = cluster(
        "clean", [100] * 9, reservations=[Reservation((Bundle(cpus=8),), NOW + timedelta(hours=1), visible=False)]
    )
    assert one([full, cluster("coal", [800] * 9)], job(wait_h=3)).cluster == "clean"
    assert one([full, cluster("gas", [90] * 9)], job(wait_h=3)).cluster == "gas"
    assert one([full, cluster("coal", [800] * 9)], job()).cluster == "coal"


def test_bundles_lie_on_nodes_as_asked():
    two = [node("n1", gpus=4), node("n2", gpus=4)]
    bundles = (Bundle(gpus=2), Bundle(gpus=2), Bundle(gpus=2))
    assert one([cluster("a", nodes=two)], job(bundles=bundles)).verdict is Verdict.PLACE
    strict = job(bundles=bundles, placement=Placement.STRICT_PACK)
    assert one([cluster("a", nodes=two)], strict).verdict is Verdict.REFUSE
    assert one([cluster("a", nodes=two)], job(gpus=6)).verdict is Verdict.REFUSE


def test_an_on_demand_pool_offers_nodes_that_do_not_exist_yet():
    pool = Pool("burst", {"CPU": 8.0, "GPU": 8.0}, max_nodes=2, gpu_type="H100", node_lifetime="on-demand")
    clusters = [cluster("a", pools=(pool,))]
    wants = [job(name, gpus=8, gpu_type="H100") for name in "abc"]
    assert [d.verdict for d in decide(clusters, *wants)] == [Verdict.PLACE, Verdict.PLACE, Verdict.HOLD]


def test_missing_and_incomparable_intensity_never_win():
    unknown = cluster("unknown", [])
    direct = cluster("direct", [1], basis=Basis.DIRECT)
    clusters = [unknown, direct, cluster("dirty", [900]), cluster("dirtier", [950])]
    decision = one(clusters, job())
    assert decision.cluster == "dirty"
    alone = one([unknown], job(wait_h=5))
    assert (alone.verdict, alone.cluster, alone.expected_co2e_g) == (Verdict.PLACE, "unknown", None)


def test_zero_carbon_hours_are_ranked_as_one_gram():
    # booked zero, ranked 1 g: a dozen zero hours do not make the kilowatts of another cluster disappear
    decision = one([cluster("a", [0] * 3, pue=2.0), cluster("b", [0] * 3, pue=1.1)], job())
    assert decision.cluster == "b"
    assert decision.expected_co2e_g == 0


def test_the_next_look_is_the_first_start_or_the_next_hour():
    result = plan(snapshot([cluster("de", [400, 400, 100])], [job(wait_h=2)]))
    assert result.next_look == NOW + timedelta(hours=1)
    assert plan(snapshot([cluster("de", [400, 100], step_s=60)], [job(wait_h=2)])).next_look < NOW + timedelta(hours=1)


def test_nobody_waits_on_forecasts_that_said_the_opposite_of_late():
    from dataclasses import replace

    lying = replace(cluster("de", [400, 400, 100, 400]), trusted=False)
    decision = one([lying], job(wait_h=5))
    assert decision.verdict is Verdict.PLACE
    assert decision.expected_co2e_g == pytest.approx(325)
