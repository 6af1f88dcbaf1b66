from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.time import UTC
from carbon_sched.ledger import json_bytes
from carbon_sched.ledger.encoding import decode_fact, encode_fact

AT = datetime(2026, 11, 23, 18, 0, 0, 5, tzinfo=timezone(timedelta(hours=1)))
BODY = {"name": 'Zürich "1"\n', "b": [1, -2, None, True, {"z": 0, "a": 12345678901234567890}]}

# Frozen: these bytes lie in ledgers that people keep. A change here is a new version of the format.
VECTORS = [
    (
        Fact(FactKind.CLUSTER_REMOVED, AT, BODY),
        (
            '{"at":"2026-11-23T17:00:00.000005Z","body":{"b":[1,-2,null,true,{"a":12345678901234567890,"z":0}],'
            '"name":"Zürich \\"1\\"\\n"},"kind":"cluster-removed","v":1}'
        ),
    ),
    (
        Fact(FactKind.JOB_ENDED, datetime(2028, 2, 29, tzinfo=UTC), {}),
        '{"at":"2028-02-29T00:00:00Z","body":{},"kind":"job-ended","v":1}',
    ),
    (
        Fact(
            FactKind.JOB_ENDED,
            datetime(2028, 2, 29, tzinfo=UTC),
            {"é": "\x00/\U0001f600", "e\u0301": ("a",), "Z": False},
        ),
        '{"at":"2028-02-29T00:00:00Z","body":{"Z":false,"e\u0301":["a"],"é":"\\u0000/\U0001f600"},"kind":"job-ended","v":1}',
    ),
]

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)
facts = st.builds(
    Fact,
    st.sampled_from(FactKind),
    st.datetimes(timezones=st.just(UTC)),
    st.dictionaries(st.text(), values, max_size=5),
)


@pytest.mark.parametrize(("fact", "text"), VECTORS)
def test_frozen_vectors(fact, text):
    assert encode_fact(fact) == text.encode()


@given(facts)
def test_a_fact_survives_its_encoding_and_stays_plain_json(fact):
    payload = encode_fact(fact)
    assert decode_fact(payload) == fact
    assert json.loads(payload)["body"] == fact.body


def test_every_character_and_long_numbers_are_read_as_they_are_written():
    every = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    keys = {char: -(10**place) for place, char in enumerate('"\\/\x00\x1f\x7fé\uffff\U00010000')}
    body = {"every": every, "long": 10**4000, "keys": keys}
    assert decode_fact(encode_fact(Fact(FactKind.JOB_ENDED, AT, body))).body == body


@given(values)
def test_the_fast_library_and_the_standard_one_agree(value):
    payload = json_bytes.canonical(value)
    assert payload == json_bytes.plain_canonical(value)
    assert json_bytes.parsed(payload) == json_bytes.plain_parsed(payload) == value
    assert json_bytes.indented(value) == json_bytes.plain_indented(value)


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_the_order_of_keys_does_not_matter(body):
    backwards = dict(reversed(body.items()))
    assert encode_fact(Fact(FactKind.JOB_ENDED, AT, body)) == encode_fact(Fact(FactKind.JOB_ENDED, AT, backwards))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"a": {"kwh": [0.5]}}, r"job-ended\.a\.kwh\[0\]: a fact cannot hold float 0\.5"),
        ({"a": float("nan")}, "cannot hold float"),
        ({1: "a"}, "key 1 is not text"),
        ({"a": b"x"}, "cannot hold bytes"),
        ({"a": AT}, "cannot hold datetime"),
        ({"a": {1, 2}}, "cannot hold set"),
    ],
)
def test_what_canonical_json_cannot_hold_is_refused_with_its_place(body, message):
    with pytest.raises(TypeError, match=message):
        encode_fact(Fact(FactKind.JOB_ENDED, AT, body))


def test_lone_surrogates_do_not_keep_a_fact_from_being_booked():
    payload = encode_fact(Fact(FactKind.JOB_ENDED, AT, {"a": "x\ud800y", "b": ["\ud83d\ude00", "\udfff"]}))
    assert decode_fact(payload).body == {"a": "x\ufffdy", "b": ["\U0001f600", "\ufffd"]}


@pytest.mark.parametrize("key", ["\udfff", "a\ud800", "\ud83d\ude00"])
def test_lone_surrogates_in_keys_are_refused(key):
    with pytest.raises(ValueError, match="lone surrogate"):
        encode_fact(Fact(FactKind.JOB_ENDED, AT, {"a": {key: 1}}))


def test_a_naive_time_is_refused():
    with pytest.raises(ValueError, match="naive"):
        encode_fact(Fact(FactKind.JOB_ENDED, datetime(2026, 1, 1), {}))  # noqa: DTZ001


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"at":"2028-02-29T00:00:00Z","body":{},"kind":"job-ended","v":2}',
        b'{"at":"2028-02-29T00:00:00Z","body":{},"kind":"job-ended","v":true}',
        b'{"at":"2028-02-29T00:00:00Z","body":{"a":"\\ud800"},"kind":"job-ended","v":1}',
        b'{"at":"2028-02-29T00:00:00Z","body":{},"kind":"job-begun","v":1}',
        b'{"at":"2028-02-29T00:00:00Z","body":[],"kind":"job-ended","v":1}',
        b'{"at":"2028-02-29T00:00:00Z","body":{"a":1.5},"kind":"job-ended","v":1}',
        b'{"at":"2028-02-29T00:00:00Z","body":{"a":NaN},"kind":"job-ended","v":1}',
        b'{"at":"2028-02-29T00:00:00Z","body":{"a":1,"a":2},"kind":"job-ended","v":1}',
        b'{"at":"2028-02-29T00:00:00Z", "body":{},"kind":"job-ended","v":1}',
        b'{"at":"2028-02-29T01:00:00+01:00","body":{},"kind":"job-ended","v":1}',
        b'{"at":"2028-02-29T00:00:00Z","body":{},"kind":"job-ended","v":1,"x":0}',
        b'{"at":"2028-02-29T00:00:00Z","body":{"a":' + b"[" * 100_000 + b'},"kind":"job-ended","v":1}',
    ],
)
def test_anything_else_than_canonical_bytes_is_refused(payload):
    with pytest.raises(ValueError):
        decode_fact(payload)
