"""`carbon-sched meter` beside wrapped jobs, in real processes on the scripted NVML: jobs change nothing it signed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

from carbon_sched.meter_keys import SigningKey
from carbon_sched_runtime.wire import parse_segment
from tests.fakes.nvml import StubbedNvml, nvml_library, stubbed_nvml, uuid
from tests.fakes.wrapped import RUNTIME, A, B, Workplace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["nvml_library", "stubbed_nvml"]

MANY_READERS = "i=0; while [ $i -lt 300 ]; do echo x > journal/carbon-sched-0123456789ab-35a06fda-$(printf %08x $i)-000000.seg; i=$((i+1)); done"  # noqa: E501 - one shell line


class Metered(Workplace):
    """A machine with a meter of its own."""

    def start_meter(self, *options: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ, **self.environment, "PYTHONPATH": str(RUNTIME),
            "CARBON_SCHED_MACHINE_DIR": str(self.folder / "machine"),
            "CARBON_SCHED_POWERCAP": str(self.folder / "powercap"),
        }  # fmt: skip
        command = [sys.executable, "-m", "carbon_sched.cli.main", "meter", "--key", "meter.key", "--journal", "kept"]
        process = subprocess.Popen(
            [*command, *options], env=environment, cwd=self.folder, stderr=subprocess.PIPE, start_new_session=True
        )
        self.processes.append(process)
        for line in process.stderr:
            if b"metering " in line:
                return process
        raise AssertionError(f"the meter ended with {process.wait()}")

    def signed(self, folder: str) -> dict[str, bytes]:
        """Segments in a folder that the meter signed."""
        key = SigningKey(self.folder / "meter.key").public
        found = {path.name: path.read_bytes() for path in (self.folder / folder).glob("*.seg") if path.is_file()}
        return {name: data for name, data in found.items() if _made(key, name, data)}


def _made(key, name: str, data: bytes) -> bool:
    try:
        signature = parse_segment(data, name).signature
    except ValueError:
        return False
    return signature is not None and key.made(signature)


@pytest.fixture
def place(tmp_path: Path, stubbed_nvml: StubbedNvml) -> Iterator[Metered]:
    stubbed_nvml.write("count 1", "quantum 0.001", f"origin {time.time() - 1000}", "at 0 0 watts 300")
    workplace = Metered(tmp_path, dict(stubbed_nvml.environment))
    yield workplace
    workplace.close()


def test_jobs_carry_signed_segments_that_add_up(place, stubbed_nvml):
    meter = place.start_meter()
    assert place.run("sleep 0.5")[0] == 0
    meter.send_signal(signal.SIGTERM)
    assert meter.wait(20) == 0

    assert place.record().last("metering").role == "follower"
    kept, carried = place.signed("kept"), place.signed("journal")
    assert carried
    assert carried.items() <= kept.items()
    rows = [row for name, data in kept.items() for row in parse_segment(data, name).rows if row.device == uuid(0)]
    readings = stubbed_nvml.readings_mj(0)
    assert sum(row.energy_uj for row in rows) == (readings[-1] - readings[1]) * 1000
    assert {A, "idle"} & {row.owner for row in rows}


@pytest.mark.parametrize(
    "abuse",
    [
        "rm -rf journal/*.seg",
        "for f in journal/*.seg; do rm $f; ln -s /etc/passwd $f; done",
        "for f in journal/*.seg; do sed -i '/^sig /d' $f; done",
        "for f in journal/*.seg; do truncate -s 1G $f; done",
        MANY_READERS,
    ],
    ids=["delete", "link", "strip the signature", "grow", "flood"],
)
def test_whatever_a_job_does_to_its_journal_the_signed_segments_are_there_in_the_end(place, abuse):
    meter = place.start_meter()
    os.mkfifo(place.folder / "go")
    process = place.start(f"read go <go; {abuse}; touch done; exec sleep 60", A)
    place.wait_for("metering")
    place.run("true", B)  # its end makes the meter seal a segment
    wait_until(lambda: place.signed("journal"))
    before = place.signed("journal")
    (place.folder / "go").write_text("go\n")
    wait_until((place.folder / "done").exists)
    os.kill(place.record(A).last("spawned").child_pid, signal.SIGTERM)
    assert process.wait(20) == 143
    meter.send_signal(signal.SIGTERM)
    meter.wait(20)

    carried = place.signed("journal")
    assert before.items() <= carried.items()
    assert {row.owner for n, d in carried.items() for row in parse_segment(d, n).rows} >= {A}
    assert place.record(A).last("closed").journal


def test_a_meter_that_starts_while_a_job_is_read_by_its_wrapper_takes_over_unsigned_what_was_not_its_own(place):
    process = place.start("sleep 1.5", A)
    place.wait_for("metering")
    late = place.start_meter()
    assert process.wait(20) == 0
    late.send_signal(signal.SIGTERM)
    late.wait(20)

    by_wrapper = {p.name for p in place.journal.glob("*.seg")} - place.signed("journal").keys()
    assert by_wrapper
    assert place.total_uj(uuid(0), A) + place.total_uj("cpu:model", A) > 0
    owners = {row.owner for n, d in place.signed("kept").items() for row in parse_segment(d, n).rows}
    assert A not in owners


def test_a_job_in_a_container_is_known_by_the_meter_of_the_host(place):
    """Its wrapper claims the machine under a process id that on the host is another process's, or nobody's."""
    container = ("unshare", "--pid", "--fork", "--mount-proc")
    if subprocess.run([*container, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a pid namespace of one's own cannot be made here")
    meter = place.start_meter()
    job = place.start("sleep 3", A, within=container, CARBON_SCHED_GPUS="1", CUDA_VISIBLE_DEVICES="0")
    assert job.wait(30) == 0
    meter.send_signal(signal.SIGTERM)
    assert meter.wait(20) == 0
    rows = [row for name, data in place.signed("kept").items() for row in parse_segment(data, name).rows]
    assert sum(row.energy_uj for row in rows if row.owner == A and row.device == uuid(0)) > 0.9 * 3 * 300_000_000
    assert place.record().last("closed") is not None


def test_prometheus_is_answered(place):
    place.start_meter("--listen", f"127.0.0.1:{(port := free_port())}")
    wait_until(lambda: b"hw_energy_joules_total{" in scrape(port))
    assert f'hw_id="{uuid(0)}",hw_name'.encode() in scrape(port)


def scrape(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return answer.read()


def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(condition, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
