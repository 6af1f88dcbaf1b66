"""Rows 11 to 25 of a statement's document: emissions by scope, scores, decisions, uncertainty, completeness, ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carbon_sched import charts
from carbon_sched.domain.units import MG_PER_G, UG_PER_G, UJ_PER_KWH
from carbon_sched.ledger.documents.document import Chart, Section, Table
from carbon_sched.ledger.figures import co2e, counted, kwh, percent, ppm_percent, significant

if TYPE_CHECKING:
    from collections.abc import Callable

    from carbon_sched.ledger.statement.model import DecisionRow, Line, Reconciled, ScopeClass, Score, Statement

MILLION = 1_000_000
HOUR_US = 3_600_000_000


def energy_cells(line: Line) -> tuple[str, str, str, str]:
    """IT energy, facility energy, CO2e (`-`: not known) and the meter's error of a sum of lines."""
    error = percent(line.error_uj, line.energy_uj)
    emitted = co2e(line.co2e_ug) if line.covered_uj or not line.energy_uj else "-"
    return kwh(line.energy_uj), kwh(line.facility_uj), emitted, f"±{error}"


def named(value: object) -> str:
    """A value of a grouping; something to read where it is empty."""
    return str(value) or "(none)"


def or_else(rows: tuple[tuple[str, ...], ...], text: str) -> tuple[str, ...]:
    """The sentence where there are no rows."""
    return () if rows else (text,)


def _tables(
    head: tuple[str, ...], rows: tuple[tuple[str, ...], ...], title: str = "", right_from: int | None = None
) -> tuple[Table, ...]:
    return (Table(head, rows, title, right_from),) if rows else ()


def _location(one: Statement) -> Section:
    whole, separated = one.total("co2e_ug"), one.total("separated_ug")
    direct = co2e(one.total("direct_ug")) if one.separable else "Not known:"
    said = [
        f"{direct} direct, emitted where the electricity was made.",
        f"Life cycle, direct and upstream together: {co2e(whole)}.",
    ]
    if one.unseparated_ug:
        said.append(
            f"For {percent(whole - separated, whole)} of that no direct intensity is known: "
            f"{co2e(one.unseparated_ug)} are life cycle only, and in no scope by themselves."
        )
    rows = tuple(
        (
            *map(named, key),
            *_apart(line.separated_ug > 0 or not line.co2e_ug, line.direct_ug, line.separated_ug - line.direct_ug),
            co2e(line.co2e_ug - line.separated_ug),
        )
        for key, line in one.by("cluster", "zone")
    )
    tables = _tables(("cluster", "zone", "direct", "upstream", "not separable"), rows, "", 2)
    return Section("11 Scope 2, location-based", tuple(said), tables, _shares(one))


def _apart(known: bool, *figures_ug: int) -> list[str]:  # noqa: FBT001 - it is, or it is not
    """Figures in grams, or that there are none."""
    return [co2e(ug) if known else "not known" for ug in figures_ug]


def _shares(one: Statement) -> tuple[Chart, ...]:
    parts = [
        ("direct", one.total("direct_ug")),
        ("upstream", one.upstream_ug),
        ("not separable", one.unseparated_ug),
        ("embodied, central", sum(row.central_ug for row in one.embodied)),
    ]
    bars = [charts.Bar(name, ug / UG_PER_G, strong=number < 3) for number, (name, ug) in enumerate(parts) if ug]
    if len(bars) < 2:
        return ()
    svg = charts.bars(
        "CO2e by where it was emitted",
        bars,
        charts.Axis.holding("g CO2e", [bar.value for bar in bars], "{:.4g}".format),
    )
    return (Chart("Where the emissions are; embodied stands apart from those of electricity.", svg),)


def _market(one: Statement) -> Section:
    market = one.market
    said = [f"{co2e(market.co2e_ug)}." if market.co2e_ug is not None else f"Not computed: {market.problem}."]
    if market.uncovered_uj:
        said.append(f"{kwh(market.uncovered_uj)} are covered by no declared instrument.")
    clouds = {row.cluster for row in one.scope_classes if not row.purchased}
    if clouds_ug := sum(row.co2e_ug for row in market.instruments if row.cluster in clouds):
        said.append(
            f"{co2e(clouds_ug)} below are on clouds of others: scope 3, category 1 for the jobs' owner (row 15)."
        )
    rows = tuple(
        (
            row.cluster,
            row.kind,
            row.name,
            f"{row.since} to {row.until}",
            row.source,
            ppm_percent(row.share_ppm),
            significant(row.mg_per_kwh, MG_PER_G),
            kwh(row.energy_uj),
            co2e(row.co2e_ug),
        )
        for row in market.instruments
    )
    head = ("cluster", "kind", "instrument", "period", "source", "share", "g/kWh", "energy", "CO2e")
    return Section("12 Scope 2, market-based", tuple(said), _tables(head, rows, "", 5))


def _upstream(one: Statement) -> Section:
    upstream = co2e(one.upstream_ug) if one.separable else "Not known"
    said = [f"{upstream}: life cycle minus direct, of the energy for which both are known."]
    if one.upstream_ug < 0:
        said.append(
            "It is negative: the direct values come from a series that counts otherwise than the life-cycle ones."
        )
    said.append("Losses of the grid are in it only as far as the series' perimeter counts them; none are added.")
    return Section("13 Scope 3, category 3: upstream of electricity", tuple(said))


def _embodied(one: Statement) -> Section:
    sums = [sum(getattr(row, name) for row in one.embodied) for name in ("low_ug", "central_ug", "high_ug")]
    low, central, high = _apart(bool(one.embodied) or not one.embodied_unknown, *sums)
    said = [
        f"Low {low}, central {central}, high {high}. Not in the figures above.",
        "Low and high are the lowest and the highest published figure, central is the middle of them.",
        "M = TE x TiR / EL x RR / ToR (ISO/IEC 21031); time is what was reserved, idle time too.",
    ]
    if one.embodied_unknown:
        said.append(f"Attempts of whose hardware no figure is known: {len(one.embodied_unknown)}.")
    rows = tuple(
        (
            row.attempt,
            row.hardware,
            row.source,
            f"{significant(row.reserved_us, HOUR_US)} h of {row.life_us // HOUR_US} h",
            co2e(row.low_ug),
            co2e(row.central_ug),
            co2e(row.high_ug),
        )
        for row in one.embodied
    )
    head = ("attempt", "hardware", "source", "reserved of its life", "low", "central", "high")
    return Section("14 Embodied emissions", tuple(said), _tables(head, rows, "", 3))


def _scopes(one: Statement) -> Section:
    made = {row.cluster for row in one.embodied}
    rows = tuple(_scope(row, made=row.cluster in made) for row in one.scope_classes)
    head = ("cluster", "run by", "direct", "upstream", "not separable", "embodied")
    said = ("For the organisation whose jobs these are: machines of its own or in colocation, or a cloud's.",)
    return Section("15 Scope class by cluster", said, _tables(head, rows))


def _scope(row: ScopeClass, *, made: bool) -> tuple[str, ...]:
    direct, upstream = _apart(row.separable, row.direct_ug, row.upstream_ug)
    (embodied,) = _apart(made, row.embodied_ug)
    return (
        row.cluster,
        row.kind,
        f"{row.direct_category}: {direct}",
        f"{row.upstream_category}: {upstream}",
        (f"{row.direct_category}: " if row.one_category else "") + co2e(row.unseparated_ug),
        f"{row.embodied_category}: {embodied}",
    )


def _scores(one: Statement) -> Section:
    rows = tuple(_score(row) for row in one.scores)
    head = (
        "unit (R)",
        "boundary",
        "phases",
        "attempts",
        "units",
        "E x I",
        "M, central",
        "CO2e per unit",
        "energy per unit",
    )
    said = (
        "(E x I + M) per R: ISO/IEC 21031. SCI for AI: training counts for the provider, inference for the consumer.",
        "I is location-based, average, life cycle; no certificates. Gross: also what was used outside counted work.",
    )
    return Section(
        "16 SCI and SCI for AI", said if rows else ("No unit of work is known.",), _tables(head, rows, "", 3)
    )


def _score(row: Score) -> tuple[str, ...]:
    return (
        row.unit,
        row.boundary or "-",
        row.phases,
        str(row.attempts),
        significant(row.amount_millionths, MILLION),
        co2e(row.co2e_ug),
        co2e(row.embodied_ug),
        f"{per_unit(row.total_ug, row.amount_millionths, UG_PER_G)} g",
        f"{per_unit(row.energy_uj, row.amount_millionths, UJ_PER_KWH)} kWh",
    )


def per_unit(value: int, amount_millionths: int, scale: int) -> str:
    """`value / scale` per unit, with three digits, from integers alone."""
    return significant(value * MILLION, scale * amount_millionths) if amount_millionths else "-"


def _inference(one: Statement) -> Section:
    rows = tuple(
        (
            named(row.model),
            row.unit,
            str(row.jobs),
            significant(row.amount_millionths, MILLION),
            kwh(row.energy_uj),
            co2e(row.co2e_ug),
            f"{per_unit(row.co2e_ug, row.amount_millionths, UG_PER_G)} g",
            f"{per_unit(row.energy_uj, row.amount_millionths, UJ_PER_KWH)} kWh",
        )
        for row in one.inference
    )
    head = ("model", "unit", "jobs", "units", "IT energy", "CO2e", "CO2e per unit", "energy per unit")
    said = ("What the replicas used in all, idle time too, over what they answered in that time.",)
    none = ("No inference job counted its answers.",)
    return Section("17 Inference, cumulative and per unit", said if rows else none, _tables(head, rows, "", 2))


def _decisions(one: Statement) -> Section:
    unbooked = one.unbooked
    rows = tuple(_decision(row, booked=row.job not in unbooked) for row in one.decisions)
    head = ("job", "decided", "verdict", "cluster", "start", "policy", "reason", "candidates", "expected", "came to")
    said = or_else(rows, "No decision was recorded.") or (
        "As it was made, with what was expected then; each candidate's numbers are in the JSON.",
    )
    changed = tuple((row.job, row.at, row.by, row.field, row.before or "-", row.after or "-") for row in one.amendments)
    asked = _tables(("job", "at", "by", "field", "before", "after"), changed, "What was asked, and what it became")
    return Section("18 Decisions", said, (*_tables(head, rows, "", 7), *asked))


def _decision(row: DecisionRow, *, booked: bool) -> tuple[str, ...]:
    return (
        row.job,
        row.decided_at,
        row.verdict,
        row.cluster or "-",
        row.start or "-",
        row.policy,
        row.reason,
        str(row.candidates),
        "-" if row.expected_co2e_ug is None else co2e(row.expected_co2e_ug),
        co2e(row.co2e_ug) if booked else "-",
    )


def _references(one: Statement) -> Section:
    rows = tuple(
        (
            row.role,
            str(row.jobs),
            co2e(row.ours_ug),
            co2e(row.co2e_ug),
            co2e(row.saved_ug),
            percent(row.saved_ug, row.co2e_ug),
        )
        for row in one.comparisons
    )
    said = [
        "The same energy under the other choice, by the identical method: its own time, zone, PUE and readings.",
        "Negative: our choice emitted more. Outside the inventory (GHG Protocol: avoided emissions).",
    ]
    seen = one.hindsight
    if seen.jobs:
        said.append(
            f"Of what the best allowed choice in hindsight would have saved, ours saved "
            f"{percent(seen.saved_ug, seen.best_ug)}: {co2e(seen.saved_ug)} of {co2e(seen.best_ug)} "
            f"({counted(seen.jobs, 'job')})."
        )
    problems = tuple((row.job, row.role, row.problem) for row in one.compared if row.problem)
    head = ("choice", "jobs", "ours", "theirs", "saved", "share")
    tables = (*_tables(head, rows, "", 1), *_tables(("job", "choice", "why not"), problems, "Not compared"))
    return Section("19 Counterfactuals and savings", tuple(said), tables, _savings(one))


def _savings(one: Statement) -> tuple[Chart, ...]:
    if not one.comparisons:
        return ()
    bars = [charts.Bar(row.role, row.co2e_ug / UG_PER_G) for row in one.comparisons]
    bars.insert(0, charts.Bar("ours", one.comparisons[-1].ours_ug / UG_PER_G, strong=True))
    svg = charts.bars(
        "CO2e under each choice", bars, charts.Axis.holding("g CO2e", [bar.value for bar in bars], "{:.4g}".format)
    )
    return (Chart(f"CO2e under each choice; ours over the jobs compared with {one.comparisons[-1].role}.", svg),)


def _uncertainty(one: Statement) -> Section:
    found = one.uncertainty
    rows = tuple((row.factor, row.of, row.source, f"±{ppm_percent(row.error_ppm)}") for row in found.assumed)
    said = (
        f"CO2e of electricity: {co2e(one.total('co2e_ug'))}.",
        f"In 90 % of {found.draws} draws, each factor erring by itself: {co2e(found.p5_ug)} to {co2e(found.p95_ug)}.",
        f"Bounds with every error at its worst at once: {co2e(found.low_ug)} to {co2e(found.high_ug)}.",
    )
    return Section("20 Uncertainty", said, _tables(("factor", "of", "source", "error"), rows, "", 3))


def _restatements(one: Statement) -> Section:
    rows = tuple(
        (
            row.attempt,
            row.at,
            row.why,
            kwh(row.energy_before_uj),
            kwh(row.energy_uj),
            co2e(row.co2e_before_ug),
            co2e(row.co2e_ug),
            co2e(row.co2e_ug - row.co2e_before_ug),
        )
        for row in one.restatements
    )
    head = ("attempt", "booked again", "why", "energy before", "energy", "CO2e before", "CO2e", "difference")
    said = (
        ("The newest figures are in the totals; both stay in the ledger.",) if rows else ("No figure was booked anew.",)
    )
    return Section("21 Restatements", said, _tables(head, rows, "", 3))


def _completeness(one: Statement) -> Section:
    found = one.completeness
    states = ", ".join(f"{count} {state}" for state, count in found.states) or "none"
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in found.outcomes) or "none"
    said = (
        f"Jobs: {len(one.jobs)} ({states}). Attempts: {outcomes}; jobs with more than one: {found.retried}.",
        f"Attempts that ran and have no energy: {found.without_energy}.",
        "Clusters count as a whole, whoever's jobs ran there; past us: jobs of its list that we did not submit.",
    )
    head = ("cluster", "reconciled from", "until", "ours", "past us", "their time", "unknown", "unlisted", "coverage")
    rows = tuple(_reconciled(row) for row in found.clusters)
    return Section("22 Completeness", said, _tables(head, rows, "", 3))


def _reconciled(row: Reconciled) -> tuple[str, ...]:
    coverage = "not reconciled" if row.coverage_ppm is None else ppm_percent(row.coverage_ppm)
    counts = (
        row.ours,
        row.past_us,
        f"{significant(row.past_us_us, HOUR_US) if row.past_us_us else 0} h",
        row.unknown,
        row.unlisted,
    )
    return (row.cluster, row.since or "never", row.until or "-", *map(str, counts), coverage)


def _offsets(one: Statement) -> Section:
    rows = tuple(
        (
            row.kind,
            row.name,
            row.source,
            "-" if row.co2e_ug is None else co2e(row.co2e_ug),
            "-" if row.energy_uj is None else kwh(row.energy_uj),
        )
        for row in one.offsets
    )
    said = ("Shown apart: in no figure of this statement.",) if rows else ("None are declared.",)
    head = ("kind", "name", "source", "CO2e", "energy")
    return Section("23 Offsets and certificates", said, _tables(head, rows, "", 3))


def _ledger(one: Statement) -> Section:
    return Section(
        "24 Ledger",
        (
            f"{counted(one.ledger_size, 'entry')}, head {one.ledger_head}",
            "Signed checkpoints are kept outside the database (`carbon-sched audit seal`).",
            "Verify: carbon-sched audit verify --file LEDGER.jsonl --checkpoint seals.jsonl --key KEY",
            "Compute again: carbon-sched audit statement --export LEDGER.jsonl, with the options of this statement",
        ),
    )


def _licences(one: Statement) -> Section:
    return Section("25 Data licences and credits", one.licences or ("No data of others was used.",))


SECTIONS: tuple[Callable[[Statement], Section], ...] = (
    _location,
    _market,
    _upstream,
    _embodied,
    _scopes,
    _scores,
    _inference,
    _decisions,
    _references,
    _uncertainty,
    _restatements,
    _completeness,
    _offsets,
    _ledger,
    _licences,
)
