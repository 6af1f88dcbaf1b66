"""The one module that knows every adapter: builds the server from its settings and runs it."""

from __future__ import annotations

import getpass
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from contextlib import closing as closed
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import uvicorn

from carbon_sched import __version__
from carbon_sched.api.app import create_app
from carbon_sched.api.context import Context
from carbon_sched.api.gate import own_names
from carbon_sched.clusters.bundle import runtime_package
from carbon_sched.clusters.check import check_cluster
from carbon_sched.clusters.kubernetes.check import check_kubernetes
from carbon_sched.clusters.kubernetes.client import KubernetesCluster
from carbon_sched.clusters.registry import RayClusters
from carbon_sched.domain.errors import InvalidInput, StoreError
from carbon_sched.domain.time import UTC
from carbon_sched.grid.chain import Grid
from carbon_sched.grid.configured import ConfiguredGrid
from carbon_sched.grid.http import Web
from carbon_sched.grid.yearly import YearlyTable
from carbon_sched.ledger.uncollected import collected_seldom
from carbon_sched.policy.presets import preset, preset_names
from carbon_sched.server_files import ServerFiles
from carbon_sched.service.accept import Accept
from carbon_sched.service.access import Access
from carbon_sched.service.amend import Amend
from carbon_sched.service.answers import Answers
from carbon_sched.service.arenas import few_arenas
from carbon_sched.service.awake import Awake
from carbon_sched.service.batches import Batches
from carbon_sched.service.book import Book
from carbon_sched.service.boundaries import Boundaries
from carbon_sched.service.budgets import Budgets
from carbon_sched.service.collect import Collect
from carbon_sched.service.decide import Decide
from carbon_sched.service.declared import Declared
from carbon_sched.service.dispatch import Dispatch
from carbon_sched.service.economics import Economics
from carbon_sched.service.estimates import Estimates
from carbon_sched.service.fleet import STARTING, Fleet
from carbon_sched.service.follow import Follow
from carbon_sched.service.forecasts import OwnForecasts
from carbon_sched.service.gauge import Gauge
from carbon_sched.service.intensities import Intensities
from carbon_sched.service.journal import Journals
from carbon_sched.service.keep import Keep
from carbon_sched.service.kubernetes.discovered import Discovered
from carbon_sched.service.kubernetes.rayjobs import RayJobs
from carbon_sched.service.lanes import Lanes
from carbon_sched.service.leadership import FencedStore, Leadership, Listener
from carbon_sched.service.logs import Logs
from carbon_sched.service.loops import Loops, Step
from carbon_sched.service.metrics import Metrics
from carbon_sched.service.outlooks import Outlooks
from carbon_sched.service.planner import ChildPlanner
from carbon_sched.service.policies import Policies
from carbon_sched.service.rates import Rates
from carbon_sched.service.recall import Recall
from carbon_sched.service.receive import Receive
from carbon_sched.service.reconcile import Reconcile
from carbon_sched.service.refresh import Archive, Refresh
from carbon_sched.service.requests import Requests
from carbon_sched.service.restate import Restate
from carbon_sched.service.runtime_env import RuntimePackage
from carbon_sched.service.schedules import Schedules
from carbon_sched.service.seal import Sealing
from carbon_sched.service.serve_owner import ServeOwner
from carbon_sched.service.serving import Serving
from carbon_sched.service.signals import Signals
from carbon_sched.service.so_far import SoFar
from carbon_sched.service.statements import Statements
from carbon_sched.service.stuck import Stuck
from carbon_sched.service.variants import Offers
from carbon_sched.signing import PrivateKey
from carbon_sched.simulate.trial import Trials
from carbon_sched.store.bundles import FileBundles
from carbon_sched.store.engine import open_store, sqlite_file
from carbon_sched.store.journals import FolderJournals
from carbon_sched.store.location import check_local_filesystem
from carbon_sched.store.seals import FileSeals, GitSeals
from carbon_sched.store.timestamps import TimestampSeals
from carbon_sched.store.vault import FileVault
from carbon_sched.systemd import notify_ready

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from carbon_sched.ports import Clock, SealSink, Store
    from carbon_sched.settings import Settings

log = logging.getLogger(__name__)

POLL_S = 0.5
LOOPS_S = 10.0
DRAIN_S = 15.0
"""How long an ending server waits for its loops, and then for a submission under way."""
SHORTEST_TOKEN = 32
TOKEN_REMEDY = f"Name a file with one secret of at least {SHORTEST_TOKEN} characters, such as `openssl rand -hex 32`"
DECIDE_REST = 1.0
"""Reading a long queue and committing its plan takes the interpreter: answers have it for as long as that took."""
SWITCH_S = 0.0005
"""How long a loop that computes may keep the interpreter from a thread that has an answer to give. Python's 5 ms are
paid at every statement of a request: its thread gives the interpreter up to wait for the database."""
BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"
ID_EPOCH = 1_735_689_600
"""2025-01-01T00:00Z; 30 bits of seconds from here reach to 2059."""


class SystemClock:
    """The real time."""

    def now(self) -> datetime:
        """Wall clock, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Never steps."""
        return time.monotonic()


class RandomIds:
    """Ids and tokens from the operating system's randomness."""

    def job_id(self, at: datetime) -> str:
        """30 bits of seconds, then 20 random bits, in Crockford base32: sorts by time."""
        number = (int(at.timestamp()) - ID_EPOCH) << 20 | secrets.randbits(20)
        return "".join(BASE32[number >> shift & 31] for shift in range(45, -1, -5))

    def token(self) -> str:
        """256 bits, recognisable by secret scanners."""
        return f"cs_{secrets.token_urlsafe(32)}"


@dataclass(frozen=True)
class Server:
    """A built server: what it serves, what repeats, what must be closed, and `drain(seconds)` for what is under way."""

    context: Context
    loops: Loops
    closing: ExitStack
    drain: Callable[[float], list[str]]


def build(
    settings: Settings, *, token: str, url: str, shutdown: threading.Event, stop_local: threading.Event
) -> Server:
    """Wire adapters, services and loops; opens the store (migrating it) and nothing else."""
    clock, ids, signals, closing = SystemClock(), RandomIds(), Signals(), ExitStack()
    store = open_store(settings.database_url, clock)
    closing.callback(store.close)
    sole = sqlite_file(settings.database_url) is not None  # the only server, and its last one is no more
    leadership = Leadership(
        store, _holder(), settings.leader_lease_s, signals.lead, begun=Dispatch.begin_term, sole=sole
    )
    fenced = FencedStore(store, leadership)
    _prepare(settings.shared)
    vault, bundles = FileVault(settings.shared / "vault.key"), FileBundles(settings.shared / "bundles")
    clusters, archive = RayClusters(settings.data_dir, clock, sys.executable), Archive(store)
    # What is archived goes back further, what is in memory or in a file has the level of the zone's other readings.
    forecasts = OwnForecasts(clock, lambda zone, a, b: [*archive.known(zone, a, b), *grid.actual(zone, a, b, b)])
    configured = ConfiguredGrid(settings.grid, Web(clock, time.sleep, secrets.SystemRandom().random), archive.take)
    grid = Grid(configured.sources(), YearlyTable.load(), forecaster=forecasts)
    outlooks = closing.enter_context(closed(Outlooks(grid, signals.readings)))
    fleet = Fleet(store, clusters, clock, signals, leadership.leads)
    closing.callback(fleet.close)
    refresh = Refresh(configured.live, archive, store, fleet.zones, clock, signals, leadership.leads)
    closing.callback(refresh.close)
    policies, estimates, statements = Policies(store, preset, clock), Estimates(store), Statements(store)
    journals, package = Journals(), RuntimePackage(*runtime_package(settings.data_dir / "runtime"))
    logs, planner = Logs(store, fleet, settings.shared / "logs", clock, signals), ChildPlanner()
    closing.callback(planner.close)
    budgets, sealing = Budgets(store, policies, statements, clock), _sealing(settings, fenced, clock)
    access = Access(store, clock, ids, owner=_user(), owner_token=token)
    accept = Accept(store, bundles, fleet, policies, vault, clock, ids, signals)
    schedules = Schedules(store, accept, access, vault, clock, ids)
    economics, so_far = Economics(statements), SoFar(outlooks, statements, clock)
    decide = Decide(fenced, fleet, outlooks, estimates, policies, clock, signals, budgets, economics, planner)
    dispatch = Dispatch(
        fenced, fleet, bundles, package, vault, clock, signals, Lanes("dispatch"), Offers(policies, statements)
    )
    follow = Follow(fenced, fleet, journals, policies, clock, signals, Lanes("follow"))
    book = Book(outlooks, statements, policies, clock, grid.direct)
    gauge = Gauge(fenced, fleet, Keep(fenced, clock), clock, Lanes("gauge"))
    batches, requests = Batches(fenced, journals, so_far), Requests(fenced, journals, so_far, clock)
    collect = Collect(
        fenced,
        fleet,
        journals,
        FolderJournals(),
        book,
        batches,
        requests,
        logs,
        clock,
        signals,
        Lanes("collect"),
        gauge,
    )
    serving = _serving(fleet, accept, decide, outlooks, ServeOwner(fleet, bundles, package, vault), vault, clock)

    def moved() -> None:
        if sole:
            dispatch.take_over()  # claims end by the wall clock
        loops.wake()

    metrics = Metrics()
    steps = [
        Step("lead", leadership.step, threading.Event()),
        Step("poll", _poll(fleet, Awake(clock, moved)), signals.poll),
        *_leader_steps(leadership, signals, decide, dispatch, follow, collect),
        Step("gauge", leadership.only(gauge.step), threading.Event()),
        Step("stuck", leadership.only(Stuck(fenced, fleet, clock, signals, Lanes("stuck")).step), threading.Event()),
        Step("schedules", leadership.only(schedules.step), threading.Event()),
        Step("serve", leadership.only(serving(fenced).step), threading.Event()),
        Step("seal", leadership.only(sealing.step), threading.Event()),
        Step(
            "reconcile",
            leadership.only(Reconcile(fenced, fleet, statements, clock, Lanes("reconcile")).step),
            threading.Event(),
        ),
        Step("restate", leadership.only(Restate(fenced, statements, book, clock).step), threading.Event()),
        Step("forecast", forecasts.step, signals.wake_for_zones()),
        *refresh.steps(),
        *_declared(settings, leadership, fleet, policies, configured.known_zone, signals),
        Step(
            "rayjobs",
            leadership.only(RayJobs(fenced, fleet, clusters, accept, clock, Lanes("rayjobs")).step),
            signals.rayjobs,
        ),
        Step("discover", leadership.only(Discovered(fleet, clusters, configured.known_zone).step), threading.Event()),
    ]
    if not sole:
        steps.append(Step("listen", Listener(store, signals.news_elsewhere).step, threading.Event()))
    loops = Loops(steps, metrics.step)
    leadership.step()  # the first server of a database leads from its first answer on

    def end(*, stop_local_clusters: bool) -> None:
        if stop_local_clusters:
            stop_local.set()
        shutdown.set()

    context = Context(
        url=url,
        data_dir=settings.data_dir,
        database=settings.database_url.split("@")[-1],
        started_at=clock.now(),
        clock=clock,
        store=store,
        bundles=bundles,
        access=access,
        rates=Rates(clock, settings.requests_per_s),
        names=own_names(settings.host, settings.allowed_hosts),
        boundaries=Boundaries(settings.secrets_dir),
        amend=Amend(store, policies, clock, signals),
        recall=Recall(store, clock, signals),
        receive=Receive(store, fleet, vault, Keep(store, clock), clock, collect.arrived),
        accept=accept,
        schedules=schedules,
        serving=serving(store),
        requests=Requests(store, journals, so_far, clock),
        decide=decide,
        fleet=fleet,
        outlooks=outlooks,
        policies=policies,
        trial=Trials(store, policies, statements, outlooks, clock).of,
        budgets=budgets,
        preset_names=preset_names,
        logs=logs,
        statements=statements,
        answers=closing.enter_context(closed(Answers(clock))),
        sealing=sealing,
        signals=signals,
        intensities=Intensities(grid, refresh, fleet, clock, forecasts.record),
        known_zone=configured.known_zone,
        grid_providers=configured.describe,
        check_grid=lambda zones: configured.check(zones, clock.now()),
        check_cluster=_check(fleet, clusters),
        shutdown=end,
        leadership=leadership,
        faults=_faults(store, loops, shutdown),
        metrics=metrics,
    )
    return Server(context, loops, closing, dispatch.drain)


def _serving(
    fleet: Fleet, accept: Accept, decide: Decide, outlooks: Outlooks, owner: ServeOwner, vault: FileVault, clock: Clock
) -> Callable[[Store], Serving]:
    """Services on a store: the leader's loop writes to a fenced one, the API of any server to the plain one."""
    return lambda store: Serving(store, fleet, accept, decide, outlooks, owner, vault, clock)


def _poll(fleet: Fleet, awake: Awake) -> Callable[[], float]:
    def poll() -> float:
        awake.look()
        fleet.poll_due()
        return POLL_S

    return poll


def _leader_steps(
    leadership: Leadership, signals: Signals, decide: Decide, dispatch: Dispatch, follow: Follow, collect: Collect
) -> list[Step]:
    """What one server on a database does for all of them."""
    only = leadership.only
    return [
        Step("decide", only(decide.step), signals.decide, rest=DECIDE_REST),
        Step("dispatch", only(dispatch.step), signals.dispatch),
        Step("follow", only(follow.step), signals.follow),
        Step("collect", only(collect.step), signals.collect),
    ]


def _declared(
    settings: Settings,
    leadership: Leadership,
    fleet: Fleet,
    policies: Policies,
    known_zone: Callable[[str], str],
    signals: Signals,
) -> list[Step]:
    """The loop that follows files of clusters and policies, where the settings name some."""
    clusters, folder = settings.clusters_file, settings.policies_dir
    if clusters is None and folder is None:
        return []
    declared = Declared(clusters, folder, fleet=fleet, in_force=policies, known_zone=known_zone, signals=signals)
    return [Step("declared", leadership.only(declared.step), threading.Event())]


def _check(fleet: Fleet, clusters: RayClusters) -> Callable[[str], list[dict[str, str]]]:
    def check(name: str) -> list[dict[str, str]]:
        cluster, status = fleet.get(name), fleet.status(name)
        if status is not None and status.problem == STARTING:
            return [{"level": "warning", "topic": "reachable", "text": f"{STARTING}: look again in a minute"}]
        client = clusters.client(cluster)
        if isinstance(client, KubernetesCluster):
            found = check_kubernetes(client, cluster)
        else:
            found = check_cluster(client, cluster)
        return [{"level": one.level.value, "topic": one.topic, "text": one.text} for one in found]

    return check


def _sealing(settings: Settings, store: Store, clock: Clock) -> Sealing:
    """Seals go to the data folder, and to each place that is configured."""
    places: dict[str, SealSink] = {"data folder": FileSeals(settings.shared / "seals.jsonl")}
    if settings.seal.file is not None:
        places["file"] = FileSeals(settings.seal.file)
    if settings.seal.git is not None:
        places["git"] = GitSeals(settings.seal.git, settings.seal.git_remote)
    if settings.seal.timestamp_url is not None and settings.seal.timestamp_ca is not None:
        folder, url = settings.shared / "timestamps", settings.seal.timestamp_url
        places["timestamp service"] = TimestampSeals(folder, url, settings.seal.timestamp_ca)
    key = PrivateKey(settings.shared / "ledger.key")
    return Sealing(store, places, key, clock, every_s=settings.seal.every_s)


def _faults(store: Store, loops: Loops, shutdown: threading.Event) -> Callable[[], list[str]]:
    def faults() -> list[str]:
        found = [f"the loop {name} has ended" for name in loops.dead()]
        try:
            store.database_now()
        except StoreError as error:
            found.append(str(error))
        return found + (["it is ending"] if shutdown.is_set() else [])

    return faults


def migrate(settings: Settings) -> int:
    """Bring the database to this version's schema, as every start of a server does, and nothing else."""
    open_store(settings.database_url, SystemClock()).close()
    log.info("database is up to date version=%s", __version__)
    return 0


def serve(settings: Settings) -> int:
    """Run the server until it is told to stop (SIGTERM, SIGINT or the API); returns its exit code.

    It ends in order: no new requests, the submission under way to its end, everything else is left to the next server.
    The port is bound before anything starts, so a port in use is a clear error and the address is known. One server per
    data folder: a second one raises Conflict.
    """
    sys.setswitchinterval(SWITCH_S)
    few_arenas()
    database = sqlite_file(settings.database_url)
    if database is not None:
        check_local_filesystem(database)
    files = ServerFiles(settings.data_dir)
    with files.exclusive():
        token = _own_token(settings, files)
        listener = _bind(settings.host, settings.port)
        scheme = "http" if settings.tls_cert is None else "https"
        url = f"{scheme}://{settings.host}:{listener.getsockname()[1]}"
        if scheme == "http" and not _loopback(settings.host):
            log.warning("%s is not encrypted: let a proxy do TLS, or give --tls-cert and --tls-key", url)
        shutdown, stop_local = threading.Event(), threading.Event()
        _end_on_signals(shutdown)
        server = build(settings, token=token, url=url, shutdown=shutdown, stop_local=stop_local)
        collected_seldom()
        threading.Thread(target=_watch_home, args=(files, shutdown, stop_local), name="home", daemon=True).start()
        with server.closing:
            server.loops.start()
            _run_http(
                _http(settings, server), server, listener, shutdown, lambda: _announce(files, url), files.withdraw
            )
            late = server.loops.stop(LOOPS_S) + server.drain(DRAIN_S)
            server.context.leadership.resign()
            if late:
                log.warning("still busy at shutdown: %s", ", ".join(late))
            if stop_local.is_set():
                _stop_local_heads(server.context)
        files.withdraw()
    return 0


def _own_token(settings: Settings, files: ServerFiles) -> str:
    """The owner's token: from the file that the settings name, which several servers may share, else one of our own."""
    if settings.token_file is None:
        return files.token(RandomIds().token)
    try:
        token = settings.token_file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not text"
        raise InvalidInput("token_file", settings.token_file, f"cannot be read ({why})", TOKEN_REMEDY) from None
    if len(token) < SHORTEST_TOKEN:
        raise InvalidInput("token_file", settings.token_file, f"holds {len(token)} characters", TOKEN_REMEDY)
    return token


def _watch_home(files: ServerFiles, shutdown: threading.Event, stop_local: threading.Event) -> None:
    """End without the data folder: no command would find this server any more, and no other one its Ray heads."""
    while not shutdown.wait(POLL_S):
        if files.lost():
            log.error("%s was removed or replaced: the server and its local Ray heads end", files.data_dir)
            stop_local.set()
            shutdown.set()


def _announce(files: ServerFiles, url: str) -> None:
    files.announce(url)
    notify_ready()


def _prepare(shared: Path) -> None:
    try:
        shared.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        remedy = "Name a folder that every server on this database can write"
        raise InvalidInput("shared-dir", shared, f"cannot be used ({error.strerror})", remedy) from None


def _user() -> str:
    """Who runs this server; a container's user may have a number alone."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


def _holder() -> str:
    """This process and no other one, readable in logs."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise InvalidInput(
            "port", port, f"cannot be used on {host} ({error.strerror})", "Choose a free port, or 0"
        ) from None
    return listener


def _loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _end_on_signals(shutdown: threading.Event) -> None:
    """SIGTERM and Ctrl-C end the server in order; the second one ends it at once, which it survives like kill -9."""

    def end(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        shutdown.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


class _Http(uvicorn.Server):
    """uvicorn without its signals: it would raise them again at its end, and so kill us before we are done."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them to us."""
        yield


def _http(settings: Settings, server: Server) -> _Http:
    """InvalidInput for a certificate and key that TLS cannot be spoken with."""
    config = uvicorn.Config(
        create_app(server.context),
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    try:
        config.load()
    except OSError as error:  # which TLS errors are too
        remedy = "Name a certificate chain and its key, both as PEM"
        raise InvalidInput("tls_cert", settings.tls_cert, f"cannot be used ({error})", remedy) from None
    return _Http(config)


def _run_http(
    http: _Http,
    server: Server,
    listener: socket.socket,
    shutdown: threading.Event,
    ready: Callable[[], None],
    ending: Callable[[], None],
) -> None:
    """Serve until `shutdown`; calls `ready` once it listens, and `ending` before it stops to."""

    def watch() -> None:
        shutdown.wait()
        ending()  # commands that look for a server now start the next one, and wait for our lock
        server.context.signals.job_changed()  # long-polling readers answer now
        http.should_exit = True

    threading.Thread(target=watch, name="shutdown", daemon=True).start()
    listener.listen(128)
    ready()
    http.run(sockets=[listener])


def _stop_local_heads(context: Context) -> None:
    for cluster in context.fleet.all():
        if cluster.local is not None:
            context.fleet.stop_local(cluster.name)
