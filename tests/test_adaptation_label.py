"""Label tuning on tiny networks: it learns, it repeats, and the frozen-trunk cache changes nothing but the cost."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from intarsia.adaptation import LabelConfig, label
from intarsia.adaptation.label_tuning import TrieLoss, evenly, fit_temperature
from intarsia.data import LabelledText
from intarsia.errors import BadInput
from intarsia.measure import trie as tries
from intarsia.measure.labels import LabelTask
from intarsia.measure.likelihood import score
from intarsia.training.loop import fixed_batches, rate
from intarsia.training.lora import linear_names
from tests.tiny import tiny

# "ann" and "anna" part late, so that the deeper nodes of the trie are trained too.
TRAIN = [LabelledText(f"{word} {i}", name) for i in range(6) for word, name in
         (("red", "ann"), ("green", "anna"), ("blue", "bob"))]  # fmt: skip
QUICK = dict(rank=4, batch_size=6, learning_rate=1e-2, epochs=8, layers_from=2)


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.network.state_dict().items()}


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_it_learns_and_stays_a_plain_network(family):
    model = tiny(family)
    before = weights(model)
    new = label(model, train=TRAIN, dev=TRAIN, **QUICK | {"layers_from": 0, "epochs": 15})
    task = LabelTask.of(new)
    found = score(new, task, TRAIN)
    assert (found.best == task.index(TRAIN)).all()
    facts = new.extras["adaptation.label"]
    assert facts["losses"][-1] < 0.3 * facts["losses"][0] and facts["dev"]["weighted_f1"] == 1
    assert task.calibration == "none" and found.scores == pytest.approx(found.raw)
    assert type(new.network) is type(model.network) and not new.network.training
    assert list(new.network.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
    assert new.identity.changes[-1]["technique"] == "adaptation.label" and not model.identity.changes


def test_equal_seeds_give_equal_bits():
    one, two, other = (label(tiny("llama"), train=TRAIN, dropout=0.1, seed=s, **QUICK) for s in (3, 3, 4))
    a, b, c = weights(one), weights(two), weights(other)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)
    assert one.extras == two.extras


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_the_trunk_cache_gives_the_same_losses(family):
    plain = label(tiny(family), train=TRAIN, **QUICK)
    cached = label(tiny(family), train=TRAIN, trunk_cache="float32", **QUICK)
    half = label(tiny(family), train=TRAIN, trunk_cache="float16", **QUICK)
    losses = plain.extras["adaptation.label"]["losses"]
    np.testing.assert_allclose(cached.extras["adaptation.label"]["losses"], losses, atol=2e-5)
    np.testing.assert_allclose(half.extras["adaptation.label"]["losses"], losses, atol=0.05)


def test_only_upper_blocks_change():
    model = tiny("llama")
    new = label(model, train=TRAIN, **QUICK)
    changed = {name for name, value in weights(new).items() if not torch.equal(value, weights(model)[name])}
    assert changed and all(".layers.2." in name or ".layers.3." in name for name in changed)


def test_the_loss_is_the_naive_one():
    model = tiny("llama", dtype=torch.float64)
    task = LabelTask.from_records(TRAIN)
    trie = tries.of_task(task, model.tokenizer)
    config = LabelConfig()
    from intarsia.adaptation.label_tuning import Examples

    examples = Examples.build(model, task, trie, TRAIN, config)
    rows = list(range(len(TRAIN)))
    loss = TrieLoss(trie, task, TRAIN, config, "cpu")(
        examples.logits(model.network, rows), examples.tails, examples.labels
    )
    expected = -score(model, task, TRAIN).raw[rows, task.index(TRAIN)].mean()
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_weights_and_adjustment_enter_the_loss_by_formula():
    records = [LabelledText("x", "a")] * 6 + [LabelledText("y", "b")] * 2
    task = LabelTask(verbalisers={"a": "a", "b": "b"})
    model = tiny("llama")
    trie = tries.of_task(task, model.tokenizer)
    a, b = trie.sequences[0][0], trie.sequences[1][0]
    logits = torch.zeros(2, 1, 300)
    logits[0, 0, a], logits[1, 0, b] = 1.0, -0.5
    loss = TrieLoss(trie, task, records, LabelConfig(class_weight=1, logit_adjustment=1), "cpu")(logits, [0, 0], [0, 1])
    first = -torch.log_softmax(torch.tensor([1 + np.log(6), np.log(2)]), 0)[0].item()
    second = -torch.log_softmax(torch.tensor([np.log(6), -0.5 + np.log(2)]), 0)[1].item()
    # Weights 1/6 and 1/2, scaled so that their mean over the eight records is one.
    scale = 8 / (6 / 6 + 2 / 2)
    assert loss.item() == pytest.approx(scale * (first / 6 + second / 2) / 2, abs=1e-5)


def test_label_bias_and_prior_and_temperature():
    task = {"template": "{text}:", "verbalisers": {"ann": "x", "anna": "y", "bob": "z"}}
    new = label(
        tiny("llama"), train=TRAIN, dev=TRAIN, label_task=task, label_bias=True, choose_prior="macro_f1", **QUICK
    )
    tuned = LabelTask.of(new)
    assert len(tuned.bias) == 3 and any(tuned.bias) and tuned.temperature != 1
    assert tuned.template == "{text}:" and tuned.labels == ["ann", "anna", "bob"]
    with pytest.raises(BadInput, match="first tokens differ"):
        label(tiny("llama"), train=TRAIN, label_bias=True, **QUICK)


def test_temperature_is_the_best_one():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4000, 4))
    true = np.array([rng.choice(4, p=np.exp(s / 2.5) / np.exp(s / 2.5).sum()) for s in scores])
    assert fit_temperature(scores, true) == pytest.approx(2.5, rel=0.15)


def test_evenly_keeps_rare_labels():
    records = [LabelledText(str(i), "many") for i in range(50)] + [LabelledText("x", "few"), LabelledText("y", "few")]
    kept = evenly(records, 10, 0)
    assert len(kept) == 10 and sum(r.label == "few" for r in kept) == 2
    assert evenly(records, None, 0) == records


def test_batches_and_schedule():
    batches = fixed_batches([5, 1, 4, 2, 3, 9, 9], 3, 0)
    assert sorted(i for b in batches for i in b) == list(range(7)) and [len(b) for b in batches] == [3, 3, 1]
    config = LabelConfig(warmup=0.1, final_rate=0.1)
    rates = [rate(step, 100, config) for step in range(100)]
    assert max(rates) == pytest.approx(1, abs=0.01) and rates[0] == pytest.approx(1 / 11)
    assert rates[-1] == pytest.approx(0.1, abs=0.01) and rates.index(max(rates)) == 10


@pytest.mark.parametrize(
    ("train", "settings", "says"),
    [
        ([], {}, "none were given"),
        ([LabelledText("x", "one")] * 3, {}, "two labels or more"),
        (TRAIN, {"dev": [LabelledText("x", "carl")]}, "dev has the label 'carl'"),
        (TRAIN, {"label_task": {"verbalisers": {"ann": " a", "anna": " b", "bob": " c", "carl": " d"}}},
         "'carl' has no training record"),
        (TRAIN, {"label_task": {"verbalisers": {"ann": " a", "bob": " c"}}}, "train has the label 'anna'"),
        (TRAIN, {"targets": ("q_prog",)}, "q_prog"),
        (TRAIN, {"layers_from": 4}, "4 blocks"),
        (TRAIN, {"trunk_cache": "float32"}, "set layers_from"),
        (TRAIN, {"max_records": 2}, "3 labels"),
        (TRAIN, {"learning_rat": 1}, "learning_rate"),
    ],
)  # fmt: skip
def test_bad_input(train, settings, says):
    with pytest.raises(BadInput, match=says):
        label(tiny("llama"), train=train, **settings)


def test_not_causal():
    with pytest.raises(BadInput, match="causal"):
        label(tiny("t5"), train=TRAIN)


def test_targets_inside_blocks_only():
    names = linear_names(tiny("llama").network, ("all",), 3)
    assert len(names) == 7 and all(name.startswith("model.layers.3.") for name in names)
