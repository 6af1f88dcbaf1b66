"""`carbon-sched doctor`: look at everything that may stand in the way of a job, and say what to do about it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from carbon_sched.cli.output import json_option, print_json

if TYPE_CHECKING:
    from carbon_sched.cli.checkup import Energy, Finding

MARKS = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Find what is in the way of jobs, and what is measured.

    Starts no server and changes nothing. Exits 0 when nothing is in the way, else as a job would that met the first
    problem (120 to 127). Warnings are not in the way.

    \b
    Example:
      carbon-sched doctor
    """
    from carbon_sched.cli import checkup_service
    from carbon_sched.cli.progress import Progress

    with Progress("looking around"):
        energy, findings = _look()
    problems = [finding for finding in findings if finding.level == "problem"]
    if as_json:
        shown = [checkup_service.as_json(finding) for finding in findings]
        measured, estimated = list(energy.measured), list(energy.estimated)
        print_json({"ok": not problems, "findings": shown, "measured": measured, "estimated": estimated})
    else:
        _show(energy, findings)
    return problems[0].exit_code if problems else 0


def _look() -> tuple[Energy, list[Finding]]:
    from carbon_sched.cli import checkup, checkup_service
    from carbon_sched.data_dir import default_data_dir
    from carbon_sched_runtime.sources import Sources

    remote = bool(os.environ.get("CARBON_SCHED_URL"))
    data_dir = default_data_dir()
    findings = list(checkup.look_at_software(remote=remote))
    if not remote:
        findings += checkup.look_at_data_folder(data_dir)
    findings += [*checkup.look_at_scratch(), *checkup_service.look_at_service(data_dir)]
    sources = Sources()
    try:
        energy, more = checkup.look_at_energy(sources)
    finally:
        sources.close()
    return energy, [*findings, *more]


def _show(energy: Energy, findings: list[Finding]) -> None:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from carbon_sched.cli import render

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=9, no_wrap=True)
    grid.add_column()
    for one in findings:
        text = Text.assemble(f"{one.topic}: {one.text}", (f"\n-> {one.remedy}" if one.remedy else "", "bold"))
        grid.add_row(Text(one.level, MARKS[one.level]), text)
    for title, rows in (("measured", energy.measured), ("ESTIMATED", energy.estimated)):
        for row in rows:
            grid.add_row(Text(title, "bold"), row)
    render.show(Group(Text("carbon-sched doctor", "bold"), grid))
