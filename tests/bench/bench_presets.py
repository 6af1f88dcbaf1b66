"""What each shipped preset does on recorded jobs and grids: the table in policies/README.md.

    make bench-presets      (or: python -m tests.bench.bench_presets --write, which puts the table into the README)

400 of Philly's jobs from a week on three clusters of 16 GPUs (tests/traces.py), replayed through the production code
with our own forecast: once as jobs that declare nothing, once as jobs that may wait 6 hours (a day from 2 hours of run
time on). CO2e and cost are against running every job at once at home, on the dirtiest and cheapest cluster. Goal: the
whole within three minutes.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from carbon_sched.policy.presets import preset, preset_names
from carbon_sched.simulate.outcome import started
from carbon_sched.simulate.replay import replay
from carbon_sched.simulate.rivals import HERE, baseline
from tests.traces import DATA, philly, price

README = Path(__file__).resolve().parents[2] / "policies" / "README.md"
BEGIN, END = "<!-- by tests/bench/bench_presets.py --write -->\n", "<!-- end -->\n"
SLACKS = ("none", "6h<2h:24h")
HEADER = (
    "| preset | jobs declare nothing: CO2e | cost | mean wait | may wait 6 h or a day: CO2e | cost | mean wait |\n"
    "|---|---:|---:|---:|---:|---:|---:|\n"
)
SAMPLE = 400
MOST_S = 180.0


def main() -> int:
    """Print the table; 1 if it took longer than the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=SAMPLE)
    parser.add_argument("--write", action="store_true", help="put the table into policies/README.md")
    options = parser.parse_args()
    if not DATA.is_dir():
        print(f"skipped: no recorded traces at {DATA} (CARBON_SCHED_BENCH_DATA)")
        return 0
    begun = time.monotonic()
    made = table(options.sample)
    took = time.monotonic() - begun
    print(made, end="")
    print(f"{took:.0f} s (goal {MOST_S:.0f} s: {'met' if took <= MOST_S else 'missed'})")
    if options.write:
        before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
        README.write_text(before + BEGIN + made + END + rest.partition(END)[2], encoding="utf-8")
    return int(took > MOST_S)


def table(sample: int = SAMPLE) -> str:
    """In Markdown, a row for each preset by name."""
    cells: dict[str, list[str]] = {name: [] for name in preset_names()}
    for slack in SLACKS:
        of = philly(sample, 7, slack=slack, forecast="own")
        at_home = baseline(HERE, of)
        for name, row in cells.items():
            done = replay(of, preset(name))
            outcome = started(of, done.cluster, done.start_h)
            saved = 100 * (outcome.grams.sum() / at_home.grams.sum() - 1)
            dearer = 100 * (price(of, outcome) / price(of, at_home) - 1)
            row += [f"{saved:+.1f} %", f"{dearer:+.1f} %", f"{outcome.wait_h.mean():.1f} h"]
    return HEADER + "".join(f"| `{name}` | {' | '.join(row)} |\n" for name, row in cells.items())


if __name__ == "__main__":
    sys.exit(main())
