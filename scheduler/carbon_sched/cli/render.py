"""What people read: decisions, receipts, lists, as tables of at most 80 columns; plain text when piped.

Estimates are called estimates where they stand. Everything here is also to be had with `--json`.
"""

from __future__ import annotations

import io
import shutil
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from carbon_sched.cli import figures
from carbon_sched.cli.clock import local_zone, now
from carbon_sched.cli.curve import BAND, LINE, PLAIN, Column, Stretch, curve
from carbon_sched.cli.output import coloured
from carbon_sched.domain.time import from_rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from carbon_sched.wire import (
        BatchView,
        CandidateView,
        ClusterCheck,
        ClusterView,
        DecisionView,
        JobView,
        Receipt,
        ScheduleView,
        StartView,
        TokenView,
    )

WIDTH = 80
WINDOWS_SHOWN = 10
GRADES = {
    "A": "live signal of the zone",
    "B": "the provider's forecast",
    "C": "our own forecast",
    "D": "yearly average of the zone",
    "E": "yearly average of the country",
    "F": "world average: no zone is known",
}
REFERENCES = {
    "run-now-home": "at once on the home cluster",
    "best-fixed": "at once on the cluster with the cleanest last 28 days",
    "run-now-here": "at once on the same cluster",
}
STATE_STYLES = {
    "running": "cyan", "succeeded": "green", "failed": "red", "lost": "red", "refused": "red", "stopped": "yellow",
}  # fmt: skip
SOURCES = {"counter": "hardware counter", "integrated": "integrated power", "estimated": "ESTIMATED"}


def show(what: RenderableType, *, stderr: bool = False) -> None:
    """Print to stdout or stderr, no wider than the terminal and 80 columns; plain when piped."""
    stream = sys.stderr if stderr else sys.stdout
    colour = coloured(stream)
    columns = shutil.get_terminal_size().columns if stream.isatty() else WIDTH
    text = io.StringIO()
    console = Console(
        file=text,
        width=max(40, min(WIDTH, columns)),
        force_terminal=colour,
        no_color=not colour,
        highlight=False,
        emoji=False,
        markup=False,
    )
    console.print(what)
    # rich fills lines up to the width: invisible on a terminal, a nuisance in files and diffs
    stream.write("".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines()))
    stream.flush()


# ------------------------------------------------------------------------------------------------------------ decision


def decision(view: DecisionView) -> RenderableType:
    """Verdict, the sentence why, and every candidate with what is expected of it: the chosen one, then the cleanest."""
    feasible = sorted(
        (candidate for candidate in view["candidates"] if candidate["feasible"]),
        key=lambda c: (c["cluster"] != view["cluster"], c["co2e_g"] is None, c["co2e_g"] or 0.0),
    )
    parts: list[RenderableType] = [_verdict(view), Padding(Text(view["reason"]), (0, 0, 0, 2))]
    if feasible:
        parts += ["", _candidates(view, feasible)]
    parts += [
        fact_line("full hour", f"{c['cluster']}: {c['reason']}") for c in feasible if c["room_g_per_kwh"] is not None
    ]
    parts += [
        fact_line("not possible", f"{c['cluster']}: {c['reason']}") for c in view["candidates"] if not c["feasible"]
    ]
    parts += [*_starts(view), "", *_expectation(view)]
    return Group(*parts)


def _starts(view: DecisionView) -> Iterable[RenderableType]:
    """What each start on the chosen cluster would emit, with its band, and the bounds that were kept."""
    zone, at = local_zone(), now()
    if len(view["curve"]) > 1:
        unit, name = figures.fitting([start["high_g"] for start in view["curve"]], figures.MASS)
        title = f"{name} CO2e expected on {view['cluster']}, by start; the band is the forecast's 10-90 %"
        yield Padding(Text(title, "dim"), (1, 0, 0, 2))
        lines = curve(_stretches(view["curve"], unit), zone, WIDTH - 2)
        yield Padding(Group(*(drawn(line) for line in lines)), (0, 0, 0, 2))
    if view["latest_start"]:
        sure = view["deadline_confidence"]
        why = f"ends by the deadline with {sure:.0%} confidence" if sure else "the longest delay allowed"
        yield fact_line("latest start", f"{figures.clock(view['latest_start'], zone, at)}: {why}")


def _stretches(starts: Sequence[StartView], unit: float) -> list[Stretch]:
    """Each start up to the next one; the last is as long as the one before it."""
    at = [from_rfc3339(start["start"]) for start in starts]
    ends = [*at[1:], at[-1] + (at[-1] - at[-2])]
    values = [[start[key] / unit for key in ("co2e_g", "low_g", "high_g")] for start in starts]
    return [Stretch(begin, end, Column(*three)) for begin, end, three in zip(at, ends, values, strict=True)]


def drawn(line: str) -> Text:
    """A line of a curve: its band dim, and in plain characters where the output can show no others."""
    try:
        (LINE + BAND).encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        line = line.translate(PLAIN)
    text = Text(line, no_wrap=True)
    text.highlight_regex(f"{BAND}+", "dim")
    return text


def _verdict(view: DecisionView) -> Text:
    zone, at = local_zone(), now()
    where, start = view["cluster"] or "", view["start"]
    words = {
        "place": ("green", f"runs on {where} now"),
        "delay": ("cyan", f"waits until {figures.clock(start, zone, at) if start else '?'} to run on {where}"),
        "hold": ("yellow", "waits"),
        "refuse": ("red", "refused"),
    }
    style, text = words.get(view["verdict"], ("", view["verdict"]))
    return Text.assemble(("Decision  ", "bold"), (text, f"bold {style}".strip()))


def _candidates(view: DecisionView, feasible: Sequence[CandidateView]) -> RenderableType:
    """One row per candidate, the chosen one marked; a column has one unit, so that its figures can be compared."""
    zone, at = local_zone(), now()
    mass = figures.fitting([c[key] for c in feasible for key in ("co2e_g", "now_co2e_g")], figures.MASS)
    energy = figures.fitting([c["energy_kwh"] for c in feasible], figures.ENERGY)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", collapse_padding=True)
    for name in ("", "cluster", "zone", "start"):
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=16)
    for name in (f"{energy[1]}", f"{mass[1]} CO2e", "if now", "g/kWh", "PUE"):
        table.add_column(name, justify="right", no_wrap=True)
    for candidate in feasible:
        chosen = candidate["cluster"] == view["cluster"] and view["verdict"] in {"place", "delay"}
        table.add_row(
            "=>" if chosen else "",
            candidate["cluster"],
            candidate["zone"],
            _start(candidate["start"], view["decided_at"], zone, at),
            _in(candidate["energy_kwh"], energy),
            _in(candidate["co2e_g"], mass),
            _in(candidate["now_co2e_g"], mass),
            _intensity(candidate),
            "-" if candidate["pue"] is None else f"{candidate['pue']:.2f}",
            style="bold" if chosen else "",
        )
    return Padding(table, (0, 0, 0, 2))


def _start(text: str | None, decided_at: str, zone: Any, at: Any) -> str:
    if text is not None and text <= decided_at:
        return "now"
    return figures.moment(text, zone, at)


def _in(value: float | None, unit: tuple[float, str]) -> str:
    return "-" if value is None else figures.digits(value / unit[0])


def _intensity(candidate: CandidateView) -> str:
    if candidate["intensity_g_per_kwh"] is None:
        return "-"
    grade = (candidate["grade"] or "?")[:1]
    return f"{figures.digits(candidate['intensity_g_per_kwh'])} {grade}"


def _expectation(view: DecisionView) -> Iterable[RenderableType]:
    """What the figures rest on: all of them are estimates, of a run and of a grid."""
    lasting, power = figures.duration(view["expected_duration_s"]), view["expected_power_w"]
    run = f"a run of {lasting}" + (f" at {figures.digits(power)} W" if power is not None else "")
    source = f" ({view['estimate_source']})" if view["estimate_source"] else ""
    yield fact_line("estimated", f"{run}{source}")
    grades = sorted({(c["grade"] or "")[:1] for c in view["candidates"] if c["grade"]})
    if grades:
        yield fact_line("grid", "; ".join(f"{grade}: {GRADES.get(grade, grade)}" for grade in grades))
    chosen = view["expected_co2e_g"]
    for name, value in view["references"].items():
        if figures.grams(value) != figures.grams(chosen):
            yield fact_line("instead", f"{figures.grams(value)} CO2e expected {REFERENCES.get(name, name)}")
    yield from _beside(view)
    yield fact_line("policy", view["policy"])


def _beside(view: DecisionView) -> Iterable[RenderableType]:
    """What comes on top of the chosen run, and what stands beside it."""
    for candidate in view["candidates"]:
        if candidate["cluster"] != view["cluster"]:
            continue
        on_top = {"nodes that come for the job": candidate["overhead_g"], "moving its data": candidate["transfer_g"]}
        for what, grams in on_top.items():
            if grams > 0:
                yield fact_line("of that", f"{figures.grams(grams)} for {what}, estimated")
        low, high = candidate["embodied_low_g"], candidate["embodied_high_g"]
        if low is not None and high is not None:
            share = figures.grams(low) if low == high else f"{figures.grams(low)} to {figures.grams(high)}"
            yield fact_line("embodied", f"{share} of the GPUs' manufacture; not compared, estimated")


def fact_line(name: str, text: str | Text, style: str = "") -> RenderableType:
    """One fact: its name in a narrow column, its text beside it, wrapped under itself."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=12, style="dim", no_wrap=True)
    grid.add_column(style=style)
    grid.add_row(name, text)
    return Padding(grid, (0, 0, 0, 2))


# ------------------------------------------------------------------------------------------------------------- receipt


def receipt(view: Receipt) -> RenderableType:
    """Energy by device and source, PUE, intensity and grade, CO2e, and what it would have been elsewhere."""
    parts: list[RenderableType] = [_receipt_head(view), ""]
    parts.append(fact_line("ran", _ran(view)))
    if view["devices"] or view["energy_kwh"]:
        parts += [fact_line("energy", _energy_line(view)), _devices(view)]
        parts += [fact_line("grid", _grid_line(view)), fact_line("CO2e", _co2e_line(view))]
        parts += _references(view) + _windows(view) + _per_unit(view) + _suspensions(view)
    else:
        parts.append(fact_line("energy", Text("none measured", "yellow")))
    parts += [fact_line("missing", Text(text, "yellow")) for text in view["missing"]]
    parts += [fact_line("note", text) for text in view["notes"]]
    if view["ledger_head"]:
        parts.append(fact_line("ledger", f"booked; head {view['ledger_head'][:16]}"))
    return Group(*parts)


def _receipt_head(view: Receipt) -> Text:
    state = "" if view["final"] else "  not final"
    style = STATE_STYLES.get(view["state"], "")
    return Text.assemble(
        ("Receipt  ", "bold"),
        (view["name"], "bold"),
        f"  {view['job_id']}  ",
        (view["state"], style),
        (state, "yellow"),
    )


def _ran(view: Receipt) -> str:
    if view["cluster"] is None or view["started_at"] is None:
        return "did not run"
    zone, at = local_zone(), now()
    end = figures.clock(view["ended_at"], zone, at) if view["ended_at"] else "still running"
    lasting = f", {figures.duration(view['duration_s'])}" if view["duration_s"] is not None else ""
    place = f"on {view['cluster']} ({view['zone']})" if view["zone"] else f"on {view['cluster']}"
    return f"{place}, {figures.moment(view['started_at'], zone, at)} to {end}{lasting}"


def _energy_line(view: Receipt) -> Text:
    """IT energy, the building's share on top, and how much of it is only estimated."""
    pue = view["pue"]
    line = Text(f"{figures.kwh(view['energy_kwh'])}")
    if pue is not None:
        line.append(f" x PUE {pue:.2f} = {figures.kwh(view['facility_kwh'])}", "")
    total = sum(view["energy_by_source_j"].values())
    estimated = view["energy_by_source_j"].get("estimated", 0.0)
    if total > 0 and estimated > 0:
        share = "all" if estimated >= total else figures.percent(estimated / total)
        line.append(f"  ({share} estimated)", "yellow")
    if view["pue_source"]:
        line.append(f"\nPUE: {view['pue_source']}", "dim")
    return line


def _devices(view: Receipt) -> RenderableType:
    """Energy of each device and how it was found."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=24)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    machines = {device["machine"] for device in view["devices"]}
    for device in view["devices"]:
        name = device["device"] if len(machines) == 1 else f"{device['machine']} {device['device']}"
        estimated = device["source"] == "estimated"
        how = SOURCES.get(device["source"], device["source"])
        error = f" +/-{_error(device['error_pct'])} %" if device["error_pct"] else ""
        table.add_row(
            name, f"{figures.digits(device['energy_j'])} J",
            Text(f"{how}{error}, {device['reporter']}", "yellow" if estimated else ""),
        )  # fmt: skip
    return Padding(table, (0, 0, 0, 16))


def _windows(view: Receipt) -> list[RenderableType]:
    """What the job's own code named, the first of them."""
    told = ", ".join(f"{name} {figures.digits(value)}" for name, value in view.get("quality", {}).items())
    lines: list[RenderableType] = [fact_line("variant", Text(name))] if (name := view.get("variant")) else []
    lines += [fact_line("reported", Text(told))] if told else []
    windows = view.get("windows", [])  # an older server tells none
    for window in windows[:WINDOWS_SHOWN]:
        carbon = "CO2e unknown" if window["co2e_g"] is None else f"{figures.grams(window['co2e_g'])} CO2e"
        per = [f"{figures.digits(joules)} J/{unit}" for unit, joules in window["j_per_unit"].items()]
        said = ", ".join([f"{figures.digits(window['energy_j'])} J", carbon, *per])
        lines.append(fact_line("window", Text(f"{window['name']}: {said}")))
    more = len(windows) - WINDOWS_SHOWN
    return [*lines, fact_line("window", f"and {more} more, in --json")] if more > 0 else lines


def _per_unit(view: Receipt) -> list[RenderableType]:
    """The whole job by what its code counted."""
    found = view.get("per_unit", {})  # an older server tells none
    return [
        fact_line(
            f"per {unit.removesuffix('s')}",
            f"{figures.digits(one['energy_j'])} J, {figures.grams(one['co2e_g'])} CO2e, of {one['amount']:,.6g} in all",
        )
        for unit, one in found.items()
    ]


def _suspensions(view: Receipt) -> list[RenderableType]:
    """How often it was suspended, and how much of its energy that took beside its work."""
    times = view.get("suspensions", 0)  # an older server tells none
    if not times:
        return []
    kinds = ("lost-work", "saving", "restart")
    taken = {kind: sum(one["energy_j"] for one in view["overhead"] if one["kind"] == kind) for kind in kinds}
    share = (
        figures.percent(sum(taken.values()) / figures.J_PER_KWH / view["energy_kwh"])
        if view["energy_kwh"]
        else "nothing"
    )
    each = ", ".join(f"{kind.replace('-', ' ')} {figures.digits(joules)} J" for kind, joules in taken.items())
    return [fact_line("suspended", Text(f"{times} time{'s' if times > 1 else ''}, for {share} of the energy: {each}"))]


def _error(percent: float) -> str:
    """Two digits at most: an error bound is no measurement."""
    return f"{percent:.0f}" if percent >= 9.5 else f"{percent:.2g}"


def _grid_line(view: Receipt) -> str:
    intensity = view["intensity_g_per_kwh"]
    if intensity is None:
        return "no intensity is known"
    grade = view["intensity_grade"][:1]
    words = f"{view['intensity_grade']}, {GRADES[grade]}" if grade in GRADES else view["intensity_grade"]
    text = f"{figures.digits(intensity)} g/kWh; grade {words}"
    source = ", ".join(part for part in (view["intensity_provider"], view["intensity_basis"]) if part)
    return f"{text}\n{source}" if source else text


def _co2e_line(view: Receipt) -> Text:
    line = Text(figures.grams(view["co2e_g"]), "bold")
    if view["expected_co2e_g"] is not None:
        line.append(f"  (expected {figures.grams(view['expected_co2e_g'])})", "not bold dim")
    return line


def _references(view: Receipt) -> list[RenderableType]:
    """The same energy, booked as if the choice had been another; a loss is shown as plainly as a saving."""
    if not view["references"]:
        return []
    table = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("right", "left", "left"):
        table.add_column(justify=justify)
    notes = dict.fromkeys(reference["note"] for reference in view["references"] if reference["note"])
    for reference in view["references"]:
        saved = reference["saved_g"]
        style, words = ("green", "saved") if saved > 0 else ("red", "more") if saved < 0 else ("dim", "same")
        amount = f"{figures.grams(abs(saved))} {words}" if saved else words
        what = f"{REFERENCES.get(reference['name'], reference['name'])} ({reference['cluster']})"
        note = f"\n{reference['note']}" if reference["note"] and len(notes) > 1 else ""
        table.add_row(figures.grams(reference["co2e_g"]), Text(amount, style), what + note)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=12, style="dim", no_wrap=True)
    grid.add_column()
    grid.add_row("instead of", table)
    if len(notes) == 1:
        grid.add_row("", Text(next(iter(notes)), "dim"))
    return [Padding(grid, (0, 0, 0, 2))]


# ---------------------------------------------------------------------------------------------------------------- jobs


def jobs(views: Sequence[JobView]) -> RenderableType:
    """One line per job."""
    zone, at = local_zone(), now()
    table = listing(("job", 10), ("name", 20), ("state", 11), ("cluster", 14), ("submitted", 12), ("", 14))
    for job in views:
        state = Text(job["state"], STATE_STYLES.get(job["state"], ""))
        submitted = figures.moment(job["submitted_at"], zone, at)
        table.add_row(job["job_id"], job["name"], state, job["cluster"] or "-", submitted, _job_note(job))
    return table


def _job_note(job: JobView) -> str:
    if job["exit_code"] is not None:
        return f"exit {job['exit_code']}"
    if job["planned_start"] and job["state"] == "queued":
        return f"from {figures.moment(job['planned_start'], local_zone(), now())}"
    batch = job.get("batch")  # an older server tells none
    if batch and batch["total"]:
        return f"{figures.percent(batch['done'] / batch['total'])} of {batch['total']:,}"
    return f"no. {job['position']} in line" if job["position"] else ""


def _batch(view: BatchView) -> Text:
    """How far, at what cost per item, and whether it will be in time."""
    said = [f"{view['done']:,} of {view['total']:,} items"]
    if view["j_per_item"] is not None:
        said.append(
            f"{figures.digits(view['j_per_item'])} J and {figures.grams(view['co2e_g_per_item'])} CO2e per item"
        )
    if view["expected_end"] is not None:
        said.append(f"done about {figures.moment(view['expected_end'], local_zone(), now())}")
    line = Text(", ".join(said))
    if view["late"] and view["deadline"]:
        line.append(f", after its deadline {figures.moment(view['deadline'], local_zone(), now())}", "yellow")
    return line


def job(view: JobView) -> RenderableType:
    """One job with its attempts."""
    zone, at = local_zone(), now()
    state = Text(view["state"], f"bold {STATE_STYLES.get(view['state'], '')}".strip())
    parts: list[RenderableType] = [
        Text.assemble((view["name"], "bold"), f"  {view['job_id']}  ", state),
        fact_line("why", view["reason"] or "-"),
        *([fact_line("in line", f"no. {view['position']}")] if view["position"] else []),
        fact_line("runs", view["entrypoint"]),
        fact_line("submitted", f"{figures.clock(view['submitted_at'], zone, at)} by {view['submitter'] or '-'}"),
    ]
    if view["planned_start"] and view["state"] == "queued":
        parts.append(fact_line("planned for", figures.clock(view["planned_start"], zone, at)))
    batch = view.get("batch")  # an older server tells none
    if batch:
        parts.append(fact_line("batch", _batch(batch)))
    labels = [f"{key} {view[key]}" for key in ("phase", "stage", "model", "project", "team") if view[key]]
    parts.append(fact_line("labels", ", ".join(labels)))
    for attempt in view["attempts"]:
        began = figures.moment(attempt["started_at"], zone, at)
        ended = figures.moment(attempt["ended_at"], zone, at)
        outcome = attempt["outcome"] or "open"
        code = "" if attempt["exit_code"] is None else f", exit {attempt['exit_code']}"
        text = f"{attempt['cluster']}, {began} to {ended}: {outcome}{code}"
        parts.append(fact_line(f"attempt {attempt['number']}", f"{text}. {attempt['reason']}".rstrip(". ")))
    return Group(*parts)


# ------------------------------------------------------------------------------------------------------------ clusters


def clusters(views: Sequence[ClusterView]) -> RenderableType:
    """One line per cluster, its trouble below it."""
    table = listing(
        ("cluster", 14), ("zone", 12), ("g/kWh", 8), ("PUE", 5), ("CPU used", 10), ("GPU used", 10), ("", 14)
    )
    for view in views:
        grade = view["intensity_grade"][:1]
        note = "ok" if view["problem"] is None else Text("not usable", "red")
        if view["home"] and view["problem"] is None:
            note = "ok, home"
        table.add_row(
            view["name"],
            view["zone"],
            f"{figures.digits(view['intensity_g_per_kwh'])} {grade}",
            f"{view['pue']:.2f}",
            _used(view["cpus_used"], view["cpus"]),
            _used(view["gpus_used"], view["gpus"]),
            note,
        )
    troubles = [fact_line(view["name"], Text(view["problem"], "red")) for view in views if view["problem"]]
    grades = sorted({view["intensity_grade"][:1] for view in views})
    legend = "; ".join(f"{grade}: {GRADES.get(grade, grade)}" for grade in grades)
    return Group(table, *troubles, Text(f"grid: {legend}", "dim"))


def _used(used: float | None, total: float) -> str:
    if not total:
        return "-"
    return f"{'?' if used is None else f'{used:g}'}/{total:g}"


def check(view: ClusterCheck) -> RenderableType:
    """What a cluster's check found."""
    marks = {"ok": "green", "warning": "yellow", "problem": "bold red"}
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=8, no_wrap=True)
    grid.add_column()
    for finding in view["findings"]:
        about = f"{finding['topic']}: " if finding.get("topic") else ""
        grid.add_row(Text(finding["level"], marks.get(finding["level"], "")), about + finding["text"])
    return Group(Text(view["name"], "bold"), Padding(grid, (0, 0, 0, 2)))


def tokens(views: Sequence[TokenView]) -> RenderableType:
    """One line per token; those that are revoked are dim."""
    table = listing(("token", 10), ("name", 20), ("role", 10), ("teams", 20), ("until", 20), ("", 8))
    for view in views:
        teams = "every team" if view["teams"] is None else ", ".join(view["teams"])
        ended = "revoked" if view["revoked_at"] else ""
        row = (view["token_id"], view["name"], view["role"], teams, view["expires_at"][:19], ended)
        table.add_row(*row, style="dim" if ended else "")
    return table


def facts(title: str, rows: Sequence[tuple[str, str]]) -> RenderableType:
    """A heading and named facts."""
    return Group(Text(title, "bold"), *(fact_line(name, text) for name, text in rows))


def schedules(views: Sequence[ScheduleView]) -> RenderableType:
    """One line per schedule: when it is due next, and how it went last."""
    table = listing(("schedule", 10), ("name", 20), ("cron", 16), ("zone", 16), ("next, UTC", 16), ("last job", 40))
    for view in views:
        due = view["next_at"].replace("T", " ")[:16]
        last = view["problem"] or view["last_job"] or "none yet"
        table.add_row(view["schedule_id"], view["name"], view["cron"], view["zone"], due, last)
    return table


def listing(*columns: tuple[str, int]) -> Table:
    """A table with these columns: heading and greatest width."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name, width in columns:
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=width)
    return table
