"""Every attribution method on labels, classes and following words; and what its finding says."""

from __future__ import annotations

import math

import pytest
import torch
import transformers as tf

import intarsia as ia
from intarsia import catalog, interpretation
from intarsia.data import LabelledText
from intarsia.errors import BadInput
from intarsia.interpretation import METHODS, Attribution, attribute_one, integrated_gradients, leave_one_out, lrp
from intarsia.interpretation.explained import explain_text
from intarsia.measure import LabelTask
from intarsia.report import Finding, render_finding
from tests.tiny import tiny, tokenizer

QUICK = {
    "integrated_gradients": {"steps": 4},
    "smooth_grad": {"samples": 3},
    "lime": {"samples": 16},
    "kernel_shap": {"samples": 24},
    "partition_shap": {"evaluations": 24},
    "shapley_sampling": {"orders": 2},
    "attention_attribution": {"steps": 2},
}
REAL = {
    "integrated_gradients": {"steps": 16},
    "smooth_grad": {"samples": 12},
    "lime": {"samples": 64},
    "kernel_shap": {"samples": 64},
    "partition_shap": {"evaluations": 128},
    "shapley_sampling": {"orders": 6},
}
LABELS = {"joy": " joy", "joyless": " joyless", "sad": " sad"}  # the first two begin alike: a tail is read


def with_task(family: str, **settings):
    model = tiny(family)
    LabelTask(verbalisers=LABELS, **settings).attach(model)
    return model


def classifier():
    config = tf.BertConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, num_labels=3,
        initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    return ia.wrap(tf.BertForSequenceClassification(config).eval(), tokenizer(bos=True))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_explains_labels_classes_and_what_follows(method):
    extra = catalog.find(f"interpretation.{method}").extra
    if extra:
        pytest.importorskip("scipy")
    for model, settings in (
        (with_task("llama", template="Text: {text}\nLabel:"), {"target": "joyless"}),
        (classifier(), {}),
        (tiny("gpt2"), {"new_tokens": 2}),
    ):
        explained = explain_text(model, "It is bad.", **settings)
        scores = attribute_one(explained, method, seed=3, **QUICK.get(method, {}))
        assert scores.shape == (10,) and scores.dtype == torch.float64
        assert bool(scores.isfinite().all()) and float(scores.abs().max()) > 0
        assert METHODS[method].signed or bool((scores >= 0).all())
        again = attribute_one(explain_text(model, "It is bad.", **settings), method, 3, **QUICK.get(method, {}))
        torch.testing.assert_close(scores, again, atol=1e-6, rtol=1e-5)


def test_label_scores_of_each_label_are_told_apart_and_templates_stay():
    model = with_task("llama", template="Text: {text}\nLabel:")
    found = {t: leave_one_out(model, texts=["It is bad."], target=t).texts[0] for t in LABELS}
    assert sum(text.probability for text in found.values()) == pytest.approx(1, abs=1e-5)
    for name, text in found.items():
        assert text.explained == name and "".join(piece.text for piece in text.pieces) == "It is bad."
    scores = {tuple(piece.score for piece in text.pieces) for text in found.values()}
    assert len(scores) == 3


def test_a_words_score_is_the_sum_of_its_tokens():
    model = tiny("llama")
    words, tokens = (integrated_gradients(model, prompt="ab cde", unit=u).texts[0] for u in ("word", "token"))
    assert [p.text for p in words.pieces] == ["ab", " cde"] and len(tokens.pieces) == 6
    parts = [p.score for p in tokens.pieces]
    assert [p.score for p in words.pieces] == pytest.approx([sum(parts[:2]), sum(parts[2:])], abs=1e-9)
    assert words.gap == pytest.approx(abs(sum(parts) - words.total) / abs(words.total))


def test_the_finding_reads_saves_and_draws():
    model = with_task("llama")
    records = [LabelledText("It is bad, bad.", "sad"), LabelledText("Good day", "joy"), "Bad luck"]
    found = integrated_gradients(model, texts=records, steps=8)
    again = Finding.from_json(found.to_json())
    assert isinstance(again, Attribution) and again == found
    maps, (by_text, words) = found.token_maps(), found.tables()
    assert [m.scale for m in maps] == ["diverging"] * 3 and maps[0].tokens == ["It", " is", " bad,", " bad."]
    assert (
        maps[0].title
        == f"Text 1, explained: '{found.texts[0].explained}', probability {found.texts[0].probability:.3g}"
    )
    assert len(by_text.rows) == 3 and by_text.rows[0][2] == math.exp(found.texts[0].log_prob)
    same = [t for t in found.texts if t.explained == found.texts[0].explained]
    scores = [p.score for t in same for p in t.pieces if "bad" in p.text.lower()]
    row = next(r for r in words.rows if r[:2] == [found.texts[0].explained, "bad"])
    assert row[2] == pytest.approx(sum(scores) / len(scores)) and row[3] == len(scores)
    worst = max(t.gap for t in found.texts)
    assert found.headline()["completeness_error"][0] == worst
    assert "add up" in found.summary and "Text 1" in str(found) and "Text 3" in render_finding(found)
    assert lrp(model, texts=["Bad luck"]).token_maps()[0].scale == "diverging"
    grey = interpretation.gradient(model, texts=["Bad luck"])
    assert grey.token_maps()[0].scale == "sequential" and len(grey.table().columns) == 5
    assert "drawn at random" in interpretation.random(model, texts=["Bad luck"]).summary


def test_texts_are_drawn_by_the_seed_and_a_prompt_takes_their_place():
    model = tiny("llama")
    texts = [f"text {i}" for i in range(9)]
    one, again, other = (leave_one_out(model, texts=texts, max_texts=3, seed=s) for s in (0, 0, 4))
    assert one == again and [t.text for t in one.texts] != [t.text for t in other.texts]
    assert [t.text for t in leave_one_out(model, texts=texts, prompt="this").texts] == ["this"]


def test_the_last_token_can_be_taken_away_too():
    # It is where the choice is read off: not attending to it must also hide it from itself.
    model = tiny("llama")
    values = []
    for text in ("abx", "aby"):
        explained = explain_text(model, text, target="z")
        values.append(explained.value(torch.tensor([[True, True, False], [True, True, True]])))
    assert float(values[0][0]) == pytest.approx(float(values[1][0]), abs=1e-6)
    assert float(values[0][1]) != pytest.approx(float(values[1][1]), abs=1e-3)


def test_every_method_is_a_technique_with_its_own_settings_and_source():
    rows = {n.partition(".")[2]: t for n, t in catalog.load().items() if t.family in ("attribution", "attention")}
    assert set(METHODS) == set(rows) - {"attention"}
    assert len({rows[m].config for m in METHODS}) == len(METHODS)
    for name, method in METHODS.items():
        row = rows[name]
        assert row.config is method.config and row.source and row.summary.endswith((".", ":"))
        assert getattr(interpretation, name) is row.function


def test_bad_input():
    model = with_task("llama")
    with pytest.raises(BadInput, match="no text was given: give texts, or one as prompt"):
        leave_one_out(model)
    with pytest.raises(BadInput, match=r"no choice 'jo'.*joy"):
        leave_one_out(model, texts=["text"], target="jo")
    with pytest.raises(BadInput, match="steps"):
        integrated_gradients(model, texts=["text"], steps=0)
    with pytest.raises(BadInput, match="encoder-decoder"):
        leave_one_out(tiny("t5"), texts=["text"])


@pytest.mark.real
def test_most_methods_find_the_word_that_decides():
    model = ia.load("smollm2-135m")
    template = "Review: {text}\nThe sentiment of this review is"
    LabelTask(verbalisers={"positive": " positive", "negative": " negative"}, template=template).attach(model)
    explained = explain_text(model, "The plot of the film was terrible on a Monday in June.", target="negative")
    first = {}
    for name in METHODS:
        if name in ("random", "attention_attribution"):  # no method; half a minute
            continue
        scores = attribute_one(explained, name, unit="word", **REAL.get(name, {}))
        best = max(explained.words, key=lambda word: float(scores[word].sum()))
        first[name] = "".join(explained.tokens[i] for i in best).strip()
    found = [name for name, word in first.items() if word == "terrible"]
    assert len(found) > len(first) / 2, first
    for name in ("leave_one_out", "partition_shap", "lrp", "gradient"):
        assert first[name] == "terrible", first
