"""Train a small character-level language model on the text of Python's own standard library.

A real training job that needs no download: data-parallel gradients over Ray tasks, Adam, a held-out loss that falls, a
checkpoint, and a sample of what the model writes. About a minute on two cores.

    carbon-sched submit examples/quickstart/train.py
    ray job submit --working-dir examples/quickstart -- python train.py --steps 50
"""
# What carbon-sched needs to know of a job may stand in the script itself; flags of `submit` win over it.
#
# /// script
# [tool.carbon-sched]
# name = "quickstart"
# phase = "pretraining"
# model = "stdlib-chars"
# ///

from __future__ import annotations

import argparse
import os
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import numpy as np

CONTEXT = 24  # characters that the model sees
EMBEDDING = 16
HIDDEN = 384
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))  # everything else is read as a space
HELD_OUT = 50_000  # characters at the end of the corpus that are never trained on

Parameters = dict[str, np.ndarray]


def corpus() -> np.ndarray:
    """Return the standard library's top-level modules as one array of indices into ALPHABET."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    text = "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files)
    table = np.full(256, ALPHABET.index(" "), dtype=np.uint8)
    table[[ord(character) for character in ALPHABET]] = np.arange(len(ALPHABET), dtype=np.uint8)
    return table[np.frombuffer(text.encode("latin-1", errors="replace"), dtype=np.uint8)]


def initial(generator: np.random.Generator) -> Parameters:
    """Return untrained parameters; weights are scaled to keep the variance of activations (He et al., 2015)."""

    def weights(rows: int, columns: int) -> np.ndarray:
        return generator.normal(0, (2 / rows) ** 0.5, (rows, columns)).astype(np.float32)

    characters = len(ALPHABET)
    return {
        "embedding": generator.normal(0, 1, (characters, EMBEDDING)).astype(np.float32),
        "w1": weights(CONTEXT * EMBEDDING, HIDDEN),
        "b1": np.zeros(HIDDEN, np.float32),
        "w2": weights(HIDDEN, HIDDEN),
        "b2": np.zeros(HIDDEN, np.float32),
        "w3": weights(HIDDEN, characters) * np.float32(0.1),
        "b3": np.zeros(characters, np.float32),
    }


def forward(p: Parameters, contexts: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return (logits, second hidden layer, its residual branch, first hidden layer, input) for [batch, CONTEXT]."""
    x = p["embedding"][contexts].reshape(len(contexts), -1)
    h1 = np.maximum(x @ p["w1"] + p["b1"], 0)
    branch = np.maximum(h1 @ p["w2"] + p["b2"], 0)
    h2 = h1 + branch
    return h2 @ p["w3"] + p["b3"], h2, branch, h1, x


def loss_and_gradients(p: Parameters, contexts: np.ndarray, targets: np.ndarray) -> tuple[float, Parameters]:
    """Return the mean cross-entropy in nats per character and its gradient in every parameter."""
    logits, h2, branch, h1, x = forward(p, contexts)
    probabilities = softmax(logits)
    rows = np.arange(len(targets))
    loss = float(-np.log(probabilities[rows, targets]).mean())

    d_logits = probabilities
    d_logits[rows, targets] -= 1
    d_logits /= len(targets)
    d_h2 = d_logits @ p["w3"].T
    d_branch = d_h2 * (branch > 0)
    d_h1 = (d_h2 + d_branch @ p["w2"].T) * (h1 > 0)
    d_x = (d_h1 @ p["w1"].T).reshape(-1, EMBEDDING)
    d_embedding = np.zeros_like(p["embedding"])
    np.add.at(d_embedding, contexts.reshape(-1), d_x)
    return loss, {
        "embedding": d_embedding,
        "w1": x.T @ d_h1,
        "b1": d_h1.sum(axis=0),
        "w2": h1.T @ d_branch,
        "b2": d_branch.sum(axis=0),
        "w3": h2.T @ d_logits,
        "b3": d_logits.sum(axis=0),
    }


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities per row, without overflow."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def windows(text: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the contexts that begin at `starts`, [batch, CONTEXT], and the character after each."""
    return text[starts[:, None] + np.arange(CONTEXT)], text[starts + CONTEXT]


def batch_gradients(p: Parameters, text: np.ndarray, size: int, seed: tuple[int, ...]) -> tuple[float, Parameters]:
    """One worker's share of one step: its own random batch, its loss and gradients."""
    starts = np.random.default_rng(seed).integers(0, len(text) - HELD_OUT - CONTEXT, size)
    return loss_and_gradients(p, *windows(text, starts))


class Adam:
    """Adam (Kingma and Ba, 2015, algorithm 1), with a learning rate that falls to nothing as a cosine."""

    def __init__(self, p: Parameters, steps: int, rate: float) -> None:
        """Start with empty moments for every parameter of `p`."""
        self.steps, self.rate, self.step = steps, rate, 0
        self.mean = {name: np.zeros_like(value) for name, value in p.items()}
        self.square = {name: np.zeros_like(value) for name, value in p.items()}

    def update(self, p: Parameters, gradients: Parameters) -> Parameters:
        """Return the parameters after one step; `p` itself is left as it is."""
        self.step += 1
        rate = self.rate * 0.5 * (1 + np.cos(np.pi * (self.step - 1) / self.steps))
        scale = np.float32(rate * (1 - 0.999**self.step) ** 0.5 / (1 - 0.9**self.step))
        new = {}
        for name, gradient in gradients.items():
            self.mean[name] += np.float32(0.1) * (gradient - self.mean[name])
            self.square[name] += np.float32(0.001) * (gradient * gradient - self.square[name])
            new[name] = p[name] - scale * self.mean[name] / (np.sqrt(self.square[name]) + np.float32(1e-8))
        return new


def held_out_loss(p: Parameters, text: np.ndarray) -> float:
    """Return the loss in nats per character on text that was never trained on."""
    starts = np.arange(len(text) - HELD_OUT, len(text) - CONTEXT - 1, 25)
    contexts, targets = windows(text, starts)
    return float(-np.log(softmax(forward(p, contexts)[0])[np.arange(len(targets)), targets]).mean())


def sample(p: Parameters, prompt: str, length: int, generator: np.random.Generator) -> str:
    """Return `prompt` continued by `length` characters drawn from the model, a little below its own temperature."""
    indices = [ALPHABET.index(character) for character in prompt.rjust(CONTEXT)]
    for _ in range(length):
        logits = forward(p, np.array([indices[-CONTEXT:]]))[0]
        indices.append(int(generator.choice(len(ALPHABET), p=softmax(logits.astype(np.float64) / 0.7)[0])))
    return prompt + "".join(ALPHABET[index] for index in indices[CONTEXT:])


def save(p: Parameters, path: Path) -> None:
    """Write a checkpoint that is either complete or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.part")
    with unfinished.open("wb") as file:
        np.savez(file, **p)
    unfinished.replace(path)


def train(arguments: argparse.Namespace) -> tuple[Parameters, np.ndarray]:
    """Run the steps, each of them one Ray task per worker; returns the parameters and the text."""
    import ray  # noqa: PLC0415 - the functions above are used without Ray by the tests

    ray.init(logging_level="warning")
    gradients_of = ray.remote(num_cpus=1)(batch_gradients)
    text = corpus()
    shared_text = ray.put(text)
    p = initial(np.random.default_rng(arguments.seed))
    adam = Adam(p, arguments.steps, rate=0.003)
    print(f"{len(text):,} characters, {sum(v.size for v in p.values()):,} parameters, {arguments.workers} workers")
    print(f"step 0/{arguments.steps}: held-out loss {held_out_loss(p, text):.3f} nats per character", flush=True)
    start = time.monotonic()
    for step in range(1, arguments.steps + 1):
        shared = ray.put(p)
        seeds = [(arguments.seed, step, worker) for worker in range(arguments.workers)]
        answers = ray.get([gradients_of.remote(shared, shared_text, arguments.batch, seed) for seed in seeds])
        mean = {name: sum(g[name] for _, g in answers) / np.float32(len(answers)) for name in p}
        p = adam.update(p, mean)
        if step % arguments.report_every == 0 or step == arguments.steps:
            loss, pace = float(np.mean([loss for loss, _ in answers])), (time.monotonic() - start) / step
            held_out = held_out_loss(p, text)
            print(
                f"step {step}/{arguments.steps}: loss {loss:.3f}, held-out {held_out:.3f}, {pace:.3f} s per step",
                flush=True,
            )
    return p, text


def main() -> int:
    """Train, save, show a sample; 1 if the model learned nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000, help="optimiser steps (default 1000)")
    parser.add_argument("--workers", type=int, default=2, help="Ray tasks per step, one core each (default 2)")
    parser.add_argument("--batch", type=int, default=512, help="characters per worker and step (default 512)")
    parser.add_argument("--report-every", type=int, default=50, help="steps between two lines (default 50)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same model (default 0)")
    own = os.environ.get("CARBON_SCHED_ATTEMPT", str(os.getpid()))
    default = Path(tempfile.gettempdir(), f"quickstart-{own}", "model.npz")
    parser.add_argument("--out", type=Path, default=default, help="checkpoint (default: in the temporary folder)")
    arguments = parser.parse_args()

    p, text = train(arguments)
    save(p, arguments.out)
    print(f"checkpoint: {arguments.out.resolve()}")
    print("--- sample ---")
    print(sample(p, "def ", 200, np.random.default_rng(arguments.seed)))
    print("--------------")
    loss, clueless = held_out_loss(p, text), float(np.log(len(ALPHABET)))
    if loss >= clueless:
        print(f"the model is no better than chance ({loss:.3f} nats against {clueless:.3f})", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
