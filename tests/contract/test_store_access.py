"""Credentials and the names of Ray's protocol in the store, on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from carbon_sched.domain.access import Credential, Kind, Role
from carbon_sched.domain.errors import Conflict, NotFound
from carbon_sched.domain.job import Job, JobSpec, JobState
from carbon_sched.ports import JobFilter
from tests.fakes.stores import clock, database_url, store

__all__ = ["clock", "database_url", "store"]


def a_credential(clock, token_id="t1", **more):
    now = clock.now()
    default = {"kind": Kind.API, "name": "ada", "role": Role.SUBMITTER, "teams": frozenset({"nlp", "vision"})}
    return Credential(
        token_id, **{**default, **more}, created_at=now, created_by="root", expires_at=now + timedelta(days=1)
    )


def give(store, credential, sha256="a" * 64):
    with store.transaction() as tx:
        tx.add_credential(credential, sha256=sha256)


def found(store, sha256="a" * 64):
    with store.transaction(write=False) as tx:
        return tx.credential(sha256)


def add_job(store, clock, number=1, team=""):
    job = Job(f"job{number:07d}", JobSpec("true", "j", team=team), JobState.QUEUED, clock.now())
    with store.transaction() as tx:
        return tx.add_job(job, idempotency_key=None, request_sha256="0" * 64).job_id


@pytest.mark.parametrize("teams", [None, frozenset(), frozenset({"nlp", "vision"})])
def test_a_credential_survives_with_its_teams(store, clock, teams):
    given = a_credential(clock, teams=teams)
    give(store, given)
    assert found(store) == given
    assert found(store, "b" * 64) is None


def test_a_credential_is_revoked_once(store, clock):
    give(store, a_credential(clock))
    with store.transaction() as tx:
        assert tx.revoke_credential("t1", at=clock.now())
        assert not tx.revoke_credential("t1", at=clock.now())
        with pytest.raises(NotFound):
            tx.revoke_credential("t2", at=clock.now())
    assert found(store).revoked_at == clock.now()


def test_what_was_derived_from_a_token_is_revoked_with_it(store, clock):
    give(store, a_credential(clock))
    give(store, a_credential(clock, "s1", kind=Kind.SESSION, parent="t1"), "b" * 64)
    assert found(store, "b" * 64).valid(clock.now())
    with store.transaction() as tx:
        tx.revoke_credential("t1", at=clock.now())
    assert not found(store, "b" * 64).valid(clock.now())


def test_api_tokens_stay_listed_and_expired_sessions_do_not_pile_up(store, clock):
    give(store, a_credential(clock))
    give(store, a_credential(clock, "s1", kind=Kind.SESSION), "b" * 64)
    later = replace(a_credential(clock, "t2"), created_at=clock.now() + timedelta(days=2))
    give(store, later, "c" * 64)
    assert found(store, "b" * 64) is None
    with store.transaction(write=False) as tx:
        assert [token.token_id for token in tx.api_tokens()] == ["t1", "t2"]


def test_jobs_of_teams(store, clock):
    for number, team in enumerate(("", "nlp", "vision"), start=1):
        add_job(store, clock, number, team)

    def seen(teams):
        with store.transaction(write=False) as tx:
            return {job.spec.team for job in tx.jobs(JobFilter(teams=teams), limit=9)}

    assert seen(None) == {"", "nlp", "vision"}
    assert seen(frozenset({"nlp"})) == {"nlp"}
    assert seen(frozenset()) == set()


def test_a_job_answers_to_its_id_and_to_the_one_that_was_chosen(store, clock):
    plain, named = add_job(store, clock, 1), add_job(store, clock, 2)
    with store.transaction() as tx:
        tx.name_for_ray(named, "train-7")
        assert tx.job_id_for_ray("train-7") == named
        assert tx.job_id_for_ray(plain) == plain
        assert tx.ray_names([plain, named]) == {named: "train-7"}
        with pytest.raises(NotFound):
            tx.job_id_for_ray("nobody")
    third = add_job(store, clock, 3)
    for taken in ("train-7", plain):
        with pytest.raises(Conflict, match="already exists"), store.transaction() as tx:
            tx.name_for_ray(third, taken)


def test_a_deleted_job_is_gone_under_rays_protocol_and_frees_its_name(store, clock):
    plain, named = add_job(store, clock, 1), add_job(store, clock, 2)
    with store.transaction() as tx:
        tx.name_for_ray(named, "train-7")
        for job_id in (plain, named):
            tx.hide_from_ray(job_id, at=clock.now())
        assert tx.ray_names([plain, named]) == {plain: None, named: None}
        for gone in (plain, named, "train-7"):
            with pytest.raises(NotFound):
                tx.job_id_for_ray(gone)
        assert tx.job(named)
    with store.transaction() as tx:
        third = Job("job0000003", JobSpec("true", "j"), JobState.QUEUED, clock.now())
        tx.add_job(third, idempotency_key=None, request_sha256="0" * 64)
        tx.name_for_ray("job0000003", "train-7")


def test_packages_are_each_persons_own(store, clock):
    with store.transaction() as tx:
        tx.put_package("ada", "p.zip", sha256="a" * 64, at=clock.now())
        tx.put_package("ada", "p.zip", sha256="b" * 64, at=clock.now())
        assert tx.package("ada", "p.zip") == "b" * 64
        assert tx.package("bob", "p.zip") is None
