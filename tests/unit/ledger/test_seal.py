"""Seals: what they say, who signed them, and that nothing about one can change unseen."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.ledger.seal import FIELDS, read_seals, seal
from carbon_sched.ledger.verify import Checkpoint
from carbon_sched.signing import PrivateKey, PublicKey

AT = datetime(2026, 11, 23, 17, tzinfo=timezone.utc)
POINT = Checkpoint(120, "9f" * 32)


@pytest.fixture
def key(tmp_path):
    return PrivateKey(tmp_path / "ledger.key")


def test_what_was_sealed_is_read_again(key):
    made = seal(POINT, AT, key)
    assert read_seals([made.line(), "", "\n"], "seals.jsonl", PublicKey(key.raw_public)) == [made]
    assert (made.checkpoint, made.at) == (POINT, AT)


def test_a_page_of_the_specification_is_enough_to_check_one(key):
    line = json.loads(seal(POINT, AT, key).line())
    signature = line.pop("signature")
    text = json.dumps(line, sort_keys=True, separators=(",", ":"))
    assert text == (
        f'{{"at":"2026-11-23T17:00:00Z","head":"{"9f" * 32}","key":"{PublicKey(key.raw_public)}","size":120,"v":1}}'
    )
    assert PublicKey(key.raw_public).verifies(b"carbon-sched ledger seal v1\0" + text.encode(), signature)


@pytest.mark.parametrize("field", [name for name in FIELDS if name not in ("v", "signature")])
def test_a_changed_field_is_not_what_was_signed(key, tmp_path, field):
    line = json.loads(seal(POINT, AT, key).line())
    other = PublicKey(PrivateKey(tmp_path / "other.key").raw_public)
    line[field] = {"size": 119, "head": "8f" * 32, "at": "2026-11-23T17:00:01Z", "key": str(other)}[field]
    with pytest.raises(InvalidInput, match=r"seals\.jsonl, line 1.*not signed by the key it names"):
        read_seals([json.dumps(line)], "seals.jsonl")


def test_another_key_is_not_believed(key, tmp_path):
    stranger = PrivateKey(tmp_path / "other.key")
    lines = [seal(POINT, AT, key).line(), seal(POINT, AT, stranger).line()]
    assert len(read_seals(lines, "seals.jsonl")) == 2
    with pytest.raises(InvalidInput, match=r"line 2.*made by another key"):
        read_seals(lines, "seals.jsonl", PublicKey(key.raw_public))


@pytest.mark.parametrize(
    "line",
    [
        "x", "[]", "{}", '{"v":1}', '{"v":true,"size":1,"head":"","at":"","key":"","signature":""}',
        '{"v":2,"size":1,"head":"","at":"","key":"ed25519:AAAA","signature":""}',
    ],
)  # fmt: skip
def test_what_is_no_seal(line):
    with pytest.raises(InvalidInput, match=r"line 1.*is not a seal"):
        read_seals([line], "seals.jsonl")


def test_further_fields_and_times_that_are_none_are_no_seal(key):
    line = json.loads(seal(POINT, AT, key).line())
    for change in ({"note": "x"}, {"at": "yesterday"}):
        with pytest.raises(InvalidInput, match="is not a seal"):
            read_seals([json.dumps(line | change)], "seals.jsonl")
