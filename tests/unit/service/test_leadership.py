"""Two servers on one database: one leads, and what the other one still writes of an earlier term is refused."""

from __future__ import annotations

from datetime import timedelta

import pytest

from carbon_sched.domain.errors import NotLeading
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.service.leadership import FencedStore, Leadership, Listener
from carbon_sched.store.engine import open_store
from tests.fakes.clock import START, StoppedClock

LEASE_S = 15.0


class Servers:
    """Servers `a` and `b` over one SQLite file, each with what it was told."""

    def __init__(self, folder):
        self.clock = StoppedClock()
        self.store = open_store(f"sqlite:///{folder / 's.sqlite'}", self.clock)
        self.told = []
        self.a, self.b = self.server("a"), self.server("b")

    def server(self, name, *, sole=False):
        return Leadership(
            self.store, name, LEASE_S, lambda: self.told.append(f"{name} woken"),
            begun=lambda _tx: self.told.append(f"{name} begun"), sole=sole,
        )  # fmt: skip

    def write(self, leadership):
        with FencedStore(self.store, leadership).transaction() as tx:
            tx.append_fact(Fact(FactKind.JOB_ENDED, START, {}))

    def size(self):
        with self.store.transaction(write=False) as tx:
            return tx.ledger_head()[0]


@pytest.fixture
def servers(tmp_path):
    made = Servers(tmp_path)
    yield made
    made.store.close()


def test_one_leads_and_the_other_takes_over_when_the_lease_runs_out(servers):
    servers.a.step()
    servers.b.step()
    assert (servers.a.leads(), servers.b.leads()) == (True, False)
    assert servers.told == ["a begun", "a woken"]
    servers.clock.at += timedelta(seconds=LEASE_S)
    servers.b.step()
    servers.a.step()
    assert (servers.a.leads(), servers.b.leads()) == (False, True)
    assert servers.told == ["a begun", "a woken", "b begun", "b woken", "a woken"]


def test_a_leader_that_was_paused_past_its_lease_writes_nothing(servers):
    servers.a.step()
    servers.write(servers.a)
    servers.clock.at += timedelta(seconds=LEASE_S)  # a is paused, and does not know
    servers.b.step()
    assert servers.a.leads()
    with pytest.raises(NotLeading):
        servers.write(servers.a)
    assert not servers.a.leads(), "it knows now"
    servers.write(servers.b)
    assert servers.size() == 2


def test_a_term_that_another_server_begins_amid_a_step_is_noticed_at_the_next_write(servers):
    servers.a.step()
    fenced = FencedStore(servers.store, servers.a)
    with fenced.transaction(write=False) as tx:
        assert tx.ledger_head()[0] == 0
    servers.server("c", sole=True).step()
    with pytest.raises(NotLeading):
        servers.write(servers.a)
    assert servers.size() == 0


def test_a_follower_runs_no_step_of_the_leader(servers):
    servers.a.step()
    servers.b.step()
    ran = []
    servers.a.only(lambda: ran.append("a") or 1.0)()
    assert servers.b.only(lambda: ran.append("b") or 1.0)() == LEASE_S
    assert ran == ["a"]


def test_a_leader_that_resigns_is_followed_at_once(servers):
    servers.a.step()
    servers.a.resign()
    servers.b.step()
    assert servers.b.term == 2


def test_the_only_server_of_a_database_does_not_wait_for_the_lease_of_its_predecessor(servers):
    servers.a.step()
    successor = servers.server("next", sole=True)
    successor.step()
    successor.step()
    assert successor.term == 2
    with pytest.raises(NotLeading):
        servers.write(servers.a)


def test_news_of_other_servers_are_heard_once(servers):
    heard = []
    listener = Listener(servers.store, lambda: heard.append(1))
    listener.step()
    listener.step()
    assert len(heard) == 1, "what was there before it came is news too"
