"""What the machine meter shows to Prometheus, its unit, and the options that make its key known."""

from __future__ import annotations

import os
import select
import shlex
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from carbon_sched.cli.clusters import _meter_key
from carbon_sched.domain.errors import InvalidInput
from carbon_sched.machine_meter import SHOWN_AFTER_LAST_JOULE_S, Exporter, Totals, unit_text
from carbon_sched_runtime.counters import Reading
from carbon_sched_runtime.machine import Machine
from carbon_sched_runtime.meter import MachineMeter
from carbon_sched_runtime.nvml import GpuProcesses
from carbon_sched_runtime.reader import Reader
from tests.fakes.metering import FakeProc, FakeSources, cpu, gpu

A = "cs-aaaaaaaaaa-a1"


class Meter:
    """A reader on fake counters, watched by what Prometheus is shown."""

    def __init__(self, folder) -> None:
        self.proc = FakeProc(folder / "proc")
        self.proc.process(1, parent=0, env={})
        self.sources = FakeSources(str(self.proc.root), {d.id: d for d in (gpu("gpu:a"), cpu())})
        for device in self.sources.devices:
            self.sources.readings[device] = Reading(7_000_000)
        self.totals = Totals()
        self.reader = Reader(Machine(str(folder / "machine")), self.sources, observe=self.totals.observe)
        self.registry = CollectorRegistry()
        self.registry.register(Exporter(self.totals))

    def pass_s(self, seconds: float, **microjoules: int) -> None:
        self.sources.advance(seconds, **microjoules)
        self.reader.tick()

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def by_owner(self, device: str) -> dict[str, float]:
        samples = [
            s for m in self.registry.collect() for s in m.samples if s.name == "carbon_sched_energy_joules_total"
        ]
        return {s.labels["owner"]: s.value for s in samples if s.labels["hw_id"] == device}


@pytest.fixture
def meter(tmp_path):
    return Meter(tmp_path)


def test_joules_and_watts_of_each_device_and_whose_they_are(meter):
    meter.proc.process(100, started=meter.sources.mono_ns // 10**7 - 100, env={"CARBON_SCHED_ATTEMPT": A})
    meter.sources.clients["gpu:a"] = GpuProcesses((100,))
    for _ in range(70):  # over two seals
        meter.pass_s(1, gpu_a=300_000_000, cpu_package_0=50_000_000)

    gpu_labels = {"hw_id": "gpu:a", "hw_type": "gpu", "hw_name": "a GPU"}
    assert meter.value("hw_energy_joules_total", **gpu_labels) == pytest.approx(21_000)
    assert meter.value("hw_power_watts", **gpu_labels) == pytest.approx(300)
    labels = {"hw_id": "gpu:a", "hw_type": "gpu", "owner": A, "job": "aaaaaaaaaa", "source": "counter"}
    # In the interval in which it came onto the GPU, it was there for half of the time.
    assert meter.value("carbon_sched_energy_joules_total", **labels) == pytest.approx(21_000 - 150)
    assert meter.by_owner("gpu:a")["idle"] == pytest.approx(150)
    assert sum(meter.by_owner("cpu:package-0").values()) == pytest.approx(3500)
    assert meter.value("carbon_sched_meter_last_reading_timestamp_seconds") > 1_790_000_000


def test_power_is_what_the_device_says_where_it_does(meter):
    meter.sources.readings["gpu:a"] = Reading(7_000_000, 123_000)
    meter.pass_s(1, gpu_a=300_000_000)
    assert meter.value("hw_power_watts", hw_id="gpu:a", hw_type="gpu", hw_name="a GPU") == 123


def test_attempts_of_long_ago_are_joined_and_no_joule_is_dropped(meter):
    meter.proc.process(100, started=meter.sources.mono_ns // 10**7, env={"CARBON_SCHED_ATTEMPT": A})
    meter.sources.clients["gpu:a"] = GpuProcesses((100,))
    meter.pass_s(1, gpu_a=300_000_000)
    meter.pass_s(1, gpu_a=300_000_000)
    meter.proc.end(100)
    meter.sources.clients["gpu:a"] = GpuProcesses()
    before = sum(meter.by_owner("gpu:a").values())
    meter.pass_s(60, gpu_a=1_000_000)
    assert A in meter.by_owner("gpu:a")
    meter.pass_s(SHOWN_AFTER_LAST_JOULE_S + 60, gpu_a=1_000_000)
    meter.pass_s(1)

    assert A not in meter.by_owner("gpu:a")
    assert meter.by_owner("gpu:a")["past-attempts"] >= 300
    assert sum(meter.by_owner("gpu:a").values()) == pytest.approx(before + 2)


def test_the_unit_runs_the_command_with_few_rights():
    text = unit_text(["/opt/a b/carbon-sched", "meter", "--key", "/k%i"])
    command = next(line for line in text.splitlines() if line.startswith("ExecStart=")).removeprefix("ExecStart=")

    assert shlex.split(command) == ["/opt/a b/carbon-sched", "meter", "--key", "/k%%i"]
    assert "PrivateTmp" not in text
    assert "StateDirectoryMode=0700" in text
    assert {"Restart=always", "RestartSec=300ms", "StartLimitIntervalSec=0"} <= set(text.splitlines())


def test_a_meters_key_is_given_as_a_file_or_as_itself(tmp_path):
    file = tmp_path / "meter.pub"
    file.write_text("ed25519:abc\n", encoding="ascii")
    assert _meter_key(f"file:{file}") == _meter_key("ed25519:abc") == "ed25519:abc"
    with pytest.raises(InvalidInput, match="cannot be read"):
        _meter_key(f"file:{tmp_path / 'none'}")


def test_it_looks_once_a_period_and_does_not_spin(tmp_path, monkeypatch):
    """Becoming the reader wakes it once; a byte left in its pipe would end every wait after that at once."""
    woken = []

    class Seat:
        def __init__(self, *_):
            self.reader = SimpleNamespace(hand_over_trouble="", sources=SimpleNamespace(describe=str))

        def wait(self, wake):
            woken.append(bool(select.select([wake], [], [], 0)[0]))
            if len(woken) == 4:
                machine_meter.stop()
            return False

        def beat(self, *, seal):
            pass

        def leave(self):
            pass

    monkeypatch.setattr("carbon_sched_runtime.meter.Seat", Seat)
    monkeypatch.setattr("carbon_sched_runtime.meter.Sources", lambda: None)
    monkeypatch.setenv("CARBON_SCHED_MACHINE_DIR", str(tmp_path / "machine"))
    # The byte comes after the lock is seen to be ours, as it does on a busy machine.
    monkeypatch.setattr(MachineMeter, "_wait_for_lock", lambda *_: None)
    machine_meter = MachineMeter(complain=lambda _: None)
    machine_meter._lock = os.open(os.devnull, os.O_RDONLY)
    os.write(machine_meter._wakes, b"!")
    machine_meter.run()
    assert woken == [True, False, False, False]
