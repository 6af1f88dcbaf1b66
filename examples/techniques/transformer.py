"""A small byte-level transformer, the text it learns, and how well it predicts text that it has not seen."""

from __future__ import annotations

import math
import pydoc_data.topics
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from low_bit import FORMS
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTEXT = 128
BYTES = 256
HELD_OUT = 48 * 1024
"""Bytes at the end of the text that are never trained on."""
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.set_num_threads(1)  # one core, so that runs are alike on busy machines and small ones


@dataclass(frozen=True)
class Shape:
    """Sizes of a model. `kv_heads` below `heads` is multi-query attention (Shazeer, 2019); 1 shares one for all."""

    width: int = 96
    layers: int = 3
    heads: int = 4
    kv_heads: int = 4
    hidden: int = 384
    fused: bool = True


class Attention(nn.Module):
    """Causal self-attention: fused in one kernel, or eager with the whole matrix of weights in memory."""

    def __init__(self, shape: Shape) -> None:
        """Make untrained projections."""
        super().__init__()
        self.shape, self.head = shape, shape.width // shape.heads
        self.query = nn.Linear(shape.width, shape.width, bias=False)
        self.key_value = nn.Linear(shape.width, 2 * shape.kv_heads * self.head, bias=False)
        self.out = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, time, width] to the same."""
        batch, time, width = x.shape
        query = self.query(x).view(batch, time, self.shape.heads, self.head).transpose(1, 2)
        both = self.key_value(x).view(batch, time, 2, self.shape.kv_heads, self.head).permute(2, 0, 3, 1, 4)
        key, value = (one.repeat_interleave(self.shape.heads // self.shape.kv_heads, dim=1) for one in both)
        attend = fused if self.shape.fused else eager
        return self.out(attend(query, key, value).transpose(1, 2).reshape(batch, time, width))


def fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Causal attention over [batch, head, time, size] by PyTorch's one kernel."""
    return functional.scaled_dot_product_attention(query, key, value, is_causal=True)


def eager(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The same, step by step (Vaswani et al., 2017, equation 1)."""
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(future, -math.inf).softmax(-1) @ value


class Block(nn.Module):
    """Attention and a feed-forward layer, each behind a norm and beside the stream."""

    def __init__(self, shape: Shape) -> None:
        """Make an untrained block."""
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(shape.width) for _ in range(2))
        self.attention = Attention(shape)
        self.up = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, time, width] to the same."""
        x = x + self.attention(self.norms[0](x))
        return x + self.down(functional.relu(self.up(self.norms[1](x))))


class Transformer(nn.Module):
    """Predicts the next byte from up to CONTEXT bytes; the embedding is the output layer too."""

    def __init__(self, shape: Shape) -> None:
        """Make an untrained model."""
        super().__init__()
        self.shape, self.form = shape, "float"
        self.embedding = nn.Embedding(BYTES, shape.width)
        self.position = nn.Embedding(CONTEXT, shape.width)
        self.blocks = nn.Sequential(*(Block(shape) for _ in range(shape.layers)))
        self.norm = nn.LayerNorm(shape.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.position.weight, std=0.02)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Bytes [batch, time] to logits [batch, time, BYTES]."""
        x = self.embedding(text) + self.position.weight[: text.shape[1]]
        return self.norm(self.blocks(x)) @ self.embedding.weight.T

    def converted(self, form: str) -> Transformer:
        """This model with the matrices of its blocks in another form of `low_bit`, in place."""
        self.form = form
        for block in self.blocks:
            for owner, name in linears(block):
                setattr(owner, name, FORMS[form](getattr(owner, name)))
        return self.to(torch.bfloat16) if form == "bf16" else self

    @property
    def stored_bytes(self) -> int:
        """What its weights take in memory."""
        return sum(t.numel() * t.element_size() for t in (*self.parameters(), *self.buffers()))


def linears(block: nn.Module) -> list[tuple[nn.Module, str]]:
    """Each linear layer of a block: whose attribute it is, and its name."""
    owned = [(owner, name) for owner in block.modules() for name, _ in owner.named_children()]
    return [(owner, name) for owner, name in owned if isinstance(getattr(owner, name), nn.Linear)]


# files ----------------------------------------------------------------------------------------------------------------


def save(model: Transformer, path: Path) -> None:
    """Write a model that is either complete or not there."""
    unfinished = path.with_name(f"{path.name}.part")
    torch.save({"shape": asdict(model.shape), "form": model.form, "state": model.state_dict()}, unfinished)
    unfinished.replace(path)


def load(path: Path, **changes: Any) -> Transformer:
    """Read a model, with changes to its shape that leave its weights as they are (`fused`)."""
    stored = torch.load(path, map_location=DEVICE, weights_only=True)
    model = Transformer(replace(Shape(**stored["shape"]), **changes)).to(DEVICE).converted(stored["form"])
    model.load_state_dict(stored["state"])
    return model


# text -----------------------------------------------------------------------------------------------------------------


def corpus() -> tuple[torch.Tensor, torch.Tensor]:
    """The documentation of the Python language, which CPython brings along (PSF licence): to learn from, held out."""
    topics = pydoc_data.topics.topics
    text = "\n".join(topics[name] for name in sorted(topics)).encode()
    whole = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    return whole[:-HELD_OUT], whole[-HELD_OUT:]


def batches(text: torch.Tensor, size: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Bytes and those that follow them, [size, CONTEXT] each, from random places without end."""
    lot = torch.Generator().manual_seed(seed)
    while True:
        starts = torch.randint(len(text) - CONTEXT, (size, 1), generator=lot)
        rows = text[starts + torch.arange(CONTEXT + 1)].long().to(DEVICE)
        yield rows[:, :-1], rows[:, 1:]


def loss_of(model: nn.Module, given: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats per byte."""
    return functional.cross_entropy(model(given).float().flatten(0, 1), following.flatten())


@torch.inference_mode()
def bits_per_byte(model: nn.Module, text: torch.Tensor, batch: int) -> tuple[float, int]:
    """The loss on a text read once from its beginning to its end, in bits per byte, and how many bytes that were."""
    model.eval()
    rows = text[: len(text) // CONTEXT * CONTEXT].view(-1, CONTEXT).long().to(DEVICE)
    losses = [loss_of(model, part[:, :-1], part[:, 1:]) * len(part) for part in rows.split(batch)]
    return float(sum(losses)) / len(rows) / math.log(2), rows[:, 1:].numel()
