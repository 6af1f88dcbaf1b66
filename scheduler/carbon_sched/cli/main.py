"""The command `carbon-sched`: its groups, loaded when they are asked for, and the one place where errors end."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Jobs": {
        "submit": ("submit:submit", "Run a job where and when it emits least."),
        "status": ("jobs:status", "Show where a job stands."),
        "list": ("jobs:list_jobs", "List jobs, newest first."),
        "logs": ("jobs:logs", "Print what a job wrote."),
        "wait": ("jobs:wait", "Wait for a job; exit as it did."),
        "start": ("amend:start", "Start a waiting job now."),
        "extend": ("amend:extend", "Give a job another deadline, or a longer wait."),
        "stop": ("jobs:stop", "Stop a job."),
        "resolve": ("jobs:resolve", "Say what became of a lost job."),
        "explain": ("jobs:explain", "Tell why a job runs where it does, or waits."),
        "schedules": ("schedules:schedules", "See and stop what `submit --every` began."),
        "receipt": ("jobs:receipt", "Show the energy and emissions of a job."),
    },
    "Clusters and server": {
        "clusters": ("clusters:clusters", "Register Ray clusters, and see how they are."),
        "dashboard": ("dashboard:dashboard", "Open the dashboard in a browser, logged in as you."),
        "server": ("server:server", "See, keep and end the server behind these commands."),
        "serve": ("server:serve", "Run a server in the foreground."),
        "token": ("token:token", "Give people and services access to a shared server."),
        "doctor": ("doctor:doctor", "Find what is in the way of jobs, and what is measured."),
        "meter": ("meter:meter", "Meter this machine's energy for the jobs on it."),
    },
    "Services": {
        "serve-app": ("serve_app:serve_app", "Run services of Ray Serve where it is cleanest."),
    },
    "Rules": {
        "policy": ("policy:policy", "See, check and apply the rules that jobs follow."),
        "budget": ("budget:budget", "See what budgets have left, and approve what one holds."),
    },
    "Grid": {
        "grid": ("grid:grid", "See how clean the electricity is, and who says so."),
    },
    "Accounts": {
        "audit": ("audit:audit", "Reports, and the proof that nobody changed them."),
        "compare": ("footprints:compare", "Compare ways to do the same work: energy, time, quality, CO2e."),
        "experiment": ("experiment:experiment", "Run variants of a job by turns, and compare them."),
    },
    "Shell": {
        "completion": ("completion:completion", "Print a completion script for bash, zsh or fish."),
    },
}
"""By section: command, where it is (`module:function`), and its help as the module itself says it (a test compares)."""

ENVIRONMENT = (
    ("CARBON_SCHED_URL", "a shared server instead of the one on this machine"),
    ("CARBON_SCHED_TOKEN_FILE", "where its token is (CARBON_SCHED_TOKEN: itself)"),
    ("CARBON_SCHED_DATA_DIR", "where the server of this machine keeps its data"),
    ("NO_COLOR", "no colours"),
)

COMMANDS = {name: place for commands in SECTIONS.values() for name, place in commands.items()}
USAGE_ERROR = 120
INTERRUPTED = 130
PIPE_CLOSED = 141


class OutputClosedError(Exception):
    """Whoever read our output stopped reading, as `head` does."""


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own signature
        """Every command, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(f"carbon_sched.cli.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a guess at what was meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            close = get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The sections of the help, without importing a command."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in commands.items()])
        with formatter.section("Environment"):
            formatter.write_dl(ENVIRONMENT)

    def invoke(self, ctx: click.Context) -> Any:
        """Run; a closed pipe becomes an error of its own, since click would exit 1 for it."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise OutputClosedError from error
        return result


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from carbon_sched import __version__

        click.echo(f"carbon-sched {__version__}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def cli() -> None:
    """Run Ray jobs where and when they emit least CO2e, with a receipt.

    \b
    Example:
      carbon-sched submit --duration 30m --max-delay 6h train.py
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (the process's own if None); the exit code. No exception leaves."""
    try:
        result = cli.main(args=arguments, prog_name="carbon-sched", standalone_mode=False)
    except OutputClosedError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the interpreter's last flush finds a reader
        return PIPE_CLOSED
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return USAGE_ERROR
    except Exception as error:  # noqa: BLE001 - nobody is shown a traceback
        from carbon_sched.cli.failures import report

        return report(error)
    return result if isinstance(result, int) else 0


def main() -> None:
    """The entry point of `carbon-sched`."""
    sys.exit(run())


if __name__ == "__main__":
    main()
