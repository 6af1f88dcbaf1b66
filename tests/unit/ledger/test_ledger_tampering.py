"""Row 24 of the scenarios: ledgers tampered with at random, as copies on disk, against the seals of the true one."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

import pytest

from carbon_sched.ledger.chain import GENESIS, entry_hash
from carbon_sched.ledger.copy import entries_of, entry_of, line_of
from carbon_sched.ledger.seal import read_seals, seal
from carbon_sched.ledger.verify import Checkpoint, verify_entries
from carbon_sched.signing import PrivateKey, PublicKey
from tests.fakes.ledger import AT, WrittenLedger, span

MUTATIONS = 1_000
ALARMS = "edited", "missing", "repeated", "reordered", "replaced", "forked"


def a_ledger(chance, jobs):
    """Jobs with some energy each; their figures and names are drawn."""
    ledger = WrittenLedger()
    ledger.cluster("north", "SE", 1_200_000)
    for number in range(jobs):
        job = f"job{number:07d}"
        ledger.job(job, name=chance.choice(["train", 'say "hi"\\', "Zürich\n", "\u2028"]), team="nlp")
        attempt = ledger.opened(job)
        for _ in range(chance.randrange(3)):
            ledger.energy(attempt, span(AT, AT, chance.randrange(10**12)))
        ledger.ended(attempt, start="10:00", end="11:00")
    return ledger.entries


@dataclass(frozen=True)
class Sealed:
    """A ledger with seals of some of its sizes, the last one of its whole."""

    entries: list
    seals: list[str]
    key: PublicKey

    def points(self):
        return [one.checkpoint for one in read_seals(self.seals, "seals.jsonl", self.key)]


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    return PrivateKey(tmp_path_factory.mktemp("key") / "ledger.key")


def sealed(entries, chance, key):
    sizes = {*chance.sample(range(1, len(entries)), k=min(4, len(entries) - 1)), len(entries)}
    points = [Checkpoint(size, entries[size - 1].hash) for size in sorted(sizes)]
    return Sealed(entries, [seal(point, AT, key).line() for point in points], PublicKey(key.raw_public))


def hashed_anew(entries):
    fresh, prev = [], GENESIS
    for seq, entry in enumerate(entries, start=1):
        fresh.append(entry._replace(seq=seq, prev=prev, hash=entry_hash(seq, prev, entry.payload)))
        prev = fresh[-1].hash
    return fresh


def other_payload(entry, chance):
    """Another figure, another word or one flipped bit."""
    if chance.random() < 0.5:
        at = chance.randrange(len(entry.payload))
        return entry.payload[:at] + bytes([entry.payload[at] ^ (1 << chance.randrange(8))]) + entry.payload[at + 1 :]
    fact = json.loads(entry.payload)
    fact["body"][chance.choice(sorted(fact["body"]))] = chance.randrange(10**6)
    return json.dumps(fact, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def edited(entries, at, chance):
    entries[at] = entries[at]._replace(payload=other_payload(entries[at], chance))
    return entries


def removed(entries, at, chance):
    del entries[at : at + chance.randint(1, 3)]
    return entries


def reordered(entries, at, chance):
    other = chance.choice([place for place in range(len(entries)) if place != at])
    entries[at], entries[other] = entries[other], entries[at]
    return entries


def repeated(entries, at, chance):
    return [*entries[: at + 1], *entries[chance.randint(0, at) :]]


def truncated(entries, at, _chance):
    return entries[:at]


def restamped(entries, at, chance):
    return hashed_anew(edited(entries, at, chance))


def forked(entries, at, chance):
    """Another future from `at` on, as long as the true one or longer."""
    future = [entry._replace(payload=other_payload(entry, chance)) for entry in entries[at:]]
    return hashed_anew([*entries[:at], *future, *future[: chance.randrange(3)]])


def field_changed(entries, at, chance):
    name = chance.choice(["seq", "prev", "hash"])
    value = {"seq": chance.randrange(100) + len(entries), "prev": chance.randbytes(32).hex(), "hash": "0" * 64}[name]
    entries[at] = entries[at]._replace(**{name: value})
    return entries


KEPT_CHAIN = (restamped, forked)
"""After these the chain itself is sound: only a seal tells, and names the first size that it denies."""
KINDS = (edited, removed, reordered, repeated, truncated, field_changed, *KEPT_CHAIN)


def first_difference(entries, true):
    for seq, (found, wanted) in enumerate(zip(entries, true, strict=False), start=1):
        if found != wanted:
            return seq
    return min(len(entries), len(true)) + 1


def test_a_thousand_ledgers_tampered_with_are_found_and_the_first_bad_entry_is_named(key):
    chance = random.Random(24)
    ledgers = [sealed(a_ledger(chance, 2 + number), chance, key) for number in range(20)]
    for number in range(MUTATIONS):
        true, mutate = ledgers[number % len(ledgers)], KINDS[number % len(KINDS)]
        at = chance.randrange(len(true.entries))
        false = mutate(list(true.entries), at, chance)
        found = verify_entries(entries_of(map(line_of, false)), checkpoints=true.points())
        place, context = first_difference(false, true.entries), f"{mutate.__name__} {number}: {found}"
        assert found.problem.split()[0].rstrip(":") in ALARMS, context
        if mutate in KEPT_CHAIN:
            denied = next(point.size for point in true.points() if point.size >= place)
            met = max([0, *(point.size for point in true.points() if point.size < place)])
            assert found.first_bad_seq == denied, context
            assert f"entries {met + 1} to {denied}" in found.problem, context
        else:
            assert found.first_bad_seq == place, context


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_no_clean_ledger_raises_an_alarm(count, key):
    chance = random.Random(count)
    for _ in range(count):
        entries = a_ledger(chance, chance.randint(1, 6))
        true = sealed(entries, chance, key)
        assert verify_entries(entries_of(map(line_of, entries)), checkpoints=true.points()).ok


def test_any_byte_changed_in_a_copy_is_an_alarm_or_no_entry(key):
    chance = random.Random(7)
    entries = a_ledger(chance, 3)
    point = Checkpoint(len(entries), entries[-1].hash)
    lines = [line_of(entry) for entry in entries]
    for _ in range(500):
        at = chance.randrange(len(lines))
        place = chance.randrange(len(lines[at]) - 1)
        flipped = bytes([lines[at][place] ^ (1 << chance.randrange(8))])
        copy = [*lines[:at], lines[at][:place] + flipped + lines[at][place + 1 :], *lines[at + 1 :]]
        try:
            found = verify_entries(entries_of(copy), checkpoints=[point])
        except ValueError:
            continue
        # what is not of the entry may be written otherwise: a tab for a comma is no JSON, a space before a colon is
        assert not found.ok or entry_of(copy[at]) == entries[at]


# ------------------------------------------------------------------------------------------------------ lines of a copy


def test_a_line_holds_the_bytes_that_were_hashed_and_is_json(key):
    (first, *_) = a_ledger(random.Random(1), 1)
    line = line_of(first)
    assert line == (f'{{"seq":1,"prev":"{GENESIS}","hash":"{first.hash}","payload":'.encode() + first.payload + b"}\n")
    assert json.loads(line)["payload"]["kind"] == "cluster-registered"
    assert entry_of(line) == entry_of(line.rstrip()) == first


def test_copies_with_the_payload_as_text_are_read_as_ever():
    for entry in a_ledger(random.Random(2), 4):
        old = json.dumps(entry._asdict() | {"payload": entry.payload.decode()}, ensure_ascii=False)
        assert entry_of(old.encode()) == entry


def test_a_copy_read_as_a_whole_holds_what_its_lines_hold_one_by_one():
    lines = [line_of(entry) for entry in a_ledger(random.Random(5), 4)]
    mixed = [*lines[:3], lines[7], *lines[3:6], lines[6].rstrip(), *lines[7:]]
    assert list(entries_of(mixed)) == list(map(entry_of, mixed))
    with pytest.raises(ValueError, match="line 2 is not an entry"):
        list(entries_of([lines[0], lines[1][:-3]]))


@pytest.mark.parametrize("payload", [b"", b"{\n}", b"[1]", b"\xff\xfe", b'{"a":"\xff"}', b"x}", b"{" + b'"' * 3])
def test_what_somebody_put_in_a_payloads_place_is_shown_and_never_verifies(payload):
    first = a_ledger(random.Random(3), 1)[0]._replace(payload=payload)
    assert line_of(first).count(b"\n") == 1
    found = verify_entries([entry_of(line_of(first))])
    assert (found.first_bad_seq, found.problem.split(":")[0]) == (1, "edited")


@pytest.mark.parametrize(
    "line",
    [
        b"", b"[]", b"x", b"{}", b'{"seq":1}', b"[" * 100_000, b'{"seq":true,"prev":"","hash":"","payload":""}',
        b'{"seq":1,"prev":"","hash":"","payload":{}}', b'{"seq":"1","prev":"","hash":"","payload":""}',
    ],
)  # fmt: skip
def test_what_is_no_entry(line):
    with pytest.raises(ValueError, match="not an entry"):
        entry_of(line)
