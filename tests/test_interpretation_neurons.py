"""Neurons: streamed statistics against brute force, ablation against edited weights, simulation scores."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import intarsia as ia
from intarsia.data import LabelledText
from intarsia.errors import BadInput
from intarsia.interpretation import ablate, explain_neuron, neurons
from intarsia.interpretation.neurons import explaining, watching
from intarsia.interpretation.neurons.neurons import Excerpt
from intarsia.interpretation.neurons.removing import Remover
from intarsia.interpretation.neurons.simulator import SOLVED_SIMULATIONS, Simulator
from intarsia.interpretation.outcomes import outcome
from intarsia.measure import LabelTask, score
from intarsia.report import Finding
from tests.tiny import tiny

TEXTS = [
    "The Eiffel Tower is in Paris.",
    "Water boils.",
    "Two plus two is four.",
    "abc",
    "A dog chased the cat.",
    "Hi!",
]


def activations(model, layer: int) -> list[torch.Tensor]:
    """Per text [token, neuron], without its first token."""
    site = f"layers.{layer}.mlp_act"
    return [ia.read(model, [text], at=site)[site][0, 1:].double() for text in TEXTS]


@pytest.mark.parametrize("side", ["highest", "lowest"])
def test_streamed_statistics_equal_brute_force(side: str) -> None:
    model = tiny("llama")
    found = neurons(model, texts=TEXTS, top=3, show=200, batch_size=2, side=side, context=2, writes=1)
    assert len(found.views) == 4 * 48 and found.texts == 6
    for layer in range(4):
        acts = activations(model, layer)
        flat = torch.cat(acts)
        assert found.tokens == len(flat)
        sign = 1 if side == "highest" else -1
        best = torch.stack([(sign * a).max(0).values for a in acts])
        for view in (v for v in found.views if v.layer == layer):
            a = flat[:, view.neuron]
            order = best[:, view.neuron].argsort(descending=True)[:3]
            assert [e.text for e in view.excerpts] == order.tolist()
            peaks = [e.values[e.peak] for e in view.excerpts]
            assert peaks == pytest.approx((sign * best[order, view.neuron]).tolist(), rel=1e-3, abs=1e-5)
            want = {
                "mean": a.mean(), "std": a.std(correction=0), "maximum": a.max(), "minimum": a.min(),
                "positive": (a > 0).double().mean(), "sparsity": 1 - a.abs().mean() ** 2 / (a**2).mean(),
                "selectivity": abs(sign * best[order, view.neuron].mean() - a.mean()) / a.std(correction=0),
            }  # fmt: skip
            for name, value in want.items():
                assert getattr(view, name) == pytest.approx(float(value), rel=1e-3, abs=1e-5), name
    assert Finding.from_json(found.to_json()) == found


def test_shown_neurons_are_the_most_selective_or_those_asked_for() -> None:
    model = tiny("gpt2")
    every = neurons(model, texts=TEXTS, show=1000, writes=1)
    some = neurons(model, texts=TEXTS, show=5, writes=1)
    ranked = sorted(every.views, key=lambda v: -v.selectivity)
    assert [v.name for v in some.views] == [v.name for v in ranked[:5]]
    assert [v.name for v in neurons(model, texts=TEXTS, neurons=["2:7", "0:3"]).views] == ["2:7", "0:3"]
    tokens = some.views[0].excerpts[0].tokens
    assert "".join(tokens) in TEXTS[some.views[0].excerpts[0].text]


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox", "granite"])
def test_what_a_neuron_writes_is_its_row_of_the_down_projection(family: str) -> None:
    model = tiny(family)
    block = model.sites.blocks[2]
    weight = {
        "llama": lambda: block.mlp.down_proj.weight[:, 7],
        "granite": lambda: block.mlp.down_proj.weight[:, 7] * block.residual_multiplier,
        "gpt2": lambda: block.mlp.c_proj.weight[7],
        "neox": lambda: block.mlp.dense_4h_to_h.weight[:, 7],
    }[family]()
    assert torch.allclose(watching.direction(model, 2, 7), weight.float(), atol=1e-6)


def test_the_tokens_written_are_those_of_norm_and_head() -> None:
    model = tiny("llama")
    network = model.network
    d = network.model.layers[1].mlp.down_proj.weight[:, 5]
    logits = network.lm_head(d / d.square().mean().sqrt() * network.model.norm.weight)
    writes, against = watching.written_tokens(model, 1, 5, 4)
    name = watching.states.Vocabulary(model)
    for found, largest in ((writes, True), (against, False)):
        assert found == [watching.visible(name(int(i))) for i in logits.topk(4, largest=largest).indices]


def naive_loss(model, text: str) -> float:
    ids = model.encode([text])["input_ids"]
    with torch.no_grad():
        log_p = model.network(ids).logits[0].double().log_softmax(-1)
    return -float(log_p[range(ids.shape[1] - 1), ids[0, 1:]].mean())


def edited(model, what: str, layer: int, number: int):
    """The network with a component's weights set to zero by hand."""
    out = copy.deepcopy(model.network)
    block = out.model.layers[layer]
    with torch.no_grad():
        if what in ("attention", "blocks"):
            block.self_attn.o_proj.weight.zero_()
        if what in ("mlp", "blocks"):
            block.mlp.down_proj.weight.zero_()
        if what == "heads":
            block.self_attn.o_proj.weight[:, 8 * number : 8 * number + 8] = 0
        if what == "neurons":
            block.mlp.down_proj.weight[:, number] = 0
    return ia.wrap(out, model.tokenizer)


@pytest.mark.parametrize("what", ["heads", "neurons", "attention", "mlp", "blocks"])
def test_zero_ablation_equals_the_network_without_these_weights(what: str) -> None:
    model = tiny("llama")
    only = ["0:1", "2:3"] if what in ("heads", "neurons") else ["0", "2"]
    found = ablate(model, texts=TEXTS, what=what, how="zero", only=only, together=2, draws=2, first=True)
    base = np.mean([naive_loss(model, t) for t in TEXTS])
    assert found.base == pytest.approx(base, rel=1e-5)
    for component in found.components:
        changed = edited(model, what, component.layer, component.number)
        rise = np.mean([naive_loss(changed, t) for t in TEXTS]) - base
        assert component.rise[0] == pytest.approx(rise, abs=1e-5) and component.name in only
        assert component.rise[1] <= component.rise[0] <= component.rise[2]
    both = edited(edited(model, what, *at(only[0])), what, *at(only[1]))
    want = np.mean([naive_loss(both, t) for t in TEXTS]) - base
    assert found.together[-1].count == 2 and found.together[-1].rise == pytest.approx(want, abs=1e-5)
    assert Finding.from_json(found.to_json()) == found


def at(name: str) -> tuple[int, int]:
    layer, _, number = name.partition(":")
    return int(layer), int(number or -1)


@pytest.mark.parametrize(("family", "what"), [("llama", "heads"), ("gpt2", "neurons"), ("neox", "blocks")])
def test_mean_and_resampled_ablation_equal_the_edit_written_out(family: str, what: str) -> None:
    model = tiny(family)
    judged = outcome(model, TEXTS, "loss")
    site = {"heads": "layers.1.z", "neurons": "layers.1.mlp_act"}.get(what, "layers.1.mlp_out")
    sites = [site] if what != "blocks" else ["layers.1.attn_out", "layers.1.mlp_out"]
    number = 2 if what != "blocks" else -1
    acts = [ia.read(model, [t], at=sites) for t in TEXTS]
    for how in ("mean", "resample"):
        remover = Remover(model, judged, what, how, seed=4)
        loss, _ = remover.without([[(1, number)], [(1, number)]])
        assert torch.equal(loss[0], loss[1])
        for i, text in enumerate(TEXTS):
            edits = []
            for name in sites:
                if how == "mean":
                    value = torch.cat([a[name][0, 1:] for a in acts]).mean(0)
                    value = value.expand(acts[i][name].shape[1:])
                else:
                    donor = acts[remover._donor[i]][name][0]
                    again = [0] + [1 + p % (len(donor) - 1) for p in range(acts[i][name].shape[1] - 1)]
                    value = donor[again]

                def write(tensor: torch.Tensor, value: torch.Tensor = value) -> torch.Tensor:
                    out = tensor.clone()
                    if number >= 0:
                        out[0, 1:, number] = value[1:, number]
                    else:
                        out[0, 1:] = value[1:]
                    return out

                edits.append(ia.Apply(name, function=write))
            logits = ia.run(model, [text], edits=edits).logits[0].double().log_softmax(-1)
            ids = model.encode([text])["input_ids"][0]
            want = -logits[range(len(ids) - 1), ids[1:]].mean()
            assert float(loss[0, i]) == pytest.approx(float(want), rel=1e-5)


def test_the_first_order_estimate_is_the_slope_of_the_ablation() -> None:
    model = tiny("llama", dtype=torch.float64)
    judged = outcome(model, TEXTS[:2], "loss")
    remover = Remover(model, judged, "neurons", "zero")
    estimates = remover.estimates()
    for layer, neuron in ((0, 3), (3, 40)):
        ends = []
        for factor in (0.98, 1.02):
            scale = torch.ones(48).index_fill(0, torch.tensor(neuron), factor)
            edit = ia.Apply(f"layers.{layer}.mlp_act", at=slice(1, None), function=lambda t, scale=scale: t * scale)
            ends.append(float(judged.measure([edit])[0].mean()))
        slope = (ends[0] - ends[1]) / 0.04  # of the loss, on the way to zero
        assert float(estimates[layer * 48 + neuron]) == pytest.approx(slope, rel=1e-2)
    found = ablate(model, texts=TEXTS[:2], what="neurons", candidates=5, together=1, draws=1)
    assert len(found.components) == 5 and found.all == 192 and found.estimate is not None


def test_labels_and_words_are_measured_too() -> None:
    model = tiny("llama")
    records = [LabelledText("ab cd", "yes"), LabelledText("e", "no"), LabelledText("fgh", "yes")]
    task = LabelTask.from_records(records, verbalisers={"yes": " yes", "no": " yet"})  # paths part at the fourth letter
    task.attach(model)
    judged = outcome(model, records)
    assert judged.name == "loss of the label"
    raw = score(model, task, records, calibration="none").raw
    want = [-raw[i, task.labels.index(r.label)] for i, r in enumerate(records)]
    loss, hits = judged.measure()
    assert loss.tolist() == pytest.approx(want, rel=1e-5)
    assert hits.tolist() == [float(w < np.log(2)) for w in want]
    word = outcome(model, ["ab", "c"], word=" no")
    ids = model.encode(["ab no"])["input_ids"]
    log_p = model.network(ids).logits[0].detach().double().log_softmax(-1)
    assert float(word.measure()[0][0]) == pytest.approx(
        -sum(float(log_p[t - 1, ids[0, t]]) for t in (2, 3, 4)), rel=1e-5
    )
    found = ablate(model, texts=records, what="mlp", together=0)
    assert found.loss == "loss of the label" and len(found.components) == 4


def test_masked_models_lose_masked_tokens() -> None:
    model = tiny("bert")
    with pytest.raises(BadInput, match="no mask token"):
        ablate(model, texts=TEXTS)
    model.tokenizer.mask_token = "<mask>"
    judged = outcome(model, TEXTS[:1], seed=1)
    hidden = [n for n, _, _ in judged.steps[0]]
    ids = model.encode(TEXTS[:1])["input_ids"]
    assert len(hidden) == round(0.15 * ids.shape[1])
    masked = ids.clone()
    masked[0, hidden] = model.tokenizer.mask_token_id
    log_p = model.network(masked).logits[0].detach().double().log_softmax(-1)
    assert float(judged.measure()[0]) == pytest.approx(-float(log_p[hidden, ids[0, hidden]].mean()), rel=1e-5)
    assert len(ablate(model, texts=TEXTS, what="heads", together=1, draws=1).components) == 12


def test_the_simulation_reads_the_expected_digit() -> None:
    model = tiny("llama")
    simulator = Simulator(model, "test")
    found = simulator.simulate("cats", ["a", " c"])
    solved = "Fires on: animals\n" + "".join(f"{token}\t{n}\n" for token, n in SOLVED_SIMULATIONS[0][1]) + "\n"
    begin = f"{solved}Fires on: cats\na\t"  # a second solved case would not fit
    prompt = begin + "?\n c\t"
    ids = model.encode([prompt])["input_ids"]
    logits = model.network(ids).logits[0].detach().double()
    digits = [model.tokenizer.convert_tokens_to_ids(str(d)) for d in range(10)]
    for value, place in zip(found, (len(begin) - 1, len(prompt) - 1), strict=True):
        p = logits[place, digits].softmax(-1)
        assert value == pytest.approx(float((p * torch.arange(10)).sum()), rel=1e-4)


def test_scores_are_correlations() -> None:
    pairs = [([0.0, 1.0, 4.0], [1.0, 2.0, 2.5]), ([2.0, 0.0], [9.0, 0.0])]
    real, said = (np.concatenate([p[side] for p in pairs]) for side in (0, 1))
    want = np.corrcoef(real, said)[0, 1]
    assert explaining.score(pairs) == pytest.approx(want)
    assert explaining.interval(pairs, 0)[0] == pytest.approx(want)
    assert explaining.interval([([1.0, 1.0], [1.0, 2.0])], 0) == (0, 0, 0)
    excerpt = Excerpt(text=0, tokens=["The", " cat", "s", "\n"], values=[0.1, 2.0, 1.2, 5.0], peak=1)
    assert explaining.bracketed(excerpt, 1.0) == "The [[cat]][[s]]⏎"


def test_an_explanation_is_scored_on_texts_that_were_not_shown() -> None:
    texts = ["a cat sat", "two dogs ran", "no rain fell", "my car broke", "it is hot"]
    settings = dict(neuron="2:7", examples=2, held_out=3, context=3, max_new_tokens=6)
    found = explain_neuron(tiny("llama"), texts=texts, explanation="the letter a", **settings)
    assert found.explanation == "the letter a" and found.written_by == "you"
    assert len(found.shown) == 2 and [s.top for s in found.held_out] == [True, False, False]
    assert not {"".join(s.tokens) for s in found.held_out} & {
        s.replace("[[", "").replace("]]", "") for s in found.shown
    }
    again = explain_neuron(tiny("gpt2"), texts=texts, explainer=tiny("llama"), **settings)
    assert again.written_by == "tiny-llama" and again.explanation and len(again.controls) == 3
    assert Finding.from_json(again.to_json()) == again


def test_clear_errors() -> None:
    model = tiny("llama")
    with pytest.raises(BadInput, match="wants layer:number"):
        neurons(model, texts=TEXTS, neurons=["seven"])
    with pytest.raises(BadInput, match="0 to 47"):
        neurons(model, texts=TEXTS, neurons=["1:48"])
    with pytest.raises(BadInput, match="layers 0 to 3"):
        neurons(model, texts=TEXTS, neurons=["9:1"])
    with pytest.raises(BadInput, match="not available"):
        neurons(tiny("mixtral"), texts=TEXTS)
    with pytest.raises(BadInput, match="has 0 to 3"):
        ablate(model, texts=TEXTS, only=["1:4"])
    with pytest.raises(BadInput, match="wants a layer, as in 7"):
        ablate(model, texts=TEXTS, what="mlp", only=["1:4"])
    with pytest.raises(BadInput, match="layer 8 has no heads"):
        ablate(model, texts=TEXTS, layers=[8])
    with pytest.raises(BadInput, match="two texts"):
        ablate(model, texts=TEXTS[:1], how="resample")
    with pytest.raises(BadInput, match="neither a label task"):
        ablate(model, texts=TEXTS, measure="label")
    with pytest.raises(BadInput, match="wants a word"):
        ablate(model, texts=TEXTS, measure="word")
    with pytest.raises(BadInput, match="three or more"):
        explain_neuron(model, texts=TEXTS[:2], neuron="0:0")
    with pytest.raises(BadInput, match="causal"):
        explain_neuron(model, texts=TEXTS, neuron="0:0", explainer=tiny("bert"))
    with pytest.raises(BadInput, match="too short"):
        explain_neuron(model, texts=TEXTS, neuron="0:0", max_new_tokens=120)
