"""Grace CPUs by their hwmon sensors, in a tree laid out as the kernel does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from carbon_sched_runtime.counters import Track, advance
from carbon_sched_runtime.hwmon import Hwmon
from carbon_sched_runtime.rapl import Rapl
from carbon_sched_runtime.sources import Sources
from tests.fakes.metering import SECOND_NS
from tests.fakes.powercap import server

if TYPE_CHECKING:
    from pathlib import Path

GRACE = {
    0: ("Module Power Socket 0", 600),
    1: ("Grace Power Socket 0", 250),
    2: ("CPU Power Socket 0", 180),
    3: ("SysIO Power Socket 0", 40),
}


def tree(root: Path, sensors: dict[int, tuple[str, int]]) -> Hwmon:
    for number, (name, watts) in sensors.items():
        device = root / f"hwmon{number}" / "device"
        device.mkdir(parents=True)
        (root / f"hwmon{number}" / "name").write_text("power_meter\n", encoding="ascii")
        (device / "power1_oem_info").write_text(f"{name}\n", encoding="ascii")
        (device / "power1_average").write_text(f"{watts * 1_000_000}\n", encoding="ascii")
    return Hwmon(str(root))


@pytest.mark.parametrize(
    ("left_out", "name", "watts", "scope"),
    [((), "hwmon Grace Power Socket 0", 250, "grace"), ((1,), "hwmon CPU Power Socket 0", 180, "package")],
)
def test_one_sensor_of_a_socket_counts_and_the_module_never(tmp_path, left_out, name, watts, scope):
    sensors = {number: sensor for number, sensor in GRACE.items() if number not in left_out}
    found = tree(tmp_path / "hwmon", sensors)

    (device,) = found.devices.values()
    assert (device.id, device.name, device.scope, device.counts) == ("cpu:socket-0", name, scope, False)
    assert found.read()["cpu:socket-0"].power_mw == watts * 1000


def test_its_power_is_integrated(tmp_path):
    found = tree(tmp_path / "hwmon", GRACE)
    (device,) = found.devices.values()
    track = Track(mono_ns=0, power_mw=150_000)
    moved = advance(device, track, found.read()[device.id], SECOND_NS)
    assert (moved.step.source, moved.step.energy_uj) == ("integrated", 200_000_000)


def test_two_sockets_are_two_devices_and_other_sensors_none(tmp_path):
    more = {4: ("Grace Power Socket 1", 200), 5: ("Something Else", 10)}
    assert set(tree(tmp_path / "hwmon", {**GRACE, **more}).devices) == {"cpu:socket-0", "cpu:socket-1"}
    assert Hwmon(str(tmp_path / "none")).devices == {}


def test_a_sensor_that_stops_answering_says_so(tmp_path):
    found = tree(tmp_path / "hwmon", GRACE)
    (tmp_path / "hwmon" / "hwmon1" / "device" / "power1_average").unlink()
    assert found.read()["cpu:socket-0"].error == "power1_average cannot be read: FileNotFoundError"


def test_hwmon_stands_in_for_rapl_and_nothing_is_estimated_beside_it(tmp_path):
    grace, none = tree(tmp_path / "hwmon", GRACE), Rapl(str(tmp_path / "none"))
    assert set(Sources(rapl=none, hwmon=grace).devices) == {"cpu:socket-0"}
    with_rapl = Sources(rapl=Rapl(str(server(tmp_path / "powercap").root)), hwmon=grace)
    assert "cpu:socket-0" not in with_rapl.devices
