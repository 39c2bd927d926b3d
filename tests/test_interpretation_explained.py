"""What is explained: its probabilities are the label scores, and masking does what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as tf

import intarsia as ia
from intarsia.data import LabelledText
from intarsia.errors import BadInput
from intarsia.interpretation.explained import explain_text
from intarsia.measure import LabelTask
from intarsia.measure.likelihood import score
from tests.tiny import tiny, tokenizer

WORDS = {"joy": " joy", "joyless": " joyless", "sad": " sad"}  # the first two begin alike: a trie of two levels
FAMILIES = ["llama", "gpt2", "gemma3", "neox"]


def with_task(family: str, **settings):
    model = tiny(family)
    LabelTask(verbalisers=WORDS, **settings).attach(model)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_values_are_the_label_scores_however_they_are_computed(family):
    model = with_task(family)
    explained = explain_text(model, "I love it")
    raw = score(model, LabelTask.of(model), ["I love it"], calibration="none").raw
    np.testing.assert_allclose(explained.log_probs().numpy(), raw, atol=2e-6)
    assert explained.choice == raw.argmax()
    for choice in range(3):
        explained.choice = choice
        at = explained.value_at(explained.embeddings()[None].expand(2, -1, -1)).detach()
        through, acts = explained.value_with(["layers.0.resid_post"])
        np.testing.assert_allclose([*at, through.item()], raw[0, choice], atol=2e-6)
        (slope,) = torch.autograd.grad(through, acts["layers.0.resid_post"])
        assert slope.abs().sum() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_deleting_tokens_is_scoring_the_shorter_text(family):
    model = with_task(family)
    explained = explain_text(model, "I love it", removal="delete")
    keep = torch.ones(3, len(explained.features), dtype=torch.bool)
    keep[0, 0] = False
    keep[1, 2:5] = False
    raw = score(model, LabelTask.of(model), [" love it", "I e it", "I love it"], calibration="none").raw
    np.testing.assert_allclose(explained.log_probs(keep).numpy(), raw, atol=2e-6)


@pytest.mark.parametrize("removal", ["attention", "token", "delete"])
def test_a_batch_of_variants_equals_one_by_one_and_is_remembered(removal):
    model = with_task("llama")
    explained = explain_text(model, "ab cd", removal=removal)
    keep = torch.rand(9, len(explained.features), generator=torch.Generator().manual_seed(0)) > 0.4
    together = explained.log_probs(keep)
    for row, expected in zip(keep, together, strict=True):
        fresh = explain_text(model, "ab cd", removal=removal)
        torch.testing.assert_close(fresh.log_probs(row[None])[0], expected, atol=2e-6, rtol=0)
    model.network.forward = None  # nothing may run any more
    assert torch.equal(explained.log_probs(keep.flip(0)), together.flip(0))


def test_a_token_that_cannot_be_attended_to_has_no_effect():
    model = with_task("llama")
    one, other = (explain_text(model, text, removal="attention") for text in ("xbc", "ybc"))
    keep = torch.tensor([[False, True, True]])
    torch.testing.assert_close(one.log_probs(keep), other.log_probs(keep))
    assert not torch.allclose(one.log_probs(), other.log_probs())


def test_features_are_the_text_alone():
    model = with_task("llama", template="Read this: {context}\nText: {text}\nLabel:")
    explained = explain_text(model, LabelledText("Yes, so it is.", "", context=("Text: Yes", "so")))
    assert "".join(explained.tokens) == "Yes, so it is."
    decoded = model.tokenizer.decode([explained.ids[i] for i in explained.features])
    assert decoded == "Yes, so it is."
    assert ["".join(explained.tokens[i] for i in w) for w in explained.words] == ["Yes,", " so", " it", " is."]


def test_what_follows_is_explained_where_there_is_no_task():
    model = tiny("gpt2")
    own = explain_text(model, "Hello there", new_tokens=3)
    ids = torch.tensor([own.ids])
    expected = 0.0
    for _ in range(3):
        log_p = model.network(ids).logits[0, -1].double().log_softmax(-1)
        expected += log_p.max()
        ids = torch.cat([ids, log_p.argmax()[None, None]], dim=1)
    torch.testing.assert_close(own.value()[0], expected.detach(), atol=2e-6, rtol=0)
    given = explain_text(model, "Hello there", target=" x")
    assert given.name == " x" and given.value() < own.value() / 3 + 1


def test_a_classifier():
    config = tf.BertConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, num_labels=3
    )
    model = ia.wrap(tf.BertForSequenceClassification(config).eval(), tokenizer(bos=True))
    explained = explain_text(model, "Hi there", target="LABEL_1")
    expected = model.network(**model.encode(["Hi there"])).logits.double().log_softmax(-1)[0]
    torch.testing.assert_close(explained.log_probs()[0], expected.detach(), atol=1e-6, rtol=0)
    assert len(explained.features) == len("Hi there") and 0 not in explained.features  # <s> stays
    at = explained.value_at(explained.embeddings()[None]).detach()
    torch.testing.assert_close(at[0], expected[1].detach(), atol=1e-6, rtol=0)


def test_long_texts_of_a_task_are_cut_and_it_is_said():
    model = with_task("llama", max_tokens=40)
    with pytest.warns(match="explained only up to 40"):
        explained = explain_text(model, "word " * 30)
    assert len(explained.ids) <= 40 and explained.tokens


@pytest.mark.parametrize(
    ("family", "text", "settings", "words"),
    [
        ("llama", "a text", {"target": "jo"}, "no choice 'jo'"),
        ("llama", "", {}, "no tokens"),
        ("bert-encoder", "a text", {}, "nothing to explain"),
    ],
)
def test_bad_input(family, text, settings, words):
    model = with_task(family) if family == "llama" else tiny(family)
    with pytest.raises(BadInput, match=words):
        explain_text(model, text, **settings)
