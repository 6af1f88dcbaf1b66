"""The machine meter as a service: what it shows to Prometheus, and the systemd unit that keeps it running.

The reading itself is `carbon_sched_runtime.meter.MachineMeter`. Nothing here is needed for energy to be booked.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from carbon_sched.domain.energy import IDLE, UNATTRIBUTED
from carbon_sched.domain.errors import InvalidInput, ServerUnavailable
from carbon_sched.systemd import command_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.core import Metric

    from carbon_sched_runtime.accounts import Sample
    from carbon_sched_runtime.book import Book
    from carbon_sched_runtime.counters import Meterable, Reading

UNIT = "carbon-sched-meter.service"
SHOWN_AFTER_LAST_JOULE_S = 3600
"""An attempt that used nothing for so long is no longer shown; its energy stays in the device's sums."""
HW_TYPES = {"gpu": "gpu", "cpu": "cpu", "dram": "memory"}
"""Kinds of devices in the words of OpenTelemetry's hardware conventions (`hw.type`)."""

PAST = "past-attempts"
POTS = (IDLE, UNATTRIBUTED, PAST)

Account = tuple[str, str, str]
"""Device, owner, source."""


@dataclass(frozen=True)
class Figures:
    """One moment: joules since this meter began by device, owner and source, and watts by device where known."""

    names: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    joules: Mapping[Account, float] = field(default_factory=dict)
    watts: Mapping[str, float] = field(default_factory=dict)
    read_at: float = 0.0


class Totals:
    """Adds up what the reader books. `observe` is called by the reader, `figures` by whoever asks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._figures = Figures()
        self._sealed: dict[Account, int] = {}
        self._book: Book | None = None
        self._open: dict[Account, int] = {}
        self._seen_ns: dict[Account, int] = {}
        self._before: dict[str, tuple[int, Reading]] = {}

    def observe(self, devices: Mapping[str, Meterable], sample: Sample, book: Book) -> None:
        """Take in a sample and the book after it. A new book means that the last one was sealed as it was."""
        if book is not self._book:
            for account, energy in self._open.items():
                self._sealed[account] = self._sealed.get(account, 0) + energy
            self._book = book
        self._open = {}
        for row in book.rows:
            account = (row.device, row.owner, row.source)
            self._open[account] = self._open.get(account, 0) + row.energy_uj
        self._retire(sample.mono_ns)
        totals = dict(self._sealed)
        for account, energy in self._open.items():
            totals[account] = totals.get(account, 0) + energy
        figures = Figures(
            {name: (device.kind, device.name) for name, device in devices.items()},
            {account: energy / 1e6 for account, energy in totals.items()},
            {name: watts for name in devices if (watts := self._watts(name, sample)) is not None},
            sample.utc_us / 1e6,
        )
        with self._lock:
            self._figures = figures

    def figures(self) -> Figures:
        """The newest."""
        with self._lock:
            return self._figures

    def _retire(self, now_ns: int) -> None:
        """Join attempts that used nothing for an hour, so that series do not pile up; no joule is dropped."""
        self._seen_ns.update(dict.fromkeys(self._open, now_ns))
        limit_ns = now_ns - SHOWN_AFTER_LAST_JOULE_S * 1_000_000_000
        quiet = [one for one, seen_ns in self._seen_ns.items() if seen_ns < limit_ns and one[1] not in POTS]
        for account in quiet:
            past = (account[0], PAST, account[2])
            self._sealed[past] = self._sealed.get(past, 0) + self._sealed.pop(account, 0)
            del self._seen_ns[account]

    def _watts(self, device: str, sample: Sample) -> float | None:
        """Instant power where the device tells, else the mean since the last sample."""
        reading, before = sample.readings.get(device), self._before.get(device)
        if reading is None:
            return None
        self._before[device] = (sample.mono_ns, reading)
        if reading.power_mw is not None:
            return reading.power_mw / 1000
        if before is None or reading.counter_uj is None or before[1].counter_uj is None:
            return None
        moved, lasted_ns = reading.counter_uj - before[1].counter_uj, sample.mono_ns - before[0]
        return moved * 1000 / lasted_ns if moved >= 0 and lasted_ns > 0 else None


class Exporter:
    """`Totals` as Prometheus collects it.

    hw_energy_joules_total and hw_power_watts are OpenTelemetry's `hw.energy` and `hw.power` with the attributes
    `hw.id`, `hw.type` and `hw.name`, in Prometheus' spelling; carbon_sched_energy_joules_total says whose they are.
    """

    def __init__(self, totals: Totals) -> None:
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        """One scrape."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415 - an extra

        figures = self._totals.figures()
        hardware = ["hw_id", "hw_type", "hw_name"]
        energy = CounterMetricFamily("hw_energy_joules", "Energy since this meter began (hw.energy).", labels=hardware)
        power = GaugeMetricFamily("hw_power_watts", "Power now (hw.power).", labels=hardware)
        owners = CounterMetricFamily(
            "carbon_sched_energy_joules",
            "Energy by owner: an attempt of a job, idle, unattributed, or past-attempts; the sum is the device's.",
            labels=["hw_id", "hw_type", "owner", "job", "source"],
        )
        read_at = GaugeMetricFamily("carbon_sched_meter_last_reading_timestamp_seconds", "When devices were last read.")
        read_at.add_metric([], figures.read_at)
        sums: dict[str, float] = {}
        for (device, owner, source), joules in sorted(figures.joules.items()):
            sums[device] = sums.get(device, 0.0) + joules
            owners.add_metric([device, _kind(figures, device), owner, _job(owner), source], joules)
        for device, joules in sums.items():
            energy.add_metric([device, _kind(figures, device), _name(figures, device)], joules)
        for device, watts in figures.watts.items():
            power.add_metric([device, _kind(figures, device), _name(figures, device)], watts)
        yield from (energy, power, owners, read_at)


def _kind(figures: Figures, device: str) -> str:
    kind = figures.names.get(device, (device.split(":", 1)[0], ""))[0]
    return HW_TYPES.get(kind, kind)


def _name(figures: Figures, device: str) -> str:
    return figures.names.get(device, ("", ""))[1]


def _job(owner: str) -> str:
    """The job of an attempt of ours (`cs-JOB-aN`); empty for pots and for what other tools stamped."""
    words = owner.split("-")
    return words[1] if len(words) == 3 and words[0] == "cs" and words[2][:1] == "a" else ""


def serve_metrics(listen: str, totals: Totals) -> None:
    """Answer Prometheus at `HOST:PORT` in a thread. InvalidInput when that cannot be listened on."""
    try:
        from prometheus_client import CollectorRegistry, start_http_server  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        message = "--listen needs prometheus-client. Run: pip install 'carbon-sched[server]', or leave --listen away"
        raise ServerUnavailable(message) from None
    host, _, port = listen.rpartition(":")
    if not port.isdigit() or int(port) > 65_535:
        raise InvalidInput("--listen", listen, "is not HOST:PORT", "Write 127.0.0.1:9464")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Exporter(totals))
    try:
        start_http_server(int(port), host.strip("[]") or "127.0.0.1", registry)
    except OSError as error:
        problem = f"cannot be listened on ({error.strerror})"
        raise InvalidInput("--listen", listen, problem, "Choose a free port") from None


def unit_text(command: list[str]) -> str:
    """A systemd unit that runs the meter with `command`, as root, early, and with no more rights than it uses.

    Root may read RAPL; CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH let it read which job a process belongs to. Its meeting
    place with jobs is /tmp, so it has no private one. It is restarted at once, so that who used what is uncertain for
    less than two seconds, and without end (by systemd 254 and newer ever more seldom), unless its options are wrong.
    """
    return f"""[Unit]
Description=carbon-sched machine meter: energy of this machine, by job
Before=multi-user.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={command_line(command)}
Restart=always
RestartSec=300ms
RestartPreventExitStatus=120 121 122
RestartSteps=6
RestartMaxDelaySec=10
TimeoutStopSec=15
StateDirectory=carbon-sched-meter
StateDirectoryMode=0700
Nice=-5
CapabilityBoundingSet=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH CAP_DAC_OVERRIDE CAP_FOWNER
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=/tmp
ProtectHome=read-only
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictRealtime=yes
LockPersonality=yes

[Install]
WantedBy=multi-user.target
"""
