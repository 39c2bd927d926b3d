"""Concepts: directions against their formulas, TCAV against finite differences, steering and erasing as written out."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy import stats

import intarsia as ia
from intarsia.data import LabelledText
from intarsia.errors import BadInput
from intarsia.interpretation import Concept, concept, erase, steer, tcav
from intarsia.interpretation.concepts import erasing, learning, sensitivity, steering
from intarsia.interpretation.concepts.erase import EraseConfig
from intarsia.interpretation.erasure import ledoit_wolf
from intarsia.interpretation.outcomes import outcome
from intarsia.interpretation.places import placed
from intarsia.measure import LabelTask
from intarsia.report import Finding
from tests.tiny import tiny

POSITIVE = [f"{s} a" for s in ("the cat", "two", "my dog", "it is", "old", "we ran", "go", "one fish")]
NEGATIVE = [f"{s} z" for s in ("the cat", "two", "my dog", "it is", "old", "we ran", "go", "one fish")]
SETS = {"positive": POSITIVE, "negative": NEGATIVE}


def last_states(model, texts: list[str], layer: int) -> torch.Tensor:
    site = f"layers.{layer}.resid_post"
    return torch.stack([ia.read(model, [t], at=site)[site][0, -1] for t in texts]).double()


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_the_mean_direction_and_its_scores(family: str) -> None:
    model = tiny(family)
    found = concept(model, **SETS, folds=4)
    layers = len(model.sites.blocks)
    assert found.direction.shape == (layers, 32)
    for layer in range(layers):
        high, low = last_states(model, POSITIVE, layer), last_states(model, NEGATIVE, layer)
        apart = high.mean(0) - low.mean(0)
        assert torch.allclose(found.direction[layer].double(), apart / apart.norm(), atol=1e-5)
        assert float(found.gap[layer]) == pytest.approx(float(apart.norm()), rel=1e-4)
        assert torch.allclose(found.vector(layer).double(), apart, atol=1e-4)
        scores = found.score(torch.cat([high, low]).float(), layer)
        assert float(scores[:8].mean()) == pytest.approx(1, abs=1e-3)
        assert float(scores[8:].mean()) == pytest.approx(-1, abs=1e-3)
        both = torch.cat([high, low])
        erased = found.eraser(layer)(both)
        assert (erased[:8].mean(0) - erased[8:].mean(0)).abs().max() < 1e-3 * apart.norm()
    best = found.finding.best
    assert best.auroc[0] == 1 > best.control


def test_held_out_scores_come_from_the_other_folds() -> None:
    x = torch.randn(12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = np.array([0, 1] * 6)
    folds = np.arange(12) // 4
    found = learning.held_out(x, y, folds, "mean")
    test = folds == 1
    train = x[torch.from_numpy(~test)]
    d = train[y[~test] == 1].mean(0) - train[y[~test] == 0].mean(0)
    d = d / d.norm()
    along = (train @ d).numpy()
    middle = (along[y[~test] == 1].mean() + along[y[~test] == 0].mean()) / 2
    assert found[test] == pytest.approx(((x[torch.from_numpy(test)] @ d).numpy() - middle) / along.std())


def test_the_directions_of_the_three_methods() -> None:
    generator = torch.Generator().manual_seed(0)
    y = np.arange(200) % 2
    noise = torch.randn(200, 3, generator=generator, dtype=torch.float64) * torch.tensor([5.0, 1.0, 1.0])
    noise[:, 1] += noise[:, 0]
    x = noise + torch.tensor([1.0, 2.0, 0.0]) * torch.from_numpy(y).double()[:, None]
    apart = x[y == 1].mean(0) - x[y == 0].mean(0)
    covariance = torch.cov(x.T, correction=0)
    s = ledoit_wolf(x)
    shrunk = (1 - s) * covariance + s * covariance.diagonal().mean() * torch.eye(3, dtype=torch.float64)
    fisher = torch.linalg.solve(shrunk, apart)
    assert torch.allclose(learning.direction(x, y, "leace"), fisher / fisher.norm(), atol=1e-8)
    for method in ("mean", "logistic", "leace"):
        d = learning.direction(x, y, method)
        assert float(d.norm()) == pytest.approx(1) and float(d @ apart) > 0
    # Whitened directions see through the loud first dimension, the difference of the means does not.
    spread = {
        m: float(apart @ (d := learning.direction(x, y, m)) / (x @ d).std()) for m in ("mean", "logistic", "leace")
    }
    assert spread["mean"] < spread["logistic"] and spread["mean"] < spread["leace"]


def test_a_concept_survives_saving_and_knows_its_model(tmp_path) -> None:
    model = tiny("llama")
    found = concept(model, **SETS, folds=2, method="logistic")
    again = Concept.load(found.save(tmp_path / "c"))
    for name in ("direction", "gap", "middle", "read", "write", "mean"):
        assert torch.equal(getattr(again, name), getattr(found, name))
    assert again.finding == found.finding and again.best_layer == found.best_layer and again.method == "logistic"
    assert again.check(model) is again and "layer" in str(again)
    with pytest.raises(BadInput, match="other weights"):
        again.check(tiny("llama", seed=1))
    with pytest.raises(BadInput, match="not empty"):
        found.save(tmp_path / "c")
    found.save(tmp_path / "c", force=True)
    with pytest.raises(BadInput, match="no concept directions there"):
        Concept.load(tmp_path)
    (tmp_path / "c" / "concept.json").write_text("{}", "utf-8")
    with pytest.raises(BadInput, match="cannot be read"):
        Concept.load(tmp_path / "c")
    with pytest.raises(BadInput, match="layers 0 to 3"):
        found.vector(4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("at", ["mean", "last"])
def test_the_derivative_is_the_finite_difference(family: str, at: str) -> None:
    model = tiny(family)
    texts = ["ab cd", "efg"]
    judged = outcome(model, texts, word=" no")
    gradients = sensitivity.text_gradients(judged, [0, 2], at)
    d = torch.randn(32, generator=torch.Generator().manual_seed(1))
    d = d / d.norm()
    for n, layer in enumerate((0, 2)):
        for i, text in enumerate(texts):
            where = slice(1, None) if at == "mean" else len(text) - 1
            ends = []
            for step in (-1e-2, 1e-2):
                edit = ia.Add(f"layers.{layer}.resid_post", at=where, value=d, factor=step, rows=[0])
                ids = [*model.encode([text])["input_ids"][0].tolist(), *model.encode([" no"])["input_ids"][0].tolist()]
                logits = ia.run(model, [ids[:-1]], [edit]).logits[0].double().log_softmax(-1)
                ends.append(sum(float(logits[t - 1, ids[t]]) for t in range(len(text), len(ids))))
            slope = (ends[1] - ends[0]) / 2e-2
            assert float(gradients[i, n] @ d) == pytest.approx(slope, rel=2e-2, abs=2e-3)


def test_tcav_scores_are_shares_and_the_test_is_welchs() -> None:
    model = tiny("llama")
    found = tcav(model, **SETS, texts=["ab", "cde", "fg h"], word=" no", method="mean", runs=20, seed=2, stride=2)
    judged = outcome(model, ["ab", "cde", "fg h"], word=" no")
    gradients = sensitivity.text_gradients(judged, [1, 3], "mean")
    y = np.array([1] * 8 + [0] * 8)
    generator = np.random.default_rng(2)
    draws = [sensitivity.redrawn(y, generator) for _ in range(20)]
    shuffled = [generator.permutation(y) for _ in range(20)]
    ps = []
    for n, layer in enumerate((1, 3)):
        site = f"layers.{layer}.resid_post"
        x = torch.stack([ia.read(model, [t], at=site)[site][0, 1:].mean(0) for t in POSITIVE + NEGATIVE]).double()

        def share(rows: np.ndarray, marks: np.ndarray, x: torch.Tensor = x, n: int = n) -> float:
            d = x[rows][marks == 1].mean(0) - x[rows][marks == 0].mean(0)
            return float((gradients[:, n].double() @ d > 0).double().mean())

        own = [share(rows, y[rows]) for rows in draws]
        other = [share(np.arange(16), s) for s in shuffled]
        row = found.layers[n]
        assert (row.layer, row.score, row.random) == (layer, pytest.approx(np.mean(own)), pytest.approx(np.mean(other)))
        units = [x[s == 1].mean(0) - x[s == 0].mean(0) for s in (y, *shuffled)]
        slopes = [float((gradients[:, n].double() @ u).mean()) / float(u.norm()) for u in units]
        assert row.rank == pytest.approx(sum(abs(s) >= abs(slopes[0]) for s in slopes) / 21)
        assert row.slope == pytest.approx(slopes[0] * float(units[0].norm()), rel=1e-4)
        ps.append(stats.ttest_ind(own, other, equal_var=False).pvalue)
    assert [r.p for r in found.layers] == pytest.approx(sensitivity.holm(ps))
    assert Finding.from_json(found.to_json()) == found


def test_holm_corrects_step_by_step() -> None:
    assert sensitivity.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert sensitivity.t_test(np.ones(3), np.ones(3)) == 1 and sensitivity.t_test(np.ones(3), np.zeros(3)) == 0


def test_an_answer_made_of_the_concept_is_sensitive_to_it() -> None:
    model = tiny("llama")
    network = copy.deepcopy(model.network)
    d = learning.direction(torch.cat([last_states(model, s, 3) for s in (POSITIVE, NEGATIVE)]),
                           np.array([1] * 8 + [0] * 8), "mean").float()  # fmt: skip
    token = model.tokenizer.convert_tokens_to_ids("Q")
    with torch.no_grad():
        network.lm_head.weight[token] = 3 * d
    planted = ia.wrap(network, model.tokenizer)
    found = tcav(
        planted, **SETS, texts=["ab", "cde", "fg h", "one two", "x", "yes"], word="Q", at="last", method="mean"
    )
    last = found.layers[-1]
    assert last.score > 0.95 and last.slope > 0 and last.significant
    moved = steer(planted, **SETS, texts=["ab", "cde"], layer=3, strengths=[-3, 3], max_new_tokens=2, at="last")
    assert moved.effect > moved.random_effect
    assert "Q" in next(s.text for s in moved.said if s.strength == 3)


def test_steering_is_the_edit_written_out() -> None:
    model = tiny("gpt2")
    found = steer(model, **SETS, texts=["ab cd", "e"], layer=1, strengths=[2.0], max_new_tokens=5, at="last", samples=2)
    value = learning.learn(model, learning.ConceptConfig(at="last", draws=1), POSITIVE, NEGATIVE, 0).vector(1)
    for text in ("ab cd", "e"):
        ids = model.encode([text])["input_ids"]
        for strength in (0.0, 2.0):
            edit = ia.Add("layers.1.resid_post", value=value, factor=strength)
            grown = ids
            for _ in range(5):
                following = ia.run(model, grown, [edit]).logits[:, -1].argmax(-1)
                grown = torch.cat([grown, following[:, None]], 1)
            new = grown[0, ids.shape[1] :].tolist()
            end = next((n for n, t in enumerate(new) if t in model.tokenizer.all_special_ids), 5)
            said = next(s.text for s in found.said if s.prompt == text and s.strength == strength)
            assert said == steering.one_line(model.tokenizer.decode(new[:end]))
    assert found.dose(0.0).score == found.dose(0.0, random=True).score
    assert Finding.from_json(found.to_json()) == found


def test_fluency_is_the_unsteered_perplexity() -> None:
    model = tiny("llama")
    made = learning.learn(model, learning.ConceptConfig(draws=1, folds=2), POSITIVE, NEGATIVE, 0)
    prompt, new = model.encode(["ab"])["input_ids"][0].tolist(), model.encode(["cacc"])["input_ids"][0].tolist()
    (value,) = steering.judge(model, made, 2, [prompt], {(0, 0, 1.0): new}, 8).values()
    log_p = model.network(torch.tensor([prompt + new])).logits[0].detach().double().log_softmax(-1)
    want = -np.mean([float(log_p[len(prompt) - 1 + n, token]) for n, token in enumerate(new)])
    assert value[1] == pytest.approx(want, rel=1e-5) and value[2] == 0.5
    state = last_states(model, ["abcacc"], 2)[0].float()
    assert value[0] == pytest.approx(float(made.score(state, 2)), rel=1e-3)


def test_erasers_leave_nothing_in_any_layer_of_the_examples_they_were_fitted_on() -> None:
    model = tiny("llama")
    texts = placed(model, POSITIVE + NEGATIVE, "last")
    y = np.array([1] * 8 + [0] * 8)
    edits = erasing.erasers(model, EraseConfig(at="last"), texts, y, [0, 1, 2, 3])
    for layer in range(4):
        site = f"layers.{layer}.resid_post"
        x = torch.stack([ia.read(model, [t], at=site, edits=edits)[site][0, -1] for t in POSITIVE + NEGATIVE]).double()
        before = torch.cat([last_states(model, POSITIVE, layer), last_states(model, NEGATIVE, layer)])
        gap = [float((s[:8].mean(0) - s[8:].mean(0)).norm()) for s in (x, before)]
        assert gap[0] < 1e-3 * gap[1]


def test_erasing_takes_the_concept_from_new_probes_and_costs_what_is_measured() -> None:
    model = tiny("llama")
    sets = {name: [f"{i} {t}" for i in range(3) for t in texts] for name, texts in SETS.items()}
    found = erase(model, **sets, texts=["ab", "cd e"], word=" no", at="last", layers=[0], draws=2)
    row = found.layers[0]
    assert row.before == 1 and row.shuffled > 0.9 and row.after < 0.8
    judged = outcome(model, ["ab", "cd e"], word=" no")
    assert found.loss == pytest.approx(float(judged.measure()[0].mean())) and found.rise[0] != 0
    assert Finding.from_json(found.to_json()) == found


def test_labels_can_be_the_answer() -> None:
    model = tiny("llama")
    records = [LabelledText("ab cd", "yes"), LabelledText("e", "no")]
    LabelTask.from_records(records).attach(model)
    found = tcav(model, **SETS, texts=records, target="yes", at="last", stride=4)
    assert found.answer == "the label 'yes'" and len(found.layers) == 1
    with pytest.raises(BadInput, match="no label 'maybe'"):
        tcav(model, **SETS, texts=records, target="maybe", measure="label")


def test_clear_errors(tmp_path) -> None:
    model = tiny("llama")
    with pytest.raises(BadInput, match="one negative text"):
        concept(model, positive=POSITIVE, negative=["z"])
    with pytest.raises(BadInput, match="no text was given"):
        concept(model, positive=[], negative=NEGATIVE)
    with pytest.raises(BadInput, match="read everywhere"):
        tcav(model, **SETS, texts=["ab cd"], at="last")
    with pytest.raises(BadInput, match="greater than or equal to 20"):
        tcav(model, **SETS, texts=["ab"], runs=5)
    with pytest.raises(BadInput, match="give either concept"):
        steer(model, texts=["ab"])
    with pytest.raises(BadInput, match="give either concept"):
        steer(model, texts=["ab"], **SETS, concept=str(tmp_path))
    with pytest.raises(BadInput, match="layer 7 does not exist"):
        steer(model, texts=["ab"], **SETS, layer=7)
    with pytest.raises(BadInput, match="leaves no room"):
        steer(model, texts=["ab"], **SETS, max_new_tokens=128)
    with pytest.raises(BadInput, match="causal"):
        steer(tiny("bert"), texts=["ab"], **SETS)
    with pytest.raises(BadInput, match="layer 4 does not exist"):
        erase(model, **SETS, texts=["ab"], layers=[4])
    with pytest.raises(BadInput, match="four or more"):
        erase(model, positive=POSITIVE[:3], negative=NEGATIVE, texts=["ab"])
