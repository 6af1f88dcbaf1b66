"""Servers that several modules here run against."""

from __future__ import annotations

import pytest

from tests.fakes.kube_apiserver import kube_apiserver

__all__ = ["kube_apiserver"]


@pytest.fixture(params=["fake", pytest.param("real", marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def server(request):
    """A real kube-apiserver, or None where the fake is to stand for it."""
    return request.getfixturevalue("kube_apiserver") if request.param == "real" else None
