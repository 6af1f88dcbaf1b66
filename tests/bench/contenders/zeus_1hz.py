"""A script that Zeus meters: a window over all of it, and one a second inside for a time series. Runs in Zeus' venv."""

from __future__ import annotations

import json
import sys
import time

from zeus.monitor import ZeusMonitor

seconds, gpus = int(sys.argv[1]), int(sys.argv[2])
monitor = ZeusMonitor(gpu_indices=list(range(gpus)))
monitor.begin_window("job", sync_execution=False)
start = time.time()
until = time.monotonic() + seconds
while time.monotonic() < until:
    monitor.begin_window("second", sync_execution=False)
    time.sleep(1)
    monitor.end_window("second", sync_execution=False)
end = time.time()
measured = monitor.end_window("job", sync_execution=False)
print(json.dumps({"start": start, "end": end, "joules": sum(measured.gpu_energy.values())}))
