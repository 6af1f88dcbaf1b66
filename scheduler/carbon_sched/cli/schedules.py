"""Commands about jobs that are submitted again and again (`submit --every`)."""

from __future__ import annotations

import click

from carbon_sched.cli.output import json_option, print_json, say


@click.group()
def schedules() -> None:
    """See and stop what `submit --every` began.

    \b
    Example:
      carbon-sched schedules list
    """


@schedules.command("list")
@json_option
def list_schedules(as_json: bool) -> None:
    """Show every schedule: when it is due next, and how it went last.

    \b
    Example:
      carbon-sched schedules list
    """
    from carbon_sched.cli.connection import connect

    views = connect().client.schedules()
    if as_json:
        print_json(views)
    elif not views:
        say('nothing is scheduled; carbon-sched submit --every "30 2 * * *" job.py begins')
    else:
        from carbon_sched.cli import render

        render.show(render.schedules(views))


@schedules.command()
@click.argument("schedule")
@json_option
def stop(schedule: str, as_json: bool) -> None:
    """Submit no more jobs of a schedule; those that were submitted go on.

    \b
    Example:
      carbon-sched schedules stop 1k4z9qf0ab
    """
    from carbon_sched.cli.connection import connect

    stopped = connect().client.stop_schedule(schedule)
    if as_json:
        print_json(stopped)
    else:
        say(f"{stopped['name']} is submitted no more")
