"""What is assumed of a job about which nothing is known: measured facts from published traces, each with its source.

Everything here is an estimate and is marked as one wherever it shows. Licences: Philly, PAI and Acme traces CC BY 4.0
(Microsoft Research; Alibaba; Shanghai AI Laboratory), quantiles computed for this project. Rated GPU powers are facts
from the vendors' datasheets.
"""

from __future__ import annotations

DURATIONS_S = (
    *(41.0, 66.0, 110.0, 401.0, 791.0, 1213.0, 1635.0, 2136.0, 2613.0, 3787.0, 7904.0, 146958.0),
    *(345.0, 473.0, 664.0, 939.0, 1339.0, 1959.0, 2959.0, 4276.0, 6248.0, 9604.0, 16657.0, 52465.0),
)
"""Means of twelve equal parts of the run times of 55,803 GPU jobs (Philly, Sep-Oct 2017: Jeon et al., USENIX ATC 2019)
and of 99,998 jobs (Alibaba PAI 2020: Weng et al., NSDI 2022, re-sampled by Hanafy et al., ASPLOS 2024)."""
DURATIONS_SOURCE = "class prior (Philly 2017 and Alibaba PAI 2020 run times), estimated"

RATED_W = {
    "P4": 75.0,
    "T4": 70.0,
    "L4": 72.0,
    "A10": 150.0,
    "A10G": 300.0,
    "L40S": 350.0,
    "P100": 250.0,
    "V100": 300.0,
    "A100": 400.0,
    "H100": 700.0,
    "H200": 700.0,
    "B200": 1000.0,
    "B300": 1400.0,
    "GB200": 1200.0,
    "RTX-4090": 450.0,
    "AMD-INSTINCT-MI210": 300.0,
    "AMD-INSTINCT-MI250X": 560.0,
    "AMD-INSTINCT-MI300X": 750.0,
    "AMD-INSTINCT-MI325X": 1000.0,
    "INTEL-GAUDI": 900.0,
}
"""Rated board power by Ray's accelerator name, in upper case; the server variant where there are several."""
UNKNOWN_RATED_W = 400.0

MEAN_SHARE = 0.45
"""Mean power over rated power: 170-193 W measured on 400 W A100s in two clusters (Acme 2023: Hu et al., NSDI 2024)."""
IDLE_SHARE = 0.16
"""Idle power over rated power: the 10th-25th percentile of the same measurement is 63-66 W."""
CPU_W = 4.5
"""Power of one logical CPU's share of a server: 582 W mean over 128 threads (CPU servers of the same cluster)."""
NETWORK_KWH_PER_GB = 0.06
"""Energy to move a gigabyte between data centres: Aslan et al., Journal of Industrial Ecology 2018, for 2015; it halves
about every two years since, so this errs towards leaving data where it is."""
POWER_SOURCE = "GPU class prior (45 % of rated power: Acme 2023), estimated"
CPU_POWER_SOURCE = "CPU class prior (4.5 W per logical CPU: Acme 2023), estimated"


def rated_w(gpu_type: str | None) -> float:
    """Rated power of one GPU in watts; `A100-40G` is looked up as `A100` when it has no entry of its own."""
    name = (gpu_type or "").upper()
    return RATED_W.get(name) or RATED_W.get(name.split("-")[0]) or UNKNOWN_RATED_W
