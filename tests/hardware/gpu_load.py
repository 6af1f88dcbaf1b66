"""A load for the first visible GPU: full or square-wave, for a time or a number of steps. Needs torch or cupy.

    python tests/hardware/gpu_load.py --seconds 10 [--period 0.1 --duty 0.5] [--size 4096]
    python tests/hardware/gpu_load.py --steps 2000

Prints `ready` when the GPU is warm (the clock starts then), at the end `steps N seconds S`. Where the driver is the C
stub of NVML, the load is `stub_load.py`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def torch_step(size: int) -> Callable[[], None]:
    """One matrix product, waited for."""
    torch = importlib.import_module("torch")
    left = torch.randn(size, size, device="cuda", dtype=torch.float16)
    right = torch.randn(size, size, device="cuda", dtype=torch.float16)

    def step() -> None:
        torch.matmul(left, right)
        torch.cuda.synchronize()

    return step


def cupy_step(size: int) -> Callable[[], None]:
    """The same with cupy."""
    cupy = importlib.import_module("cupy")
    left, right = cupy.random.rand(2, size, size, dtype=cupy.float32).astype(cupy.float16)

    def step() -> None:
        cupy.matmul(left, right)
        cupy.cuda.Device().synchronize()

    return step


def make_step(size: int) -> Callable[[], None]:
    """With whichever of the two is installed."""
    try:
        importlib.import_module("torch")
    except ImportError:
        return cupy_step(size)
    return torch_step(size)


def burn(step: Callable[[], None], seconds: float, steps: int, period: float, duty: float) -> int:
    """Steps taken. With a period, work for `duty` of each and rest for the others."""
    begin, taken = time.monotonic(), 0
    while True:
        now = time.monotonic() - begin
        if (steps and taken >= steps) or (not steps and now >= seconds):
            return taken
        if period and now % period >= duty * period:
            time.sleep(period - now % period)
            continue
        step()
        taken += 1


def main() -> None:
    """Warm up, say so, burn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--period", type=float, default=0)
    parser.add_argument("--duty", type=float, default=0.5)
    parser.add_argument("--size", type=int, default=4096)
    arguments = parser.parse_args()
    if os.environ.get("NVML_STUB_SCRIPT"):
        load = importlib.import_module("stub_load")
        load.run(arguments.seconds, arguments.steps, arguments.period, arguments.duty)
        return
    step = make_step(arguments.size)
    for _ in range(20):
        step()
    print("ready", flush=True)
    begin = time.monotonic()
    taken = burn(step, arguments.seconds, arguments.steps, arguments.period, arguments.duty)
    print(f"steps {taken} seconds {time.monotonic() - begin:.6f}", flush=True)


if __name__ == "__main__":
    main()
