"""Servers that several modules here run against."""

from __future__ import annotations

from tests.fakes.kube_apiserver import kube_apiserver

__all__ = ["kube_apiserver"]
