"""The diff's view of facts: their ranks are those of the lens, and their fates follow from them."""

from __future__ import annotations

import pytest
import torch

import intarsia as ia
from intarsia.data import TextPair
from intarsia.errors import BadInput
from intarsia.interpretation import diff
from intarsia.interpretation.model_diff.facts import facts_diff
from tests.tiny import tiny

PAIRS = [TextPair("ab", "cd"), TextPair("Rome is in", " Italy"), TextPair("xy", "z")]


def ranks_one_by_one(model: ia.Model, prompt: str, token: int) -> list[int]:
    """Of a token after the prompt, each layer's state read behind the first token of a two-token target."""
    n = len(model.sites.blocks)
    acts = ia.read(model, [prompt], "layers.*.resid_post")
    start = model.tokenizer.bos_token_id
    out = []
    for layer in range(n):
        site = f"layers.{layer}.resid_post"
        edit = ia.Replace(site, at=1, value=acts.last(site)[0])
        logits = ia.run(model, torch.tensor([[start, start]]), edits=[edit]).logits[0, -1]
        out.append(int((logits > logits[token]).sum()) + 1)
    return out


def test_facts_are_read_as_the_sink_lens_reads_them():
    one, other = tiny("llama", seed=1), tiny("llama", seed=2)
    top = 40
    found = facts_diff(one, other, PAIRS, top, "sink")
    for pair, fact in zip(PAIRS, found.facts, strict=True):
        seam = "" if pair.target.startswith(" ") else " "
        token = one.tokenizer(seam + pair.target)["input_ids"][0]
        before, after = (ranks_one_by_one(m, pair.prompt, token) for m in (one, other))
        assert (fact.rank_before, fact.rank_after) == (before[-1], after[-1])
        readable = [[i for i, rank in enumerate(line) if rank <= top] for line in (before, after)]
        assert (fact.before, fact.after) == tuple(line[0] if line else None for line in readable)
        said = before[-1] <= top, after[-1] <= top
        expected = {(True, True): "kept", (False, True): "gained", (False, False): "never readable"}.get(said)
        assert fact.fate == (expected or ("hidden" if readable[1] else "lost"))
    at_last = sum(f.rank_before <= top for f in found.facts) / len(PAIRS)
    assert found.readable_before[-1] == pytest.approx(at_last)


def test_the_same_model_keeps_all_it_knows():
    model = tiny("gpt2")
    found = diff(model, against=model, texts=["some text"], facts=PAIRS, facts_top=300)
    assert found.facts.count("kept") == 3 and found.identical
    changed = diff(tiny("gpt2", seed=5), against=model, texts=["some text"], facts=PAIRS, facts_top=300)
    assert "3 still are" in changed.summary
    assert any("facts" in block.title.lower() for block in changed.blocks())
    assert ia.interpretation.Diff.model_validate_json(changed.model_dump_json()) == changed


@pytest.mark.parametrize(
    ("family", "facts", "words"),
    [
        ("llama", [TextPair("a", " ")], "no words to follow"),
        ("llama", ["just text"], "pairs of a prompt"),
        ("bert", PAIRS, "causal language model"),
    ],
)
def test_bad_facts_are_refused_before_any_work(family, facts, words):
    model = tiny(family)
    with pytest.raises(BadInput, match=words):
        diff(model, against=model, texts=["some text"], facts=facts)
