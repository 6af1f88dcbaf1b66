"""`carbon-sched token` against the real application."""

from __future__ import annotations

import json

import pytest

from carbon_sched.client import Client
from tests.fakes.served import TOKEN, served

__all__ = ["served"]


@pytest.fixture(autouse=True)
def _server(served, monkeypatch):
    monkeypatch.setenv("CARBON_SCHED_URL", served.url)
    monkeypatch.setenv("CARBON_SCHED_TOKEN", TOKEN)


def test_a_token_is_given_used_listed_and_revoked(shell, served):
    code, out, err = shell("token", "create", "ada", "--role", "submitter", "--team", "nlp", "--expires", "7d")
    assert code == 0
    assert "not shown again" in err
    secret = out.strip()
    with Client(served.url, secret) as client:
        assert client.session()["teams"] == ["nlp"]
    (listed,) = json.loads(shell("token", "list", "--json")[1])
    assert (listed["name"], listed["role"], listed["revoked_at"]) == ("ada", "submitter", None)
    assert secret not in shell("token", "list")[1]
    assert shell("token", "revoke", listed["token_id"])[0] == 0
    assert "revoked" in shell("token", "list")[1]
    assert shell("token", "revoke", "nosuchtokn")[0] == 121


@pytest.mark.parametrize("teams", [(), ("--team", "nlp", "--all-teams")])
def test_whose_jobs_a_token_reaches_is_always_said(shell, teams):
    code, _, err = shell("token", "create", "ada", "--role", "viewer", *teams)
    assert code == 120
    assert "--all-teams" in err


def test_who_may_not_give_tokens_is_told_whom_to_ask(shell, served, monkeypatch):
    monkeypatch.setenv("CARBON_SCHED_TOKEN", served.token("operator"))
    code, _, err = shell("token", "list")
    assert code == 122
    assert "ask an admin" in err
