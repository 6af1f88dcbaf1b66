from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from carbon_sched.clusters.log_text import tail_of_json_text


def cut(content: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(content[at : at + size])
        at += size
    return [*pieces, content[at:]]


SIZES = st.lists(st.integers(1, 9), max_size=80)


@given(text=st.text(), sizes=SIZES, ascii_only=st.booleans())
@example(text='\\u1234 \\\\ \\" 🌍🌍 é \x00\n', sizes=[1] * 80, ascii_only=True)
@example(text="🌍", sizes=[15, 1, 1, 1, 1, 1, 1, 1], ascii_only=True)
def test_the_text_survives_any_cutting(text: str, sizes: list[int], ascii_only: bool):
    body = json.dumps({"logs": text}, ensure_ascii=ascii_only).encode()
    assert tail_of_json_text(cut(body, sizes), "logs", 10**6) == text.encode()


@given(text=st.text(max_size=60), limit=st.integers(1, 40), sizes=SIZES)
def test_of_a_long_text_the_end_is_kept(text: str, limit: int, sizes: list[int]):
    body = json.dumps({"logs": text}).encode()
    assert tail_of_json_text(cut(body, sizes), "logs", limit) == text.encode()[-limit:]


def test_half_of_a_surrogate_pair_is_no_reason_to_fail():
    assert tail_of_json_text([b'{"logs": "a\\ud83d"}'], "logs", 99) == b"a?"
    assert tail_of_json_text([b'{"logs": "a\\ud83d and more"}'], "logs", 99) == b"a? and more"


@pytest.mark.parametrize("body", [b"{}", b'{"logs": null}', b' {"logs": ""} '])
def test_no_text_is_empty(body: bytes):
    assert tail_of_json_text([body], "logs", 99) == b""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"<html>",
        b'"logs"',
        b'{"logs": 5}',
        b'{"logs": "cut',
        b'{"logs": "cut\\',
        b'{"logs": "whole"',
        b'{"logs": "whole"} more',
        b'{"logs": "bad \\q escape"}',
        b'{"logs": "bad \\u12g4 escape and some more text behind it"}',
        b" " * 9000,
    ],
)
def test_anything_else_is_an_error(body: bytes):
    with pytest.raises(ValueError):
        tail_of_json_text([body], "logs", 99)


def test_holds_little_more_than_it_keeps():
    def endless(pieces: int):
        yield b'{"logs": "'
        for number in range(pieces):
            yield f"{number:>1000}".encode()
        yield b'"}'

    kept = tail_of_json_text(endless(5000), "logs", 3000)
    assert kept == b"".join(f"{number:>1000}".encode() for number in (4997, 4998, 4999))
