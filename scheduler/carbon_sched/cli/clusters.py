"""Commands about clusters: list, add, check, remove."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from carbon_sched.cli.completion import complete_clusters
from carbon_sched.cli.output import json_option, print_json, say
from carbon_sched.domain.errors import Conflict, InvalidInput, NotFound

if TYPE_CHECKING:
    from carbon_sched.client import Client
    from carbon_sched.wire import ClusterRequest

DRAIN_POLL_S = 1.0


@click.group()
def clusters() -> None:
    """Register Ray clusters, and see how they are.

    \b
    Example:
      carbon-sched clusters list
    """


def cluster_argument(command: Any) -> Any:
    """The argument NAME."""
    return click.argument("name", shell_complete=complete_clusters)(command)


@clusters.command("list")
@json_option
def list_clusters(as_json: bool) -> None:
    """Show every cluster: its grid, PUE, and what is in use.

    \b
    Example:
      carbon-sched clusters list
    """
    from carbon_sched.cli.connection import connect

    views = connect().client.clusters()
    if as_json:
        print_json(views)
    elif not views:
        say("no cluster is registered; the first job starts a local Ray head, or: carbon-sched clusters add NAME ...")
    else:
        from carbon_sched.cli import render

        render.show(render.clusters(views))


@clusters.command()
@click.argument("name")
@click.option("--zone", required=True, help="Grid zone in Electricity Maps keys, such as DE or US-CAL-CISO.")
@click.option("--address", metavar="URL", help="Its Ray dashboard, such as http://head:8265.")
@click.option("--local", is_flag=True, help="A Ray head on this machine, started and ended by the server.")
@click.option("--cpus", type=click.IntRange(1), help="CPUs of a local head (default: all).")
@click.option("--gpus", type=click.IntRange(0), help="GPUs of a local head (default: all).")
@click.option("--pue", type=float, help="Facility energy / IT energy, such as 1.2 (default: industry average).")
@click.option("--pue-period", metavar="TEXT", help="The time the PUE is stated for, such as 2025.")
@click.option("--pue-source", metavar="TEXT", help="Who states the PUE.")
@click.option("--home", is_flag=True, help="Where jobs would run without carbon-sched: the reference for savings.")
@click.option("--token", metavar="file:PATH|env:VAR", help="Ray's token: where the server reads it, never the token.")
@click.option("--ca-file", type=click.Path(), help="Certificate authority of its https address.")
@click.option("--header", multiple=True, metavar="KEY=file:PATH|env:VAR", help="Extra header. Repeatable.")
@click.option("--allow-plain-http-token", is_flag=True, help="Send the token in clear over plain http.")
@click.option("--residency", multiple=True, metavar="TAG", help="Where its data lives, such as EU. Repeatable.")
@click.option("--pools", type=click.Path(), metavar="FILE", help="YAML list of node pools, for GPU types and scaling.")
@click.option("--price-per-gpu-hour", type=float, help="Price, in your currency.")
@click.option("--start-grace", metavar="DURATION", help="How long a job may take to start there (default 5m).")
@click.option(
    "--meter-key", multiple=True, metavar="file:PATH|KEY", help="Public key of a machine meter there. Repeatable."
)
@click.option(
    "--push-to", metavar="URL", help="This server's address as nodes reach it: they push their energy journals there."
)
@click.option(
    "--journal-store", metavar="file:PATH", help="A folder mounted there and at the server: nodes leave journals in it."
)
@click.option(
    "--serve-address", metavar="URL", help="Where clients reach Ray Serve there (default: its host, at Serve's port)."
)
@click.option("--kubernetes", is_flag=True, help="The address is a Kubernetes API server's: RayJobs are held there.")
@click.option(
    "--namespace",
    multiple=True,
    metavar="NAME",
    help="Of Kubernetes: where RayJobs are held (default: all). Repeatable.",
)
@click.option(
    "--create-in", multiple=True, metavar="NAME", help="Of Kubernetes: where submitted RayJobs are made. Repeatable."
)
@click.option("--discover", is_flag=True, help="Of Kubernetes: RayClusters with our label become clusters as well.")
@click.option("--replace", is_flag=True, help="Change a cluster that is registered already.")
@json_option
def add(name: str, *, replace: bool, as_json: bool, **given: Any) -> None:
    """Register a Ray cluster.

    \b
    Examples:
      carbon-sched clusters add lab --address http://head:8265 --zone DE --pue 1.3
      carbon-sched clusters add laptop --local --zone FR
      carbon-sched clusters add gke --kubernetes --address https://10.0.0.1 \\
        --token file:/run/gke/token --ca-file /run/gke/ca.crt \\
        --zone FI --pools pools.yaml --namespace ml --create-in ml
    """
    from carbon_sched.cli.connection import connect

    request = _request(given)
    client = connect().client
    if not replace and _exists(client, name):
        raise Conflict(f"a cluster called {name!r} is registered already; add --replace to change it")
    view = client.put_cluster(name, request)
    if as_json:
        print_json(view)
        return
    grid = f"{view['intensity_g_per_kwh']:.0f} g/kWh now, grade {view['intensity_grade']}"
    say(f"{name}: zone {view['zone']} ({grid}), PUE {view['pue']:.2f} ({view['pue_source']})")
    say(f"see whether it answers: carbon-sched clusters check {name}")


@clusters.command()
@cluster_argument
def cordon(name: str) -> None:
    """Send no new jobs there; those that are there go on.

    \b
    Example:
      carbon-sched clusters cordon lab
    """
    from carbon_sched.cli.connection import connect

    view = connect().client.cordon_cluster(name)
    say(f"{name} gets no new jobs; {view['jobs_open']} there go on")


@clusters.command()
@cluster_argument
def uncordon(name: str) -> None:
    """Send jobs there again.

    \b
    Example:
      carbon-sched clusters uncordon lab
    """
    from carbon_sched.cli.connection import connect

    connect().client.cordon_cluster(name, cordoned=False)
    say(f"{name} gets jobs again")


@clusters.command()
@cluster_argument
@click.option("--evict", is_flag=True, help="Stop the jobs there, with 20 seconds to save, and queue them again.")
@click.option("--no-wait", is_flag=True, help="Do not wait until it is empty.")
def drain(name: str, evict: bool, no_wait: bool) -> None:
    """Send no new jobs there, and wait until it is empty.

    \b
    Example:
      carbon-sched clusters drain lab --evict
    """
    from carbon_sched.cli.connection import connect
    from carbon_sched.cli.progress import Progress

    client = connect().client
    left = client.drain_cluster(name, evict=evict)["jobs_open"]
    if left and not no_wait:
        import time

        with Progress(f"waiting for {left} job(s) on {name}"):
            while client.cluster(name)["jobs_open"]:
                time.sleep(DRAIN_POLL_S)
        left = 0
    say(f"{name} is empty and gets no new jobs" if not left else f"{name} gets no new jobs; {left} are still there")


@clusters.command()
@cluster_argument
@json_option
def check(name: str, as_json: bool) -> int:
    """Call a cluster now and tell what works.

    \b
    Example:
      carbon-sched clusters check lab
    """
    from carbon_sched.cli.connection import connect
    from carbon_sched.cli.progress import Progress
    from carbon_sched.domain.errors import ClusterError

    client = connect().client
    with Progress(f"asking {name}"):
        found = client.check_cluster(name)
    if as_json:
        print_json(found)
    else:
        from carbon_sched.cli import render

        render.show(render.check(found))
    return ClusterError.exit_code if any(f["level"] == "problem" for f in found["findings"]) else 0


@clusters.command()
@cluster_argument
def remove(name: str) -> None:
    """Forget a cluster; a local head of ours is ended.

    \b
    Example:
      carbon-sched clusters remove lab
    """
    from carbon_sched.cli.connection import connect
    from carbon_sched.cli.progress import Progress

    client = connect().client
    with Progress(f"removing {name}"):
        client.remove_cluster(name)
    say(f"{name} is removed; what was booked there stays in the ledger")


def _exists(client: Client, name: str) -> bool:
    try:
        client.cluster(name)
    except NotFound:
        return False
    return True


def _request(given: dict[str, Any]) -> ClusterRequest:
    """The request of `clusters add`; InvalidInput for options that contradict each other."""
    local = given.pop("local")
    shape = {key: given.pop(key) for key in ("cpus", "gpus")}
    if local == bool(given["address"]):
        remedy = "Give --address URL for a cluster that exists, or --local for one on this machine"
        raise InvalidInput("--address", given["address"] or "", "must be given, or --local, but not both", remedy)
    if not local and any(value is not None for value in shape.values()):
        raise InvalidInput("--cpus/--gpus", "", "are for --local clusters", "Other clusters tell their own size")
    if given["pue"] is not None and not (math.isfinite(given["pue"]) and 1 <= given["pue"] <= 5):
        raise InvalidInput("--pue", given["pue"], "is not a PUE", "Give facility energy / IT energy, 1.0 to 5.0")
    request: dict[str, Any] = {"zone": given.pop("zone")}
    if local:
        request["local"] = {key: value for key, value in shape.items() if value is not None}
    if (kubernetes := _kubernetes(given)) is not None:
        request["kubernetes"] = kubernetes
    request |= _translated(given)
    return request  # type: ignore[return-value]  # the keys are those of the options


def _kubernetes(given: dict[str, Any]) -> dict[str, Any] | None:
    """What makes it a Kubernetes cluster; None where it is none."""
    asked = given.pop("kubernetes")
    found = {"namespaces": list(given.pop("namespace")), "create_in": list(given.pop("create_in"))}
    discover = given.pop("discover")
    if not asked:
        if any(found.values()) or discover:
            remedy = "Add --kubernetes where --address is an API server's"
            raise InvalidInput("--namespace/--create-in/--discover", "", "are for Kubernetes clusters", remedy)
        return None
    return {key: value for key, value in {**found, "discover": discover}.items() if value}


def _translated(given: dict[str, Any]) -> dict[str, Any]:
    """Options in the API's names and types; what was not given is left to the server."""
    from carbon_sched.options.times import parse_duration

    headers = dict(_header(text) for text in given.pop("header"))
    meter_keys = [_meter_key(text) for text in given.pop("meter_key")]
    grace, pools, token, ca_file = (given.pop(key) for key in ("start_grace", "pools", "token", "ca_file"))
    result = {key: list(value) if isinstance(value, tuple) else value for key, value in given.items() if value}
    if headers:
        result["headers"] = headers
    if meter_keys:
        result["meter_keys"] = meter_keys
    if grace:
        result["start_grace_s"] = parse_duration("--start-grace", grace)
    if token:
        result["token"] = _absolute(token)
    if ca_file:
        result["ca_file"] = str(Path(ca_file).absolute())
    if pools:
        result["pools"] = _pools(Path(pools))
    return result


def _header(text: str) -> tuple[str, str]:
    key, equals, reference = text.partition("=")
    if not (key and equals and reference.startswith(("file:", "env:"))):
        remedy = "Write KEY=file:PATH or KEY=env:VARIABLE; secrets themselves are never stored"
        raise InvalidInput("--header", key, "does not say where its value is read", remedy)
    return key, _absolute(reference)


def _meter_key(text: str) -> str:
    """A public key is no secret: it travels itself."""
    kind, _, where = text.partition(":")
    if kind != "file":
        return text
    try:
        return Path(where).expanduser().read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        remedy = "Name the file that `carbon-sched meter key --output FILE` wrote"
        raise InvalidInput("--meter-key", where, f"cannot be read ({error.__class__.__name__})", remedy) from None


def _absolute(reference: str) -> str:
    """The server runs in another folder: paths travel whole."""
    kind, _, where = reference.partition(":")
    return f"file:{Path(where).expanduser().absolute()}" if kind == "file" and where else reference


def _pools(path: Path) -> list[dict[str, Any]]:
    from carbon_sched.policy.document import read_document

    values = read_document(path).values
    if not isinstance(values, list) or not all(isinstance(item, dict) for item in values):
        remedy = "Write '- name: a100', 'node_resources: {CPU: 96, GPU: 8}', 'max_nodes: 4'"
        raise InvalidInput("--pools", path, "is not a list of pools", remedy)
    return values
