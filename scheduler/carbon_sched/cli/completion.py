"""`carbon-sched completion SHELL`, and what is completed from the server (never starting one)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from carbon_sched.domain.errors import CarbonSchedError, InvalidInput

if TYPE_CHECKING:
    from carbon_sched.client import Client

SHELLS = ("bash", "zsh", "fish")
PATIENCE_S = 1.0
SHOWN = 20


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a completion script for bash, zsh or fish.

    \b
    Example:
      eval "$(carbon-sched completion bash)"      in ~/.bashrc
      eval "$(carbon-sched completion zsh)"       in ~/.zshrc, after compinit
      carbon-sched completion fish | source       in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    from carbon_sched.cli.main import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise InvalidInput("shell", shell, "is not known to this version of click", "Update click")
    click.echo(kind(cli, {}, "carbon-sched", "_CARBON_SCHED_COMPLETE").source())


def complete_jobs(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Ids of the newest jobs, with their names and states, and `last`; names once something was typed."""
    items = [CompletionItem("last", help="the newest job")] if "last".startswith(incomplete) else []
    with contextlib.suppress(CarbonSchedError, OSError):
        if client := _running():
            jobs = client.jobs(limit=SHOWN)["jobs"]
            items += [
                CompletionItem(job["job_id"], help=f"{job['name']} ({job['state']})")
                for job in jobs
                if job["job_id"].startswith(incomplete)
            ]
            names = dict.fromkeys(job["name"] for job in jobs if incomplete and job["name"].startswith(incomplete))
            items += [CompletionItem(name) for name in names]
    return items


def complete_clusters(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the registered clusters."""
    with contextlib.suppress(CarbonSchedError, OSError):
        if client := _running():
            views = client.clusters()
            return [CompletionItem(v["name"], help=v["zone"]) for v in views if v["name"].startswith(incomplete)]
    return []


def _running() -> Client | None:
    """A client of the server that runs, in a hurry; None where none runs."""
    from carbon_sched.cli.connection import local_server, remote_client
    from carbon_sched.client import Client

    if client := remote_client(timeout_s=PATIENCE_S):
        return client
    local = local_server()
    running = local.find()
    return Client(running.url, local.files.read_token(), timeout_s=PATIENCE_S) if running else None
