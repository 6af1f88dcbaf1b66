# /// script
# [tool.carbon-sched]
# name = "suspendable"
# phase = "pretraining"
# max-delay = "6h"
# interruptible = true
# restart-cost = "10s"
# ///
"""A training that may stand still for dirty hours: what a script needs to be suspended, moved and resumed.

It fits a logistic regression by stochastic gradients; put a model of your own in its place. Suspended or not, it ends
with the same weights, since all that a step depends on is its number and what was saved.

    carbon-sched submit --deadline +1d examples/suspendable/train.py --steps 2000
    python examples/suspendable/train.py             # without any scheduler
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from carbon_sched_runtime import job  # travels with every job; installed: `from carbon_sched import job`

FEATURES, BATCH, RATE = 20, 256, 0.1
TRUTH = np.linspace(-1, 1, FEATURES)


def examples_of(step: int) -> tuple[np.ndarray, np.ndarray]:
    """The batch of a step: a resumed run sees the same ones as a run that nothing stopped."""
    generator = np.random.default_rng((1, step))
    x = generator.normal(size=(BATCH, FEATURES))
    return x, (generator.random(BATCH) < chance(x, TRUTH)).astype(float)


def chance(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Probability of a one for each example."""
    odds: np.ndarray = np.exp(x @ weights)
    return odds / (1 + odds)


def save(state: Path, step: int, weights: np.ndarray) -> None:
    """The file is complete at any moment, also when the run is killed while it writes."""
    draft = state.with_name("draft.npz")
    np.savez(draft, step=step, weights=weights)
    draft.replace(state)


def main() -> None:
    """Go on from what was saved; save now and then, and when the scheduler asks to stop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--save-every", type=int, default=100, help="steps that a kill costs at most")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds to rest after each step, to watch it work")
    arguments = parser.parse_args()
    state = Path(job.checkpoint_dir(), "state.npz")
    step, weights = 0, np.zeros(FEATURES)
    if job.is_resumed() and state.exists():
        with np.load(state) as saved:
            step, weights = int(saved["step"]), saved["weights"]
        print(f"resumed at step {step}", flush=True)
    while step < arguments.steps and not job.stop_asked():
        x, y = examples_of(step)
        weights = weights - RATE * x.T @ (chance(x, weights) - y) / BATCH
        step += 1
        if step % arguments.save_every == 0:
            save(state, step, weights)
            print(f"step {step}", flush=True)
        time.sleep(arguments.pause)
    save(state, step, weights)
    if step < arguments.steps:
        print(f"stopped at step {step}", flush=True)
    else:
        print(f"weights {np.round(weights, 6).tolist()}")


if __name__ == "__main__":
    main()
