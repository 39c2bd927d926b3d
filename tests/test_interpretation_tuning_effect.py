"""What tuning changed: ranks, kinds and joined networks against naive runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from intarsia.errors import BadInput
from intarsia.interpretation.model_diff.token_kinds import kind_of
from intarsia.interpretation.model_diff.tuning_effect import TuningEffect, tuning_effect
from intarsia.report import Finding
from tests.tiny import tiny

TEXTS = ["Name a colour", "How are you?"]


def tuned(family: str, layer: int = 2):
    """A model and a copy of which one block was changed."""
    base = tiny(family)
    after = base.copy()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in after.sites.blocks[layer].parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return base, after


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox"])
def test_shifts_equal_a_naive_run(family: str) -> None:
    base, after = tuned(family)
    found = tuning_effect(after, against=base, texts=TEXTS, new_tokens=6, layers=3)
    ranks, kls, differ = [], [], []
    for text in TEXTS:
        ids = torch.tensor([after.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            whole = after.network.generate(ids, max_new_tokens=6, min_new_tokens=1, do_sample=False, pad_token_id=0)
            whole = whole[:, : -1 if int(whole[0, -1]) == 2 else None]
            logits = [m.network(whole[:, :-1]).logits[0, ids.shape[1] - 1 :].double() for m in (base, after)]
        log_p, log_q = (x.log_softmax(-1) for x in logits)
        top = log_q.argmax(-1)
        assert top.tolist() == whole[0, ids.shape[1] :].tolist()
        ranks += [1 + int((row > row[t]).sum()) for row, t in zip(log_p, top, strict=True)]
        kls += (log_p.exp() * (log_p - log_q)).sum(-1).tolist()
        differ += (log_p.argmax(-1) != top).tolist()
    ranks = np.array(ranks)
    assert found.positions == len(ranks) and found.kl[0] == pytest.approx(np.mean(kls), rel=1e-3)
    assert found.shares["unshifted"][0] == pytest.approx((ranks == 1).mean())
    assert found.shares["marginal"][0] == pytest.approx(((ranks > 1) & (ranks <= 3)).mean())
    assert found.shares["shifted"][0] == pytest.approx((ranks > 3).mean())
    assert sum(k.count for k in found.kinds) == len(ranks) and any(differ)
    # Only block 2 was tuned. Base blocks 0-1 below leave the tuned model as it is; blocks 0-2 below hold all of it.
    joined = {j.layer: (j.tuned_above, j.tuned_below) for j in found.joined}
    assert joined[0] == joined[1] == (1, 0) and joined[2] == (0, 1)
    assert "Up to layer 2" in found.summary


def test_joined_networks_equal_exchanged_blocks() -> None:
    base, after = tiny("llama"), tiny("llama", seed=1)
    found = tuning_effect(after, against=base, texts=TEXTS, new_tokens=0, layers=2)
    mixed = base.copy()  # base below: its embedding and blocks 0 to 2, then the tuned model's last block, norm and head
    mixed.network.model.layers[3] = after.copy().network.model.layers[3]
    mixed.network.model.norm, mixed.network.lm_head = after.network.model.norm, after.network.lm_head
    hits = total = 0
    for text in TEXTS:
        ids = torch.tensor([after.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            tops = [m.network(ids).logits[0, 1:].argmax(-1) for m in (base, after, mixed)]
        parted = tops[0] != tops[1]
        hits += int((tops[2] == tops[1])[parted].sum())
        total += int(parted.sum())
    assert [j.layer for j in found.joined] == [0, 2]
    assert found.joined[1].tuned_above == pytest.approx(hits / total)


def test_equal_models_and_models_of_other_depth() -> None:
    model = tiny("llama")
    found = tuning_effect(model.copy(), against=model, texts=TEXTS, new_tokens=5)
    assert found.shares["unshifted"][0] == 1 and found.kl[0] == 0 and found.joined == [] and found.tokens == []
    again = Finding.from_json(found.to_json())
    assert isinstance(again, TuningEffect) and again == found
    other = tuning_effect(tiny("gpt2"), against=model, texts=TEXTS, new_tokens=5)
    assert len(other.joined) == 3 and other.kl[0] > 0  # as deep and as wide: they can be joined
    assert other.by_position[0][:2] == (1, 1) and other.token_maps[0].maximum == 2


def test_batches_change_nothing() -> None:
    base, after = tuned("gemma3")
    one, many = (tuning_effect(after, against=base, texts=TEXTS, new_tokens=5, batch_size=b) for b in (1, 4))
    assert one.shares == many.shares and one.joined == many.joined


def test_kinds_of_tokens() -> None:
    kinds = {
        "\n": "line break", " ": "space", ",": "punctuation", " 3.5": "number", " the": "small word", " tree": "word",
        "Paris": "word", "ing": "piece of a word", "<|end|>": "special",
    }  # fmt: skip
    assert {token: kind_of(token) for token in kinds} == kinds


def test_clear_errors() -> None:
    base, after = tuned("llama")
    with pytest.raises(BadInput, match="new_tokens is 127"):
        tuning_effect(after, against=base, texts=TEXTS, new_tokens=127)
    with pytest.raises(BadInput, match="single token"):
        tuning_effect(after, against=base, texts=["a"], new_tokens=0)
    with pytest.raises(BadInput, match="causal"):
        tuning_effect(tiny("bert"), against=tiny("bert"), texts=TEXTS)
    with pytest.raises(BadInput, match="different tokens"):
        tuning_effect(after, against=tiny("llama", bos=True), texts=TEXTS)
