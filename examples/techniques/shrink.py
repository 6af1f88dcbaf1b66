"""Make a trained model cheaper: prune it, or store it in fewer bits; what was lost is partly learnt again.

python shrink.py model.pt magnitude --out pruned.pt
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn.utils import prune
from train import fit
from transformer import DEVICE, Transformer, bits_per_byte, corpus, linears, load, loss_of, save

from carbon_sched_runtime import windows

if TYPE_CHECKING:
    from collections.abc import Iterable

RATE = 5e-4


def magnitude(model: Transformer, tokens: int) -> Transformer:
    """Set the smaller half of the blocks' weights to zero (Han et al., 2015); the matrices stay as large as before."""
    pruned = [(getattr(owner, name), "weight") for block in model.blocks for owner, name in linears(block)]
    prune.global_unstructured(pruned, pruning_method=prune.L1Unstructured, amount=0.5)
    tuned(model, model.parameters(), tokens)
    for linear, name in pruned:
        prune.remove(linear, name)
    return model


def structured(model: Transformer, tokens: int) -> Transformer:
    """Take out the less important half of the hidden units, so that matrices get smaller (Li et al., 2017)."""
    kept = model.shape.hidden // 2
    smaller = Transformer(replace(model.shape, hidden=kept)).to(DEVICE)
    state = model.state_dict()
    for number, block in enumerate(model.blocks):
        weight = block.up.weight.norm(dim=1) * block.down.weight.norm(dim=0)
        units = weight.topk(kept).indices.sort().values
        state[f"blocks.{number}.up.weight"] = block.up.weight[units]
        state[f"blocks.{number}.down.weight"] = block.down.weight[:, units]
    smaller.load_state_dict(state)
    tuned(smaller, smaller.parameters(), tokens)
    return smaller


def int8(model: Transformer, _tokens: int) -> Transformer:
    """Weights of 8 bits."""
    return model.converted("int8")


def bf16(model: Transformer, _tokens: int) -> Transformer:
    """All of it in sixteen bits."""
    return model.converted("bf16")


def nf4_lora(model: Transformer, tokens: int) -> Transformer:
    """Weights of 4 bits, and adapters that learn to make up for it: all else stays as it was (QLoRA)."""
    model = model.converted("nf4")
    adapters = {
        id(p) for block in model.blocks for name, p in block.named_parameters() if name.endswith((".up", ".down"))
    }
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in adapters)
    tuned(model, (p for p in model.parameters() if p.requires_grad), tokens)
    return model


def tuned(model: Transformer, parameters: Iterable[torch.nn.Parameter], tokens: int) -> None:
    """Train some parameters a little more."""
    optimiser = torch.optim.AdamW(parameters, lr=RATE)
    with windows.window("fine-tune") as window:
        window.add(tokens=fit(model, tokens, 16, optimiser, 1, loss_of))


TECHNIQUES = {"magnitude": magnitude, "structured": structured, "int8": int8, "bf16": bf16, "nf4-lora": nf4_lora}


def main() -> None:
    """Load, shrink, tell, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("technique", choices=TECHNIQUES)
    parser.add_argument("--tokens", type=int, default=30_000, help="bytes to learn again on (default 30,000)")
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    torch.manual_seed(0)
    model = TECHNIQUES[a.technique](load(a.model), a.tokens)
    found, _ = bits_per_byte(model, corpus()[1], 32)
    windows.report(bits_per_byte=found)
    print(f"{a.technique}: {model.stored_bytes:,} bytes of weights, {found:.3f} bits per byte")
    save(model, a.out)


if __name__ == "__main__":
    main()
