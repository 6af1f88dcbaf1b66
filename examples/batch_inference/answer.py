# /// script
# [tool.carbon-sched]
# name = "score-the-library"
# phase = "inference-batch"
# model = "demo-char-lm"
# max-delay = "2h"
# interruptible = true
# restart-cost = "5s"
# ///
"""Batch inference that may wait for cleaner hours and stop between shards: every item is answered exactly once.

A character model (bigram counts of Python's own standard library, learnt in a moment) scores documents: how surprising
is each of them, in bits per character? With `--ray-data` a shard is a Ray dataset whose blocks are scored side by side.

    carbon-sched submit --deadline +6h examples/batch_inference/answer.py
    python examples/batch_inference/answer.py --out /tmp/answers            # without any scheduler
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

from carbon_sched_runtime import batch  # travels with every job; installed: `from carbon_sched import batch`

LIBRARY = Path(argparse.__file__).parent
ALPHABET = 128


class Bigrams:
    """How likely one character follows another, with one count added to each pair."""

    def __init__(self, text: str) -> None:
        self.pairs, self.firsts = Counter(pairwise(text)), Counter(text[:-1])

    def bits_per_character(self, text: str) -> float:
        """Mean surprise of the text's characters after the first."""
        bits = [math.log2((self.firsts[a] + ALPHABET) / (self.pairs[a, b] + 1)) for a, b in pairwise(text)]
        return sum(bits) / max(1, len(bits))


def documents(count: int) -> list[str]:
    """The first modules of the standard library, by name; the same on every node with the same Python."""
    return sorted(path.name for path in LIBRARY.glob("[a-z]*.py"))[:count]


def score(model: Bigrams, name: str) -> dict[str, object]:
    """One row of the answer."""
    text = (LIBRARY / name).read_text(encoding="utf-8", errors="replace")
    return {"document": name, "bits_per_character": round(model.bits_per_character(text), 4)}


def with_ray_data(model: Bigrams, names: list[str]) -> list[dict[str, object]]:
    """The same for a whole shard in Ray Data's workers."""
    import ray  # noqa: PLC0415 - the plain form needs none

    rows = ray.data.from_items([{"name": name} for name in names])
    return rows.map(lambda row: score(model, row["name"])).take_all()


def main() -> None:
    """Score what no earlier attempt has."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=96)
    parser.add_argument("--size", type=int, default=16, help="items of a shard")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds to rest after each shard, to watch it work")
    parser.add_argument("--ray-data", action="store_true")
    parser.add_argument("--out", help="a folder to go on in; below the job's --storage by default")
    arguments = parser.parse_args()
    model = Bigrams((LIBRARY / "argparse.py").read_text(encoding="utf-8"))
    for shard in batch.shards(documents(arguments.documents), size=arguments.size, out=arguments.out):
        names = list(shard.items)
        shard.save(with_ray_data(model, names) if arguments.ray_data else [score(model, name) for name in names])
        print(f"shard {shard.number}: {len(names)} documents", file=sys.stderr, flush=True)
        time.sleep(arguments.pause)
    rows = list(batch.results(arguments.out))
    strangest = max(rows, key=lambda row: row["bits_per_character"])
    print(f"{len(rows)} documents; the strangest is {strangest['document']}: {strangest['bits_per_character']} bits")


if __name__ == "__main__":
    main()
