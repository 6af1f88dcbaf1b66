"""Read held-out text with a model again and again: energy per byte read, and bits per byte.

python infer.py model.pt --batch 32
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from transformer import bits_per_byte, corpus, load

from carbon_sched_runtime import job, windows


def main() -> None:
    """Load, warm up, read, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=200_000, help="bytes to read at least (default 200,000)")
    parser.add_argument("--batch", type=int, default=32, help="texts that are read together (default 32)")
    parser.add_argument("--attention", choices=("fused", "eager"), default="fused")
    a = parser.parse_args()
    model, text, done = load(a.model, fused=a.attention == "fused"), corpus()[1], 0
    bits_per_byte(model, text[:4096], a.batch)
    start = time.process_time()
    with windows.window("infer") as window:
        while done < job.slice_of(a.tokens):
            found, read = bits_per_byte(model, text, a.batch)
            done += read
        window.add(tokens=done)
    used = time.process_time() - start
    windows.report(bits_per_byte=found, cpu_us_per_token=1e6 * used / done, weights_kb=model.stored_bytes / 1000)
    print(f"{done:,} bytes, {found:.3f} bits per byte, {1e6 * used / done:.2f} us of CPU per byte")


if __name__ == "__main__":
    main()
