"""Commands about API tokens: create, list, revoke."""

from __future__ import annotations

import click

from carbon_sched.cli.output import json_option, print_json, say
from carbon_sched.domain.errors import InvalidInput

ROLES = ("viewer", "submitter", "operator", "auditor", "admin")


@click.group()
def token() -> None:
    """Give people and services access to a shared server.

    A viewer sees jobs, receipts and reports of its teams; a submitter also submits and stops them; an operator also
    keeps clusters; an auditor reads the whole ledger; an admin may do all of it, and give tokens.

    \b
    Example:
      carbon-sched token list
    """


@token.command()
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What it may be used for.")
@click.option("--team", multiple=True, metavar="TEAM", help="Whose jobs it reaches. Repeatable.")
@click.option("--all-teams", is_flag=True, help="Every team, instead of --team.")
@click.option("--expires", default="90d", show_default=True, metavar="DURATION", help="After which it is worthless.")
@json_option
def create(name: str, role: str, team: tuple[str, ...], all_teams: bool, expires: str, as_json: bool) -> None:
    """Give a token to a person or service. It is printed once.

    \b
    Example:
      carbon-sched token create ada --role submitter --team nlp
    """
    from carbon_sched.cli.connection import connect
    from carbon_sched.options.times import parse_duration

    if all_teams == bool(team):
        raise InvalidInput("--team", ", ".join(team), "is not a choice of teams", "Give --team TEAM, or --all-teams")
    lifetime_s = parse_duration("--expires", expires)
    teams = None if all_teams else list(team)
    given = connect().client.give_token({"name": name, "role": role, "teams": teams, "lifetime_s": lifetime_s})
    if as_json:
        print_json(given)
        return
    say(f"token {given['token_id']} of {name} ({role}), until {given['expires_at']}; it is not shown again:")
    click.echo(given["token"])


@token.command("list")
@json_option
def list_tokens(as_json: bool) -> None:
    """Show every token that was given, without its secret.

    \b
    Example:
      carbon-sched token list
    """
    from carbon_sched.cli.connection import connect

    tokens = connect().client.tokens()
    if as_json:
        print_json(tokens)
    elif not tokens:
        say("no token was given yet; carbon-sched token create NAME --role ROLE --team TEAM gives one")
    else:
        from carbon_sched.cli import render

        render.show(render.tokens(tokens))


@token.command()
@click.argument("token_id")
def revoke(token_id: str) -> None:
    """Make a token worthless at once.

    \b
    Example:
      carbon-sched token revoke 3mq8x0c4ta
    """
    from carbon_sched.cli.connection import connect

    connect().client.revoke_token(token_id)
    say(f"token {token_id} is revoked")
