"""The transformer of examples/techniques: each technique does what its name says. Needs PyTorch."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

TECHNIQUES = Path(__file__).parents[2] / "examples" / "techniques"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("torch") is None, reason="needs PyTorch (pip install 'carbon-sched[techniques]')"
    ),
]


@pytest.fixture
def modules(monkeypatch):
    """torch, and the example's own modules, which find each other as scripts in one folder do."""
    monkeypatch.syspath_prepend(str(TECHNIQUES))
    import low_bit
    import shrink
    import torch
    import train
    import transformer

    torch.manual_seed(0)
    yield torch, transformer, train, shrink, low_bit
    for name in ("low_bit", "shrink", "train", "transformer"):
        sys.modules.pop(name)


@pytest.fixture
def tiny(modules):
    """An untrained model of the least size, and bytes to read."""
    torch, transformer, *_ = modules
    model = transformer.Transformer(transformer.Shape(width=64, layers=1, hidden=128))
    return model, torch.randint(256, (2, 16))


def test_fused_and_eager_attention_are_the_same_and_look_at_no_future(modules, tiny):
    torch, transformer, *_ = modules
    model, text = tiny
    query, key, value = torch.randn(3, 2, 4, 16, 8)
    assert torch.allclose(transformer.fused(query, key, value), transformer.eager(query, key, value), atol=1e-5)
    changed = text.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 256
    assert torch.equal(model(text)[:, :-1], model(changed)[:, :-1])


def test_multi_query_attention_has_one_key_and_value_for_all_heads(modules, tiny):
    _torch, transformer, *_ = modules
    one = transformer.Transformer(transformer.Shape(width=64, layers=1, hidden=128, kv_heads=1))
    assert one.blocks[0].attention.key_value.weight.shape == (2 * 16, 64)
    assert one(tiny[1]).shape == (2, 16, 256)


def test_training_lowers_the_loss_on_text_never_seen_and_a_student_learns_from_its_teacher(modules):
    _torch, transformer, train, *_ = modules
    held_out = transformer.corpus()[1][:4096]
    shape = transformer.Shape(width=64, layers=1, hidden=128)
    for loss in (transformer.loss_of, train.taught_by(transformer.Transformer(shape))):
        model = transformer.Transformer(shape)
        before, read = transformer.bits_per_byte(model, held_out, 8)
        optimiser = train.OPTIMISERS["adamw"](model.parameters(), 3e-3)
        assert train.fit(model, 40 * 8 * 128, 8, optimiser, 0, loss) == 40 * 8 * 128
        after, _ = transformer.bits_per_byte(model, held_out, 8)
        assert after < before - 1
        assert read == 32 * 127


def test_four_bits_are_nearly_the_weights_and_only_adapters_learn(modules, tiny):
    torch, _transformer, _, shrink, low_bit = modules
    levels = low_bit.levels()
    assert len(levels) == 16
    assert (float(levels[0]), float(levels[7]), float(levels[15])) == (-1.0, 0.0, 1.0)
    assert torch.all(levels.diff() > 0)
    linear = torch.nn.Linear(64, 32, bias=False)
    packed = low_bit.Nf4Linear(linear)
    assert packed.packed.numel() == 64 * 32 // 2
    largest = linear.weight.abs().reshape(-1, 64).amax(1).max()
    assert (packed.weight() - linear.weight).abs().max() <= largest * levels.diff().max() / 2 + 1e-6
    model = shrink.nf4_lora(tiny[0], 8 * 16 * 128)
    learns = {name.rsplit(".", 1)[-1] for name, p in model.named_parameters() if p.requires_grad}
    assert learns == {"up", "down"}
    assert any(block.up.up.any() for block in model.blocks), "the adapters have learnt"


def test_eight_bits_are_within_half_a_step(modules):
    torch, _, _, _, low_bit = modules
    linear = torch.nn.Linear(64, 32, bias=False)
    rounded = low_bit.Int8Linear(linear)
    step = linear.weight.abs().amax(1, keepdim=True) / 127
    assert torch.all((rounded.weight * rounded.scale - linear.weight).abs() <= step / 2 + 1e-7)


def test_pruning_leaves_zeros_or_smaller_matrices(modules, tiny):
    torch, transformer, _, shrink, _ = modules
    model = shrink.structured(tiny[0], 16 * 128)
    assert model.blocks[0].up.weight.shape == (64, 64)
    pruned = shrink.magnitude(model, 16 * 128)
    weights = torch.cat([getattr(o, n).weight.flatten() for o, n in transformer.linears(pruned.blocks[0])])
    assert float((weights == 0).float().mean()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("form", ["float", "int8", "nf4", "bf16"])
def test_a_model_is_read_as_it_was_saved(modules, tiny, tmp_path, form):
    torch, transformer, *_ = modules
    model, text = tiny[0].converted(form).eval(), tiny[1]
    transformer.save(model, tmp_path / "m.pt")
    read = transformer.load(tmp_path / "m.pt", fused=False)
    assert (read.form, read.shape.fused) == (form, False)
    assert torch.allclose(read(text).float(), model(text).float(), atol=0.05 if form == "bf16" else 1e-4)
