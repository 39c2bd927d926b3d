"""Edits that flip an answer are what they say; influence is the product of gradients it claims to be."""

from __future__ import annotations

import pytest
import torch
import transformers as tf

import intarsia as ia
from intarsia.data import LabelledText, TextPair
from intarsia.errors import BadInput
from intarsia.interpretation import adversarial, counterfactual, influence
from intarsia.interpretation.examples import gradients
from intarsia.interpretation.examples.search import Bounds, Search, Vocabulary
from intarsia.interpretation.explained import explain_text
from intarsia.measure import LabelTask
from intarsia.measure.likelihood import score
from tests.tiny import tiny, tokenizer

TEXTS = ["It was a good day.", "I am so sad.", "Why not?"]


def with_task(family: str, **settings):
    model = tiny(family, **settings)
    LabelTask(verbalisers={"joy": " joy", "sad": " sad", "fear": " fear"}).attach(model)
    return model


def classifier():
    config = tf.BertConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, num_labels=3
    )
    torch.manual_seed(0)
    network = tf.BertForSequenceClassification(config).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.2)
    return ia.wrap(network, tokenizer())


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox"])
@pytest.mark.parametrize("method", [adversarial, counterfactual])
def test_a_flip_is_a_flip(family, method):
    model = with_task(family)
    found = method(model, texts=TEXTS, **({"similar": -1.0} if method is adversarial else {}))
    assert found.flip_rate > 0
    for edited in found.edited:
        assert edited.flipped == (edited.before != edited.after)
        assert edited.edits == sum(was is not None for was in edited.was)
        if edited.flipped:
            assert 1 <= edited.edits <= found.max_edits and edited.edited != edited.text
            again = explain_text(model, edited.edited)  # bytes: no token spans a seam, so the ids are the same
            if again.text == edited.edited and not edited.edited.startswith(" "):
                probabilities = score(model, LabelTask.of(model), ["".join(edited.words)], calibration="none").raw
                assert LabelTask.of(model).labels[int(probabilities.argmax())] == edited.after


def test_the_wanted_answer_is_reached_and_texts_that_have_it_are_left_out():
    for seed in range(20):
        model = with_task("llama", seed=seed)
        now = [explain_text(model, text).name for text in TEXTS]
        if len(set(now)) > 1:
            break
    target = next(label for label in ("joy", "sad", "fear") if 0 < now.count(label) < len(now))
    found = counterfactual(model, texts=TEXTS, target=target)
    assert len(found.edited) == sum(name != target for name in now)
    assert all(e.after == target for e in found.flipped) and found.flipped
    with pytest.raises(BadInput, match="for all 1 texts already"):
        counterfactual(model, texts=[TEXTS[now.index(target)]], target=target)


def test_every_change_is_needed():
    model = with_task("llama", seed=3)
    for text in TEXTS:
        explained = explain_text(model, text)
        search = Search(explained, Vocabulary(model), Bounds(4, 1, 4, -1.0, 30), None)
        words = search.run()
        if words is None:
            continue
        for w, word in enumerate(words):
            if word != search.start[w]:
                back = (*words[:w], search.start[w], *words[w + 1 :])
                assert not bool(search.reached(search.answers([back]))[0])


@pytest.mark.parametrize("make", [lambda: with_task("llama"), lambda: with_task("gpt2"), classifier])
def test_the_estimate_is_the_gradient_times_the_exchange(make):
    model = make()
    explained = explain_text(model, "ab cd")
    search = Search(explained, Vocabulary(model), Bounds(1, 1, 8), None)
    gains = search.gains(search.start, [0, 1])
    embeddings = explained.embeddings().detach().requires_grad_()
    explained.choice = search.now
    (slope,) = torch.autograd.grad(explained.value_at(embeddings[None]).sum(), embeddings)
    table = Vocabulary(model).embeddings
    place = explained.features[explained.words[1][0]]
    current = explained.ids[place]
    for token in (20, 50, 200):
        expected = -slope[place].double() @ (table[token] - table[current]).double()
        torch.testing.assert_close(gains[1, token].double(), expected, atol=1e-5, rtol=1e-4)


def test_a_bert_classifier_and_an_encoder_that_judges():
    model = classifier()
    found = adversarial(model, texts=TEXTS, encoder=tiny("bert-encoder"), similar=-1.0, least_similarity=-1.0)
    assert found.edited[0].surprise_before is None
    assert all(e.similarity is not None and e.similarity <= 1.0001 for e in found.flipped)
    strict = adversarial(model, texts=TEXTS, encoder=tiny("bert-encoder"), similar=-1.0, least_similarity=1.0)
    assert not strict.flipped and "not that no such edit exists" in strict.summary


def test_punctuation_stays_when_its_word_goes():
    model = with_task("llama")
    search = Search(explain_text(model, "so sad, really"), Vocabulary(model), Bounds(1, 1, 8, delete=True), None)
    comma = model.tokenizer(",")["input_ids"][0]
    changed = [v[1] for v in search.proposals(search.start) if v[1] != search.start[1]]
    assert changed and all(word[-1] == comma for word in changed) and (comma,) in changed


def test_label_names_are_not_proposed():
    model = with_task("llama")
    letters = Vocabulary(model, forbidden=["a", " b"])
    ids = [model.tokenizer(c)["input_ids"][0] for c in "abc"]
    assert letters.word[ids].tolist() == [False, False, True]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_influence_without_projection_is_the_product_of_gradients(family):
    model = tiny(family).copy()
    model.network.double()
    train, test = ["Paris is", "I like soup", "abc"], ["Rome is"]
    weights = gradients.parameters(model)
    assert len(weights) == 8  # four blocks, two output projections each

    def gradient(text: str) -> torch.Tensor:
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        loss = model.network(input_ids=ids, labels=ids).loss
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(weights.values()))])

    expected = torch.stack([gradient(t) for t in train]) @ gradient(test[0])
    parts = [gradients.encode(model, side, 64) for side in (train, test)]
    projection = gradients.Projection(weights, 128, seed=0)
    a, b = (gradients.gradients(model, side, projection, "")[0] for side in parts)
    torch.testing.assert_close(gradients.scores(a, b, "tracin", 0.1)[0], expected.double(), rtol=1e-4, atol=1e-8)
    assert all(not p.grad_fn and p.grad is None for p in model.network.parameters())


def test_projected_products_estimate_the_true_ones():
    generator = torch.Generator().manual_seed(0)
    weights = {"w": torch.nn.Parameter(torch.zeros(40, 60))}
    g = torch.randn(2, 40, 60, generator=generator)
    g[1] += 0.7 * g[0]
    true = float((g[0] * g[1]).sum())
    found = []
    for seed in range(200):
        p = [gradients.Projection(weights, 12, seed)([x])[0].flatten() for x in g]
        found.append(float(p[0] @ p[1]))
    assert abs(sum(found) / len(found) - true) < 0.15 * true


def test_the_preconditioner_is_the_inverse_in_the_eigenbasis():
    generator = torch.Generator().manual_seed(1)
    g = torch.randn(30, 4, 5, generator=generator, dtype=torch.float64)
    o = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    (fast,) = gradients.precondition([g], [o], 0.1)
    left = torch.linalg.eigh(sum(x @ x.T for x in g))[1]
    right = torch.linalg.eigh(sum(x.T @ x for x in g))[1]
    basis = torch.kron(left, right)  # row-major vec
    moments = (g.flatten(1) @ basis).square().mean(0)
    inverse = basis @ torch.diag(1 / (moments + 0.1 * moments.mean())) @ basis.T
    torch.testing.assert_close(fast.flatten(1), o.flatten(1) @ inverse)


def test_nearest_states_are_cosines_of_the_last_states():
    model = tiny("gpt2")
    texts = ["Paris is", "I like soup", "abc", "Rome is"]
    rows = [ia.read(model, [t], "layers.3.resid_post")["layers.3.resid_post"][0, -1].double() for t in texts]
    mean = sum(rows[:3]) / 3
    expected = [torch.cosine_similarity(r - mean, rows[3] - mean, dim=0) for r in rows[:3]]
    encoded = gradients.encode(model, texts, 64)
    found = gradients.nearness(model, encoded[:3], encoded[3:])
    torch.testing.assert_close(found[0], torch.stack(expected))


@pytest.mark.parametrize("method", ["ekfac", "tracin", "cosine", "states"])
def test_a_text_is_most_influenced_by_itself(method):
    model = tiny("llama")
    train = ["Paris is in France.", "I like soup.", "Milk is white.", "0123456789"]
    found = influence(model, train=train, test=train[:3], method=method, check=1, rank=32)
    assert [t.helpful[0][0] for t in found.tests] == train[:3]
    if method != "states":
        good, chance, bad = (c.change for c in found.checks)
        assert good < chance < bad and "pass the check" in found.summary
    assert found.concentration[-1] == pytest.approx(1)


def test_the_loss_is_that_of_the_label_or_of_the_target():
    model = with_task("llama")
    records = [LabelledText("Oh.", "sad")]
    ((ids, steps),) = gradients.encode(model, records, 64)
    expected = -score(model, LabelTask.of(model), records, calibration="none").raw[0, 1] / len(steps)
    assert gradients.loss_of(model, ids, steps).item() == pytest.approx(expected, abs=1e-5)
    ((ids, steps),) = gradients.encode(tiny("llama"), [TextPair("ab", "cd")], 64)
    assert [row for row, _, _ in steps] == [1, 2] and len(ids) == 4


def test_bad_input():
    with pytest.raises(BadInput, match="needs a model that chooses"):
        adversarial(tiny("llama"), texts=TEXTS)
    with pytest.raises(BadInput, match="no choice 'anger'"):
        counterfactual(with_task("llama"), texts=TEXTS, target="anger")
    with pytest.raises(BadInput, match="two training texts"):
        influence(tiny("llama"), train=["one"], test=["two"])
    with pytest.raises(BadInput, match="causal"):
        influence(tiny("bert"), train=["one", "two"], test=["two"])
    with pytest.raises(BadInput, match="no token to be predicted"):
        influence(tiny("llama"), train=["a", "bc"], test=["two"])
