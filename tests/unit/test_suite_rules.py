from __future__ import annotations

import os
import socket

import pytest


def test_a_unit_test_cannot_reach_the_network():
    with socket.socket() as plain, pytest.raises(AssertionError, match=r"a unit test called socket\.connect"):
        plain.connect(("127.0.0.1", 9))


def test_a_unit_test_cannot_listen():
    with socket.socket() as plain, pytest.raises(AssertionError, match=r"a unit test called socket\.bind"):
        plain.bind(("127.0.0.1", 0))


def test_a_unit_test_cannot_resolve_names():
    with pytest.raises(AssertionError, match=r"a unit test called socket\.getaddrinfo"):
        socket.getaddrinfo("localhost", 80)


def test_nobodys_own_settings_steer_the_tests():
    assert [name for name in os.environ if name.startswith(("CARBON_SCHED_", "RAY_"))] == []
    assert "carbon-sched-tests-" in os.environ["XDG_DATA_HOME"]
