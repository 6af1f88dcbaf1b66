"""The main job, end to end, in a few minutes: two local Ray clusters, one job at once, one that waits for a clean hour.

Run by `make demo`. Everything lives in a temporary folder and is gone afterwards. The grid is a synthetic day that
lasts two minutes, so that waiting for a cleaner hour takes seconds; energy is really metered, by the best source this
machine has.
"""

from __future__ import annotations

import math
import os
import shlex
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

DAY_S = 120
STEP_S = 5
DAYS = 10
READY_TRIES = 90
TRAIN = Path(__file__).parent / "quickstart" / "train.py"


def main() -> int:
    """Run the story; returns 0 when every command succeeded and the ledger verified."""
    with tempfile.TemporaryDirectory(prefix="cs-demo-") as folder:
        demo = Demo(Path(folder))
        try:
            demo.prepare()
            print("\n# A job with no flexibility: placed at once, on the cleaner cluster.")
            demo.run("submit", "--name", "train-now", "--duration", "25s", str(TRAIN), "--steps", "300")
            print("\n# The same job may wait up to two minutes: it starts when the grid is expected to be cleanest.")
            demo.run(
                "submit",
                "--name",
                "train-later",
                "--duration",
                "25s",
                "--max-delay",
                "2m",
                str(TRAIN),
                "--steps",
                "300",
            )
            print("\n# What both did, and the proof that nobody changed the book.")
            demo.run("clusters", "list")
            demo.run("explain", "train-later")
            demo.run("audit", "report")
            demo.run("audit", "verify")
        finally:
            demo.run("server", "stop", "--force", check=False)
    return 0


class Demo:
    """Runs our command line against a server of its own in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CARBON_SCHED_", "RAY_"))}
        self.environment = {**kept, "CARBON_SCHED_DATA_DIR": str(folder)}

    def prepare(self) -> None:
        """Two local clusters on the synthetic grid, ready for jobs; home is the dirtier one in the south."""
        self.write_grid()
        local = ("clusters", "add", "--local", "--cpus", "2")
        self.run(*local, "north", "--zone", "SE-SE3", "--pue", "1.10")
        self.run(*local, "south", "--zone", "DE", "--pue", "1.40", "--home")
        for name in ("north", "south"):
            self.wait_ready(name)

    def wait_ready(self, name: str) -> None:
        """Until the cluster's Ray head answers; the server starts it in the background."""
        command = [sys.executable, "-m", "carbon_sched.cli.main", "clusters", "check", name]
        for _ in range(READY_TRIES):
            if subprocess.run(command, env=self.environment, capture_output=True, check=False).returncode == 0:
                break
            time.sleep(1)
        self.run("clusters", "check", name)

    def write_grid(self) -> None:
        """Two synthetic zones whose day lasts two minutes: clean at noon in the north, never quite in the south."""
        start = datetime.now(timezone.utc).replace(microsecond=0)
        for zone, mean, swing in (("SE-SE3", 120, 90), ("DE", 420, 60)):
            lines = ["start,g_per_kwh"]
            for step in range(DAYS * DAY_S // STEP_S):
                at = start + timedelta(seconds=step * STEP_S)
                value = mean + swing * math.cos(2 * math.pi * step * STEP_S / DAY_S)
                lines.append(f"{at.isoformat().replace('+00:00', 'Z')},{value:.1f}")
            (self.folder / f"{zone}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        config = "grid:\n  series:\n    - {zone: SE-SE3, file: SE-SE3.csv}\n    - {zone: DE, file: DE.csv}\n"
        (self.folder / "config.yaml").write_text(config, encoding="utf-8")

    def run(self, *arguments: str, check: bool = True) -> None:
        """Show a command as a user would type it, then run it."""
        print(f"\n$ carbon-sched {shlex.join(arguments)}", flush=True)
        command = [sys.executable, "-m", "carbon_sched.cli.main", *arguments]
        subprocess.run(command, env=self.environment, check=check)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
