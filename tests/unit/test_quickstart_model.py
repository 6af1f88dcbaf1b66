from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "train.py"


@pytest.fixture(scope="module")
def train():
    spec = importlib.util.spec_from_file_location("quickstart_train", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_corpus_is_python_in_the_models_alphabet(train):
    text = train.corpus()
    assert text.max() < len(train.ALPHABET)
    assert len(text) > 10 * train.HELD_OUT
    assert "def " in "".join(train.ALPHABET[index] for index in text[:20_000])


def test_gradients_are_those_of_the_loss(train):
    generator = np.random.default_rng(1)
    p = {name: value.astype(np.float64) for name, value in train.initial(generator).items()}
    contexts = generator.integers(0, len(train.ALPHABET), (5, train.CONTEXT))
    targets = generator.integers(0, len(train.ALPHABET), 5)
    _, gradients = train.loss_and_gradients(p, contexts, targets)
    for name, gradient in gradients.items():
        at = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
        numeric = slope(train, p, name, at, contexts, targets)
        assert gradient[at] == pytest.approx(numeric, rel=1e-4), name


def slope(train, p, name, at, contexts, targets, step=1e-6):
    losses = []
    for sign in (1, -1):
        moved = {**p, name: p[name].copy()}
        moved[name][at] += sign * step
        losses.append(train.loss_and_gradients(moved, contexts, targets)[0])
    return (losses[0] - losses[1]) / (2 * step)


def test_a_few_steps_of_training_lower_the_held_out_loss(train):
    text = train.corpus()[:120_000]
    p = train.initial(np.random.default_rng(0))
    adam, before = train.Adam(p, steps=40, rate=0.003), train.held_out_loss(p, text)
    for step in range(40):
        _, gradients = train.batch_gradients(p, text, 128, (0, step))
        p = adam.update(p, gradients)
    assert train.held_out_loss(p, text) < before - 1


def test_a_checkpoint_is_complete_and_leaves_no_part_behind(train, tmp_path):
    p = train.initial(np.random.default_rng(0))
    train.save(p, tmp_path / "new" / "model.npz")
    with np.load(tmp_path / "new" / "model.npz") as saved:
        assert {name: value.shape for name, value in saved.items()} == {name: v.shape for name, v in p.items()}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.npz"]


def test_a_sample_continues_its_prompt(train):
    p = train.initial(np.random.default_rng(0))
    text = train.sample(p, "def ", 20, np.random.default_rng(0))
    assert text.startswith("def ")
    assert len(text) == 24
