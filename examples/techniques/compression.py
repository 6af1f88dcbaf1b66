"""A first experiment that needs nothing but Python: how much energy a better compression of text costs.

Compressing is predicting, so that its quality is told in the unit of language models: bits per byte of text.

    carbon-sched experiment examples/techniques/compression.yaml
"""

from __future__ import annotations

import argparse
import lzma
import sysconfig
import time
import zlib
from pathlib import Path

from carbon_sched_runtime import job, windows

COMPRESS = {
    "zlib-1": lambda text: zlib.compress(text, 1),
    "zlib-6": lambda text: zlib.compress(text, 6),
    "zlib-9": lambda text: zlib.compress(text, 9),
    "lzma": lambda text: lzma.compress(text, preset=6),
}


def corpus() -> bytes:
    """The top-level modules of the standard library (PSF licence), which every Python has."""
    return b"\n".join(path.read_bytes() for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")))


def main() -> None:
    """Compress the text again and again, and report bits per byte."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=COMPRESS)
    parser.add_argument("--megabytes", type=float, default=40, help="text to compress (default 40)")
    arguments = parser.parse_args()
    text, compressed, done = corpus(), b"", 0
    wanted = job.slice_of(int(arguments.megabytes * 1e6))
    start = time.process_time()
    with windows.window("compress") as window:
        while done < wanted:
            compressed = COMPRESS[arguments.method](text)
            done += len(text)
        window.add(bytes=done)
    used = time.process_time() - start
    windows.report(bits_per_byte=8 * len(compressed) / len(text), cpu_ns_per_byte=used * 1e9 / done)
    print(
        f"{arguments.method}: {done:,} bytes, {8 * len(compressed) / len(text):.3f} bits per byte, {used:.1f} s of CPU"
    )


if __name__ == "__main__":
    main()
