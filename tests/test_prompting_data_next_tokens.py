"""A memory of next tokens gives what its formula gives, and nothing of another model's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from intarsia.errors import BadInput
from intarsia.prompting.data.next_tokens import NextTokens
from tests.tiny import tiny

TEXTS = ["the cat sat on the mat", "a dog ran over the hill and back", "the cat ran"]
ASKED = ["the cat sat on the hill", "a dog sat"]


@pytest.fixture(scope="module")
def model():
    return tiny("llama")


def rows(model, text):
    """States [token, width] of length one and logits [token, vocabulary] of a plain forward, in float64, and ids."""
    ids = model.tokenizer([text])["input_ids"]
    states = []
    hook = model.network.model.norm.register_forward_hook(lambda *given: states.append(given[-1]))
    with torch.no_grad():
        logits = model.network(torch.tensor(ids)).logits[0].double().numpy()
    hook.remove()
    state = states[0][0].double().numpy()
    return state / np.linalg.norm(state, axis=1, keepdims=True), logits, ids[0]


def naive(model, texts, asked, share, temperature, nearest):
    """log p of each token of `asked` but the first, entry by entry."""
    memory = []
    for text in texts:
        states, _, ids = rows(model, text)
        memory += [(states[i].astype(np.float16).astype(np.float64), ids[i + 1]) for i in range(len(ids) - 1)]
    out = []
    for text in asked:
        states, logits, ids = rows(model, text)
        for i in range(len(ids) - 1):
            distances = sorted(((float(((states[i] - key) ** 2).sum()), token) for key, token in memory))[:nearest]
            weights = [np.exp(-d / temperature) for d, _ in distances]
            near = sum(w for w, (_, token) in zip(weights, distances, strict=True) if token == ids[i + 1]) / sum(
                weights
            )
            p = np.exp(logits[i] - logits[i].max())
            out.append(np.log((1 - share) * p[ids[i + 1]] / p.sum() + share * near))
    return np.array(out)


@pytest.mark.parametrize(("share", "nearest"), [(0.3, 5), (0.9, 1000)])
def test_as_the_formula_says(model, share, nearest):
    memory = NextTokens(model, nearest=nearest)
    added = memory.add(TEXTS)
    assert added == len(memory) == sum(len(ids) - 1 for ids in model.tokenizer(TEXTS)["input_ids"])
    judged = memory.judged(ASKED)
    wanted = naive(model, TEXTS, ASKED, share, 0.1, nearest)
    assert np.allclose(-judged.losses(share, 0.1), wanted, atol=2e-3)  # keys are kept in float16
    assert judged.perplexity(share, 0.1) == pytest.approx(np.exp(-wanted.mean()), rel=2e-3)
    alone = naive(model, TEXTS, ASKED, 0.0, 0.1, nearest)
    assert np.allclose(-judged.losses(0.0, 0.1), alone, atol=1e-4)


def test_what_comes_next(model):
    memory = NextTokens(model, share=1.0, nearest=1)
    memory.add(TEXTS)
    for text in TEXTS:
        ids = model.tokenizer([text])["input_ids"][0]
        start = model.tokenizer.decode(ids[:-1])
        if model.tokenizer([start])["input_ids"][0] == ids[:-1]:
            assert memory.next(start).argmax() == ids[-1]  # it has been here before
    memory.share = 0.4
    assert np.exp(memory.next("the dog")).sum() == pytest.approx(1)


def test_kept_in_a_file_and_for_one_model(tmp_path, model):
    memory = NextTokens(model, share=0.4, temperature=0.2, nearest=3)
    memory.add(TEXTS[:1])
    memory.add(TEXTS[1:])
    memory.save(tmp_path / "memory.safetensors")
    again = NextTokens.open(tmp_path / "memory.safetensors", model)
    assert (len(again), again.share, again.temperature, again.nearest) == (len(memory), 0.4, 0.2, 3)
    assert np.array_equal(again.next("the cat"), memory.next("the cat"))
    other = tiny("llama")
    with torch.no_grad():
        other.network.lm_head.weight.add_(1)
    with pytest.raises(BadInput, match="another model"):
        NextTokens.open(tmp_path / "memory.safetensors", other)
    with pytest.raises(BadInput, match="no memory there"):
        NextTokens.open(tmp_path / "none.safetensors", model)


def test_what_makes_no_sense_is_told(model):
    for given in ({"share": 1.5}, {"temperature": 0}, {"nearest": 0}):
        with pytest.raises(BadInput, match="give"):
            NextTokens(model, **given)
    with pytest.raises(BadInput, match="memory is empty"):
        NextTokens(model).next("the cat")
    with pytest.raises(BadInput, match="nothing to expect"):
        NextTokens(model).judged([])
