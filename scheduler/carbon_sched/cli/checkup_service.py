"""What `doctor` looks at beyond this machine: the server, its version and clock, and every registered cluster.

No server is started for it. Where none runs, the clusters are read from the database, which is opened read-only, and
asked from here.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from typing import TYPE_CHECKING, Any

from carbon_sched import __version__
from carbon_sched.cli.checkup import OK, PROBLEM, WARNING, Finding, numbers, ray_version
from carbon_sched.cli.clock import now
from carbon_sched.domain.errors import CarbonSchedError, ClusterError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from carbon_sched.client import Client
    from carbon_sched.domain.cluster import Cluster

PATIENCE_S = 10.0
SKEW_WARNING_S, SKEW_PROBLEM_S = 5.0, 60.0
WORLD_GRADE = "F"
DATABASE = "carbon-sched.sqlite"
ZONE_REMEDY = "Say where it is: carbon-sched clusters add {name} --replace --zone ZONE ... (DE, FR, US-CAL-CISO, ...)"


def look_at_service(data_dir: Path) -> Iterator[Finding]:
    """The configured or local server with its clusters; without one, the clusters as the database has them."""
    from carbon_sched.cli.connection import client_of, local_server, remote_client

    try:
        client = remote_client(timeout_s=PATIENCE_S)
        if client is None:
            local = local_server()
            running = local.find()
            if running is None:
                crashed = " (the last one did not end in order)" if local.crashed() else ""
                yield Finding(OK, "server", f"none runs{crashed}; the next `carbon-sched submit` starts one")
                yield from _stored_clusters(data_dir / DATABASE)
                return
            client = client_of(local, running)
        with client:
            yield from _server(client)
            yield from _asked_clusters(client)
    except CarbonSchedError as error:
        yield Finding(PROBLEM, "server", str(error), "", error.exit_code)


def _server(client: Client) -> Iterator[Finding]:
    health, told = client.health(), client.date()
    client.server()  # wants the token
    theirs = str(health.get("version", ""))
    yield Finding(OK, "server", f"carbon-sched {theirs} answers at {client.url} and takes our token")
    if theirs != __version__:
        older = "the command" if numbers(theirs) > numbers(__version__) else "the server"
        text = f"the server is carbon-sched {theirs}, this command {__version__}"
        yield Finding(WARNING, "version", text, f"Update {older}; an idle local server is replaced by the next command")
    python = str(health.get("python", ""))
    ours = ".".join(map(str, sys.version_info[:2]))
    if python and python != ours:
        text = f"the server runs Python {python}, this command {ours}"
        yield Finding(WARNING, "version", text, "Local Ray clusters run jobs with the server's Python")
    if told is not None:
        yield skew((told - now()).total_seconds())


def skew(seconds: float, whose: str = "the server") -> Finding:
    """How far apart two clocks are; `seconds` > 0 where the other one is ahead."""
    side = "ahead of" if seconds > 0 else "behind"
    text = f"the clock of {whose} is {abs(seconds):.0f} s {side} ours"
    remedy = "Synchronise both with NTP (timedatectl set-ntp true)"
    if abs(seconds) < SKEW_WARNING_S:
        return Finding(OK, "clock", f"the clock of {whose} agrees with ours within {SKEW_WARNING_S:g} s")
    if abs(seconds) < SKEW_PROBLEM_S:
        return Finding(WARNING, "clock", text, remedy)
    return Finding(PROBLEM, "clock", f"{text}: deadlines and intensities are off by as much", remedy)


def _asked_clusters(client: Client) -> Iterator[Finding]:
    views = client.clusters()
    if not views:
        yield _no_cluster()
    for view in views:
        name = view["name"]
        if view["intensity_grade"] == WORLD_GRADE:
            yield _no_zone(name, view["zone"])
        try:
            found = client.check_cluster(name)["findings"]
        except CarbonSchedError as error:
            yield Finding(PROBLEM, name, str(error), "", error.exit_code)
            continue
        yield from _checked(name, found)
        if view["local"]:
            yield from _drift(name, view["ray_version"])


def _checked(name: str, found: list[dict[str, str]]) -> Iterator[Finding]:
    """The check's findings in our form: all that is amiss, and one line where nothing is."""
    amiss = [one for one in found if one["level"] != OK]
    for one in amiss:
        level = PROBLEM if one["level"] == PROBLEM else WARNING
        remedy = f"See all of it: carbon-sched clusters check {name}" if level == PROBLEM else ""
        yield Finding(level, name, f"{one['topic']}: {one['text']}", remedy, ClusterError.exit_code)
    if not amiss:
        yield Finding(OK, name, "answers, and nothing is amiss")


def _drift(name: str, theirs: str) -> Iterator[Finding]:
    ours = ray_version()
    if theirs and ours and theirs != ours:
        text = f"its head runs Ray {theirs}, installed here is {ours}"
        yield Finding(WARNING, name, text, "carbon-sched server stop; the next job starts a head of the installed Ray")


def _no_zone(name: str, zone: str) -> Finding:
    text = f"its zone {zone} stands for no place: emissions are booked with the world's average, graded lowest"
    return Finding(WARNING, name, text, ZONE_REMEDY.format(name=name))


def _no_cluster() -> Finding:
    text = "none is registered: the first job starts a local Ray head, booked with the world's average"
    return Finding(WARNING, "clusters", text, "carbon-sched clusters add here --local --zone ZONE --home")


def _stored_clusters(database: Path) -> Iterator[Finding]:
    """What is registered, asked from here; local heads are not started for it."""
    if not database.exists():
        yield _no_cluster()
        return
    try:
        clusters = read_clusters(database)
    except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
        remedy = "carbon-sched server status tells more; the next `carbon-sched submit` migrates an older database"
        yield Finding(WARNING, "clusters", f"{database} does not tell its clusters ({error})", remedy)
        return
    if not clusters:
        yield _no_cluster()
    from carbon_sched.service.fleet import UNKNOWN_ZONE

    for cluster in clusters:
        if cluster.zone == UNKNOWN_ZONE:
            yield _no_zone(cluster.name, cluster.zone)
        if cluster.local is not None:
            yield Finding(OK, cluster.name, "a local Ray head; the server starts it")
        else:
            yield from _checked(cluster.name, _asked_from_here(cluster))


def read_clusters(database: Path) -> list[Cluster]:
    """The registered clusters of a server that does not run; nothing is written, no lock is left."""
    from contextlib import closing
    from urllib.parse import quote

    from carbon_sched.store.codec import cluster_from_json

    # a database that was closed in order is one file, and read as such: else SQLite makes two more beside it
    how = "mode=ro" if database.with_name(f"{database.name}-wal").exists() else "immutable=1"
    with closing(sqlite3.connect(f"file:{quote(str(database))}?{how}", uri=True, timeout=2.0)) as connection:
        rows = connection.execute("SELECT document FROM clusters ORDER BY id").fetchall()
    return [cluster_from_json(json.loads(row[0])) for row in rows]


def _asked_from_here(cluster: Cluster) -> list[dict[str, str]]:
    from carbon_sched.clusters.check import check_cluster
    from carbon_sched.clusters.http import Endpoint
    from carbon_sched.clusters.ray_client import RayClient

    endpoint = Endpoint(
        cluster.name, cluster.address, cluster.token, cluster.ca_file, cluster.headers, cluster.allow_plain_http_token
    )
    client = RayClient(cluster.name, lambda: endpoint, _Clock())
    try:
        found = check_cluster(client, cluster)
        return [{"level": one.level.value, "topic": one.topic, "text": one.text} for one in found]
    except InvalidInput as error:  # a token whose file or variable is not there
        return [{"level": PROBLEM, "topic": "token", "text": str(error)}]
    finally:
        client.close()


class _Clock:
    """The real time, for a client that this process makes."""

    def now(self) -> datetime:
        return now()

    def monotonic(self) -> float:
        return time.monotonic()


def as_json(finding: Finding) -> dict[str, Any]:
    """A finding as `doctor --json` prints it."""
    shown = {"level": finding.level, "topic": finding.topic, "text": finding.text}
    return {**shown, "remedy": finding.remedy} if finding.remedy else shown
