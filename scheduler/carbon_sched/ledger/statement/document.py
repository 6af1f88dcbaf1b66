"""A statement as a document for people: the 25 rows of the checklist, in its order, under its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carbon_sched import charts
from carbon_sched.domain.units import MG_PER_G, UG_PER_G
from carbon_sched.ledger.documents.document import Chart, Document, Figure, Section, Table
from carbon_sched.ledger.figures import co2e, kwh, percent, ratio, significant
from carbon_sched.ledger.statement import elsewhere, results
from carbon_sched.ledger.statement.lines import estimated_uj
from carbon_sched.ledger.statement.results import energy_cells, named, or_else

if TYPE_CHECKING:
    from collections.abc import Callable

    from carbon_sched.ledger.statement.model import Series, Statement

SHORT_HASH = 16
MOST_DAYS = 31
"""Bars that a chart of days has room for."""


def document(statement: Statement) -> Document:
    """The whole document."""
    words = statement.selection.words + ("" if statement.jobs else " (no job matches)")
    since, until = statement.period.since or "the beginning", statement.period.until or "now"
    sections = [section(statement) for section in (*_SECTIONS, *results.SECTIONS)]
    if statement.imported:
        sections.append(elsewhere.section(statement.imported))
    return Document(
        title="Statement of energy and greenhouse gas emissions",
        subtitle=f"{words}, from {since} to {until} (UTC). Ledger {statement.ledger_head[:16]}",
        figures=_figures(statement),
        sections=tuple(sections),
    )


def _figures(one: Statement) -> tuple[Figure, ...]:
    energy_uj, covered_uj = one.total("energy_uj"), one.total("covered_uj")
    bounds = f"{co2e(one.uncertainty.p5_ug)} to {co2e(one.uncertainty.p95_ug)} (5 to 95 %)"
    made = sum(row.central_ug for row in one.embodied)
    home = next((row for row in one.comparisons if row.role == "run-now-home"), None)
    saved = (
        Figure("Saved against running at once at home", co2e(home.saved_ug), f"jobs compared: {home.jobs}")
        if home
        else None
    )
    figures = [
        Figure("CO2e of electricity, life cycle", co2e(one.total("co2e_ug")), bounds),
        Figure(
            "Scope 2, location-based (direct)",
            co2e(one.total("direct_ug")) if one.separable else "not known",
            f"{co2e(one.unseparated_ug)} not separable",
        ),
        Figure(
            "Embodied, central",
            co2e(made) if one.embodied or not one.embodied_unknown else "not known",
            "the hardware's manufacture, apart",
        ),
        Figure("IT energy", kwh(energy_uj), f"{kwh(one.total('facility_uj'))} with PUE"),
        Figure("Intensity known for", percent(covered_uj, energy_uj), "of the energy"),
        saved or Figure("Jobs", str(len(one.jobs)), "none can be compared"),
    ]
    return tuple(figures)


def _boundary(one: Statement) -> Section:
    said = one.boundary
    return Section(
        "1 Scope and boundary",
        (
            said.statement or "No boundary was declared (`carbon-sched audit declare`).",
            f"Jobs: {one.selection.words}. Every attempt of theirs counts, whatever became of it.",
            "Included: IT energy of the attempts (row 5), times PUE, times the grid's intensity of its time and zone.",
            "Apart, never added to it: embodied emissions (row 14), offsets and certificates (row 23).",
            "Not included: networks and storage outside the metered machines, the people's own devices, cooling water.",
        ),
    )


def _period(one: Statement) -> Section:
    period = one.period
    used = (
        f"Energy was used from {period.first_use} to {period.last_use}." if period.first_use else "No energy was used."
    )
    asked = f"{period.since or 'The beginning of the ledger'} to {period.until or 'its end'}, half-open."
    return Section(
        "2 Reporting period",
        (
            f"{asked} All times are UTC.",
            used,
            "Energy counts by when it was used: adjoining periods add up to the whole.",
        ),
    )


def _responsible(one: Statement) -> Section:
    said = one.boundary
    contact = f", {said.contact}" if said.contact else ""
    declared = f"declared by {said.declared_by} on {said.declared_at}" if said.declared_at else "not declared"
    return Section(
        "3 Organisation, responsibility and tool",
        (
            f"Organisation: {said.organisation or 'not declared'}.",
            f"Accountable: {said.accountable or 'not declared'}{contact} ({declared}).",
            f"Made by {said.tool}, method {said.method}; configuration sha256 {said.config_sha256}.",
        ),
    )


def _jobs(one: Statement) -> Section:
    head = (
        "job",
        "name",
        "owner",
        "phase",
        "cluster",
        "zone",
        "start",
        "end",
        "state",
        "attempts",
        "IT energy",
        "CO2e",
    )
    unbooked = one.unbooked
    rows = tuple(
        (
            job.job,
            job.name,
            job.owner,
            job.phase + (f"/{job.stage}" if job.stage else ""),
            job.clusters or "-",
            job.zones or "-",
            job.start or "-",
            job.end or "-",
            job.state + ("" if job.settled else " (not final)"),
            str(job.attempts),
            kwh(job.energy_uj),
            "-" if job.job in unbooked else co2e(job.co2e_ug),
        )
        for job in one.jobs
    )
    said = or_else(rows, "No job matches.")
    if unbooked:
        said += ("CO2e `-`: no intensity is known for any of the job's energy, as before its end.",)
    said += tuple(
        f"{job.job} was suspended {job.suspensions} times: {kwh(job.overhead_uj)} of its energy went into saving its "
        f"state, starting again, and work that was done again."
        for job in one.jobs
        if job.suspensions
    )
    return Section("4 Jobs", said, (Table(head, rows, right_from=9),) if rows else ())


def _energy(one: Statement) -> Section:
    tables = []
    for fields in (("component", "source", "reporter"), ("source",), ("reporter",)):
        rows = tuple((*map(named, key), *energy_cells(line)) for key, line in one.by(*fields))
        head = (*fields, "IT energy", "facility", "CO2e", "meter error")
        tables.append(Table(head, rows, f"By {', '.join(fields)}", len(fields)))
    said = (
        "counter: a hardware counter's difference; integrated: power over time; estimated: a model, not measured.",
        "independent: a meter that is not the job's own; self-reported: written beside the job; ray: Ray's own gauge.",
        "The meter's error is the bound that every row carries, weighted by energy.",
    )
    return Section("5 Measured IT energy", said, tuple(tables) if one.lines else ())


def _gaps(one: Statement) -> Section:
    whole = one.total("energy_uj")
    unknown = whole - one.total("covered_uj")
    head = ("attempt", "what", "from", "until", "energy")
    rows = tuple(
        (gap.attempt, gap.what, gap.start or "-", gap.end or "-", "-" if gap.energy_uj is None else kwh(gap.energy_uj))
        for gap in one.gaps
    )
    said = (
        f"Estimated, not measured: {percent(estimated_uj(one.lines), whole)} of the energy.",
        f"Without a known intensity: {kwh(unknown)} ({percent(unknown, whole)}); its CO2e is in no figure.",
        "Nothing is filled in: a stretch without energy is listed, and counts as nothing.",
    )
    return Section("6 Gaps and estimates", said, (Table(head, rows, right_from=4),) if rows else ())


def _allocation(one: Statement) -> Section:
    rules = tuple((named(rule), *energy_cells(line)) for (rule,), line in one.by("rule"))
    pots = tuple((row.machine, row.pot, kwh(row.energy_uj)) for row in one.unowned)
    tables = [Table(("rule", "IT energy", "facility", "CO2e", "meter error"), rules, right_from=1)] if rules else []
    if pots:
        title = "Metered beside jobs and owned by none: in no figure"
        tables.append(Table(("machine", "pot", "energy"), pots, title, 2))
    said = (
        "Rows of jobs + idle + unattributed = the hardware counter's difference, exactly (ENERGY-ATTRIBUTION.md).",
        "Idle and unattributed energy belongs to no job: shown where nothing was left out, and in no total.",
    )
    return Section("7 Allocation on shared machines", said, tuple(tables))


def _pue(one: Statement) -> Section:
    head = ("cluster", "PUE", "period", "source", "IT energy", "facility")
    rows = tuple(
        (pue.cluster, ratio(pue.pue_ppm), pue.period or "-", pue.source, kwh(pue.energy_uj), kwh(pue.facility_uj))
        for pue in one.pues
    )
    said = (
        "Facility energy / IT energy over the period named (ISO/IEC 30134-2), as it held when the attempt was opened.",
    )
    return Section("8 PUE", said, (Table(head, rows, right_from=4),) if rows else ())


def _facility(one: Statement) -> Section:
    rows = tuple((*map(named, key), *energy_cells(line)) for key, line in one.by("cluster", "zone"))
    said = (f"{kwh(one.total('facility_uj'))} of electricity, of which {kwh(one.total('energy_uj'))} by IT equipment.",)
    table = Table(("cluster", "zone", "IT energy", "facility", "CO2e", "meter error"), rows, right_from=2)
    return Section("9 Facility energy", said, (table,) if rows else (), _days(one))


def _days(one: Statement) -> tuple[Chart, ...]:
    days = one.days[-MOST_DAYS:]
    if len(days) < 2:
        return ()
    grams = [day.co2e_ug / UG_PER_G for day in days]
    step = 1 + len(days) // 11
    names = [day.day[5:] if number % step == 0 else "" for number, day in enumerate(days)]
    svg = charts.columns("CO2e by day", names, [("CO2e", grams)], charts.Axis.holding("g", grams))
    return (Chart("CO2e of electricity by day of its use (UTC), in grams.", svg),)


def _intensity(one: Statement) -> Section:
    head = ("zone", "provider", "what", "grade", "version", "values", "g/kWh", "issued", "sha256", "applied to")
    tables = [
        Table(head, rows, title, 9)
        for use, title in (("booked", "Booked (life cycle)"), ("direct", "Beside it (direct)"))
        if (rows := tuple(_series(row) for row in one.series if row.use == use))
    ]
    said = (
        "Energy meets the value of its own time and zone. Only average values are booked, never marginal ones.",
        "Grades: A live, B provider's forecast, C own forecast, D zone's year, E country's year, F the world's year.",
        "The hash is that of the provider's answer, or of the sorted list of hashes where there were more.",
    )
    return Section("10 Grid intensity", said, tuple(tables))


def _series(row: Series) -> tuple[str, ...]:
    low, high = significant(row.low_mg_per_kwh, MG_PER_G), significant(row.high_mg_per_kwh, MG_PER_G)
    issued = row.last_issued if row.first_issued == row.last_issued else f"{row.first_issued} to {row.last_issued}"
    return (
        row.zone,
        row.provider,
        f"{row.signal}, {row.basis}, {row.perimeter}, {row.kind}",
        row.grade,
        row.model_version or "-",
        str(row.readings),
        low if low == high else f"{low} to {high}",
        issued,
        (row.sha256[:SHORT_HASH] or "-") + (f" ({row.answers} answers)" if row.answers > 1 else ""),
        kwh(row.energy_uj),
    )


_SECTIONS: tuple[Callable[[Statement], Section], ...] = (
    _boundary,
    _period,
    _responsible,
    _jobs,
    _energy,
    _gaps,
    _allocation,
    _pue,
    _facility,
    _intensity,
)
