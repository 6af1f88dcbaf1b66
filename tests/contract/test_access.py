"""Who may do what: every route x role x team x kind of token, and what a token can and cannot become."""

from __future__ import annotations

from datetime import timedelta

import pytest
import requests
from fastapi import APIRouter
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from carbon_sched.api.access import COOKIE, CSRF_HEADER, guarded
from carbon_sched.client import Client
from carbon_sched.domain.errors import Forbidden, InvalidInput, NotAllowed, NotFound
from tests.fakes.served import TOKEN, served

__all__ = ["served"]

V, S, K, U, A = "viewer", "submitter", "operator", "auditor", "admin"
EVERYBODY, CHANGERS, KEEPERS, AUDITORS, ADMINS = {V, S, K, U, A}, {S, K, A}, {K, A}, {U, A}, {A}
PUBLIC: set[str] = set()
TABLE = {
    "GET /healthz": PUBLIC,
    "GET /readyz": PUBLIC,
    "POST /v1/journal/{attempt}/{name}": PUBLIC,  # it asks for the attempt's own token
    "GET /metrics": EVERYBODY,
    "GET /login": PUBLIC,
    "GET /assets/{name}": PUBLIC,
    "GET /": EVERYBODY,
    "GET /live": EVERYBODY,
    "GET /curves.json": EVERYBODY,
    "GET /queue": EVERYBODY,
    "GET /jobs/{job_id}": EVERYBODY,
    "GET /jobs/{job_id}/power.json": EVERYBODY,
    "GET /compare": EVERYBODY,
    "GET /footprint": EVERYBODY,
    "GET /policies": EVERYBODY,
    "GET /policies/backtest": KEEPERS,
    "GET /policies/skill": EVERYBODY,
    "GET /health": EVERYBODY,
    "GET /health/verified": AUDITORS,
    "GET /v1/server": EVERYBODY,
    "POST /v1/server/shutdown": ADMINS,
    "POST /v1/tokens": ADMINS,
    "GET /v1/tokens": ADMINS,
    "DELETE /v1/tokens/{token_id}": ADMINS,
    "POST /v1/people/erase": ADMINS,
    "POST /v1/login-codes": EVERYBODY,
    "GET /v1/session": EVERYBODY,
    "DELETE /v1/session": EVERYBODY,
    "HEAD /v1/bundles/{sha256}": CHANGERS,
    "PUT /v1/bundles/{sha256}": CHANGERS,
    "POST /v1/jobs": CHANGERS,
    "GET /v1/jobs": EVERYBODY,
    "GET /v1/jobs/{job_id}": EVERYBODY,
    "GET /v1/jobs/{job_id}/stream": EVERYBODY,
    "GET /v1/jobs/{job_id}/decision": EVERYBODY,
    "GET /v1/jobs/{job_id}/receipt": EVERYBODY,
    "GET /v1/jobs/{job_id}/events": EVERYBODY,
    "GET /v1/jobs/{job_id}/logs": EVERYBODY,
    "PATCH /v1/jobs/{job_id}": CHANGERS,
    "POST /v1/jobs/{job_id}/stop": CHANGERS,
    "POST /v1/jobs/{job_id}/resolve": CHANGERS,
    "POST /v1/jobs/{job_id}/approve": KEEPERS,
    "GET /v1/budgets": EVERYBODY,
    "POST /v1/schedules": CHANGERS,
    "GET /v1/schedules": EVERYBODY,
    "DELETE /v1/schedules/{schedule_id}": CHANGERS,
    "PUT /v1/serve-apps/{name}": CHANGERS,
    "GET /v1/serve-apps": EVERYBODY,
    "GET /v1/serve-apps/{name}": EVERYBODY,
    "DELETE /v1/serve-apps/{name}": CHANGERS,
    "GET /v1/serve-apps/{name}/endpoint": EVERYBODY,
    "GET /v1/serve-apps/{name}/requests": EVERYBODY,
    "POST /v1/clusters/{name}/cordon": KEEPERS,
    "POST /v1/clusters/{name}/uncordon": KEEPERS,
    "POST /v1/clusters/{name}/drain": KEEPERS,
    "GET /v1/clusters": EVERYBODY,
    "GET /v1/clusters/{name}": EVERYBODY,
    "PUT /v1/clusters/{name}": KEEPERS,
    "DELETE /v1/clusters/{name}": KEEPERS,
    "POST /v1/clusters/{name}/check": KEEPERS,
    "GET /v1/policies": EVERYBODY,
    "GET /v1/policies/{name}": EVERYBODY,
    "GET /v1/policies/{name}/versions": EVERYBODY,
    "POST /v1/policies": KEEPERS,
    "POST /v1/policies/{name}/rollback": KEEPERS,
    "POST /v1/policies/effective": CHANGERS,
    "GET /v1/jobs/{job_id}/policy": EVERYBODY,
    "GET /v1/grid/now": EVERYBODY,
    "GET /v1/grid/forecast": EVERYBODY,
    "GET /v1/grid/history": EVERYBODY,
    "GET /v1/grid/providers": EVERYBODY,
    "POST /v1/grid/check": KEEPERS,
    "GET /v1/ledger/entries": AUDITORS,
    "GET /v1/ledger/verify": AUDITORS,
    "GET /v1/ledger/seal": AUDITORS,
    "GET /v1/report": EVERYBODY,
    "GET /v1/lifecycle": EVERYBODY,
    "GET /v1/service": EVERYBODY,
    "GET /v1/compare": EVERYBODY,
    "GET /v1/chargeback": EVERYBODY,
    "GET /v1/statement": EVERYBODY,
    "POST /v1/ledger/declaration": ADMINS,
    "POST /v1/ledger/imports": CHANGERS,
    "GET /api/version": EVERYBODY,
    "GET /api/packages/{protocol}/{name}": CHANGERS,
    "PUT /api/packages/{protocol}/{name}": CHANGERS,
    "POST /api/jobs/": CHANGERS,
    "GET /api/jobs/": EVERYBODY,
    "GET /api/jobs/{submission_id}": EVERYBODY,
    "POST /api/jobs/{submission_id}/stop": CHANGERS,
    "DELETE /api/jobs/{submission_id}": CHANGERS,
    "GET /api/jobs/{submission_id}/logs": EVERYBODY,
    "WS /api/jobs/{submission_id}/logs/tail": EVERYBODY,
}
"""Who may use each route, by role. A route that is not here fails the first test."""
BODIES = {
    "POST /v1/jobs": {"entrypoint": "true", "team": "nlp"},
    "POST /v1/schedules": {"cron": "0 3 * * *", "request": {"entrypoint": "true", "team": "nlp"}},
    "PUT /v1/serve-apps/{name}": {"name": "nowhere", "application": {"import_path": "a:b"}, "team": "nlp"},
    "PATCH /v1/jobs/{job_id}": {"now": True},
    "POST /v1/jobs/{job_id}/resolve": {"resolution": "requeue"},
    "POST /v1/jobs/{job_id}/approve": {"reason": "needed"},
    "POST /v1/ledger/declaration": {"organisation": "Org"},
    "POST /v1/ledger/imports": {"content": "", "timezone": "UTC", "team": "nlp"},
    "POST /v1/people/erase": {"person": "nobody"},
}
OWN_PROOF = ("GET /login", "POST /v1/journal/{attempt}/{name}")
"""Public routes that ask for a proof of their own: a login's code, an attempt's token."""
NOWHERE_YET = "GET /v1/serve-apps/{name}/endpoint"
"""The service that this test deploys answers nowhere: 503, ask again."""
BOUND = (V, S, K)


def ask(served, row: str, token: str | None, *, job: str = "nosuchjob0") -> int:
    """The status of one request to a route of the table."""
    method, _, path = row.partition(" ")
    names = {
        "name": "nowhere",
        "sha256": "0" * 64,
        "token_id": "nobody",
        "schedule_id": "nothing",
        "protocol": "gcs",
        "attempt": job,
    }
    filled = path.format(job_id=job, submission_id=job, **names)
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    if method == "WS":
        return handshake(served.url.replace("http", "ws") + filled, headers)
    options = {"json": BODIES.get(row, {}), "headers": headers, "allow_redirects": False, "timeout": 5}
    with requests.request(method, served.url + filled, stream=True, **options) as answer:
        return answer.status_code


def handshake(url: str, headers: dict[str, str]) -> int:
    try:
        with connect(url, additional_headers=headers, proxy=None):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def test_the_table_names_every_route_and_no_other(served):
    assert {f"{route.method} {route.path}" for route in served.app.state.routes} == set(TABLE)


def test_every_route_lets_in_exactly_the_roles_of_the_table(served):
    tokens = {role: served.token(role, ["nlp"] if role in BOUND else None) for role in EVERYBODY}
    for row, roles in TABLE.items():
        for role, token in tokens.items():
            status = ask(served, row, token)
            may = not roles or role in roles
            assert (status != 403) == may, (row, role, status)
            assert status != 401 or row in OWN_PROOF, (row, role, status)
            assert status < 500 or row == NOWHERE_YET, (row, role, status)


def test_no_route_but_the_public_ones_knows_a_token_that_is_not_valid(served):
    expired, revoked = served.token(A, lifetime_s=5), served.token(A)
    served.client.revoke_token(served.client.tokens()[-1]["token_id"])
    served.world.clock.pass_s(10)
    for row, roles in TABLE.items():
        for token in (
            None,
            "",
            "garbage",
            TOKEN + "x",
            TOKEN[:-1],
            "\u00e9".encode().decode("latin-1"),
            expired,
            revoked,
        ):
            assert ask(served, row, token) == 401 or not roles, (row, token)


def test_jobs_of_other_teams_are_as_if_they_were_not_there(served):
    theirs = served.client.submit({"entrypoint": "true", "team": "vision"}, idempotency_key="v")["job_id"]
    mine = served.client.submit({"entrypoint": "true", "team": "nlp"}, idempotency_key="n")["job_id"]
    nobodys = served.client.submit({"entrypoint": "true"}, idempotency_key="x")["job_id"]
    served.world.settle()
    for role in BOUND:
        token = served.token(role, ["nlp"])
        for row in (row for row in TABLE if "{job_id}" in row or "{submission_id}" in row):
            if role in TABLE[row]:
                assert ask(served, row, token, job=mine) in (101, 200, 202, 409), (row, role)
                assert ask(served, row, token, job=theirs) == ask(served, row, token, job=nobodys) == 404, (row, role)
        with Client(served.url, token) as client:
            assert [job["job_id"] for job in client.jobs()["jobs"]] == [mine]
            assert client.jobs(team="vision")["jobs"] == []
            with pytest.raises(NotFound) as hidden:
                client.job(theirs)
            with pytest.raises(NotFound) as absent:
                client.job("nosuchjob0")
            assert str(hidden.value).replace(theirs, "X") == str(absent.value).replace("nosuchjob0", "X")
            with pytest.raises(NotFound):
                client.jobs(after=theirs)
            with pytest.raises(Forbidden):
                client.report(team="vision")
            assert theirs not in client.report()
    with Client(served.url, served.token(U)) as auditor:
        assert {job["job_id"] for job in auditor.jobs()["jobs"]} == {theirs, mine, nobodys}


def test_a_job_belongs_to_a_team_of_its_submitter(served):
    with Client(served.url, served.token(S, ["nlp"])) as client:
        job = client.submit({"entrypoint": "true"}, idempotency_key="1")
        assert (job["team"], job["submitter"]) == ("nlp", "eve")
        with pytest.raises(Forbidden):
            client.submit({"entrypoint": "true", "team": "vision"}, idempotency_key="2")
        with pytest.raises(Forbidden):
            client.preview({"entrypoint": "true", "team": "vision"})
    with Client(served.url, served.token(S, ["nlp", "vision"])) as client:
        with pytest.raises(Forbidden, match="name one of: nlp, vision"):
            client.submit({"entrypoint": "true"}, idempotency_key="3")
        assert client.submit({"entrypoint": "true", "team": "vision"}, idempotency_key="4")["team"] == "vision"
    with Client(served.url, served.token(S, [])) as client, pytest.raises(Forbidden):
        client.submit({"entrypoint": "true"}, idempotency_key="5")


def test_idempotency_keys_are_each_persons_own(served):
    mine = served.client.submit({"entrypoint": "true", "team": "nlp"}, idempotency_key="k")
    token = served.token(S, ["nlp"], name="bob")
    with Client(served.url, token) as bob, Client(served.url, served.token(S, ["nlp"], name="carol")) as carol:
        his = bob.submit({"entrypoint": "false"}, idempotency_key="k")
        hers = carol.submit({"entrypoint": "false"}, idempotency_key="k")
        assert len({mine["job_id"], his["job_id"], hers["job_id"]}) == 3
        assert bob.submit({"entrypoint": "false"}, idempotency_key="k")["job_id"] == his["job_id"]


def test_secrets_of_a_job_come_from_its_teams_folder(served, tmp_path):
    for name in ("secrets/nlp", "secrets/vision", "secrets/nlpx"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "hf").write_text("s3cret")
    (tmp_path / "secrets" / "nlp" / "link").symlink_to(tmp_path / "secrets" / "vision" / "hf")
    with Client(served.url, served.token(S, ["nlp"])) as client:

        def submit(reference):
            return client.submit({"entrypoint": "true", "secrets": {"HF": reference}}, idempotency_key=reference)

        assert submit("file:hf")["state"] == "queued"
        assert submit(f"file:{tmp_path}/secrets/nlp/hf")["state"] == "queued"
        outside = (
            "env:HOME",
            "file:/etc/passwd",
            "file:../vision/hf",
            "file:../nlpx/hf",
            "file:link",
            "file:.",
            "file:",
        )
        for reference in (*outside, "s3cret"):
            with pytest.raises(Forbidden) as refused:
                submit(reference)
            assert "s3cret" not in str(refused.value)
    with Client(served.url, served.token(S, ["../vision"])) as client, pytest.raises(Forbidden):
        client.submit({"entrypoint": "true", "secrets": {"HF": "file:hf"}}, idempotency_key="t")


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("role", {"role": "king"}),
        ("name", {"name": ""}),
        ("name", {"name": "a\nb"}),
        ("expires", {"lifetime_s": 0}),
        ("expires", {"lifetime_s": 367 * 86_400}),
        ("expires", {"lifetime_s": 1e300}),
        ("teams", {"role": "admin", "teams": ["nlp"]}),
        ("teams", {"role": "auditor", "teams": ["nlp"]}),
        ("scope", {"scope": "all"}),
    ],
)
def test_a_token_that_makes_no_sense_is_not_given(served, field, change):
    with pytest.raises(InvalidInput) as caught:
        served.client.give_token({"name": "ada", "role": "viewer", "teams": [], "lifetime_s": 60, **change})
    assert caught.value.field == field
    assert served.client.tokens() == []


def test_a_token_is_stored_as_a_hash_and_listed_without_its_secret(served, tmp_path):
    secret = served.token(S, ["nlp"])
    assert secret.startswith("cs_")
    assert secret not in str(served.client.tokens())
    for file in tmp_path.glob("w.sqlite*"):
        assert secret.encode() not in file.read_bytes()


def test_a_route_that_says_nothing_about_who_may_use_it_is_not_served():
    router = APIRouter(prefix="/v1")

    @router.get("/jobs/secret")
    def leak() -> str:
        return "everything"

    with pytest.raises(RuntimeError, match="/v1/jobs/secret is open to everybody"):
        guarded(router)


# browsers ----------------------------------------------------------------------------------------


def logged_in(served, token: str) -> requests.Session:
    with Client(served.url, token) as client:
        address = client.login_url()
    browser = requests.Session()
    answer = browser.get(address, allow_redirects=False, timeout=5)
    assert answer.status_code == 303
    for mark in ("HttpOnly", "SameSite=strict", "Path=/"):
        assert mark in answer.headers["Set-Cookie"]
    assert browser.get(address, allow_redirects=False, timeout=5).status_code == 401, "a code works once"
    return browser


def test_a_browser_logs_in_once_and_changes_things_only_with_its_csrf_token(served):
    browser = logged_in(served, served.token(S, ["nlp"]))
    session = browser.get(f"{served.url}/v1/session", timeout=5).json()
    assert (session["name"], session["role"], session["teams"]) == ("eve", "submitter", ["nlp"])

    def submit(**headers):
        return browser.post(
            f"{served.url}/v1/jobs", json={"entrypoint": "true"}, headers=headers, timeout=5
        ).status_code

    assert submit() == submit(**{CSRF_HEADER: "guess"}) == 403
    assert submit(**{CSRF_HEADER: session["csrf_token"]}) == 202
    assert browser.delete(
        f"{served.url}/v1/session", headers={CSRF_HEADER: session["csrf_token"]}, timeout=5
    ).status_code == 204  # fmt: skip
    assert browser.get(f"{served.url}/v1/jobs", timeout=5).status_code == 401


def test_a_session_ends_with_its_token_with_time_and_is_no_api_token(served):
    browser = logged_in(served, served.token(V, ["nlp"]))
    cookie = browser.cookies[COOKIE]
    with pytest.raises(NotAllowed), Client(served.url, cookie) as client:
        client.jobs()
    served.client.revoke_token(served.client.tokens()[-1]["token_id"])
    assert browser.get(f"{served.url}/v1/jobs", timeout=5).status_code == 401
    owner = logged_in(served, TOKEN)
    assert owner.get(f"{served.url}/v1/tokens", timeout=5).status_code == 200
    served.world.clock.pass_s(timedelta(hours=13).total_seconds())
    assert owner.get(f"{served.url}/v1/tokens", timeout=5).status_code == 401


def test_a_code_that_was_not_used_in_time_is_worthless(served):
    with Client(served.url, TOKEN) as client:
        address = client.login_url()
    served.world.clock.pass_s(121)
    assert requests.get(address, allow_redirects=False, timeout=5).status_code == 401
