"""Commands about budgets of CO2e and energy."""

from __future__ import annotations

import click

from carbon_sched.cli.output import json_option, print_json, say


@click.group()
def budget() -> None:
    """See what budgets have left, and approve what one holds.

    \b
    Example:
      carbon-sched budget list
    """


@budget.command("list")
@json_option
def list_budgets(as_json: bool) -> None:
    """Show every budget: used, reserved, its limit, and what the period will come to.

    \b
    Example:
      carbon-sched budget list
    """
    from carbon_sched.cli.connection import connect

    views = connect().client.budgets()
    if as_json:
        print_json(views)
    elif not views:
        say("no policy in force has a budget; see `budgets` in policies/README.md")
    else:
        from carbon_sched.cli import render, render_policy

        render.show(render_policy.budgets(views))


@budget.command()
@click.argument("job")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it stands in the ledger.")
@json_option
def approve(job: str, reason: str, as_json: bool) -> None:
    """Let a waiting job exceed the budgets that hold it, in their present periods.

    \b
    Example:
      carbon-sched budget approve nightly --reason "needed for the release"
    """
    from carbon_sched.cli.connection import connect, find_job

    client = connect().client
    approved = client.approve(find_job(client, job)["job_id"], reason=reason)
    if as_json:
        print_json(approved)
    else:
        say(f"{job} may exceed {', '.join(approved['budgets'])}")
