"""Label scores against the formula written naively, one text and one label at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from intarsia.data import LabelledText
from intarsia.errors import BadInput
from intarsia.measure.labels import LabelTask
from intarsia.measure.likelihood import length_batches, score
from tests.tiny import CAUSAL, MOE, tiny

WORDS = ["joy", "joyful", "anger", "angst", "fear"]  # byte tokens: share " ", "joy", "an", and one begins another
TEXTS = ["a", "The quick brown fox jumps", "x" * 40, "zażółć gęślą", "middle sized text", ""]


def naive(model, task: LabelTask, text: str) -> np.ndarray:
    """Each label on its own: for every token of its verbaliser, the softmax over the tokens that any label could have
    there; full forwards, no padding, float64."""
    tokenizer, network = model.tokenizer, model.network
    prompt = tokenizer(task.render(text))["input_ids"]
    words = {label: task.verbalisers[label] for label in task.labels}
    words = {a: w + ("\n" if any(v != w and v.startswith(w) for v in words.values()) else "") for a, w in words.items()}
    ids = {label: tokenizer(word, add_special_tokens=False)["input_ids"] for label, word in words.items()}
    out = []
    for label in task.labels:
        total = 0.0
        for i, token in enumerate(ids[label]):
            prefix = ids[label][:i]
            ways = sorted({other[i] for other in ids.values() if other[:i] == prefix and len(other) > i})
            with torch.no_grad():
                logits = network(input_ids=torch.tensor([prompt + prefix])).logits[0, -1].double()
            total += torch.log_softmax(logits[ways], 0)[ways.index(token)].item()
        out.append(total)
    return np.array(out)


@pytest.mark.parametrize("family", CAUSAL)
def test_equals_the_naive_formula(family):
    # PyTorch's grouped matrix product, which expert layers use, has no float64.
    model = tiny(family, dtype=torch.float32 if family in MOE else torch.float64)
    task = LabelTask(verbalisers={word: " " + word for word in WORDS})
    found = score(model, task, TEXTS)
    expected = np.stack([naive(model, task, text) for text in TEXTS])
    np.testing.assert_allclose(found.raw, expected, atol=1e-4 if family in MOE else 1e-8)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_single_token_words_in_float32(family):
    model = tiny(family, bos=True)
    task = LabelTask(verbalisers={word: word for word in "abc"}, template="{text}:")
    found = score(model, task, TEXTS)
    np.testing.assert_allclose(found.raw, np.stack([naive(model, task, t) for t in TEXTS]), atol=1e-4)


def test_probabilities_sum_to_one_and_mass_is_the_first_tokens_share():
    model = tiny("llama", dtype=torch.float64)
    task = LabelTask(verbalisers={word: word for word in WORDS}, temperature=1.7, calibration="none")
    found = score(model, task, TEXTS)
    np.testing.assert_allclose(np.exp(found.raw).sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(found.probabilities.sum(1), 1, atol=1e-12)
    ids = model.tokenizer(task.render(TEXTS[1]))["input_ids"]
    whole = torch.softmax(model.network(input_ids=torch.tensor([ids])).logits[0, -1], 0)
    first = sorted({model.tokenizer(w)["input_ids"][0] for w in WORDS})
    assert found.mass[1] == pytest.approx(whole[first].sum().item(), abs=1e-9)


def test_all_labels_over_the_vocabulary_give_the_models_own_distribution():
    """With every byte a label, the trie is the whole vocabulary's byte part, and scores are its log-softmax."""
    model = tiny("llama", dtype=torch.float64)
    tokenizer = model.tokenizer
    letters = [chr(c) for c in range(33, 127)]
    task = LabelTask(verbalisers={c: c for c in letters}, template="{text}\n")
    found = score(model, task, ["some text"])
    ids = tokenizer("some text\n")["input_ids"]
    logits = model.network(input_ids=torch.tensor([ids])).logits[0, -1]
    expected = torch.log_softmax(logits[[tokenizer(c)["input_ids"][0] for c in letters]], 0)
    np.testing.assert_allclose(found.raw[0], expected.detach().numpy(), atol=1e-9)


def test_calibration_by_formula():
    model = tiny("llama")
    words = {word: " " + word for word in WORDS}
    bias = [0.1, -0.2, 0.3, 0.0, 0.5]
    prior = [0.1, 0.2, 0.3, 0.2, 0.2]
    task = LabelTask(verbalisers=words, bias=bias, prior=prior, prior_weight=0.5, temperature=2.0)
    found = score(model, task, TEXTS)
    shifted = found.raw + bias
    np.testing.assert_allclose(found.scores, shifted - shifted.mean(0) + 0.5 * np.log(prior), atol=1e-12)
    plain = score(model, task, TEXTS, calibration="none")
    np.testing.assert_allclose(plain.scores, shifted + 0.5 * np.log(prior), atol=1e-12)
    free = score(model, task, TEXTS, calibration="content-free")
    empty = free.raw[TEXTS.index("")]
    np.testing.assert_allclose(free.scores, free.raw - empty + 0.5 * np.log(prior), atol=1e-5)


def test_order_and_company_do_not_matter():
    model = tiny("llama", dtype=torch.float64)
    task = LabelTask(verbalisers={word: " " + word for word in WORDS})
    forward = score(model, task, TEXTS)
    backward = score(model, task, TEXTS[::-1])
    np.testing.assert_allclose(forward.scores, backward.scores[::-1], atol=1e-9)
    alone = score(model, task, TEXTS[1:2])
    np.testing.assert_allclose(forward.raw[1:2], alone.raw, atol=1e-9)


def test_another_engine_gives_the_same():
    model = tiny("llama", dtype=torch.float64)

    class Engine:
        def logits(self, ids):
            with torch.no_grad():
                return model.network(input_ids=torch.tensor([ids])).logits[0].numpy()

    task = LabelTask(verbalisers={word: " " + word for word in WORDS})
    texts = [LabelledText(text, "joy") for text in TEXTS]
    np.testing.assert_allclose(
        score(model, task, texts, runtime=Engine()).scores, score(model, task, texts).scores, atol=1e-9
    )


def test_length_batches_hold_every_row_once():
    lengths = [5, 100, 3, 7, 50, 50, 1, 3000]
    batches = length_batches(lengths, 120, rows=3)
    assert sorted(i for b in batches for i in b) == list(range(len(lengths)))
    assert all(len(b) == 1 or (len(b) <= 3 and len(b) * max(lengths[i] for i in b) <= 120) for b in batches)


def test_bad_input():
    task = LabelTask(verbalisers={"a": " a", "b": " b"})
    with pytest.raises(BadInput, match="no texts"):
        score(tiny("llama"), task, [])
    with pytest.raises(BadInput, match="causal"):
        score(tiny("bert"), task, ["x"])
    with pytest.raises(BadInput, match="calibration"):
        score(tiny("llama"), task, ["x"], calibration="magic")
    model = tiny("llama")
    model.tokenizer = None
    with pytest.raises(BadInput, match="tokenizer"):
        score(model, task, ["x"])
