"""Commands about the server: status, stop, logs, and `serve`, which is the server."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from carbon_sched.cli.output import json_option, print_json, say
from carbon_sched.domain.errors import Conflict, InvalidInput, ServerUnavailable

if TYPE_CHECKING:
    from carbon_sched.client import Client
    from carbon_sched.local_server import Running

FOLLOW_POLL_S = 0.3


@click.group()
def server() -> None:
    """See and end the server behind these commands."""


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
    from carbon_sched.cli.connection import client_of, local_server

    if os.environ.get("CARBON_SCHED_URL"):
        remedy = "End it where it runs; unset CARBON_SCHED_URL for the server of this machine"
        raise InvalidInput(
            "CARBON_SCHED_URL", os.environ["CARBON_SCHED_URL"], "names a server that is not ours", remedy
        )
    local = local_server()
    running = local.find()
    if running is None:
        say(f"no server runs for {local.files.data_dir}")
        return
    client = client_of(local, running)
    if not (force or keep_clusters):
        _require_idle(client, running)
    local.stop(running, lambda: client.shutdown(stop_local_clusters=not keep_clusters))
    say("the server has ended" + ("; its Ray heads go on" if keep_clusters else ""))


def _require_idle(client: Client, running: Running) -> None:
    """Conflict while ending the local heads would end somebody's job. A server that does not answer has no say."""
    try:
        heads = set(client.server()["local_clusters"])
        jobs = client.jobs(state=["dispatching", "starting", "running", "stopping"], limit=1000)["jobs"]
    except ServerUnavailable as error:
        say(f"the server (pid {running.pid}) does not tell what it has to do ({error})")
        return
    lost = [job["job_id"] for job in jobs if job["cluster"] in heads]
    if lost:
        shown = ", ".join(lost[:5]) + (", ..." if len(lost) > 5 else "")
        raise Conflict(
            f"{len(lost)} job(s) run on local clusters and would end: {shown}. "
            "Wait for them (carbon-sched wait JOB), keep the clusters (--keep-clusters), or end them (--force)"
        )


@server.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written.")
@click.option("-n", "--lines", type=click.IntRange(1), default=50, show_default=True, help="How many lines.")
def logs(follow: bool, lines: int) -> None:
    """Print what the server wrote.

    \b
    Example:
      carbon-sched server logs -n 100
    """
    from carbon_sched.cli.connection import local_server

    if os.environ.get("CARBON_SCHED_URL"):
        remedy = "Its log is where it runs; unset CARBON_SCHED_URL for the server of this machine"
        raise InvalidInput(
            "CARBON_SCHED_URL", os.environ["CARBON_SCHED_URL"], "names a server that is not ours", remedy
        )
    files = local_server().files
    if not files.log.exists():
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
@click.option("--config", type=click.Path(path_type=Path), help="Settings (default: config.yaml in the data folder).")
@click.option(
    "--log-level",
    type=click.Choice(("debug", "info", "warning")),
    default="info",
    envvar="CARBON_SCHED_LOG_LEVEL",
    help="How much is logged (default info).",
)
def serve(config: Path | None, log_level: str, **flags: Any) -> int:
    """Run a server in the foreground.

    Commands start one by themselves; this is for a team's server, or to watch one.

    \b
    Example:
      carbon-sched serve --port 8290 --database postgresql://db/carbon
    """
    import logging

    try:
        from carbon_sched.compose import serve as run
        from carbon_sched.settings import load_settings
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("carbon_sched"):
            raise
        raise ServerUnavailable(
            f"this installation cannot run a server: {error.name} is missing. Run: pip install 'carbon-sched[server]'"
        ) from None
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return run(load_settings(flags, config))
