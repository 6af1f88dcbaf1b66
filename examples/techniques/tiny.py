"""One entrance for the experiments: `tiny.py train ...`, `tiny.py shrink ...` or `tiny.py infer ...`."""

from __future__ import annotations

import runpy
import sys

STEPS = ("train", "shrink", "infer")

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in STEPS:
        sys.exit(f"{__doc__}\nGive one of: {', '.join(STEPS)}")
    sys.argv = [f"{sys.argv[1]}.py", *sys.argv[2:]]
    runpy.run_module(sys.argv[0].removesuffix(".py"), run_name="__main__")
