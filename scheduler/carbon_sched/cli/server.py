"""Commands about the server: status, stop, logs, install, uninstall, and `serve`, which is the server."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from carbon_sched.cli.output import json_option, print_json, say
from carbon_sched.domain.errors import Conflict, InvalidInput, ServerUnavailable

if TYPE_CHECKING:
    from carbon_sched.client import Client
    from carbon_sched.local_server import LocalServer
    from carbon_sched.server_files import Running

FOLLOW_POLL_S = 0.3
SHOWN_IDS = 5


@click.group()
def server() -> None:
    """See, keep and end the server behind these commands.

    \b
    Example:
      carbon-sched server status
    """


@server.command()
@json_option
def status(as_json: bool) -> int:
    """Show whether a server runs, where, and what it has to do.

    Exits 123 when none runs.

    \b
    Example:
      carbon-sched server status
    """
    from carbon_sched.cli.connection import client_of, local_server, remote_client

    client = remote_client()
    if client is None:
        local = local_server()
        running = local.find()
        if running is None:
            return _not_running(local.files.data_dir, as_json)
        client = client_of(local, running)
    view = client.server()
    if as_json:
        print_json({"running": True, **view})
        return 0
    from carbon_sched.cli import render

    rows = [
        ("address", view["url"]),
        ("version", view["version"]),
        ("process", f"pid {view['pid']}, since {view['started_at']}"),
        ("data", view["data_dir"]),
        ("database", view["database"]),
        ("jobs", f"{view['jobs_live']} not ended"),
        ("local heads", ", ".join(view["local_clusters"]) or "none"),
        ("ledger", f"{view['ledger_size']} entries, head {view['ledger_head'][:16]}"),
    ]
    render.show(render.facts("Server is running", rows))
    return 0


def _not_running(data_dir: Path, as_json: bool) -> int:
    if as_json:
        print_json({"running": False, "data_dir": str(data_dir)})
    else:
        say(f"no server runs for {data_dir}; the next `carbon-sched submit` starts one")
    return ServerUnavailable.exit_code


@server.command()
@click.option("--force", is_flag=True, help="Even while jobs run on its local clusters; they end.")
@click.option("--keep-clusters", is_flag=True, help="End the server alone; its Ray heads and their jobs go on.")
def stop(force: bool, keep_clusters: bool) -> None:
    """End the server and the Ray heads that it started.

    Jobs that wait are kept and go on with the next server.

    \b
    Example:
      carbon-sched server stop
    """
    from carbon_sched import systemd
    from carbon_sched.cli.connection import client_of

    local = _ours()
    running = local.find()
    if running is None:
        say(f"no server runs for {local.files.data_dir}")
        return
    client = client_of(local, running)
    doing = _doing(client, running)
    if doing.here and not (force or keep_clusters):
        raise Conflict(
            f"{len(doing.here)} job(s) run on local clusters and would end: {_some(doing.here)}. "
            "Wait for them (carbon-sched wait JOB), keep the clusters (--keep-clusters), or end them (--force)"
        )
    local.stop(running, lambda: client.shutdown(stop_local_clusters=not keep_clusters))
    say("the server has ended" + ("; its Ray heads go on" if keep_clusters else ""))
    if systemd.runs_server_of(local.files.data_dir):
        systemd.systemctl("stop", systemd.UNIT)  # one that had to be killed is not to come back by itself
        say("it starts again with the next command and with the machine; carbon-sched server uninstall ends that")
    if doing.waiting:
        say(f"{len(doing.waiting)} job(s) wait until a server runs again: {_some(doing.waiting)}")
    if doing.elsewhere:
        say(f"{len(doing.elsewhere)} job(s) run on other clusters and go on there: {_some(doing.elsewhere)}")


def _ours() -> LocalServer:
    """The server of this machine; InvalidInput where the environment names another one."""
    from carbon_sched.cli.connection import local_server

    if url := os.environ.get("CARBON_SCHED_URL"):
        remedy = "Do this where it runs; unset CARBON_SCHED_URL for the server of this machine"
        raise InvalidInput("CARBON_SCHED_URL", url, "names a server that is not ours", remedy)
    return local_server()


@dataclass(frozen=True)
class _Doing:
    """Ids of jobs: on heads that end with the server, on other clusters, and waiting for their start."""

    here: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)


def _doing(client: Client, running: Running) -> _Doing:
    """What the server has to do; one that does not answer has no say."""
    try:
        heads = set(client.server()["local_clusters"])
        jobs = client.jobs(state=["queued", "dispatching", "starting", "running", "stopping"], limit=1000)["jobs"]
    except ServerUnavailable as error:
        say(f"the server (pid {running.pid}) does not tell what it has to do ({error})")
        return _Doing()
    doing = _Doing()
    for job in jobs:
        group = (
            doing.waiting if job["state"] == "queued" else doing.here if job["cluster"] in heads else doing.elsewhere
        )
        group.append(job["job_id"])
    return doing


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:SHOWN_IDS]) + (", ..." if len(ids) > SHOWN_IDS else "")


@server.command()
@click.option("--print", "only_print", is_flag=True, help="Print the unit; change nothing.")
def install(only_print: bool) -> None:
    """Keep the server running after log-out and from boot.

    Writes a unit of your own systemd, starts it, and asks that it may outlive your sessions (linger). A server that
    runs already is replaced by it; jobs go on.

    \b
    Examples:
      carbon-sched server install
      carbon-sched server install --print
    """
    from carbon_sched import systemd
    from carbon_sched.cli.connection import connect

    local = _ours()
    files = local.files
    if only_print:
        click.echo(systemd.unit_text(files.data_dir, files.log), nl=False)
        return
    files.prepare()
    systemd.install(files.data_dir, files.log)
    _make_way(local)
    client = connect().client
    say(f"the server runs as {systemd.UNIT}, and from now on whenever this machine does: {client.url}")
    if ours := [name for name in os.environ if name.startswith("CARBON_SCHED_") and name != "CARBON_SCHED_DATA_DIR"]:
        say(f"it does not know this shell's {', '.join(ours)}; its settings stand in {files.data_dir / 'config.yaml'}")
    systemd.linger()


def _make_way(local: LocalServer) -> None:
    """End a server that a command started, and leave its clusters and jobs running."""
    from carbon_sched.cli.connection import client_of

    running = local.find()
    if running is not None:
        client = client_of(local, running)
        if client.server()["local_clusters"]:
            say("its Ray heads that run now belong to this session; those started from now on do not")
        local.stop(running, lambda: client.shutdown(stop_local_clusters=False))


@server.command()
def uninstall() -> None:
    """Undo `server install`; the next command starts a server again.

    Jobs, clusters and the ledger stay as they are.

    \b
    Example:
      carbon-sched server uninstall
    """
    from carbon_sched import systemd

    data_dir = _ours().files.data_dir
    if not systemd.runs_server_of(data_dir):
        say(f"no unit runs the server of {data_dir}")
        return
    systemd.uninstall()
    say(f"{systemd.UNIT} is gone; Ray heads go on, and the next command starts a server that finds them")


@server.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written.")
@click.option("-n", "--lines", type=click.IntRange(1), default=50, show_default=True, help="How many lines.")
def logs(follow: bool, lines: int) -> None:
    """Print what the server wrote.

    \b
    Example:
      carbon-sched server logs -n 100
    """
    files = _ours().files
    if not files.log_size():
        say(f"there is no log yet ({files.log})")
        return
    if tail := files.log_tail(lines):
        click.echo(tail)
    if follow:
        _follow(files.log)


def _follow(path: Path) -> None:
    """Print what is appended, until Ctrl-C."""
    import time

    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        out = sys.stdout.buffer
        while True:
            if piece := file.read(65_536):
                out.write(piece)
                out.flush()
            else:
                time.sleep(FOLLOW_POLL_S)


@click.command()
@click.option("--host", help="Address to listen on (default 127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port to listen on (default: a free one).")
@click.option("--database", metavar="URL", help="postgresql://... for a team (default: SQLite in the data folder).")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where everything is kept.")
@click.option(
    "--shared-dir",
    type=click.Path(path_type=Path),
    help="Folder for bundles and logs that all servers on one database see (default: the data folder).",
)
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Certificate chain (PEM), to speak https.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its private key (PEM).")
@click.option("--config", type=click.Path(path_type=Path), help="Settings (default: config.yaml in the data folder).")
@click.option(
    "--log-level",
    type=click.Choice(("debug", "info", "warning")),
    default="info",
    envvar="CARBON_SCHED_LOG_LEVEL",
    help="How much is logged (default info).",
)
@click.option(
    "--log-format",
    type=click.Choice(("text", "json")),
    default="text",
    envvar="CARBON_SCHED_LOG_FORMAT",
    help="Lines for people, or one JSON object per line (default text).",
)
@click.option("--migrate-only", is_flag=True, help="Bring the database up to date, and end.")
def serve(config: Path | None, log_level: str, log_format: str, migrate_only: bool, **flags: Any) -> int:
    """Run a server in the foreground.

    Commands start one by themselves; this is for a team's server, or to watch one. The database is brought up to date
    at every start.

    \b
    Examples:
      carbon-sched serve --port 8290 --database postgresql://db/carbon
      carbon-sched serve --migrate-only --database postgresql://db/carbon
    """
    from carbon_sched.cli.log_format import configure
    from carbon_sched.ledger.uncollected import uncollected

    try:
        with uncollected():  # an eighth of the start otherwise
            from carbon_sched.compose import migrate
            from carbon_sched.compose import serve as run
            from carbon_sched.settings import load_settings
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("carbon_sched"):
            raise
        raise ServerUnavailable(
            f"this installation cannot run a server: {error.name} is missing. Run: pip install 'carbon-sched[server]'"
        ) from None
    configure(log_level, log_format)
    settings = load_settings(flags, config)
    return migrate(settings) if migrate_only else run(settings)
