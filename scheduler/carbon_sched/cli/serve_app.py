"""Commands about online services: `carbon-sched serve-app`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from carbon_sched.cli.output import json_option, print_json, say
from carbon_sched.domain.errors import InvalidInput

if TYPE_CHECKING:
    from carbon_sched.client import Client
    from carbon_sched.wire import AppRequest, AppView

POLL_S = 0.5
FILE = click.Path(path_type=Path, dir_okay=False)


@click.group("serve-app")
def serve_app() -> None:
    """Run services of Ray Serve where it is cleanest.

    A service runs on the cleanest cluster that meets its limits of latency, residency and room, and moves when
    another one has become cleaner by more than its `min_gain`: first it is made there, then clients are told the new
    address, then it goes from where it was. No request fails by that if clients ask for the address
    (`serve-app endpoint`) no less often than its `max_age`.

    \b
    Example:
      carbon-sched serve-app deploy chat.yaml
    """


@serve_app.command()
@click.argument("file", type=FILE)
@click.option("--wait", is_flag=True, help="Until it answers.")
@json_option
def deploy(file: Path, wait: bool, as_json: bool) -> None:
    """Deploy the service that a YAML file describes, or change it where it is.

    \b
    Example:
      carbon-sched serve-app deploy --wait chat.yaml
    """
    from carbon_sched.cli.app_file import read_app
    from carbon_sched.cli.connection import connect

    client, request = connect().client, read_app(file)
    view = _sent(client, request, file.parent)
    while wait and view["current"] is None:
        time.sleep(POLL_S)
        view = client.app(request["name"])
        if view["problem"] and view["coming"] is None:
            break
    if as_json:
        print_json(view)
    else:
        say(f"{view['name']} is {view['state']}" + (f" at {view['address']}" if view["address"] else ""))
        if view["problem"]:
            say(view["problem"])


@serve_app.command()
@click.argument("name")
@click.option("--window", default="1h", metavar="DURATION", help="Figures per request over so long (default 1h).")
@json_option
def status(name: str, window: str, as_json: bool) -> None:
    """Show where a service is, and what a request uses.

    \b
    Example:
      carbon-sched serve-app status chat
    """
    from carbon_sched.cli import render, render_serving
    from carbon_sched.cli.connection import connect
    from carbon_sched.domain.errors import NotFound
    from carbon_sched.options.times import parse_duration

    window_s = parse_duration("--window", window)
    client = connect().client
    view = client.app(name)
    try:
        requests, none_yet = client.app_requests(name, window_s=window_s), ""
    except NotFound as error:
        requests, none_yet = None, str(error)
    if as_json:
        print_json({**view, "requests": requests})
    else:
        render.show(render_serving.app(view, requests, none_yet))


@serve_app.command("list")
@json_option
def list_apps(as_json: bool) -> None:
    """Show every service.

    \b
    Example:
      carbon-sched serve-app list
    """
    from carbon_sched.cli import render, render_serving
    from carbon_sched.cli.connection import connect

    views = connect().client.apps()
    if as_json:
        print_json(views)
    elif not views:
        say("there is no service; carbon-sched serve-app deploy APP.yaml makes one")
    else:
        render.show(render_serving.apps(views))


@serve_app.command()
@click.argument("name")
@json_option
def endpoint(name: str, as_json: bool) -> None:
    """Print the address where a service is reached now.

    It answers for the service's `max_age` at least, whatever moves meanwhile: clients ask again after that.

    \b
    Example:
      curl "$(carbon-sched serve-app endpoint chat)/v1/models"
    """
    from carbon_sched.cli.connection import connect

    view = connect().client.app_endpoint(name)
    if as_json:
        print_json(view)
    else:
        click.echo(view["address"])


@serve_app.command()
@click.argument("name")
@json_option
def delete(name: str, as_json: bool) -> None:
    """Delete a service from wherever it is.

    \b
    Example:
      carbon-sched serve-app delete chat
    """
    from carbon_sched.cli.connection import connect

    view = connect().client.delete_app(name)
    if as_json:
        print_json(view)
    else:
        say(f"{view['name']} is being deleted")


def _sent(client: Client, request: AppRequest, beside: Path) -> AppView:
    """Deploy, with the folder that `working_dir` names, if it is one here."""
    import tempfile

    environment: dict[str, Any] = request["application"].get("runtime_env") or {}
    folder = environment.get("working_dir") if isinstance(environment, dict) else None
    if not isinstance(folder, str) or "://" in folder:
        return client.deploy_app(request)
    from carbon_sched.cli.parcel import Parcel, with_files
    from carbon_sched.working_dir import build_working_dir

    root = beside / folder
    if not root.is_dir():
        remedy = "Name a folder beside the file, or a remote one such as s3://bucket/app.zip"
        raise InvalidInput("application.runtime_env.working_dir", folder, "is no folder", remedy)
    with tempfile.TemporaryDirectory(prefix="carbon-sched-") as scratch:
        files = build_working_dir(root, Path(scratch))
        del environment["working_dir"]
        request["bundle_sha256"] = files.sha256
        return with_files(client, Parcel(files), lambda: client.deploy_app(request))
