"""Segments and records as bytes: what is written is read back, everything else is refused (B5 rows 11, 12, 30)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon_sched_runtime.wire import (
    FORMAT,
    LARGEST,
    RECORD_LIMIT,
    SEGMENT_LIMIT,
    Device,
    Note,
    Row,
    Segment,
    SegmentName,
    Span,
    WireError,
    append_signature,
    format_segment,
    parse_record,
    parse_segment,
    parse_segment_name,
    record_name,
)

DEVICE = "gpu:GPU-00000000-0000-0000-0000-000000000000"
SECOND = 1_000_000
START = 1_790_000_000 * SECOND
END = START + 30 * SECOND
SEGMENT = Segment(
    machine="0123456789ab", boot="35a06fda-5b96-4342-98ee-a3b3e860a622", reader="00c0ffee", seq=7,
    start_us=1_790_000_000_000_000, end_us=1_790_000_030_000_000,
    start_mono_ns=1_000_000_000, end_mono_ns=31_000_000_000, uid=1000,
    devices={DEVICE: Device(DEVICE, "gpu", "NVIDIA H100", "board", 700_000)},
    spans=(
        Span(DEVICE, 0, "counter", START, START + 30 * SECOND, 5_000, 9_000_005_000, 9_000_000_000, 30),
    ),
    rows=(
        Row(DEVICE, 0, "counter", "cs-a-a1", START, START + 20 * SECOND, 6_000_000_000, "gpu-pids", 55_000),
        Row(DEVICE, 0, "counter", "idle", START + 20 * SECOND, END, 3_000_000_000, "gpu-pids", 9, ("gap",)),
    ),
    notes=(Note(1_790_000_001_000_000, "reset", "the counter went back; “quoted”", DEVICE),),
)  # fmt: skip
DATA = format_segment(SEGMENT)


def sealed(*lines: str) -> bytes:
    """Bytes with a right checksum, whatever they say."""
    body = ("\n".join(lines) + "\n").encode()
    return body + f"end {hashlib.sha256(body).hexdigest()}\n".encode()


def edited(number: int, **changes) -> bytes:
    """The valid segment with fields of one line replaced (None removes one), and the checksum made right again."""
    lines = DATA.decode().split("\n")[:-2]
    values = json.loads(lines[number]) | changes
    lines[number] = json.dumps({key: value for key, value in values.items() if value != "REMOVE"})
    return sealed(*lines)


def test_what_is_written_is_read_back():
    assert parse_segment(DATA) == SEGMENT
    assert parse_segment(DATA, str(SEGMENT.name)) == SEGMENT


def test_what_goes_without_saying_is_left_out_and_may_be_said_all_the_same():
    assert {"t0", "t1", "f"} & json.loads(DATA.decode().split("\n")[SPAN]).keys() == set()
    assert {"t0", "f"} & json.loads(DATA.decode().split("\n")[ROW]).keys() == set()
    assert parse_segment(edited(SPAN, t0=START, t1=END, f=[])) == SEGMENT
    assert parse_segment(edited(ROW, t0=START, f=[])) == SEGMENT


def test_a_name_says_machine_boot_reader_and_number():
    name = "carbon-sched-0123456789ab-35a06fda-00c0ffee-000007.seg"

    assert str(SEGMENT.name) == name
    assert parse_segment_name(name) == SegmentName("0123456789ab", "35a06fda", "00c0ffee", 7)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "carbon-sched-0123456789ab-35a06fda-00c0ffee-7.seg",
        "../carbon-sched-0123456789ab-35a06fda-00c0ffee-000007.seg",
        "carbon-sched-0123456789ab-35a06fda-00c0ffee-000007.seg\n",
        "carbon-sched-0123456789AB-35a06fda-00c0ffee-000007.seg",
        "carbon-sched-cs-abc-a1.record", "carbon-sched-0123456789ab-35a06fda-00c0ffee-00000\u0667.seg",
    ],
)  # fmt: skip
def test_other_names_are_refused(name):
    with pytest.raises(WireError, match="not the name"):
        parse_segment_name(name)


def test_content_under_another_name_is_refused():
    with pytest.raises(WireError, match="another file name"):
        parse_segment(DATA, "carbon-sched-0123456789ab-35a06fda-00c0ffee-000008.seg")


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_no_byte_can_be_changed(position, change):
    altered = bytearray(DATA)
    altered[position] ^= change

    with pytest.raises(WireError):
        parse_segment(bytes(altered))


@given(st.integers(0, len(DATA) - 1))
@settings(deadline=None)
def test_no_beginning_of_it_passes_for_the_whole(length):
    with pytest.raises(WireError):
        parse_segment(DATA[:length])


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes_are_refused_in_our_own_words(data):
    with pytest.raises(WireError):
        parse_segment(data)


LINES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ks0tdeofrnmx"), inner, max_size=6),
    max_leaves=10,
).map(json.dumps)


@given(st.lists(LINES, max_size=6))
@settings(deadline=None)
def test_any_json_under_a_right_checksum_is_refused_in_our_own_words(lines):
    with pytest.raises(WireError):
        parse_segment(sealed(FORMAT, *lines))


HEADER, DEVICE_LINE, SPAN, ROW, NOTE = 1, 2, 3, 4, 6


@pytest.mark.parametrize(
    ("line", "changes", "complaint"),
    [
        (ROW, {"uj": 6_000_000_001}, "do not add up"),
        (ROW, {"uj": -1}, "uj"),
        (ROW, {"uj": 6e9}, "uj"),
        (ROW, {"uj": True}, "uj"),
        (ROW, {"uj": LARGEST + 1}, "uj"),
        (ROW, {"uj": "6000000000"}, "uj"),
        (ROW, {"o": "../../etc"}, "o"),
        (ROW, {"o": "x" * 101}, "o"),
        (ROW, {"o": ""}, "o"),
        (ROW, {"s": 1}, "s"),
        (ROW, {"s": -1}, "s"),
        (ROW, {"err": 1_000_001}, "err"),
        (ROW, {"t0": 1_790_000_020_000_001}, "backwards"),
        (ROW, {"t1": 1_790_000_030_000_001}, "outside"),
        (ROW, {"f": ["Gap!"]}, "f"),
        (ROW, {"f": ["a"] * 17}, "f"),
        (ROW, {"f": "gap"}, "f"),
        (ROW, {"extra": 1}, "no meaning"),
        (ROW, {"k": "rov"}, "k"),
        (SPAN, {"c1": 4_999}, "backwards"),
        (SPAN, {"src": "measured"}, "src"),
        (SPAN, {"d": 1}, "d"),
        (SPAN, {"t0": 1_789_999_999_999_999}, "outside"),
        (DEVICE_LINE, {"kind": "fan"}, "kind"),
        (DEVICE_LINE, {"name": "a\x1b[31m"}, "name"),
        (DEVICE_LINE, {"id": "gpu 1"}, "id"),
        (HEADER, {"machine": "0123456789AB"}, "machine"),
        (HEADER, {"boot": "../x"}, "boot"),
        (HEADER, {"t1": 1_790_000_000_000_000}, "before it starts"),
        (HEADER, {"seq": 1_000_000}, "seq"),
        (HEADER, {"uid": "REMOVE"}, "uid"),
        (HEADER, {"v": 2}, "no meaning"),
        (NOTE, {"x": "a\nb"}, "x"),
        (NOTE, {"x": "x" * 401}, "x"),
    ],
)  # fmt: skip
def test_every_field_is_checked_even_under_a_right_checksum(line, changes, complaint):
    with pytest.raises(WireError, match=complaint):
        parse_segment(edited(line, **changes))


def test_an_edit_that_changes_nothing_still_passes():
    assert parse_segment(edited(ROW, uj=6_000_000_000)) == SEGMENT


@pytest.mark.parametrize(
    "line",
    ["[" * 2000, '{"k":' * 700, "9" * 4000, '{"k":NaN}', "{" + '"a":1,' * 900 + '"b":1}', '"' + "x" * 5000 + '"'],
)
def test_lines_made_to_hurt_a_parser_are_refused(line):
    with pytest.raises(WireError):
        parse_segment(sealed(*DATA.decode().split("\n")[:2], line))


def test_a_segment_over_60_kib_is_refused_unread():
    with pytest.raises(WireError, match="at most"):
        parse_segment(b"x" * (SEGMENT_LIMIT + 1))


def test_a_device_named_twice_is_refused():
    lines = DATA.decode().split("\n")[:-2]

    with pytest.raises(WireError, match="twice"):
        parse_segment(sealed(*lines[:3], *lines[2:]))


def test_a_segment_that_could_not_be_read_back_is_not_written():
    with pytest.raises(WireError, match="add up"):
        format_segment(replace(SEGMENT, rows=SEGMENT.rows[:1]))


def test_a_signature_line_covers_everything_before_it():
    signed = append_signature(DATA, "meter-1", "A" * 86 + "==")

    segment = parse_segment(signed)

    assert segment.signature.key_id == "meter-1"
    assert segment.signature.signed == DATA
    assert replace(segment, signature=None) == SEGMENT


@pytest.mark.parametrize(
    "line", ["sig rsa k " + "A" * 86 + "==", "sig ed25519 k AAAA", "sig ed25519 k/k " + "A" * 86 + "=="]
)
def test_a_line_that_is_no_signature_is_refused(line):
    with pytest.raises(WireError, match="signature"):
        parse_segment(DATA + line.encode() + b"\n")


def test_a_record_is_read_event_by_event():
    data = (
        b'{"v":1,"event":"started","attempt":"cs-abcdefghij-a1","job":"abcdefghij","t":1790000000000000,"pid":7}\n'
        b'{"v":1,"event":"ended","attempt":"cs-abcdefghij-a1","t":1790000009000000,"exit_code":143,"signal":15}\n'
    )

    record = parse_record(data, "cs-abcdefghij-a1")

    assert record.problems == ()
    assert record.last("started").pid == 7
    assert (record.last("ended").exit_code, record.last("ended").signal) == (143, 15)
    assert record.last("closed") is None


def test_what_is_not_an_event_is_a_problem_and_hides_nothing():
    good = b'{"v":1,"event":"started","attempt":"cs-abcdefghij-a1","t":1}\n'
    data = good + b'{"v":1,"event":"ended","attempt":"cs-other-a1","t":2}\nrubbish\n\xff\n{"v":1,"event":"en'

    record = parse_record(data, "cs-abcdefghij-a1")

    assert [event.event for event in record.events] == ["started"]
    assert [problem.split(":")[0] for problem in record.problems] == ["line 2", "line 3", "line 4", "line 5"]


@given(st.binary(max_size=500))
@settings(deadline=None)
def test_any_bytes_may_stand_in_a_record(data):
    assert parse_record(data).events == ()


def test_a_record_over_its_limit_is_refused():
    with pytest.raises(WireError, match="at most"):
        parse_record(b"\n" * (RECORD_LIMIT + 1))


def test_the_name_of_a_record_cannot_leave_its_folder():
    assert record_name("cs-abcdefghij-a1") == "carbon-sched-cs-abcdefghij-a1.record"
    with pytest.raises(WireError):
        record_name("../x")
