"""A made-up provider that looks at the weather, for bench_forecast: the data hold no provider's forecasts.

SYNTHETIC. What it says is the truth times exp(error). It makes a run every 6 hours; within one the error lingers (AR(1)
over the hours, 0.9) and grows from half to the whole over the first day. Half of it is shared with our own forecast:

    error = scale (0.5 ours + sqrt(0.75) its own),   scaled so that its mean size is `share` of ours, zone by zone

Blended as the service does it (`carbon_sched.forecast.blend`), by what came true in the 28 days before each issue.
"""

from __future__ import annotations

import numpy as np

from carbon_sched.forecast.blend import RANGES_H, best_share, blended

RUN_H, LINGERS, COMMON = 6, 0.9, 0.5
DAY, JUDGED_DAYS = 24, 28


def forecasts(ours, targets, share, seed, first):
    """`[issues, leads]` beside ours, for truths `targets [issues, leads]`."""
    known = np.isfinite(targets) & (targets > 0) & (ours > 0)
    error = np.where(known, np.log(np.where(known, ours, 1.0) / np.where(known, targets, 1.0)), 0.0)
    own = lingering(len(ours), ours.shape[1], seed, first)
    mixed = COMMON * error / error[known].std() + np.sqrt(1 - COMMON**2) * own / own.std()
    return targets * np.exp(mixed * share * np.abs(error[known]).mean() / np.abs(mixed).mean())


def lingering(issues, leads, seed, first):
    rng = np.random.default_rng(seed)
    runs, reach = issues // RUN_H + 2, leads + RUN_H
    noise = rng.normal(size=(runs, reach))
    for hour in range(1, reach):
        noise[:, hour] = LINGERS * noise[:, hour - 1] + np.sqrt(1 - LINGERS**2) * noise[:, hour]
    noise *= 0.5 + 0.5 * np.minimum(np.arange(reach) / DAY, 1.0)
    issue = first + np.arange(issues)
    return noise[(issue // RUN_H - first // RUN_H)[:, None], (issue % RUN_H)[:, None] + np.arange(leads)]


def blend(ours, theirs, targets):
    """Both together; the shares are found anew for every day of issues, from issues that had come true by then."""
    out = theirs.copy()
    soft = [np.log(np.maximum(part, 1e-9) / np.nanmean(targets) + 0.5) for part in (ours, theirs, targets)]
    errors = soft[2] - soft[0], soft[2] - soft[1]
    for begin in range(2 * DAY, len(ours), DAY):
        judged = slice(max(0, begin - (JUDGED_DAYS + 1) * DAY), begin - DAY)
        today = slice(begin, begin + DAY)
        for low, high in zip((0, *RANGES_H), RANGES_H, strict=False):
            some = slice(low, min(high, ours.shape[1]))
            share = best_share(*(error[judged, some].ravel() for error in errors)) if low < ours.shape[1] else None
            if share is not None:
                out[today, some] = blended(ours[today, some], theirs[today, some], share, np.nanmean(targets))
    return out
