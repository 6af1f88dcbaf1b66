"""What is assumed of a job about which nothing is known: measured facts from published traces, each with its source.

Everything here is an estimate and is marked as one wherever it shows. Licences: Philly, PAI and Acme traces CC BY 4.0
(Microsoft Research; Alibaba; Shanghai AI Laboratory), quantiles computed for this project; `data/README.md` has the
tables.
"""

from __future__ import annotations

from statistics import fmean

from carbon_sched.planning import hardware

DURATIONS_S = (
    *(41.0, 66.0, 110.0, 401.0, 791.0, 1213.0, 1635.0, 2136.0, 2613.0, 3787.0, 7904.0, 146958.0),
    *(345.0, 473.0, 664.0, 939.0, 1339.0, 1959.0, 2959.0, 4276.0, 6248.0, 9604.0, 16657.0, 52465.0),
)
"""Means of twelve equal parts of the run times of 55,803 GPU jobs (Philly, Sep-Oct 2017: Jeon et al., USENIX ATC 2019)
and of 99,998 jobs (Alibaba PAI 2020: Weng et al., NSDI 2022, re-sampled by Hanafy et al., ASPLOS 2024)."""
DURATIONS_SOURCE = "class prior (Philly 2017 and Alibaba PAI 2020 run times), estimated"

_PERCENTILES = hardware.rows("gpu_power_percentiles.csv")
_SHARES = [float(row["gpu_share_of_rated"]) for row in _PERCENTILES]
_SERVER_W = [float(row["cpu_server_w"]) for row in _PERCENTILES]
SERVER_THREADS = 128
IDLE_PERCENTILES = slice(10, 26)
"""Below them the samples are of GPUs that were switched off, above of GPUs at work."""

MEAN_SHARE = (fmean(_SHARES[1:]) + fmean(_SHARES[:-1])) / 2
"""Mean power of a GPU over its rated power: the mean of the measured distribution, 45 %."""
IDLE_SHARE = fmean(_SHARES[IDLE_PERCENTILES])
"""Idle power over rated power, 16 %."""
CPU_W = (fmean(_SERVER_W[1:]) + fmean(_SERVER_W[:-1])) / 2 / SERVER_THREADS
"""Power of one logical CPU's share of a server, 4.5 W."""
NETWORK_KWH_PER_GB = 0.06
"""Energy to move a gigabyte between data centres: Aslan et al., Journal of Industrial Ecology 2018, for 2015; it halves
about every two years since, so this errs towards leaving data where it is."""
POWER_SOURCE = "GPU class prior (45 % of rated power: Acme 2023), estimated"
CPU_POWER_SOURCE = "CPU class prior (4.5 W per logical CPU: Acme 2023), estimated"
