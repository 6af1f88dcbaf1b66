"""A script that CodeCarbon meters, with a measurement every second. Runs in CodeCarbon's venv."""

from __future__ import annotations

import json
import sys
import time

from codecarbon import OfflineEmissionsTracker

KWH_J = 3_600_000

seconds = int(sys.argv[1])
tracker = OfflineEmissionsTracker(
    country_iso_code="DEU", measure_power_secs=1, save_to_file=False, log_level="error", allow_multiple_runs=True
)
tracker.start()
start = time.time()
time.sleep(seconds)
end = time.time()
tracker.stop()
joules = tracker.final_emissions_data.gpu_energy * KWH_J
print(json.dumps({"start": start, "end": end, "joules": joules}))
