"""The last resort where no counter can be read: CPU power from utilisation. Always marked `estimated`.

P = threads x 0.64 W + busy threads x 2.90 W: the medians over seven server families (Haswell, Broadwell, Skylake,
Cascade Lake, EPYC 1 to 3) of the watts per hardware thread at rest (0.64) and at full load (3.54) that the project
ccf-coefficients derives from SPECpower_ssj2008 results. Those are wall power of whole servers, so the estimate covers
memory and fans too (scope `server-share`) and no other CPU or DRAM estimate is added. At full load the families span
1.64 to 5.99 W: -54 % to +69 %, hence an error bar of 70 %.

As energy = function of (time since boot, busy time since boot) this is a cumulative counter like any other: it
conserves, and it survives its reader.
"""

from __future__ import annotations

from carbon_sched_runtime.counters import Meterable, Reading
from carbon_sched_runtime.wire import ESTIMATED

IDLE_MW_PER_THREAD = 640
BUSY_MW_PER_THREAD = 2_900
ERROR_PPM = 700_000
DEVICE = "cpu:model"


def device(threads: int) -> Meterable:
    """The modelled device of a machine with that many hardware threads."""
    return Meterable(
        id=DEVICE, kind="cpu", name=f"model for {threads} hardware threads", scope="server-share",
        source=ESTIMATED, limit_mw=threads * (IDLE_MW_PER_THREAD + BUSY_MW_PER_THREAD), error_ppm=ERROR_PPM,
    )  # fmt: skip


def baseline_mw(threads: int) -> int:
    """Modelled power at rest, in milliwatts."""
    return threads * IDLE_MW_PER_THREAD


def read(threads: int, mono_ns: int, busy_ticks: int, ticks_per_second: int) -> Reading:
    """The model's counter: uJ since boot from the boot clock (ns) and the busy time of all threads (clock ticks)."""
    idle_uj = threads * IDLE_MW_PER_THREAD * mono_ns // 1_000_000
    return Reading(counter_uj=idle_uj + BUSY_MW_PER_THREAD * 1000 * busy_ticks // ticks_per_second)
