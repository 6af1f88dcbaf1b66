"""A server process as far as other processes can tell: its files, its lock, and a few routes.

python tiny_server.py DATA_DIR [--version V] [--jobs N] [--slow S] [--fail] [--deaf]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from carbon_sched import server_files
from carbon_sched.domain.errors import Conflict
from tests.fakes.api_server import TOKEN, RunningApi
from tests.fakes.api_views import server_view


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--version", default=server_files.__version__)
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--fail", action="store_true")
    parser.add_argument("--deaf", action="store_true", help="does not end when it is asked to")
    options = parser.parse_args()
    if options.fail:
        print("no such table: jobs")
        return 5
    server_files.__version__ = options.version
    files = server_files.ServerFiles(options.data_dir)
    with files.exclusive(), RunningApi() as api:
        with (options.data_dir / "starts").open("a", encoding="utf-8") as starts:
            starts.write(options.version + "\n")
        time.sleep(options.slow)
        files.token(lambda: TOKEN)
        api.server = server_view(version=options.version, jobs_live=options.jobs)
        files.announce(api.url)
        while api.shut_down is None or options.deaf:
            time.sleep(0.01)
        files.withdraw()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Conflict as error:
        sys.exit(str(error))
