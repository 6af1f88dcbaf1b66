"""Curves: piecewise-constant intensity and its integrals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_sched.planning.curve import Curve

LEVELS = st.lists(st.floats(1, 1000), min_size=1, max_size=6)
ONE = np.array([1.0])


def curve(values, step):
    return Curve.from_values([step * i for i in range(len(values) + 1)], values)


@given(LEVELS, LEVELS, st.integers(1, 40), st.integers(1, 40), st.floats(0, 300), st.floats(1, 300))
def test_one_curve_ranked_by_another_books_like_the_one_and_ranks_like_the_other(own, other, a, b, start, duration):
    booked, ranked = curve(own, float(a)), curve(other, float(b))
    both, run = booked.ranked_by(ranked), (np.array([start]), np.array([duration]), ONE)
    assert both.booked_g(*run) == pytest.approx(booked.booked_g(*run), rel=1e-9)
    assert both.ranked_g(*run) == pytest.approx(ranked.ranked_g(*run), rel=1e-9)
