"""Many rules asked together find what each finds alone."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from carbon_sched.policy.matching import Compiled, Selected, Selector

NAMES = st.sampled_from(["", "a", "b", "c"])
GPUS = st.sampled_from([0.0, 0.5, 1.0, 2.0, 8.0])
SETS = st.frozensets(NAMES, max_size=3)
selectors = st.builds(
    Selector,
    st.dictionaries(st.sampled_from(["team", "project", "phase", "stage"]), SETS, max_size=3),
    st.dictionaries(st.sampled_from(["x", "y"]), NAMES, max_size=2),
    GPUS,
    st.one_of(GPUS, st.just(float("inf"))),
)
jobs = st.builds(
    Selected,
    team=NAMES,
    project=NAMES,
    phase=NAMES,
    stage=NAMES,
    gpus=GPUS,
    labels=st.dictionaries(st.sampled_from(["x", "y", "z"]), NAMES),
)


@given(st.lists(selectors, max_size=12), jobs)
def test_compiled_selectors_match_what_each_matches_alone(several, job):
    bits = Compiled(several).matching(job)
    assert [bool(bits >> i & 1) for i in range(len(several))] == [one.matches(job) for one in several]
    assert bits < 1 << len(several)
