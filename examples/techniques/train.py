"""Train the small transformer, by itself or after a teacher; reports bits per byte of text it has not seen.

python train.py --out model.pt
python train.py --teacher model.pt --width 64 --layers 2 --out student.pt
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from transformer import CONTEXT, DEVICE, Shape, Transformer, batches, bits_per_byte, corpus, load, loss_of, save

from carbon_sched_runtime import windows

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    Loss = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]

RATES = {"adamw": 3e-3, "sgd": 0.2}
OPTIMISERS = {
    "adamw": lambda p, rate: torch.optim.AdamW(p, lr=rate, weight_decay=0.01),
    "sgd": lambda p, rate: torch.optim.SGD(p, lr=rate, momentum=0.9),
}


def taught_by(teacher: nn.Module) -> Loss:
    """The loss of a student: half the text's own, half the distance from what its teacher expects (Hinton, 2015)."""
    teacher.eval()

    def loss(model: nn.Module, given: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            expected = teacher(given).softmax(-1).flatten(0, 1)
        logits = model(given).flatten(0, 1)
        distance = functional.kl_div(logits.log_softmax(-1), expected, reduction="batchmean")
        return 0.5 * functional.cross_entropy(logits, following.flatten()) + 0.5 * distance

    return loss


def fit(model: nn.Module, tokens: int, batch: int, optimiser: torch.optim.Optimizer, seed: int, loss: Loss) -> int:
    """Train on about `tokens` bytes, while the rate falls to nothing as a cosine; returns how many it were."""
    model.train()
    steps = max(1, tokens // (batch * CONTEXT))
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _, (given, following) in zip(range(steps), batches(corpus()[0], batch, seed), strict=False):
        optimiser.zero_grad()
        loss(model, given, following).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        falling.step()
    return steps * batch * CONTEXT


def main() -> None:
    """Train, tell, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1_000_000, help="bytes to train on (default 1,000,000)")
    parser.add_argument("--batch", type=int, default=16, help=f"texts of {CONTEXT} bytes in a step (default 16)")
    parser.add_argument("--optimiser", choices=OPTIMISERS, default="adamw")
    parser.add_argument("--attention", choices=("fused", "eager"), default="fused")
    parser.add_argument("--kv-heads", type=int, default=4, help="1: multi-query attention (default 4)")
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--teacher", type=Path, help="a model to learn from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where to save it")
    a = parser.parse_args()

    torch.manual_seed(a.seed)
    fused = a.attention == "fused"
    shape = Shape(width=a.width, layers=a.layers, kv_heads=a.kv_heads, hidden=4 * a.width, fused=fused)
    model = Transformer(shape).to(DEVICE)
    loss = taught_by(load(a.teacher)) if a.teacher else loss_of
    start = time.process_time()
    with windows.window("train") as window:
        optimiser = OPTIMISERS[a.optimiser](model.parameters(), RATES[a.optimiser])
        done = fit(model, a.tokens, a.batch, optimiser, a.seed, loss)
        window.add(tokens=done)
    used = time.process_time() - start
    found, _ = bits_per_byte(model, corpus()[1], 32)
    windows.report(bits_per_byte=found, cpu_us_per_token=1e6 * used / done)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {done:,} bytes, {found:.3f} bits per byte")
    if a.out:
        save(model, a.out)


if __name__ == "__main__":
    main()
