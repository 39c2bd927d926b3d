"""Uncertainty: every signal against its formula in float64, every rating against scikit-learn or the naive sum."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import torch

import intarsia as ia
from intarsia.data import TextPair, shared_data
from intarsia.errors import BadInput
from intarsia.interpretation import continuing, writing
from intarsia.interpretation.uncertainty import Hallucination, Uncertainty, hallucination, inside, judging, uncertainty
from intarsia.interpretation.uncertainty import signals as s
from intarsia.interpretation.uncertainty.errors import HallucinationConfig
from intarsia.interpretation.uncertainty.meaning import Embeddings, Entailment, Words, clusters, embed, plain
from intarsia.interpretation.uncertainty.rating import is_right, rate
from intarsia.report import Finding
from tests.tiny import tiny, tokenizer

LOG_PROBS = [-0.5, -1.0, -1.5, -0.2]
OF = [0, 1, 0, 2]


def test_semantic_entropy_from_clusters() -> None:
    p = [math.exp(v) for v in LOG_PROBS]
    mass = [p[0] + p[2], p[1], p[3]]
    shares = [m / sum(p) for m in mass]
    assert s.semantic_entropy(LOG_PROBS, OF) == pytest.approx(-sum(q * math.log(q) for q in shares))
    assert s.cluster_entropy(OF) == pytest.approx(-(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25)))
    assert s.semantic_entropy(LOG_PROBS, [0] * 4) == 0 == s.cluster_entropy([0] * 4)
    # Alike samples in clusters of their own: the entropy is that of the number of meanings.
    assert s.semantic_entropy([-3.0] * 4, [0, 1, 2, 3]) == pytest.approx(math.log(4))
    assert s.semantic_entropy([-800.0, -801.0], [0, 1]) == pytest.approx(s.semantic_entropy([0.0, -1.0], [0, 1]))
    assert s.predictive_entropy(LOG_PROBS) == pytest.approx(0.8)


def test_sar_is_its_formula() -> None:
    assert s.token_sar([-1.0, -2.0], [0.3, 0.1]) == pytest.approx((1 * 0.3 + 2 * 0.1) / 0.4)
    assert s.token_sar([-1.0, -2.0], [0.0, 0.0]) == pytest.approx(1.5)
    g = np.array([[1, 0.5, 0], [0.5, 1, 0.2], [0, 0.2, 1]])
    sars = [0.7, 1.2, 2.0]
    p = [math.exp(-v) for v in sars]
    expected = 0.0
    for j in range(3):
        expected -= math.log(p[j] + sum(g[j, k] * p[k] for k in range(3) if k != j) / 0.1) / 3
    assert s.sar(sars, g, temperature=0.1) == pytest.approx(expected)


def test_clusters_join_the_first_that_means_the_same() -> None:
    words = Words()
    assert clusters(words, "q", ["Paris", "the Paris!", "Rome", "paris", "ROME."]) == [0, 0, 1, 0, 1]
    assert plain(" The  U.S. dollar. ") == "us dollar"


def test_embeddings_are_masked_means_and_decide_by_cosine() -> None:
    encoder = tiny("bert-encoder")
    texts = ["a short one", "quite another text", "x"]
    found = embed(encoder, texts)
    for text, vector in zip(texts, found, strict=True):
        with torch.no_grad():
            hidden = encoder.network(**encoder.tokenizer([text], return_tensors="pt")).last_hidden_state[0].double()
        mean = hidden.mean(0)
        torch.testing.assert_close(vector, mean / mean.norm(), rtol=1e-4, atol=1e-5)
    cosine = float(found[0] @ found[1])
    pair = [(texts[0], texts[1])]
    assert Embeddings(encoder, 0.8).similarity(pair)[0] == pytest.approx(max(0, cosine), abs=1e-5)
    assert Embeddings(encoder, cosine - 0.01).alike("q", *pair[0])
    assert not Embeddings(encoder, cosine + 0.01).alike("q", *pair[0])


def nli_model(labels: dict[int, str]) -> ia.Model:
    import transformers as tf

    torch.manual_seed(0)
    config = tf.BertConfig(
        vocab_size=300, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, id2label=labels, pad_token_id=0,
    )  # fmt: skip
    return ia.wrap(tf.BertForSequenceClassification(config).eval(), tokenizer(), name="tiny-nli")


def test_entailment_asks_both_directions() -> None:
    nli = nli_model({0: "contradiction", 1: "ENTAILMENT", 2: "neutral"})
    judge = Entailment(nli)

    def p(a: str, b: str) -> torch.Tensor:
        with torch.no_grad():
            return nli.network(**nli.tokenizer([a], [b], return_tensors="pt")).logits[0].double().softmax(-1)

    expected = float(p("red", "blue car")[1] + p("blue car", "red")[1]) / 2
    assert judge.similarity([("red", "blue car")])[0] == pytest.approx(expected, abs=1e-5)
    a, b = "q red", "q blue car"
    both = int(p(a, b).argmax()) == 1 == int(p(b, a).argmax())
    assert judge.alike("q", "red", "blue car") == both
    with torch.no_grad():
        nli.network.classifier.bias.copy_(torch.tensor([0.0, 9.0, 0.0]))
    assert Entailment(nli).alike("q", "red", "blue car") and judge.alike("q", "red", "Red!")
    with pytest.raises(BadInput, match="entail"):
        Entailment(nli_model({0: "yes", 1: "no"}))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_uncertainty_signals_equal_their_formulas(family: str) -> None:
    model = tiny(family)
    prompts = ["The capital is", "A colour is"]
    found = uncertainty(model, texts=prompts, samples=5, max_new_tokens=4, seed=2)
    for i, said in enumerate(found.said):
        ids = continuing.encode(model, prompts[i])
        greedy, *drawn = writing.write(model, ids, samples=5, max_new_tokens=4, stop=("\n",), seed=2 + i)
        with torch.no_grad():
            logits = model.network(torch.tensor([[*ids, *greedy.ids]])).logits[0].double()
        log_p = logits[len(ids) - 1 : -1].log_softmax(-1)
        entropies = -(log_p.exp() * log_p).sum(-1)
        own = [float(row[t]) for row, t in zip(log_p, greedy.ids, strict=True)]
        got = said.signals
        assert said.entropies == pytest.approx(entropies.tolist(), rel=1e-3)
        assert got["entropy"] == pytest.approx(float(entropies.mean()), rel=1e-3)
        assert got["max_entropy"] == pytest.approx(float(entropies.max()), rel=1e-3)
        assert got["log_prob"] == pytest.approx(sum(own), rel=1e-3)
        assert got["mean_prob"] == pytest.approx(math.exp(sum(own) / len(own)), rel=1e-3)
        texts = [plain(w.text) for w in drawn]
        numbers = [texts.index(t) for t in texts]
        mean = [float(np.mean(w.log_probs)) for w in drawn]
        p = np.exp(mean) / np.exp(mean).sum()
        shares = [p[[n == c for n in numbers]].sum() for c in set(numbers)]
        assert got["semantic_entropy"] == pytest.approx(-sum(q * math.log(q) for q in shares), abs=1e-9)
        assert got["consistency"] == pytest.approx(np.mean([t == plain(greedy.text) for t in texts]))
        assert sum(m.share for m in said.meanings) == pytest.approx(1) and len(said.meanings) == len(set(numbers))
        text = f"{prompts[i]}\nProposed answer: {said.answer}\n(A) True\n(B) False\nThe proposed answer is ("
        with torch.no_grad():
            last = model.network(torch.tensor([continuing.encode(model, text)])).logits[0, -1].double()
        a, b = (model.tokenizer(c)["input_ids"][0] for c in "AB")
        assert got["p_true"] == pytest.approx(float(last[[a, b]].softmax(0)[0]), rel=1e-3)
    again = Finding.from_json(found.to_json())
    assert isinstance(again, Uncertainty) and again == found
    assert "they have the same words" in found.summary and found.maps()[0].tokens


def test_uncertainty_says_by_what_answers_count_as_the_same() -> None:
    model = tiny("llama")
    settings = dict(texts=["The capital is"], samples=3, max_new_tokens=3)
    assert "cosine" in uncertainty(model, encoder=tiny("bert-encoder"), **settings).summary
    nli = nli_model({0: "entailment", 1: "other"})
    assert "entails the other" in uncertainty(model, encoder=tiny("bert-encoder"), nli=nli, **settings).judge


# Ratings

RNG = np.random.default_rng(0)
WRONG = RNG.random(60) < 0.4
VALUES = np.round(RNG.normal(size=60) + 0.8 * WRONG, 1)  # rounded: there are ties


def test_auroc_and_its_interval() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    assert judging.auroc(VALUES, WRONG) == pytest.approx(metrics.roc_auc_score(WRONG, VALUES))
    assert math.isnan(judging.auroc(VALUES, np.ones(60, bool)))
    value, low, high = judging.interval(judging.auroc, VALUES, WRONG, [None] * 60, draws=300)
    assert value == judging.auroc(VALUES, WRONG) and low < value < high and high - low > 0.05
    # Copies of the same answers under one group each are no new evidence.
    groups = [str(i) for i in range(60)] * 4
    again = judging.interval(judging.auroc, np.tile(VALUES, 4), np.tile(WRONG, 4), groups, draws=300)
    assert again[2] - again[1] == pytest.approx(high - low, abs=0.02)


def test_risk_coverage_is_the_mean_over_orders_of_ties() -> None:
    values, wrong = np.array([0.1, 0.2, 0.2, 0.3]), np.array([0, 1, 0, 1])
    one = np.cumsum([0, 1, 0, 1]) / [1, 2, 3, 4]
    other = np.cumsum([0, 0, 1, 1]) / [1, 2, 3, 4]
    assert judging.risk_coverage(values, wrong) == pytest.approx((one + other) / 2)
    assert judging.aurc(values, wrong) == pytest.approx(((one + other) / 2).mean())
    assert judging.aurc(np.zeros(60), WRONG) == pytest.approx(WRONG.mean())  # no order at all
    assert judging.aurc(WRONG, WRONG) < judging.aurc(VALUES, WRONG) < WRONG.mean()


def test_calibration_error_is_the_gap_by_bins() -> None:
    p, right = RNG.random(50), RNG.random(50) < 0.5
    expected = 0.0
    for b in range(10):
        mine = (p >= b / 10) & (p < (b + 1) / 10)
        if mine.any():
            expected += mine.sum() / 50 * abs(p[mine].mean() - right[mine].mean())
    assert judging.expected_error(p, right) == pytest.approx(expected)
    assert judging.expected_error(np.array([1.0, 1.0]), np.array([1, 1])) == 0


def test_signals_are_ranked_the_way_they_point() -> None:
    right = np.array([True, True, False, False])
    rows = [{"entropy": e, "p_true": p} for e, p in [(0.1, 0.4), (0.2, 0.9), (0.8, 0.5), (0.9, 0.3)]]
    best, second = rate(rows, right, [None] * 4, 50, 0)
    assert (best.name, best.auroc[0], best.ece) == ("entropy", 1.0, None)
    assert second.auroc[0] == 0.75 and second.ece == pytest.approx(judging.expected_error([0.4, 0.9, 0.5, 0.3], right))
    assert rate(rows, np.ones(4, bool), [None] * 4, 50, 0)[0].auroc is None


def test_the_layer_contrast_is_dolas_formula() -> None:
    torch.manual_seed(0)
    final, early = torch.randn(3, 7), torch.randn(2, 3, 7)
    tokens = final.argmax(-1)
    found = inside.contrast(final, early, tokens)
    for t in range(3):
        p = final[t].double().softmax(-1)
        divergences, qs = [], []
        for layer in range(2):
            q = early[layer, t].double().softmax(-1)
            m = (p + q) / 2
            divergences.append(float(0.5 * (p * (p / m).log()).sum() + 0.5 * (q * (q / m).log()).sum()))
            qs.append(q)
        q = qs[int(np.argmax(divergences))]
        head = [v for v in range(7) if p[v] >= 0.1 * p.max()]
        scores = {v: float(p[v].log() - q[v].log()) for v in head}
        total = math.log(sum(math.exp(v) for v in scores.values()))
        assert float(found[t]) == pytest.approx(scores[int(tokens[t])] - total)


@pytest.mark.parametrize("family", ["llama", "neox"])
def test_states_and_contrasts_are_read_at_the_answers_own_places(family: str) -> None:
    model = tiny(family)
    prompts, answers = [[40, 41, 42], [50, 51, 52, 53, 54]], [[60, 61], [70]]
    contrasts, hidden = inside.look_inside(model, prompts, answers, [0, 2])
    early = inside.early_layers(4)
    assert early == [2]  # a small model: one layer of the upper half
    for i in range(2):
        row = torch.tensor([[*prompts[i], *answers[i]]])
        with torch.no_grad():
            out = model.network(row, output_hidden_states=True)
            lens = ia.sites.unembed(model, out.hidden_states[3])[0]
        at = slice(len(prompts[i]) - 1, row.shape[1] - 1)
        expected = inside.contrast(out.logits[0, at], lens[None, at], torch.tensor(answers[i])).mean()
        assert contrasts[i] == pytest.approx(float(expected), rel=1e-3, abs=1e-4)
        torch.testing.assert_close(hidden[i, 0], out.hidden_states[1][0, -1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(hidden[i, 1], out.hidden_states[3][0, -1], rtol=1e-4, atol=1e-5)


def test_the_probe_finds_what_is_there_and_nothing_where_nothing_is() -> None:
    pytest.importorskip("sklearn")
    torch.manual_seed(0)
    right = np.array([True, False] * 40)
    hidden = torch.randn(80, 2, 12)
    hidden[:, 1, 3] += 3 * torch.tensor(right, dtype=torch.float)
    scores = inside.probe(hidden, right, [None] * 80, folds=4, strength=0.1, seed=0)
    assert judging.auroc(-scores[1], ~right) > 0.9 > 0.7 > judging.auroc(-scores[0], ~right)
    assert (
        inside.probe(hidden[:10], np.array([True] * 8 + [False] * 2), [None] * 10, folds=3, strength=1, seed=0) is None
    )


def test_right_answers_are_found_in_plain_words() -> None:
    config = HallucinationConfig()
    assert is_right(" It is the Euro.", "euro", config) and is_right("a dollar", "peso|Dollar", config)
    assert not is_right("European", "euro", config) and not is_right("", "euro", config)
    begins, equals = HallucinationConfig(match="begins"), HallucinationConfig(match="equals")
    assert is_right("Rome, Italy", "Rome", begins) and not is_right("In Rome", "Rome", begins)
    assert is_right("Rome.", "rome", equals) and not is_right("Rome, Italy", "Rome", equals)


def test_hallucination_rates_a_model_that_is_sometimes_right() -> None:
    pytest.importorskip("sklearn")
    model = tiny("gpt2")
    prompts = [f"number {i} is" for i in range(24)]
    said = [u.answer for u in uncertainty(model, texts=prompts, samples=2, max_new_tokens=3).said]
    # Every other target is what the model says; the others are not.
    pairs = [
        TextPair(p, (a if plain(a) and i % 2 else "zebra")) for i, (p, a) in enumerate(zip(prompts, said, strict=True))
    ]
    found = hallucination(model, test=pairs, samples=3, max_new_tokens=3, folds=2, draws=30)
    right = np.array([a.right for a in found.answers])
    assert found.error_rate[0] == pytest.approx(1 - right.mean()) and 0 < right.sum() < 24
    for rated in found.rated:
        values = np.array([a.signals[rated.name] for a in found.answers])
        sign = -1 if rated.name in ("log_prob", "mean_prob", "p_true", "consistency", "contrast", "probe") else 1
        assert rated.auroc[0] == pytest.approx(judging.auroc(sign * values, ~right)), rated.name
        assert rated.aurc[0] == pytest.approx(judging.aurc(sign * values, ~right))
    assert {"contrast", "probe", "semantic_entropy", "p_true"} <= {r.name for r in found.rated}
    assert found.probe_curve[found.probe_layer] == next(r.auroc[0] for r in found.rated if r.name == "probe")
    again = Finding.from_json(found.to_json())
    assert isinstance(again, Hallucination) and again == found and len(found.figures()) == 3


def test_clear_errors() -> None:
    model = tiny("llama")
    with pytest.raises(BadInput, match="prompt \\+ target"):
        hallucination(model, test=["a"])
    with pytest.raises(BadInput, match="has no words"):
        hallucination(model, test=[TextPair("q", "...")])
    with pytest.raises(BadInput, match="probe_layer 9"):
        hallucination(model, test=[TextPair("q", "b")], probe_layer=9)
    with pytest.raises(BadInput, match="context is 128"):
        uncertainty(model, texts=["x" * 125])
    with pytest.raises(BadInput, match="no text"):
        uncertainty(model, texts=[])
    with pytest.raises(BadInput, match="causal"):
        uncertainty(tiny("bert"), texts=["a"])


@pytest.mark.real
@pytest.mark.slow
def test_signals_tell_wrong_answers_about_real_facts() -> None:
    folder = shared_data("patchscopes")
    if folder is None:
        pytest.skip("the shared data set 'patchscopes' is not there")
    pytest.importorskip("sklearn")
    model = ia.load("smollm2-135m")
    with (folder / "tasks.tsv").open(encoding="utf-8") as file:
        rows = {row["task"]: row for row in csv.DictReader(file, delimiter="\t")}
    template = json.loads(rows["country_currency"]["lre_templates"])[0]
    right: dict[str, set[str]] = {}
    with (folder / "attributes.tsv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if row["task"] == "country_currency":
                right.setdefault(row["subject"], set()).add(row["object"])
    pairs = [TextPair(template.replace("{}", subject), "|".join(objects)) for subject, objects in right.items()]
    found = hallucination(model, test=pairs, samples=4, max_new_tokens=6, probe=False, draws=50)
    assert 0 < found.error_rate[0] < 1
    assert found.rated[0].auroc[0] > 0.6
