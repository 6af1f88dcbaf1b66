"""Commands about the machine meter: run it, its key, its systemd unit."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from carbon_sched.cli.output import say
from carbon_sched.domain.errors import InvalidInput

if TYPE_CHECKING:
    from carbon_sched.meter_keys import SigningKey

STATE_DIR = Path("/var/lib/carbon-sched-meter")
UNIT_DIR = Path("/etc/systemd/system")
KEY_HELP = (
    f"Its private key; made at first use (default: {STATE_DIR}/meter.key, for others than root in the data folder)."
)

key_option = click.option("--key", "key_file", type=click.Path(path_type=Path), metavar="FILE", help=KEY_HELP)
listen_option = click.option(
    "--listen", metavar="HOST:PORT", help="Also answer Prometheus there, such as 127.0.0.1:9464."
)


@click.group(invoke_without_command=True)
@key_option
@listen_option
@click.option("--journal", type=click.Path(path_type=Path), metavar="DIR", help="Also keep every signed segment there.")
@click.pass_context
def meter(ctx: click.Context, key_file: Path | None, listen: str | None, journal: Path | None) -> None:
    """Meter this machine's energy for the jobs on it.

    Run it as root and from boot: it reads what jobs may not, and signs what it reads, so that their receipts are
    independent of them. Make its key known with `clusters add --meter-key`.

    \b
    Examples:
      carbon-sched meter --listen 127.0.0.1:9464
      carbon-sched meter install
      carbon-sched meter key
    """
    if ctx.invoked_subcommand is None:
        _run(_key(key_file), listen, journal)


@meter.command("key")
@key_option
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Write it there too.")
def show_key(key_file: Path | None, output: Path | None) -> None:
    """Print the public key, for `clusters add --meter-key`.

    \b
    Example:
      carbon-sched meter key --output meter.pub
    """
    public = str(_key(key_file).public)
    if output is not None:
        output.write_text(public + "\n", encoding="ascii")
    click.echo(public)


@meter.command()
@click.option("--print", "only_print", is_flag=True, help="Print the unit; change nothing.")
@listen_option
def install(only_print: bool, listen: str | None) -> None:
    """Install the meter as a systemd service.

    \b
    Examples:
      carbon-sched meter install --print
      carbon-sched meter install --listen 127.0.0.1:9464
    """
    from carbon_sched.machine_meter import UNIT, unit_text

    command = [_program(), "meter", "--key", str(STATE_DIR / "meter.key"), *(["--listen", listen] if listen else [])]
    text = unit_text(command)
    if only_print:
        click.echo(text, nl=False)
        return
    path = UNIT_DIR / UNIT
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        remedy = "Run it as root, or with --print and put the text where you want it"
        raise InvalidInput("unit", path, f"cannot be written ({error.strerror})", remedy) from None
    say(f"written: {path}")
    say(f"start it: systemctl daemon-reload && systemctl enable --now {UNIT}")
    say("then, where the server is configured: carbon-sched clusters add ... --meter-key file:meter.pub")


def _run(key: SigningKey, listen: str | None, journal: Path | None) -> None:
    """Meter until SIGTERM or SIGINT."""
    import signal

    from carbon_sched.machine_meter import Totals, serve_metrics
    from carbon_sched_runtime.meter import MachineMeter

    totals = Totals()
    if listen:
        serve_metrics(listen, totals)
    if journal is not None:
        journal.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        say("not root: CPU counters (RAPL) cannot be read, and the key is safe only from other users than you")
    machine_meter = MachineMeter(
        sign=key.sign,
        folder=str(journal) if journal else None,
        complain=say,
        observe=totals.observe if listen else None,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: machine_meter.stop())
    say(f"signing as {key.public}")
    machine_meter.run()


def _key(given: Path | None) -> SigningKey:
    from carbon_sched.data_dir import default_data_dir
    from carbon_sched.meter_keys import SigningKey

    default = STATE_DIR if os.geteuid() == 0 else default_data_dir()
    return SigningKey(given or default / "meter.key")


def _program() -> str:
    """This command by its whole path: systemd has another PATH."""
    beside = Path(sys.executable).with_name("carbon-sched")
    return str(beside if beside.exists() else Path(sys.argv[0]).absolute())
