from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_sched.domain.errors import LedgerBroken
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.time import UTC
from carbon_sched.ledger.chain import GENESIS, entry_hash, next_entry
from carbon_sched.ledger.verify import Checkpoint, verify_entries

AT = datetime(2026, 11, 23, 17, tzinfo=UTC)
SIZE = 12


def ledger(size=SIZE, start="job"):
    entries, head = [], (0, GENESIS)
    for number in range(size):
        body = {"job": f"{start}-{number}", "attempts": number}
        entries.append(next_entry(*head, Fact(FactKind.JOB_ENDED, AT + timedelta(seconds=number), body)))
        head = (entries[-1].seq, entries[-1].hash)
    return entries


def restamped(entries):
    """The same payloads, hashed anew from the first entry on: what someone who can write the database would do."""
    fresh, prev = [], GENESIS
    for seq, entry in enumerate(entries, start=1):
        fresh.append(entry._replace(seq=seq, prev=prev, hash=entry_hash(seq, prev, entry.payload)))
        prev = fresh[-1].hash
    return fresh


CLEAN = ledger()
CHECKPOINT = Checkpoint(SIZE, CLEAN[-1].hash)


def test_frozen_vectors():
    # computed with printf and sha256sum over the bytes that scheduler/LEDGER.md describes
    payload = (
        '{"at":"2026-11-23T17:00:00.000005Z","body":{"b":[1,-2,null,true,{"a":12345678901234567890,"z":0}],'
        '"name":"Zürich \\"1\\"\\n"},"kind":"cluster-removed","v":1}'
    ).encode()
    first = "be541ff8a150aafae8748753cf8b626c3780735bfd885c242adf93e1b0e69e62"
    assert entry_hash(1, GENESIS, payload) == first
    assert entry_hash(2, first, payload) == "289fdf58dfaacd7b744051f3f2b4ff77512c3d0fbd83d8d9ffc1fed13900bd0c"


def test_a_clean_ledger_verifies_and_tells_its_size_and_head():
    assert verify_entries(CLEAN, checkpoints=[CHECKPOINT]).require() == CHECKPOINT
    assert verify_entries([]).require() == Checkpoint(0, GENESIS)
    assert CLEAN[0].prev == GENESIS


def without(entries, index):
    return entries[:index] + entries[index + 1 :]


def swapped(entries, left, right):
    out = list(entries)
    out[left], out[right] = out[right], out[left]
    return out


def renumbered(entries):
    return [entry._replace(seq=seq) for seq, entry in enumerate(entries, start=1)]


EDITED = [*CLEAN[:4], CLEAN[4]._replace(payload=CLEAN[4].payload.replace(b'"attempts":4', b'"attempts":5')), *CLEAN[5:]]


@pytest.mark.parametrize(
    ("entries", "first_bad", "word"),
    [
        (EDITED, 5, "edited"),
        ([*CLEAN[:4], CLEAN[4]._replace(hash="f" * 64), *CLEAN[5:]], 5, "edited"),
        (without(CLEAN, 4), 5, "missing"),
        (without(CLEAN, 0), 1, "missing"),
        (swapped(CLEAN, 4, 7), 5, "reordered"),
        ([*CLEAN[:5], CLEAN[4], *CLEAN[5:]], 6, "repeated"),
        (renumbered(without(CLEAN, 4)), 5, "replaced"),
        (renumbered(swapped(CLEAN, 4, 5)), 5, "replaced"),
        ([*CLEAN[:4], *ledger(start="other")[4:]], 5, "replaced"),
        (CLEAN[:-1], SIZE, "missing"),
        ([], 1, "missing"),
        (restamped(EDITED), SIZE, "hashed anew"),
        (restamped(without(CLEAN, 4)) + ledger()[-1:], SIZE, "replaced"),
        (ledger(start="other"), SIZE, "hashed anew"),
    ],
)
def test_tampering_is_found_and_its_first_place_named(entries, first_bad, word):
    found = verify_entries(entries, checkpoints=[CHECKPOINT])
    assert not found.ok
    assert found.first_bad_seq == first_bad
    assert word in found.problem
    with pytest.raises(LedgerBroken, match=f"ledger entry {first_bad}: {found.problem[:20]}"):
        found.require()


def test_only_a_checkpoint_shows_a_cut_tail_or_a_ledger_hashed_anew():
    assert verify_entries(CLEAN[:-1]).ok
    assert verify_entries(restamped(EDITED)).ok


def test_two_checkpoints_that_contradict_each_other_show_a_fork():
    other = Checkpoint(SIZE, ledger(start="other")[-1].hash)
    for points in ([CHECKPOINT, other], [other, CHECKPOINT]):
        assert verify_entries(CLEAN, checkpoints=points).first_bad_seq == SIZE


def test_an_older_checkpoint_still_binds_what_it_saw():
    old = Checkpoint(5, CLEAN[4].hash)
    assert verify_entries(CLEAN, checkpoints=[old, CHECKPOINT]).ok
    assert verify_entries(restamped(EDITED), checkpoints=[old]).first_bad_seq == 5


@given(st.integers(0, 40), st.integers(0, 40))
def test_no_false_alarm(size, seen):
    entries = ledger(size)
    points = [Checkpoint(seen, entries[seen - 1].hash)] if 0 < seen <= size else []
    assert verify_entries(iter(entries), checkpoints=points).ok
