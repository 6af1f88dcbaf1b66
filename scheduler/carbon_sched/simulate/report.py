"""The report of a backtest: one HTML file that needs nothing else, its charts drawn here as SVG."""

from __future__ import annotations

from datetime import timedelta
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from carbon_sched import charts
from carbon_sched.simulate.backtest import Figures
from carbon_sched.simulate.scenario import NOWHERE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from carbon_sched.simulate.backtest import Backtest, Result
    from carbon_sched.simulate.scenario import Scenario

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

CLASSES = ((0.0, "under 1 h"), (1.0, "1 to 6 h"), (6.0, "6 to 24 h"), (24.0, "1 to 7 days"), (168.0, "over 7 days"))
WEEK_H = 168
MOST_LOADS = 4

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
:root {{ color-scheme: light dark; --s1: #1b7f5c; --s2: #6b7a90; --s3: #d98324; --s4: #4472c4; --s5: #a3528f; }}
@media (prefers-color-scheme: dark) {{ :root {{ --s1: #45b98c; --s2: #93a1b5; --s3: #eba355; --s4: #7da2e6; }} }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2.2rem auto; padding: 0 1.2rem; }}
h1 {{ font-size: 1.5rem; margin: 0 0 .2rem; }} h2 {{ font-size: 1.08rem; margin: 2.2rem 0 .3rem; }}
h3 {{ font-size: .95rem; margin: 1rem 0 0; font-weight: 600; }}
p {{ margin: .3rem 0 .7rem; max-width: 46rem; }} .quiet {{ opacity: .72; }}
.scroll {{ overflow-x: auto; }} table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3rem .55rem; text-align: right; white-space: nowrap; }}
th {{ font-weight: 600; font-size: .85rem; vertical-align: bottom; border-bottom: 1px solid currentColor; }}
th:first-child, td:first-child {{ text-align: left; }} tr.ours td {{ font-weight: 600; }}
tbody tr + tr td {{ border-top: 1px solid color-mix(in srgb, currentColor 14%, transparent); }}
{chart_style}</style></head><body>
{body}
</body></html>
"""


def page(of: Backtest, document: dict[str, Any], seed: int = 0) -> str:
    """The whole file; `document` is what `--json` prints of the same backtest."""
    figures = Figures(of, seed)
    ours = next((result for result in of.results if result.ours), of.results[0])
    parts = [
        _head(document, ours, figures),
        _table(document, of),
        _section("Saving against waiting", WAITING, _saving_and_wait(of, figures)),
        _section("Share of what was possible", SHARES, _shares(of, figures)),
        _section("Month by month", MONTHS, _months(of, ours)),
        _section("By length of the jobs", LENGTHS, _classes(of, ours)),
        _section("Load over the intensity of the grid", LOADS, _loads(of, ours)),
        _method(document, of),
    ]
    title = f"Backtest of {ours.name}"
    return PAGE.format(title=escape(title), chart_style=charts.STYLE, body="\n".join(parts))


WAITING = (
    "Each rule by what it saves of run-now-here and how long its jobs wait for their start. Up and left is better."
)
SHARES = (
    "Percent of the saving of the best schedule that capacity allows, all jobs and the grid known in advance. "
    "Whiskers: 90 % interval, by drawing the days of the trace anew 1,000 times."
)
MONTHS = "Percent of run-now-here that each rule saves, by the month in which jobs were submitted."
LENGTHS = "The same by run time. Below each class: its share of the emissions of run-now-here."
LOADS = (
    "The week with the most work, cluster by cluster: units in use under the policy and under run-now-here, "
    "and the carbon intensity of the zone."
)


def _head(document: dict[str, Any], ours: Result, figures: Figures) -> str:
    setup, saving, share = document["setup"], figures.saving(ours.outcome), figures.of_oracle(ours.outcome)
    of_possible = f", {share.percent:.0f} % of what was possible ({share.low:.0f} to {share.high:.0f})" if share else ""
    where = ", ".join(f"{c['name']} ({c['zone']})" for c in setup["clusters"])
    late = int(ours.outcome.late.sum())
    return (
        f"<h1>Backtest of {escape(ours.name)}</h1>"
        f'<p class="quiet">{setup["jobs"]:,} jobs over {setup["days"]:g} days from {setup["start"][:10]} on '
        f"{escape(where)}; forecast: {escape(str(setup.get('forecast', '')))}; slack: "
        f"{escape(str(setup.get('slack', '')))}; {used(setup)}</p>"
        f"<p>It would have saved <strong>{saving.percent:.1f} %</strong> of the CO2e of run-now-here (90 % interval "
        f"{saving.low:.1f} to {saving.high:.1f}){of_possible}. Jobs would have waited "
        f"{ours.outcome.wait_h.mean():.1f} h on average, and {late or 'none'} of them would have started later than "
        "they allow.</p>"
    )


def used(setup: dict[str, Any]) -> str:
    """How full the clusters are, in words."""
    return "room for everybody" if setup["utilisation"] is None else f"utilisation {setup['utilisation']:.0%}"


def _table(document: dict[str, Any], of: Backtest) -> str:
    heads = (
        *("policy or rule", "CO2e", "saving", "of the oracle", "90 % interval", "dynamic"),
        *("wait", "95 %", "late", "worst month"),
    )
    rows = []
    for row, result in zip(document["results"], of.results, strict=True):
        band = "" if row["oracle_pct"] is None else f"{row['oracle_pct_low']:.1f} to {row['oracle_pct_high']:.1f}"
        cells = (
            *(
                escape(short(row["policy"])),
                mass(row["co2e_g"]),
                _pct(row["saving_pct"]),
                _pct(row["oracle_pct"]),
                band,
            ),
            *(_pct(row["dynamic_pct"]), f"{row['mean_wait_h']:.1f} h", f"{row['p95_wait_h']:.1f} h"),
            *(f"{row['deadline_misses']:,}", f"{row['worst_month_regret_pct']:+.1f} %"),
        )
        kind = ' class="ours"' if result.ours else ""
        rows.append(f"<tr{kind}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def mass(grams: float) -> str:
    """Grams in the unit that fits."""
    for size, unit in ((1e6, "t"), (1e3, "kg")):
        if abs(grams) >= size:
            return f"{grams / size:,.3g} {unit}" if grams / size < 1000 else f"{grams / size:,.0f} {unit}"
    return f"{grams:.3g} g"


def short(name: str) -> str:
    """A policy's name without its version."""
    return name.partition("@")[0]


def _pct(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} %"


def _section(title: str, text: str, chart: str) -> str:
    return f'<section><h2>{title}</h2><p class="quiet">{text}</p>{chart}</section>'


# charts --------------------------------------------------------------------------------------------------------------


def _percents(value: float) -> str:
    return f"{value:.3g} %"


def _hours(value: float) -> str:
    return f"{value:.3g} h"


def _saving_and_wait(of: Backtest, figures: Figures) -> str:
    points = [
        charts.Point(
            short(result.name),
            float(result.outcome.wait_h.mean()),
            figures.saving(result.outcome).percent,
            1 if result.ours else 2,
            result.ours,
        )
        for result in of.results
    ]
    here = float(of.here.outcome.grams.sum())
    best = 100 * (1 - of.bounds.reachable / here)
    x = charts.Axis.holding("mean wait", [point.x for point in points], _hours)
    y = charts.Axis.holding("saving", [best, *(point.y for point in points)], _percents)
    return charts.scatter("Saving against mean wait", points, x, y, level=("what capacity allows", best))


def _shares(of: Backtest, figures: Figures) -> str:
    rows = []
    for result in of.results:
        share = figures.of_oracle(result.outcome)
        if share is not None and result.name != of.here.name:
            name = short(result.name)
            rows.append(charts.Bar(name, share.percent, share.low, share.high, result.ours))
    if not rows:
        return "<p>Nothing could have been saved here.</p>"
    rows.sort(key=lambda row: -row.value)
    ends = [value for row in rows for value in (row.low or 0.0, row.high or 0.0)]
    return charts.bars("Share of the oracle's saving", rows, charts.Axis.holding("", ends, _percents))


def _compared(of: Backtest, ours: Result) -> list[Result]:
    """The policies, best-fixed, and the best of the other rules."""
    rivals = [r for r in of.results if not r.ours and r.name not in {of.here.name, of.fixed.name}]
    best = sorted(rivals, key=lambda result: float(result.outcome.grams.sum()))[:1]
    policies = [result for result in of.results if result.ours] or [ours]
    return [*policies[:3], of.fixed, *best]


def _grouped(of: Backtest, results: Sequence[Result], group: Ints, count: int) -> list[tuple[str, list[float | None]]]:
    """Percent saved of run-now-here by each result in each group of jobs; None where a group has no job."""
    here = np.bincount(group, weights=of.here.outcome.grams, minlength=count)
    out = []
    for result in results:
        grams = np.bincount(group, weights=result.outcome.grams, minlength=count)
        values = [100 * float(1 - grams[i] / here[i]) if here[i] > 0 else None for i in range(count)]
        out.append((short(result.name), values))
    return out


def _columns(title: str, names: Sequence[str], groups: Sequence[tuple[str, list[float | None]]]) -> str:
    values = [value for _, row in groups for value in row if value is not None]
    return charts.columns(title, names, groups, charts.Axis.holding("saving", values, _percents))


def _months(of: Backtest, ours: Result) -> str:
    scenario = of.scenario
    moments = [scenario.start + timedelta(hours=hours) for hours in np.floor(scenario.jobs.submitted_h).tolist()]
    keys = np.array([moment.year * 12 + moment.month - 1 for moment in moments])
    months, group = np.unique(keys, return_inverse=True)
    names = [f"{month // 12}-{month % 12 + 1:02d}" for month in months.tolist()]
    return _columns("Saving by month", names, _grouped(of, _compared(of, ours), group, len(months)))


def _classes(of: Backtest, ours: Result) -> str:
    borders = np.array([border for border, _ in CLASSES])
    group = np.searchsorted(borders, of.scenario.jobs.hours, side="right") - 1
    here = np.bincount(group, weights=of.here.outcome.grams, minlength=len(CLASSES))
    shares = here / here.sum()
    names = [f"{name} ({share:.0%})" for (_, name), share in zip(CLASSES, shares.tolist(), strict=True)]
    return _columns("Saving by run time", names, _grouped(of, _compared(of, ours), group, len(CLASSES)))


def _loads(of: Backtest, ours: Result) -> str:
    scenario = of.scenario
    mine, usual = (in_use(scenario, one.outcome.cluster, one.outcome.start_h) for one in (ours, of.here))
    span = min(WEEK_H, mine.shape[1])
    busy = np.convolve(mine.sum(axis=0), np.ones(span), mode="valid")
    first = int(busy.argmax()) // 24 * 24
    first = max(min(first, mine.shape[1] - span), 0)
    week = slice(first, first + span)
    order = np.argsort(-mine[:, week].sum(axis=1), kind="stable")[:MOST_LOADS]
    return "".join(_load(scenario, int(lane), mine[lane], usual[lane], week) for lane in order)


def in_use(scenario: Scenario, cluster: Ints, start_h: Floats) -> Floats:
    """`[L, hours]` mean units in use of every cluster in every hour, by jobs that ran there from then on."""
    out = np.zeros((len(scenario.clusters), scenario.hours + 1))
    ran = cluster != NOWHERE
    cluster, start = cluster[ran], start_h[ran]
    units, end = scenario.jobs.units[ran], np.minimum(start + scenario.jobs.hours[ran], scenario.hours)
    for moment, sign in ((start, 1.0), (end, -1.0)):
        whole = np.minimum(moment.astype(np.int64), scenario.hours - 1)
        inside = moment - whole
        np.add.at(out, (cluster, whole), sign * units * (1 - inside))
        np.add.at(out, (cluster, whole + 1), sign * units * inside)
    return np.maximum(np.cumsum(out, axis=1)[:, :-1], 0.0)


def _load(scenario: Scenario, lane: int, mine: Floats, usual: Floats, week: slice) -> str:
    cluster = scenario.clusters[lane]
    xs = [float(hour) for hour in range(week.start, week.stop)]
    truth = scenario.actual(cluster.zone)[week].tolist()
    unit = f"{scenario.resource}s in use"
    series = (
        charts.Series("policy", xs, mine[week].tolist(), 1, "area"),
        charts.Series("run-now-here", xs, usual[week].tolist(), 2),
        charts.Series("g CO2e/kWh", xs, truth, 3, "dashed", right=True),
    )
    days = [float(hour) for hour in range(week.start, week.stop, 24)]
    x = charts.Axis("", xs[0], xs[-1], lambda hour: f"{scenario.start + timedelta(hours=hour):%b %d}", days)
    y = charts.Axis.holding(unit, [*mine[week].tolist(), *usual[week].tolist()])
    right = charts.Axis.holding("g CO2e/kWh", truth)
    title = f"{cluster.name} ({cluster.zone})"
    return f"<h3>{escape(title)}</h3>" + charts.lines(f"Load of {title}", series, x, y, right)


# method --------------------------------------------------------------------------------------------------------------

BOUNDS = (
    ("start_time_oracle_g", "start-time oracle: grid and run times known, room for everybody"),
    ("perfect_forecast_g", "our rule with a perfect forecast, run times learnt, room for everybody"),
    ("true_duration_g", "our rule with this forecast, run times known, room for everybody"),
    ("suspend_oracle_g", "suspend oracle: jobs may also pause, room for everybody"),
    ("capacity_bound_g", "no schedule within the clusters' capacity emits less"),
)


METHOD = (
    "The policy was replayed through the scheduler's own decision code, in steps of {step_min} minutes on a virtual "
    "clock, with nothing known before its time. Submissions are rounded up to steps, and units are held for whole "
    "steps, for every rule and bound alike. Rules of one region act at each job's home; all wait for room, first "
    "come, first served; rules that pause jobs (wait-awhile, ecovisor) are given room for everybody. Every {unit} is "
    "taken to draw {unit_power_w:g} W (class prior, estimated). Worst month: against best-fixed, the cluster that was "
    "cleanest in the 28 days before. Dynamic: share of what could be gained on best-fixed."
)


def _method(document: dict[str, Any], of: Backtest) -> str:
    setup, here = document["setup"], float(of.here.outcome.grams.sum())
    rows = "".join(
        f"<tr><td>{text}</td><td>{mass(document['bounds'][key])}</td>"
        f"<td>{_pct(100 * (1 - document['bounds'][key] / here))}</td></tr>"
        for key, text in BOUNDS
    )
    clusters = "; ".join(_cluster(cluster, setup) for cluster in setup["clusters"])
    left_out = f" {setup['left_out']:,} jobs of the trace were not replayed." if setup.get("left_out") else ""
    return (
        '<section><h2>Bounds and method</h2><div class="scroll"><table><thead><tr><th>bound</th><th>CO2e</th>'
        f"<th>saving</th></tr></thead><tbody>{rows}</tbody></table></div>"
        f"<p>{METHOD.format(**setup)}</p><p class='quiet'>{clusters}.{left_out}</p></section>"
    )


def _cluster(cluster: dict[str, Any], setup: dict[str, Any]) -> str:
    room = "" if setup["utilisation"] is None else f", {cluster['units']:g} {setup['unit']}s"
    return f"{escape(cluster['name'])}: zone {escape(cluster['zone'])}, PUE {cluster['pue']:g}{room}"
