"""Probes: the classifier, the online code and LEACE against naive formulas; controls; and planted answers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from intarsia.data import LabelledText
from intarsia.errors import BadInput, Note
from intarsia.interpretation import Probe, places, probe
from intarsia.interpretation.erasure import leace, one_hot
from intarsia.interpretation.probing import classifier, online_code
from intarsia.interpretation.probing.probing import control_labels
from intarsia.measure import LabelTask
from intarsia.report import Finding
from tests.tiny import tiny

pytest.importorskip("sklearn")
STARTS = [
    f"{who} {what}" for who in ("the cat", "a dog", "two", "my", "it", "old") for what in ("ran", "is", "2", "go on")
]
TEXTS = [LabelledText(f"{s} {end}", label) for s in STARTS for end, label in (("a", "first"), ("z", "last"))]


def separable(n: int = 40, width: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 2, n)
    x = generator.normal(size=(n, width)) * np.array([1, 1, 1, 1, 1, 50.0])
    x[:, 2] += 2.5 * y
    return x, y


def test_the_probe_minimises_the_penalised_loss_on_standardised_states() -> None:
    x, y = separable()
    found = classifier.fit(x, y, np.arange(len(y)), 2, strength=0.3)
    z = torch.from_numpy((x - x.mean(0)) / x.std(0))
    w = torch.from_numpy(found.weights[:, 1] - found.weights[:, 0]).requires_grad_()
    b = torch.tensor(found.bias[1] - found.bias[0], requires_grad=True)
    sign = torch.from_numpy(2.0 * y - 1)
    loss = torch.nn.functional.softplus(-sign * (z @ w + b)).sum() + (w @ w) / (2 * 0.3)
    slopes = torch.autograd.grad(loss, [w, b])
    assert max(float(s.abs().max()) for s in slopes) < 1e-2  # the optimum: no slope left
    log_p = found.log_probabilities(x)
    want = torch.nn.functional.logsigmoid(z @ w + b).detach().numpy()
    assert log_p[:, 1] == pytest.approx(want) and np.exp(log_p).sum(1) == pytest.approx(np.ones(len(y)))


def test_the_code_length_is_the_papers_sum() -> None:
    x, y = separable(64)
    groups = np.arange(64)
    bits = online_code.code_length(x, y, groups, 2, strength=0.1, seed=3)
    arranged = online_code.order(groups, 3)
    x, y = x[arranged], y[arranged]
    ends = [4, 8, 16, 32, 64]  # 6.25, 12.5, 25, 50 and 100 per cent
    assert online_code.boundaries(64, 2) == ends
    total = 4 * np.log2(2)
    for start, end in itertools.pairwise(ends):
        p = np.exp(
            classifier.fit(x[:start], y[:start], groups[:start], 2, strength=0.1).log_probabilities(x[start:end])
        )
        for row, label in zip(p, y[start:end], strict=True):
            weight = 2 / (start + 2)
            total -= np.log2((1 - weight) * row[label] + weight / 2)
    assert bits == pytest.approx(total)
    assert bits < 0.8 * online_code.uniform_length(64, 2)
    noise = np.random.default_rng(1).integers(0, 2, 64)
    assert online_code.code_length(x, noise, groups, 2, strength=0.1) > bits


def test_a_group_is_never_cut_by_the_order_or_the_folds() -> None:
    groups = np.repeat(np.arange(6), 4)
    arranged = groups[online_code.order(groups, 0)]
    assert len(np.flatnonzero(np.diff(arranged))) == 5
    folds = classifier.split(np.tile([0, 1], 12), groups, 3, 0)
    assert all(len(set(folds[groups == g])) == 1 for g in range(6)) and set(folds) == {0, 1, 2}


@pytest.mark.parametrize("shrinkage", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(60, 8, 3), (6, 10, 2)])
def test_leace_leaves_no_covariance_with_the_label(shape: tuple[int, int, int], shrinkage: float) -> None:
    n, width, classes = shape
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % classes
    x = torch.randn(n, width, generator=generator, dtype=torch.float64) @ torch.randn(
        width, width, generator=generator, dtype=torch.float64
    ) + 3 * y[:, None].double() * torch.randn(width, generator=generator, dtype=torch.float64)
    z = one_hot(y, classes)
    eraser = leace(x, z, shrinkage)
    erased = eraser(x)

    def covariance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - a.mean(0)).T @ (b - b.mean(0)) / n

    assert covariance(x, z).abs().max() > 0.1
    assert covariance(erased, z).abs().max() < 1e-9
    assert eraser.rank == classes - 1
    assert torch.allclose(erased.mean(0), x.mean(0))  # the mean stays
    assert torch.allclose(eraser(erased), erased)  # nothing is left to erase


def test_leace_is_the_papers_formula_and_the_smallest_edit() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(50, 5, generator=generator, dtype=torch.float64)
    z = (x[:, :1] + 0.3 * torch.randn(50, 1, generator=generator, dtype=torch.float64) > 0).double()
    centred = x - x.mean(0)
    covariance, cross = centred.T @ centred / 50, centred.T @ (z - z.mean(0)) / 50
    values, vectors = torch.linalg.eigh(covariance)
    whiten, colour = vectors @ (values**-0.5).diag() @ vectors.T, vectors @ (values**0.5).diag() @ vectors.T
    a = whiten @ cross
    projection = a @ torch.linalg.pinv(a)
    naive = x - centred @ (colour @ projection @ whiten).T
    erased = leace(x, z)(x)
    assert torch.allclose(erased, naive)
    plain = cross / cross.norm()
    other = x - (centred @ plain) @ plain.T  # projecting out the difference of means erases it, too, by a larger edit
    assert (erased - x).square().sum() < (other - x).square().sum()


def test_many_classes_and_one_that_was_not_seen() -> None:
    generator = np.random.default_rng(0)
    y = np.repeat([0, 1, 3], 20)
    x = generator.normal(size=(60, 4))
    x[np.arange(60), y] += 8
    found = classifier.fit(x, y, np.arange(60), 4, strength=1.0)
    log_p = found.log_probabilities(x)
    assert (found.predict(x) == y).mean() > 0.95 and np.isneginf(log_p[:, 2]).all()
    assert np.exp(log_p).sum(1) == pytest.approx(np.ones(60))
    # The price of the class that was not seen is that of the uniform part.
    assert online_code.mixed(np.exp(log_p[:1, 2]), 60, 4) == pytest.approx(1 / 64)
    alone = classifier.fit(x[:20], y[:20], np.arange(20), 4, strength=1.0)
    assert (alone.predict(x) == 0).all()


def test_an_encoder_without_a_head_is_probed_but_not_erased() -> None:
    with pytest.warns(Note, match="no output"):
        found = probe(tiny("bert-encoder"), texts=TEXTS, folds=3, strength=0.1, draws=1)
    assert not found.erased and found.layers[0].accuracy is not None and found.layers[0].accuracy[0] > 0.9


def test_control_labels_belong_to_words() -> None:
    words = ["cat", "dog", "cat", "sun", "dog", "cat"]
    drawn = control_labels(words, np.array([0, 1, 0, 1, 1, 0]), 0)
    assert len({(w, int(d)) for w, d in zip(words, drawn, strict=True)}) == 3
    assert set(drawn) == {0, 1}
    assert set(control_labels(["a", "b"], np.array([0, 1]), 3)) == {0, 1}  # never one label alone


def test_places_are_the_last_token_the_mean_and_what_is_marked() -> None:
    model = tiny("llama", bos=True)
    (state,) = [h[0] for h in model.network(**model.encode(["ab cd e"]), output_hidden_states=True).hidden_states[2:3]]
    for at, text, want in (("last", "ab cd e", state[-1]), ("mean", "ab cd e", state[1:].mean(0)),
                           ("marked", "ab [[cd]] e", state[5])):  # fmt: skip
        found = places.placed(model, [text], at)
        assert found.words == ["cd" if at == "marked" else "e"]
        assert torch.allclose(places.collect(model, found, [1])[0, 0], want.detach(), atol=1e-5)
    many = places.placed(model, ["ab [[cd]] e", "a [[b]]"], "marked")
    both = places.collect(model, many, [0, 1], batch_size=2)
    assert torch.allclose(both[0, 1], state[5].detach(), atol=1e-5)
    with pytest.raises(BadInput, match="exactly one"):
        places.placed(model, ["no mark"], "marked")
    with pytest.raises(BadInput, match="beyond the 4 tokens"):
        places.placed(model, ["abcdefgh [[i]]"], "marked", max_tokens=4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_a_label_that_the_last_letter_gives_away_is_found_and_erased(family: str) -> None:
    found = probe(tiny(family), texts=TEXTS, folds=4, strength=0.1, draws=2, causal_layer=0)
    assert isinstance(found, Probe) and found.layers[0].accuracy is not None
    assert found.layers[0].accuracy[0] > 0.9 > found.chance == 0.5
    # The label is one with the word at the place, so a probe that learns words does the control task as well.
    assert found.words == 2 and found.seen == 1 and found.layers[0].selectivity == pytest.approx(0, abs=0.1)
    assert [e.rank for e in found.erased] == [0, 1, 1]
    nothing, own, other = found.erased
    assert nothing.kl == 0 and nothing.changed == 0 and own.kl > 0 and other.kl > 0
    assert nothing.accuracy == 1 and other.accuracy is not None and other.accuracy > 0.7
    assert own.accuracy is not None and own.accuracy < 0.8 * other.accuracy
    assert Finding.from_json(found.to_json()) == found
    assert len(found.figures()[0].series[0].x) == len(found.layers)


def test_bits_name_the_same_label_easier_than_no_model() -> None:
    found = probe(tiny("llama"), texts=TEXTS * 2, method="mdl", strength=0.1, causal=False)
    assert found.best.bits is not None and found.best.compression == found.uniform_bits / found.best.bits
    assert found.best.bits < found.uniform_bits and "bits" in found.summary


def test_with_one_word_there_is_no_control_task() -> None:
    texts = [
        LabelledText(f"{s} it", "b" if " " in s else "a") for s in ("the cat", "a dog", "one", "old", "we go", "if")
    ]
    found = probe(tiny("llama"), texts=texts, folds=2, strength=0.1, causal=False)
    assert found.words == 1 and found.best.control is None and found.best.selectivity is None
    assert found.table().rows[0][2] is None


def test_the_label_task_is_probed_where_the_model_reads_it() -> None:
    model = tiny("llama")
    LabelTask.from_records(TEXTS).attach(model)
    found = probe(model, texts=TEXTS, folds=4, strength=0.1, draws=1)
    assert found.at == "where the label is read"
    nothing, own, _ = found.erased
    assert nothing.loss is not None and own.loss is not None and nothing.loss != own.loss
    ids = model.encode([f"{TEXTS[0].text}\nLabel:"])["input_ids"]
    texts = places.placed(model, TEXTS[:1], "last", task=LabelTask.of(model))
    assert texts.ids[0] == ids[0].tolist() and texts.at[0] == [ids.shape[1] - 1]


def test_clear_errors() -> None:
    model = tiny("llama")
    with pytest.raises(BadInput, match="has no label"):
        probe(model, texts=["plain text", "another"])
    with pytest.raises(BadInput, match="all 2 texts have the label 'a'"):
        probe(model, texts=[LabelledText("one", "a"), LabelledText("two", "a")])
    with pytest.raises(BadInput, match="a single text"):
        probe(model, texts=[LabelledText("one", "a"), LabelledText("two", "a"), LabelledText("three", "b")])
    with pytest.raises(BadInput, match="causal_layer 9"):
        probe(model, texts=TEXTS, causal_layer=9)
    with pytest.raises(BadInput, match="encoder-decoder"):
        probe(tiny("t5"), texts=TEXTS)
