"""What may be declared: bounds that keep the ledger's integers small and its times real."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from carbon_sched.ledger.declaration import Declaration

CONTRACT = {
    "kind": "ppa", "name": "Wind", "g_per_kwh": "12.3456", "since": "2026-01-01", "until": "2027-01-01T00:00:00+01:00",
    "source": "contract",
}  # fmt: skip


def declared(**more):
    return Declaration.model_validate({"clusters": {"lyon": {"scope": "own", "instruments": [CONTRACT | more]}}})


def test_what_people_write_becomes_whole_numbers_and_utc():
    (one,) = declared().body()["clusters"]["lyon"]["instruments"]
    assert (one["share_ppm"], one["mg_per_kwh"]) == (1_000_000, 12_346)
    assert (one["since"], one["until"]) == ("2026-01-01T00:00:00Z", "2026-12-31T23:00:00Z")


def test_a_declaration_survives_its_way_as_json():
    said = declared()
    assert Declaration.model_validate_json(said.model_dump_json()) == said
    assert Declaration.model_validate_json(said.model_dump_json()).body() == said.body()


@pytest.mark.parametrize(
    "wrong",
    [
        {"since": "0001-01-01T00:00:00+14:00"}, {"since": "2026-01-01T00:00:00"}, {"since": "2027-06-01"},
        {"share": 0}, {"share": "NaN"}, {"share": 1.01}, {"g_per_kwh": -1}, {"g_per_kwh": "Infinity"},
        {"kind": "wish"}, {"name": ""}, {"more": 1},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        declared(**wrong)


@pytest.mark.parametrize("amount", ["1e999999", -1, "NaN"])
def test_an_offset_is_an_amount_that_exists(amount):
    offset = {"kind": "offset", "name": "Peat", "tonnes": amount, "source": "registry"}
    with pytest.raises(ValidationError):
        Declaration.model_validate({"offsets": [offset]})
