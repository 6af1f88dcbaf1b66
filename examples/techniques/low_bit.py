"""Linear layers with weights of 8 and 4 bits, and the small adapters by which 4-bit weights are fine-tuned.

8 bits: one scale for each row, weights rounded to -127..127. 4 bits: blocks of 64 weights with a scale each, rounded to
sixteen levels at even quantiles of a normal distribution, and low-rank adapters beside them that stay trainable while
the 4-bit weights do not (QLoRA: Dettmers et al., 2023; LoRA: Hu et al., 2021). As in the plain recipe, weights are
turned into floats again whenever they are used: that saves memory, not arithmetic.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

BLOCK = 64
RANK = 8
TINY = 1e-12  # in place of the scale of a block of zeros


def levels() -> torch.Tensor:
    """Sixteen levels in [-1, 1] with zero among them: quantiles of a normal distribution, as many on either side."""
    edge = 1 - 1 / 32  # the outermost quantile: half of one of sixteen parts is cut off
    normal = torch.distributions.Normal(0.0, 1.0)
    below = normal.icdf(torch.linspace(1 - edge, 0.5, 8))
    above = normal.icdf(torch.linspace(0.5, edge, 9))[1:]
    found = torch.cat((below, above))
    return found / found.abs().max()


class Int8Linear(nn.Module):
    """A linear layer of 8-bit weights."""

    def __init__(self, linear: nn.Linear) -> None:
        """Round the weights of `linear`."""
        super().__init__()
        scale = linear.weight.detach().abs().amax(1, keepdim=True).clamp_min(TINY) / 127
        self.register_buffer("weight", (linear.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out]."""
        return functional.linear(x, self.weight.to(x.dtype) * self.scale)


class Nf4Linear(nn.Module):
    """A linear layer of 4-bit weights, two in a byte, and its adapter."""

    def __init__(self, linear: nn.Linear) -> None:
        """Round the weights of `linear`; the adapter begins as nothing."""
        super().__init__()
        weight = linear.weight.detach()
        self.shape = weight.shape
        blocks = weight.reshape(-1, BLOCK)
        scale = blocks.abs().amax(1, keepdim=True).clamp_min(TINY)
        self.register_buffer("levels", levels().to(weight.device))
        codes = ((blocks / scale)[..., None] - self.levels).abs().argmin(-1).to(torch.uint8).flatten()
        self.register_buffer("packed", codes[::2] * 16 + codes[1::2])
        self.register_buffer("scale", scale)
        self.down = nn.Parameter(torch.randn(RANK, weight.shape[1], device=weight.device) / weight.shape[1] ** 0.5)
        self.up = nn.Parameter(torch.zeros(weight.shape[0], RANK, device=weight.device))

    def weight(self) -> torch.Tensor:
        """The weights as floats, [out, in]."""
        codes = torch.stack((self.packed >> 4, self.packed & 15), -1).flatten().long()
        return (self.levels[codes].view(-1, BLOCK) * self.scale).view(self.shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out]."""
        return functional.linear(x, self.weight()) + (x @ self.down.T) @ self.up.T


FORMS = {"float": lambda linear: linear, "bf16": lambda linear: linear, "int8": Int8Linear, "nf4": Nf4Linear}
"""What becomes of a linear layer in each form; `bf16` turns the whole model to sixteen bits afterwards."""
