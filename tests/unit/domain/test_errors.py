import inspect

import pytest

from carbon_sched.domain import errors
from carbon_sched.domain.errors import CarbonSchedError, GridRateLimited, InvalidInput, LedgerBroken

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, CarbonSchedError)]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_every_error_is_drawn_in_the_tree_with_its_codes(cls):
    if cls is CarbonSchedError:
        return
    line = next(line for line in errors.__doc__.splitlines() if f"-- {cls.__name__} " in line)
    exit_code, http_status, retryable = line.split(cls.__name__)[1].split()[:3]
    assert (cls.exit_code, cls.http_status, cls.retryable) == (int(exit_code), int(http_status), retryable == "yes")
    assert 120 <= cls.exit_code <= 127


def test_bad_input_names_field_value_and_remedy():
    error = InvalidInput("deadline", "yesterday", "is in the past", "Give a later one")
    assert str(error) == "deadline: 'yesterday' is in the past. Give a later one"
    assert error.code == "invalid-input"


def test_a_long_value_is_cut_in_the_message_only():
    error = InvalidInput("entrypoint", "x" * 5000, "is too long", "Shorten it")
    assert len(str(error)) < 250
    assert len(error.value) == 5000


def test_errors_carry_what_a_caller_needs():
    assert GridRateLimited("slow down", 30).retry_after_s == 30
    assert LedgerBroken(7, "edited").first_bad_seq == 7
