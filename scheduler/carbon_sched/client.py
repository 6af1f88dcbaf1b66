"""Typed HTTP client of our own API, version 1. Public: `Client(url, token)`, one method per route, shapes from `wire`.

Every call has a time limit and a size limit and follows no redirect. Calls that may be repeated without doing anything
twice are repeated when no clear answer came: reads, uploads by content, stops, and submissions, which carry a key.
Errors are the server's own, raised as the same classes (`domain/errors.py`).
"""

from __future__ import annotations

import ipaddress
import json
import os
from contextlib import nullcontext
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from carbon_sched import __version__
from carbon_sched.domain.errors import (
    CarbonSchedError,
    InvalidInput,
    NotAllowed,
    NotFound,
    ServerUnavailable,
)
from carbon_sched.ledger.copy import entry_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path

    from typing_extensions import Self

    from carbon_sched.wire import (
        AppRequest,
        Approval,
        AppView,
        BudgetView,
        ClusterCheck,
        ClusterRequest,
        ClusterView,
        DecisionView,
        EffectiveView,
        EndpointView,
        Erased,
        GridCheck,
        GridForecast,
        GridHistory,
        GridNow,
        Imported,
        ImportRequest,
        JobAmendment,
        JobList,
        JobRequest,
        JobView,
        LogChunk,
        LoginCode,
        NewToken,
        PolicyRequest,
        PolicyView,
        Problem,
        ProviderView,
        Receipt,
        RequestsView,
        ResolveRequest,
        RollbackRequest,
        ScheduleRequest,
        ScheduleView,
        SealView,
        ServerView,
        SessionView,
        TokenRequest,
        TokenView,
        VerifyView,
    )

TIMEOUT_S = 30.0
CONNECT_S = 10.0
LONG_POLL_S = 25.0
BACKTEST_S = 600.0
STATEMENT_S = 120.0
MAX_ANSWER = 64 * 1024 * 1024
TRIES = 4
UNCLEAR_STATUS = (429, 502, 503, 504)
REPEATABLE = ("GET", "HEAD", "PUT")


class Client:
    """Calls of one server; not to be shared between threads.

    Raises InvalidInput for a URL that cannot be used, and for a token that would travel in clear: plain http to another
    machine needs `allow_plain_http`. `waiting()` is entered around every call that is meant to be answered at once.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout_s: float = TIMEOUT_S,
        allow_plain_http: bool = False,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.url, self._timeout_s, self._waiting = url.rstrip("/"), timeout_s, waiting
        loopback = _checked(self.url, allow_plain_http=allow_plain_http)
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"carbon-sched/{__version__}"
        self._session.auth = _Bearer(token)
        if loopback:  # which no proxy can reach
            self._session.trust_env = False
            self._session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
        self._session.mount(self.url, HTTPAdapter(max_retries=_retry(REPEATABLE)))
        # Below /v1/jobs everything may be repeated: stopping twice is stopping, and submissions carry a key.
        self._session.mount(f"{self.url}/v1/jobs", HTTPAdapter(max_retries=_retry(None)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    # server --------------------------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        """`{"ok": true, "version": ...}`, without credentials being checked."""
        return cast("dict[str, Any]", self._get("/healthz"))

    def date(self) -> datetime | None:
        """The server's clock, to the second; None where it does not tell."""
        with self._send("HEAD", "/healthz") as response:
            try:
                return parsedate_to_datetime(response.headers["Date"])
            except (KeyError, ValueError):
                return None

    def server(self) -> ServerView:
        """What runs there."""
        return cast("ServerView", self._get("/v1/server"))

    def shutdown(self, *, stop_local_clusters: bool) -> None:
        """Ask the server to end, and with it, if wanted, the Ray heads that it started."""
        self._call("POST", "/v1/server/shutdown", json={"stop_local_clusters": stop_local_clusters})

    # jobs ----------------------------------------------------------------------------------------

    def has_bundle(self, sha256: str) -> bool:
        """Whether this bundle needs no upload."""
        try:
            self._call("HEAD", f"/v1/bundles/{_part(sha256)}")
        except NotFound:
            return False
        return True

    def put_bundle(self, sha256: str, path: Path) -> None:
        """Upload a zip by the SHA-256 of its bytes (hexadecimal)."""
        with path.open("rb") as file:
            self._call("PUT", f"/v1/bundles/{_part(sha256)}", data=file)

    def submit(self, request: JobRequest, *, idempotency_key: str) -> JobView:
        """Submit a job; a second call with the same key and request returns the job of the first."""
        headers = {"Idempotency-Key": idempotency_key}
        return cast("JobView", self._call("POST", "/v1/jobs", json=request, headers=headers))

    def preview(self, request: JobRequest) -> DecisionView:
        """What would be decided about this job now; nothing is stored."""
        return cast("DecisionView", self._call("POST", "/v1/jobs", json=request, params={"dry_run": "true"}))

    def jobs(
        self,
        *,
        state: list[str] | None = None,
        team: str | None = None,
        project: str | None = None,
        phase: str | None = None,
        cluster: str | None = None,
        name: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> JobList:
        """Jobs that match, newest first; `after` continues behind the job with that id."""
        where = {"state": state, "team": team, "project": project, "phase": phase, "cluster": cluster, "name": name}
        return cast("JobList", self._get("/v1/jobs", {**where, "limit": limit, "after": after}))

    def job(self, job_id: str, *, wait_version: int | None = None, timeout_s: float = LONG_POLL_S) -> JobView:
        """One job; with `wait_version`, as soon as it is newer than that, or after `timeout_s`."""
        path = f"/v1/jobs/{_part(job_id)}"
        if wait_version is None:
            return cast("JobView", self._get(path))
        where = {"wait_version": wait_version, "timeout_s": timeout_s}
        return cast("JobView", self._get(path, where, wait_s=timeout_s))

    def decision(self, job_id: str) -> DecisionView:
        """Where and when, why, and what else was compared; NotFound until the job was planned."""
        return cast("DecisionView", self._get(f"/v1/jobs/{_part(job_id)}/decision"))

    def receipt(self, job_id: str) -> Receipt:
        """Energy and emissions of the job; `final` once nothing will be added."""
        return cast("Receipt", self._get(f"/v1/jobs/{_part(job_id)}/receipt"))

    def events(self, job_id: str) -> list[dict[str, str]]:
        """Every transition of the job, oldest first."""
        return cast("list[dict[str, str]]", self._get(f"/v1/jobs/{_part(job_id)}/events"))

    def logs(self, job_id: str, *, attempt: int | None = None, offset: int = 0, wait_s: float = 0.0) -> LogChunk:
        """Output from byte `offset` of an attempt's log on (None: the newest's); waits up to `wait_s` for more."""
        where = {"attempt": attempt, "offset": offset, "wait_s": wait_s}
        return cast("LogChunk", self._get(f"/v1/jobs/{_part(job_id)}/logs", where, wait_s=wait_s))

    def stream(self, job_id: str, *, logs: bool = True) -> Iterator[tuple[str, dict[str, Any]]]:
        """What the job becomes and writes, as it happens: (`state`, JobView) and (`log`, LogChunk), to an (`end`, {}).

        Raises ServerUnavailable where the connection breaks; `job` and `logs` tell what came meanwhile.
        """
        path = f"/v1/jobs/{_part(job_id)}/stream"
        with self._send("GET", path, params={"logs": json.dumps(logs)}) as response:
            self._raise_problem(response, "GET", path)
            event = ""
            try:
                for line in response.iter_lines(chunk_size=None, decode_unicode=True):
                    name, _, value = line.partition(": ")
                    if name == "event":
                        event = value
                    elif name == "data":
                        yield event, json.loads(value)
                        if event == "end":
                            return
            except (requests.RequestException, ValueError) as error:
                raise self._unavailable(error) from None
            raise ServerUnavailable(f"{self.url} ended the stream before the job did; ask again")

    def stop(self, job_id: str) -> JobView:
        """Ask for a stop; a job that ended already is left as it is."""
        return cast("JobView", self._call("POST", f"/v1/jobs/{_part(job_id)}/stop"))

    def amend(self, job_id: str, amendment: JobAmendment) -> JobView:
        """Change what a job asks for; asked again, it changes nothing more."""
        return cast("JobView", self._call("PATCH", f"/v1/jobs/{_part(job_id)}", json=amendment))

    def resolve(self, job_id: str, request: ResolveRequest) -> JobView:
        """Say what became of a lost job, or have it run again."""
        return cast("JobView", self._call("POST", f"/v1/jobs/{_part(job_id)}/resolve", json=request))

    # services ------------------------------------------------------------------------------------

    def deploy_app(self, request: AppRequest) -> AppView:
        """Have a service run on the cleanest cluster that meets its limits."""
        return cast("AppView", self._call("PUT", f"/v1/serve-apps/{_part(request['name'])}", json=request))

    def apps(self) -> list[AppView]:
        """Every service, by name."""
        return cast("list[AppView]", self._get("/v1/serve-apps"))

    def app(self, name: str) -> AppView:
        """One service."""
        return cast("AppView", self._get(f"/v1/serve-apps/{_part(name)}"))

    def delete_app(self, name: str) -> AppView:
        """Have a service go from wherever it is."""
        return cast("AppView", self._call("DELETE", f"/v1/serve-apps/{_part(name)}"))

    def app_endpoint(self, name: str) -> EndpointView:
        """Where it is reached now; ServerUnavailable while it answers nowhere."""
        return cast("EndpointView", self._get(f"/v1/serve-apps/{_part(name)}/endpoint"))

    def app_requests(self, name: str, *, window_s: float = 3600.0) -> RequestsView:
        """What its requests used over the newest window of about this length."""
        return cast("RequestsView", self._get(f"/v1/serve-apps/{_part(name)}/requests", {"window_s": window_s}))

    # clusters ------------------------------------------------------------------------------------

    def clusters(self) -> list[ClusterView]:
        """Every registered cluster, with what it last said."""
        return cast("list[ClusterView]", self._get("/v1/clusters"))

    def cluster(self, name: str) -> ClusterView:
        """One cluster."""
        return cast("ClusterView", self._get(f"/v1/clusters/{_part(name)}"))

    def put_cluster(self, name: str, request: ClusterRequest) -> ClusterView:
        """Register a cluster, or replace it."""
        return cast("ClusterView", self._call("PUT", f"/v1/clusters/{_part(name)}", json=request))

    def remove_cluster(self, name: str) -> None:
        """Forget a cluster; Conflict while jobs are open there."""
        self._call("DELETE", f"/v1/clusters/{_part(name)}")

    def cordon_cluster(self, name: str, *, cordoned: bool = True) -> ClusterView:
        """Give a cluster no new jobs, or (`cordoned` False) give it some again."""
        verb = "cordon" if cordoned else "uncordon"
        return cast("ClusterView", self._call("POST", f"/v1/clusters/{_part(name)}/{verb}"))

    def drain_cluster(self, name: str, *, evict: bool = False) -> ClusterView:
        """Cordon a cluster; with `evict`, its jobs are stopped and queued again."""
        return cast("ClusterView", self._call("POST", f"/v1/clusters/{_part(name)}/drain", json={"evict": evict}))

    def check_cluster(self, name: str) -> ClusterCheck:
        """Have the server call the cluster now; findings in plain words."""
        return cast("ClusterCheck", self._call("POST", f"/v1/clusters/{_part(name)}/check", wait_s=TIMEOUT_S))

    # policies ------------------------------------------------------------------------------------

    def policies(self) -> list[PolicyView]:
        """Every policy that can be followed: applied ones first, then presets."""
        return cast("list[PolicyView]", self._get("/v1/policies"))

    def policy(self, name: str) -> PolicyView:
        """One policy as it is in force, with its text where it was applied."""
        return cast("PolicyView", self._get(f"/v1/policies/{_part(name)}"))

    def policy_versions(self, name: str) -> list[PolicyView]:
        """Every version of an applied policy, newest first, with its text."""
        return cast("list[PolicyView]", self._get(f"/v1/policies/{_part(name)}/versions"))

    def apply_policy(self, request: PolicyRequest, *, dry_run: bool = False) -> PolicyView:
        """Put a policy file in force; with `dry_run`, only learn whether it could be. A backtest may take minutes."""
        where = {"dry_run": "true" if dry_run else "false"}
        wait_s = 0.0 if request.get("backtest_margin_ppm") is None else BACKTEST_S
        return cast("PolicyView", self._call("POST", "/v1/policies", json=request, params=where, wait_s=wait_s))

    def roll_back_policy(self, name: str, request: RollbackRequest) -> PolicyView:
        """Put an earlier version in force again, as a new one."""
        return cast("PolicyView", self._call("POST", f"/v1/policies/{_part(name)}/rollback", json=request))

    def job_policy(self, job_id: str) -> EffectiveView:
        """What a job's policy means for it, and where each value comes from."""
        return cast("EffectiveView", self._get(f"/v1/jobs/{_part(job_id)}/policy"))

    def effective_policy(self, request: JobRequest) -> EffectiveView:
        """The same for a job that is not submitted."""
        return cast("EffectiveView", self._call("POST", "/v1/policies/effective", json=request))

    def add_schedule(self, request: ScheduleRequest) -> ScheduleView:
        """Submit a request whenever a cron expression is due."""
        return cast("ScheduleView", self._call("POST", "/v1/schedules", json=request))

    def schedules(self) -> list[ScheduleView]:
        """Those of one's teams that were not stopped."""
        return cast("list[ScheduleView]", self._get("/v1/schedules"))

    def stop_schedule(self, schedule_id: str) -> ScheduleView:
        """Submit no more of it; its jobs go on."""
        return cast("ScheduleView", self._call("DELETE", f"/v1/schedules/{_part(schedule_id)}"))

    def budgets(self) -> list[BudgetView]:
        """Every budget of one's teams in its present period."""
        return cast("list[BudgetView]", self._get("/v1/budgets"))

    def approve(self, job_id: str, *, reason: str) -> Approval:
        """Let a waiting job exceed the budgets that hold it; Conflict where none does."""
        return cast("Approval", self._call("POST", f"/v1/jobs/{_part(job_id)}/approve", json={"reason": reason}))

    # grid ----------------------------------------------------------------------------------------

    def grid_now(self, zones: Sequence[str] = ()) -> GridNow:
        """Comparable intensities of these zones, or of those of all clusters; the server may ask providers first."""
        return cast("GridNow", self._get("/v1/grid/now", {"zone": list(zones)}, wait_s=TIMEOUT_S))

    def grid_forecast(self, zones: Sequence[str] = (), *, hours: float = 48.0) -> GridForecast:
        """Comparable outlooks from now on."""
        where = {"zone": list(zones), "hours": hours}
        return cast("GridForecast", self._get("/v1/grid/forecast", where, wait_s=TIMEOUT_S))

    def grid_history(self, zone: str, *, since: datetime) -> GridHistory:
        """What would be booked for one zone from `since` until now."""
        where = {"zone": zone, "since": since.isoformat()}
        return cast("GridHistory", self._get("/v1/grid/history", where, wait_s=TIMEOUT_S))

    def grid_providers(self) -> list[ProviderView]:
        """Every intensity provider there is, configured ones first."""
        return cast("list[ProviderView]", self._get("/v1/grid/providers"))

    def check_grid(self, zones: Sequence[str] = ()) -> GridCheck:
        """Have the server ask each configured provider once now; findings in plain words."""
        where = {"zone": list(zones)}
        return cast("GridCheck", self._call("POST", "/v1/grid/check", params=where, wait_s=TIMEOUT_S))

    # tokens --------------------------------------------------------------------------------------

    def give_token(self, request: TokenRequest) -> NewToken:
        """Give a token; its secret is in this answer and nowhere else."""
        return cast("NewToken", self._call("POST", "/v1/tokens", json=request))

    def tokens(self) -> list[TokenView]:
        """Every token ever given, oldest first, without its secret."""
        return cast("list[TokenView]", self._get("/v1/tokens"))

    def revoke_token(self, token_id: str) -> None:
        """Make a token worthless at once."""
        self._call("DELETE", f"/v1/tokens/{_part(token_id)}")

    def erase_person(self, person: str) -> str:
        """Forget who is behind a pseudonym, which is returned."""
        return cast("Erased", self._call("POST", "/v1/people/erase", json={"person": person}))["pseudonym"]

    def session(self) -> SessionView:
        """Who the server takes us for."""
        return cast("SessionView", self._get("/v1/session"))

    def login_url(self) -> str:
        """An address that logs one browser in as us, once, within two minutes."""
        return self.url + cast("LoginCode", self._call("POST", "/v1/login-codes"))["path"]

    # ledger --------------------------------------------------------------------------------------

    def entries(self, *, after: int = 0, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Entries of the ledger, oldest first: `seq`, `prev`, `hash`, and `payload`, the text that was hashed."""
        for line in self.entry_lines(after=after, limit=limit):
            try:
                entry = entry_of(line)
            except ValueError as error:
                raise self._unavailable(error) from None
            yield entry._asdict() | {"payload": entry.payload.decode(errors="surrogatepass")}

    def entry_lines(self, *, after: int = 0, limit: int | None = None) -> Iterator[bytes]:
        """The same as the lines of a copy, without their ends."""
        with self._send("GET", "/v1/ledger/entries", params={"after": after, "limit": limit}) as response:
            self._raise_problem(response, "GET", "/v1/ledger/entries")
            try:
                yield from filter(None, response.iter_lines(chunk_size=65_536))
            except requests.RequestException as error:
                raise self._unavailable(error) from None

    def seal(self) -> SealView:
        """The newest signed checkpoint of the ledger, its key, and where it is kept."""
        return cast("SealView", self._get("/v1/ledger/seal"))

    def verify(self) -> VerifyView:
        """What the server says of its own chain."""
        return cast("VerifyView", self._get("/v1/ledger/verify"))

    def footprint(self, path: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """A model's life cycle, a comparison or a chargeback: GET `path` with what is asked."""
        return cast("dict[str, Any]", self._get(path, asked))

    def report(
        self,
        *,
        format: str = "json",  # noqa: A002 - the name of the query parameter
        job: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        team: str | None = None,
        project: str | None = None,
        phase: str | None = None,
    ) -> str:
        """A report over the jobs that match, as text in `format`: json, csv, md or text."""
        period = {key: at.isoformat() for key, at in (("since", since), ("until", until)) if at is not None}
        where = {"job": job, "team": team, "project": project, "phase": phase, "format": format, **period}
        return self._bytes("GET", "/v1/report", params=where).decode("utf-8")

    def statement(
        self,
        *,
        format: str = "json",  # noqa: A002 - the name of the query parameter
        jobs: Sequence[str] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        **where: str | None,
    ) -> bytes:
        """The statement over the jobs that match, as a file in `format`.

        `where` may name `team`, `project`, `model`, `phase` and `cluster`.
        """
        period = {key: at.isoformat() for key, at in (("since", since), ("until", until)) if at is not None}
        params = {"job": list(jobs), "format": format, **where, **period}
        return self._bytes("GET", "/v1/statement", params=params, wait_s=STATEMENT_S)

    def import_emissions(self, request: ImportRequest) -> int:
        """Put CodeCarbon's emissions.csv into the ledger, as what that tool said; how many runs."""
        return cast("Imported", self._call("POST", "/v1/ledger/imports", json=request))["runs"]

    def declare(self, declaration: Mapping[str, Any]) -> None:
        """Declare what statements need to be told (`ledger/declaration.py`); it is in the ledger from then on."""
        self._call("POST", "/v1/ledger/declaration", json=declaration)

    # transport -----------------------------------------------------------------------------------

    def _get(self, path: str, params: Mapping[str, Any] | None = None, *, wait_s: float = 0.0) -> Any:
        return self._call("GET", path, params=params, wait_s=wait_s)

    def _call(self, method: str, path: str, **options: Any) -> Any:
        """One call and its answer as parsed JSON; None for an empty one."""
        body = self._bytes(method, path, **options)
        try:
            return json.loads(body) if body else None
        except ValueError:
            raise ServerUnavailable(self._stranger(method, path, "something else than JSON")) from None

    def _bytes(self, method: str, path: str, *, wait_s: float = 0.0, **options: Any) -> bytes:
        """One call and its whole answer, up to our limit; `wait_s` where the server may take its time."""
        with (
            nullcontext() if wait_s else self._waiting(),
            self._send(method, path, wait_s=wait_s, **options) as response,
        ):
            self._raise_problem(response, method, path)
            return self._body(response)

    def _send(self, method: str, path: str, *, wait_s: float = 0.0, **options: Any) -> requests.Response:
        timeout = (CONNECT_S, self._timeout_s + wait_s)
        try:
            return self._session.request(
                method, self.url + path, timeout=timeout, stream=True, allow_redirects=False, **options
            )
        except requests.RequestException as error:
            raise self._unavailable(error) from None

    def _body(self, response: requests.Response) -> bytes:
        """The answer, up to our limit."""
        pieces, size = [], 0
        try:
            for piece in response.iter_content(65_536):
                size += len(piece)
                if size > MAX_ANSWER:
                    raise ServerUnavailable(f"the answer of {self.url} is larger than {MAX_ANSWER >> 20} MiB")
                pieces.append(piece)
        except requests.RequestException as error:
            raise self._unavailable(error) from None
        return b"".join(pieces)

    def _raise_problem(self, response: requests.Response, method: str, path: str) -> None:
        """Raise the error that an answer tells of; nothing for success."""
        status = response.status_code
        if 200 <= status < 300:
            return
        if method == "HEAD" and status == 404:
            raise NotFound
        try:
            problem = json.loads(self._body(response))
        except ValueError:
            problem = None
        if isinstance(problem, dict) and isinstance(problem.get("detail"), str) and "code" in problem:
            raise error_of(cast("Problem", problem))
        if status in (401, 403):
            raise NotAllowed(f"{self.url} refused the token (HTTP {status}); {TOKEN_REMEDY}")
        raise ServerUnavailable(self._stranger(method, path, f"HTTP {status}"))

    def _stranger(self, method: str, path: str, what: str) -> str:
        return (
            f"{self.url} answered {method} {path} with {what}, which is nothing that a carbon-sched server says; "
            "check CARBON_SCHED_URL, and that both sides have the same version"
        )

    def _unavailable(self, error: Exception) -> CarbonSchedError:
        if isinstance(error, requests.exceptions.SSLError):
            return ServerUnavailable(
                f"the TLS certificate of {self.url} was not accepted ({_cause(error)}); "
                "name your authority's file in REQUESTS_CA_BUNDLE"
            )
        if isinstance(error, requests.exceptions.ReadTimeout):
            return ServerUnavailable(f"{self.url} did not answer within {self._timeout_s:g} s; try again")
        return ServerUnavailable(
            f"cannot reach the carbon-sched server at {self.url} ({_cause(error)}); "
            "`carbon-sched server status` tells more"
        )


class _Bearer(requests.auth.AuthBase):
    """The token of every call; as an object, so that a ~/.netrc cannot replace it."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


TOKEN_REMEDY = "set CARBON_SCHED_TOKEN or CARBON_SCHED_TOKEN_FILE"  # noqa: S105 - the names of variables


def error_of(problem: Problem) -> CarbonSchedError:
    """The domain error that a problem+json tells of, with the server's own words; a plain one for unknown codes."""
    kind = _kinds().get(problem["code"], CarbonSchedError)
    error = kind.__new__(kind)
    error.args = (problem["detail"],)
    if isinstance(error, InvalidInput):
        error.field, error.value = problem.get("field", ""), problem.get("value", "")
        error.problem, error.remedy = problem["detail"], problem.get("remedy", "")
    if kind is CarbonSchedError:
        # an error that a newer server knows and we do not: its exit code is part of the answer
        error.exit_code = problem.get("exit_code", kind.exit_code)
    return error


def _kinds() -> dict[str, type[CarbonSchedError]]:
    found: dict[str, type[CarbonSchedError]] = {}
    todo = [CarbonSchedError]
    while todo:
        kind = todo.pop()
        found[kind.__new__(kind).code] = kind
        todo += kind.__subclasses__()
    return found


def _retry(methods: tuple[str, ...] | None) -> Retry:
    return Retry(
        total=TRIES - 1,
        read=1,  # each may take the whole time limit
        allowed_methods=methods,
        status_forcelist=UNCLEAR_STATUS,
        backoff_factor=0.1,
        respect_retry_after_header=False,  # we wait for tenths of a second, whatever the other side asks for
        raise_on_status=False,
        redirect=False,
    )


def _checked(url: str, *, allow_plain_http: bool) -> bool:
    """Whether the URL is on this machine's loopback; InvalidInput where it cannot be used."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput("CARBON_SCHED_URL", url, "is not a URL", "Use https://HOST or http://127.0.0.1:PORT")
    loopback = _is_loopback(parts.hostname)
    if parts.scheme == "http" and not loopback and not allow_plain_http:
        remedy = "Use https, or set CARBON_SCHED_ALLOW_PLAIN_HTTP=1 if the network itself is trusted"
        raise InvalidInput("CARBON_SCHED_URL", url, "would send the token in clear to another machine", remedy)
    return loopback


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _part(text: str) -> str:
    """One segment of a path."""
    return quote(text, safe="")


def _cause(error: BaseException) -> str:
    """The innermost reason, in the operating system's words where it has some."""
    inner: Any = error
    for _ in range(6):
        wrapped = [argument for argument in inner.args if isinstance(argument, BaseException)]
        following = getattr(inner, "reason", None) or next(iter(wrapped), None)
        if not isinstance(following, BaseException):
            break
        inner = following
    return str(getattr(inner, "strerror", None) or inner or type(inner).__name__)
