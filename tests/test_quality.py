"""`measure.quality` and the figures behind it, against scikit-learn and formulas written naively."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics

from intarsia.data import LabelledText, Text, TextPair
from intarsia.errors import BadInput
from intarsia.measure import classification
from intarsia.measure.intervals import group_numbers, with_interval
from intarsia.measure.quality import Quality, quality
from intarsia.measure.windows import perplexity, windows_of
from intarsia.report import Finding
from tests.tiny import tiny

LABELLED = [LabelledText(f"text {i} {'x' * (i % 7)}", "abc"[i % 3], group=f"g{i % 4}") for i in range(24)]
TASK = {"template": "{text}:", "verbalisers": {"a": "a", "b": "b", "c": "c"}}


def test_bootstrapped_figures_are_scikit_learns():
    rng = np.random.default_rng(0)
    true, best = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    confusion = metrics.confusion_matrix(true, best, labels=range(6))
    assert classification.accuracy(confusion) == pytest.approx(metrics.accuracy_score(true, best))
    for name in ("weighted", "macro"):
        figure = getattr(classification, f"{name}_f1")
        assert figure(confusion) == pytest.approx(metrics.f1_score(true, best, average=name))


def test_calibration_error_of_a_calibrated_and_a_boastful_guess():
    true = np.array([0] * 7 + [1] * 3)
    assert classification.expected_calibration_error(np.tile([0.7, 0.3], (10, 1)), true) == pytest.approx(0, abs=1e-9)
    assert classification.expected_calibration_error(np.tile([1.0, 0.0], (10, 1)), true) == pytest.approx(0.3)


def test_groups_are_drawn_whole():
    assert list(group_numbers(["b", "a", "b", None])) == [1, 0, 1, 2]
    assert list(group_numbers(["a", "a"])) == [0, 1]
    values = np.array([[1.0, 1]] * 50 + [[0.0, 1]] * 50)

    def mean(sums):
        return sums[..., 0] / sums[..., 1]

    alone = with_interval(values, mean, [None] * 100)
    grouped = with_interval(values, mean, ["a"] * 50 + ["b"] * 50)
    assert alone[0] == grouped[0] == 0.5 and 0.35 < alone[1] < alone[2] < 0.65
    assert grouped[1:] == (0.0, 1.0)


@pytest.mark.parametrize(("length", "window", "stride"), [(2, 8, 4), (8, 8, 4), (9, 8, 4), (100, 16, 5), (31, 10, 9)])
def test_windows_score_every_token_once(length, window, stride):
    scored = []
    for begin, end, first in windows_of(length, window, stride):
        assert begin < first < end <= begin + window
        assert first == 1 or first - begin >= window - stride
        scored += range(first, end)
    assert scored == list(range(1, length))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_perplexity_is_the_naive_one(family):
    model = tiny(family, dtype=torch.float64)
    texts = ["a short one", "x", "a longer text that needs more than one window " * 2]
    found = perplexity(model, texts, window=32, stride=8)
    total, count = 0.0, 0
    for text in texts:
        ids = model.tokenizer(text)["input_ids"]
        begin = 0
        for i in range(1, len(ids)):
            while i >= begin + 32:
                begin += 8
            logits = model.network(input_ids=torch.tensor([ids[begin:i]])).logits[0, -1]
            total -= torch.log_softmax(logits, 0)[ids[i]].item()
            count += 1
    assert found.tokens == count and found.texts == 2 and found.skipped == 1
    assert found.perplexity[0] == pytest.approx(np.exp(total / count), rel=1e-5)
    assert found.perplexity[1] <= found.perplexity[0] <= found.perplexity[2]


def test_labels_and_perplexity_in_one_finding():
    found = quality(
        tiny("llama"), test=LABELLED, text=[Text("some text"), Text("more text")], label_task=TASK, perplexity_on="text"
    )
    label = found.rows[0].label
    assert label.n == 24 and label.groups == 4 and np.sum(label.confusion) == 24
    assert label.floor_accuracy == pytest.approx(1 / 3) and label.cut == 0
    assert list(found.headline()) == ["weighted_f1", "perplexity"]
    low, high = found.headline()["weighted_f1"][0][1:]
    assert low <= high and "Weighted F1" in found.summary and "Perplexity" in found.summary
    again = Finding.from_json(found.to_json())
    assert again == found and [t.title for t in again.tables()] == ["Quality", "By class"]
    assert [f.kind for f in again.figures()] == ["bar", "heatmap"]


def test_equal_input_gives_equal_findings():
    one, two = (quality(tiny("llama"), test=LABELLED, label_task=TASK, limit=10, seed=5) for _ in range(2))
    assert one.to_json() == two.to_json() and one.rows[0].label.n == 10


def test_generation():
    model = tiny("llama")
    ids = model.tokenizer("abc", return_tensors="pt")["input_ids"]
    out = model.network.generate(ids, do_sample=False, max_new_tokens=4, pad_token_id=0)[0, 3:]
    written = model.tokenizer.decode(out, skip_special_tokens=True)
    found = quality(model, test=[TextPair("abc", written), TextPair("abc", "never this")], max_new_tokens=4)
    assert found.rows[0].generation.exact_match[0] == 0.5
    assert set(found.headline()) == {"exact_match", "rouge_l"} and found.tables()[1].title == "What it wrote"


def test_exports_have_rows_of_their_own(monkeypatch, tmp_path):
    import sys
    import types

    model = tiny("llama")

    class Engine:
        def logits(self, ids):
            with torch.no_grad():
                return model.network(input_ids=torch.tensor([ids])).logits[0].numpy()

    runtime = types.ModuleType("intarsia.models.runtime")
    runtime.open_runtime = lambda path: Engine()
    monkeypatch.setitem(sys.modules, "intarsia.models.runtime", runtime)
    model.exports["onnx-genai"] = tmp_path
    found = quality(model, test=LABELLED, label_task=TASK)
    rows = found.headlines()
    assert list(rows) == ["", "onnx-genai"]
    assert rows["onnx-genai"]["weighted_f1"][0] == pytest.approx(rows[""]["weighted_f1"][0])
    assert isinstance(found, Quality) and list(quality(model, test=LABELLED, exports=False).headlines()) == [""]


@pytest.mark.parametrize(
    ("test", "settings", "says"),
    [
        ([], {}, "empty"),
        ([Text("x"), TextPair("a", "b")], {}, "all alike"),
        (LABELLED, {"label_task": {"verbalisers": {"a": "a", "z": "z"}}}, "'b'"),
        (LABELLED, {"perplexity_on": "text"}, "no split 'text'"),
        ([Text("x")], {}, "two tokens"),
        ([Text("some text")], {"window": 8, "stride": 8}, "stride"),
    ],
)
def test_bad_input(test, settings, says):
    with pytest.raises(BadInput, match=says):
        quality(tiny("llama"), test=test, **settings)


def test_paired_gains_equal_a_naive_bootstrap_and_are_narrower():
    rng = np.random.default_rng(1)
    labels, true = ["a", "b", "c"], rng.integers(0, 3, 240)
    groups = [f"g{i // 12}" for i in range(240)]
    hard = rng.random(240) < np.repeat(rng.random(20), 12)  # some groups are hard for every model
    weak, strong = np.where(hard, (true + 1) % 3, true), true.copy()
    wrong = hard & (rng.random(240) < 0.7)
    strong[wrong] = (true[wrong] + 1) % 3

    def judged(answers):
        return classification.judge(labels, true, np.eye(3)[answers], np.eye(3)[answers], groups, draws=1000)

    before, after = judged(weak), judged(strong)
    gained = classification.gains(after, before, draws=1000)
    value, low, high = gained["accuracy"]
    assert value == pytest.approx((strong == true).mean() - (weak == true).mean())
    numbers = group_numbers(groups)
    draws = []
    for _ in range(1000):
        picked = np.concatenate([np.flatnonzero(numbers == g) for g in rng.integers(0, 20, 20)])
        draws.append((strong[picked] == true[picked]).mean() - (weak[picked] == true[picked]).mean())
    assert (low, high) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.02)
    assert low > 0 and high - low < before.accuracy[2] - before.accuracy[1]
    assert classification.gains(after, judged(weak).model_copy(update={"truth": [0]})) == {}
