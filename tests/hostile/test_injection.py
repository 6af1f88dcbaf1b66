"""Texts that shells, templates, terminals and spreadsheets would run arrive as they were written, or are refused."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.job import JobSpec
from carbon_sched.service.runtime_env import entrypoint_for
from tests.fakes.served import served
from tests.hostile_texts import PAYLOADS, TEXTS

__all__ = ["served"]


def test_there_are_enough_of_them():
    assert len(set(TEXTS)) >= 300


def test_an_entrypoint_reaches_the_wrapper_as_one_argument():
    for text in TEXTS:
        *_, argument = shlex.split(entrypoint_for(JobSpec(text, "name")))
        assert argument == text


def test_a_shell_sees_that_argument_too():
    """What Ray runs is a shell's command line: the wrapper's module is stood in for by `printf`."""
    lines = [entrypoint_for(JobSpec(text, "name")).partition(" -- ")[2] for text in TEXTS]
    script = "\n".join(f"printf '%s\\0' {line}" for line in lines)
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True, timeout=60)
    assert done.stdout.decode().split("\0")[:-1] == TEXTS


@pytest.mark.parametrize("field", ["name", "model", "project"])
def test_labels_are_shown_as_they_were_given_or_refused(served, field):
    for number, text in enumerate(PAYLOADS):
        request = {"entrypoint": "true", field: f"x{text}", "metadata": {"note": text}}
        if any(character < " " or character == "\x7f" for character in text):
            with pytest.raises(InvalidInput, match=f"^{field}: "):
                served.client.submit(request, idempotency_key=f"{field}{number}")
        else:
            job = served.client.submit(request, idempotency_key=f"{field}{number}")
            assert (job[field], job["metadata"]["note"]) == (f"x{text}", text)
