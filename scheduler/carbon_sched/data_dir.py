"""Where this user's server keeps its data. Light to import: the command line asks before it talks to anybody."""

from __future__ import annotations

import os
from pathlib import Path

APP = "carbon-sched"


def default_data_dir() -> Path:
    """`CARBON_SCHED_DATA_DIR`, or the user's data folder of this platform."""
    if given := os.environ.get("CARBON_SCHED_DATA_DIR"):
        return Path(given).expanduser().absolute()
    import platformdirs  # noqa: PLC0415 - costs as much to load as the rest of this and is not always needed

    return Path(platformdirs.user_data_dir(APP))
