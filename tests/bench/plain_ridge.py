"""A plain ridge regression per zone and lead, the strongest published-style yardstick of bench_forecast.

On intensities divided by the week's mean: 48 regressors (recent anomalies, the same hour on recent days, levels, hour
and season waves), a pooled prior (penalty 30 rows per zone), the zone shrunk towards it (300 rows), refitted monthly.
No logarithm, no hour-of-day coefficients, no weights: what carbon_sched.forecast adds is what it must be better by.
"""

from __future__ import annotations

import numpy as np

from carbon_sched.forecast.series import filled

LAGS = (1, 2, 3, 4, 6, 9, 12, 18, 24, 36, 48)
WARM_UP = 8 * 24
REFIT_H = 30 * 24
OWN, POOL = 300.0, 30.0
MIN_ROWS = 500


def running(values, width, step=1):
    """Mean of the last `width` elements `step` apart, or of as many as there are."""
    out = np.empty_like(values)
    for offset in range(step):
        part = values[offset::step]
        total = np.concatenate([[0.0], np.cumsum(part)])
        end = np.arange(1, len(part) + 1)
        begin = np.maximum(end - width, 0)
        out[offset::step] = (total[end] - total[begin]) / (end - begin)
    return out


class Zone:
    """Running statistics of one zone; `begin` is the index of its first hour on the common clock."""

    def __init__(self, values):
        self.begin = int(np.flatnonzero(np.isfinite(values))[0])
        self.truth = values[self.begin :]
        self.v = filled(self.truth)
        self.p7, self.p28 = running(self.v, 7, 24), running(self.v, 28, 24)
        self.level, self.m24, self.m48, self.m672 = (running(self.v, width) for width in (168, 24, 48, 672))
        self.anomaly = self.v - np.concatenate([np.full(24, self.v[0]), self.p7[:-24]])
        self.a6, self.a24 = running(self.anomaly, 6), running(self.anomaly, 24)

    def rows(self, t, h):
        """Regressors, level and profile for targets `t + h`."""
        target = t + h
        last = np.maximum(target - 24 * -(-h // 24), 0)
        level, base = self.level[t], self.p7[last]
        clock = target + self.begin
        waves = [wave(k * clock * 2 * np.pi / 24) for k in (1, 2, 3) for wave in (np.sin, np.cos)]
        shape, day, now = base / level - 1, self.a24[t] / level, self.anomaly[t] / level
        weekend = ((clock // 24 + 4) % 7 >= 5) * 1.0  # the clock begins on a Friday (2021-01-01) or is shifted alike
        columns = [self.anomaly[np.maximum(t + 1 - lag, 0)] / level for lag in LAGS]
        columns += [(self.v[np.maximum(last - 24 * j, 0)] - base) / level for j in range(6)]
        columns += [(self.v[np.maximum(last - 168, 0)] - base) / level, (self.p28[last] - base) / level]
        columns += [mean[t] / level - 1 for mean in (self.m24, self.m48, self.m672)]
        columns += [(self.a6[t] - self.a24[t]) / level, *waves, shape, weekend, weekend * shape]
        columns += [weekend * waves[0], weekend * waves[1]]
        columns += [day * wave for wave in waves[:4]] + [now * wave for wave in waves[:4]]
        columns += [day * shape, now * shape, day**2]
        columns += [np.sin(clock * 2 * np.pi / 8766), np.cos(clock * 2 * np.pi / 8766), np.ones(len(t))]
        return np.stack(columns, axis=1), level, base


def forecasts(zones, first_issue, last_issue, leads):
    """`{zone: [issues, leads]}`, knowing the hours before each issue; fitted on targets before each refit only."""
    made = {name: Zone(values) for name, values in zones.items()}
    out = {name: np.full((last_issue - first_issue, leads), np.nan) for name in zones}
    for lead in range(leads):
        for name, column in one_lead(made, first_issue, last_issue, lead + 1).items():
            out[name][:, lead] = column
    return out


def one_lead(zones, first_issue, last_issue, h):
    refits = range(first_issue, last_issue, REFIT_H)
    known = {name: sums(zone, h, refits) for name, zone in zones.items()}
    out = {name: np.full(last_issue - first_issue, np.nan) for name in zones}
    for step, begin in enumerate(refits):
        grams = [gram[step] + POOL * np.diag(scale(gram[step], rows[step])) for gram, _, rows in known.values()]
        moments = [moment[step] for _, moment, _ in known.values()]
        prior = solve(sum(grams), sum(moments))
        issues = np.arange(begin, min(begin + REFIT_H, last_issue))
        for name, zone in zones.items():
            gram, moment, rows = (part[step] for part in known[name])
            pull = OWN * scale(gram, rows)
            beta = solve(gram + np.diag(pull), moment + pull * prior) if rows >= MIN_ROWS else prior
            t = issues - 1 - zone.begin
            ready = t >= WARM_UP
            x, level, base = zone.rows(t[ready], h)
            out[name][issues[ready] - first_issue] = np.maximum(base + level * (x @ beta), 0.2 * base)
    return out


def sums(zone, h, refits):
    """Normal sums of rows whose target lies before each refit."""
    parts = []
    begin = WARM_UP
    for refit in refits:
        end = max(min(refit - zone.begin - h, len(zone.v) - h), begin)
        t = np.arange(begin, end)
        x, level, base = zone.rows(t, h)
        y = (zone.truth[t + h] - base) / level
        x, y = x[np.isfinite(y)], y[np.isfinite(y)]
        parts.append((x.T @ x, x.T @ y, float(len(y))))
        begin = end
    return tuple(np.cumsum([part[i] for part in parts], axis=0) for i in range(3))


def scale(gram, rows):
    return np.diag(gram) / max(rows, 1.0)


def solve(gram, moment):
    return np.linalg.solve(gram + 1e-9 * np.eye(len(gram)), moment)
