"""The command that opens the dashboard in a browser, logged in."""

from __future__ import annotations

import click

from carbon_sched.cli.output import say


@click.command()
@click.option("--print", "only_print", is_flag=True, help="Print the address, and open nothing.")
def dashboard(only_print: bool) -> None:
    """Open the dashboard in a browser, logged in as you.

    The address holds a code that works once, within two minutes; it is no token.

    \b
    Examples:
      carbon-sched dashboard
      carbon-sched dashboard --print
    """
    import webbrowser

    from carbon_sched.cli.connection import connect

    url = connect().client.login_url()
    if only_print or not webbrowser.open(url):
        say("open this address in a browser within two minutes; it works once:")
        click.echo(url)
    else:
        say("the dashboard opens in your browser")
