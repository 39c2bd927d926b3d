"""Few-shot labelling: which demonstrations are chosen, and that running shared ones once changes no score."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from intarsia.data import LabelledText
from intarsia.errors import BadInput, Note
from intarsia.measure import few_shot, score, score_shots
from intarsia.measure.demonstrations import fixed, nearest
from intarsia.measure.labels import LabelTask
from tests.tiny import tiny

# "ann" and "anna" part late: the deeper nodes of the trie are scored after the demonstrations, too.
TASK = {"template": "{text} is", "verbalisers": {"ann": " ann", "anna": " anna", "bob": " bob"}}
POOL = [LabelledText(f"{word}{i}", label, f"g{i}") for i in range(3) for word, label in
        (("red", "ann"), ("lime", "anna"), ("navy", "bob"))]  # fmt: skip
TEXTS = [LabelledText(word, "bob", "other") for word in ("blue", "a much longer text", "x")]


def task() -> LabelTask:
    return LabelTask.parse({**TASK, "calibration": "none"})


def naive(model, record: LabelledText, shots: list[LabelledText]) -> np.ndarray:
    """Log probabilities of the labels after the whole prompt, one forward for each continuation."""
    tokenizer, words = model.tokenizer, task().verbalisers

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    begin = tokenizer("")["input_ids"]
    prompt = begin + [t for s in shots for t in (*ids(f"{s.text} is"), *ids(words[s.label] + ("\n" if s.label == "ann"
                      else "")), *ids("\n\n"))] + ids(f"{record.text} is")  # fmt: skip
    paths = {"ann": ids(" ann\n"), "anna": ids(" anna"), "bob": ids(" bob")}

    def next_log_probs(path: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return model.network(torch.tensor([prompt + path])).logits[0, -1].double()

    first = next_log_probs(ids(" "))[[ids("a")[0], ids("b")[0]]].log_softmax(-1)
    then = next_log_probs(ids(" ann"))[[ids("\n")[0], ids("a")[0]]].log_softmax(-1)
    assert paths["ann"][:-1] == paths["anna"][:-1]
    return np.array([(first[0] + then[0]).item(), (first[0] + then[1]).item(), first[1].item()])


@pytest.mark.parametrize(("family", "bos"), [("llama", True), ("gpt2", False)])
def test_scores_are_those_of_the_whole_prompt(family, bos):
    model = tiny(family, dtype=torch.float64, bos=bos)
    both = POOL[:2]
    shots = [both, both, [POOL[4]]]
    shared = score_shots(model, task(), TEXTS, shots)
    plain = score_shots(model, task(), TEXTS, shots, share=False)
    np.testing.assert_allclose(shared.raw, plain.raw, atol=1e-10)
    expected = np.stack([naive(model, r, list(s)) for r, s in zip(TEXTS, shots, strict=True)])
    np.testing.assert_allclose(shared.raw, expected, atol=1e-10)
    assert shared.tokens == plain.tokens and shared.left_out == 0


def test_a_shared_head_is_run_once():
    model, tokens = tiny("llama"), []
    handle = model.network.register_forward_pre_hook(
        lambda module, args, given: tokens.append(given["input_ids"].numel()), with_kwargs=True
    )
    flat = LabelTask.parse({"template": "{text}", "verbalisers": {"ann": "a", "anna": "c", "bob": "b"}})
    texts = [LabelledText("ab" * i, "bob") for i in range(1, 5)]
    score_shots(model, flat, texts, [POOL[:6]] * 4)
    once = sum(tokens)
    score_shots(model, flat, texts, [POOL[:6]] * 4, share=False)
    handle.remove()
    assert once < (sum(tokens) - once) / 2


def test_a_window_of_attention_shares_nothing():
    model = tiny("gemma3", dtype=torch.float64)
    shots = [POOL[:2]] * 3
    found = score_shots(model, task(), TEXTS, shots)
    for i, (record, before) in enumerate(zip(TEXTS, shots, strict=True)):
        np.testing.assert_allclose(found.raw[i], naive(model, record, before), atol=1e-10)


def test_no_demonstrations_is_zero_shot():
    model = tiny("llama")
    found = score_shots(model, task(), TEXTS, [[]] * 3)
    np.testing.assert_allclose(found.raw, score(model, task(), TEXTS).raw, atol=1e-5)


def test_the_far_ones_give_way_to_the_context():
    model = tiny("llama", bos=True)  # 128 tokens, one a byte
    long = [LabelledText("far " * 12, "bob"), LabelledText("near " * 9, "bob")]
    found = score_shots(model, task(), [LabelledText("x" * 30, "ann")], [long])
    alone = score_shots(model, task(), [LabelledText("x" * 30, "ann")], [long[1:]])
    assert found.left_out == 1 and np.array_equal(found.raw, alone.raw)
    with pytest.warns(Note, match="1 of the texts and demonstrations were cut"):
        score_shots(model, task(), [LabelledText("x" * 300, "ann")], [[]])


def test_content_free_calibration_keeps_the_demonstrations():
    model = tiny("llama")
    shots = [POOL[:1], POOL[1:2], []]
    found = score_shots(model, task(), TEXTS, shots, calibration="content-free")
    empty = score_shots(model, task(), [LabelledText("", "bob")] * 3, shots)
    np.testing.assert_allclose(found.scores, found.raw - empty.raw, atol=1e-6)


def units(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 6))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("relevance", [1.0, 0.6])
def test_maximal_marginal_relevance_is_the_formula(relevance):
    pool = [LabelledText(str(i), "a") for i in range(30)]
    mine, asked = units(30, 0), units(4, 1)
    found = nearest(pool, mine, [LabelledText("?", "a")] * 4, asked, 5, relevance=relevance)
    for query, numbers in zip(asked, found, strict=True):
        chosen: list[int] = []
        while len(chosen) < 5:

            def worth(i, query=query, chosen=chosen):
                near = max((float(mine[i] @ mine[j]) for j in chosen), default=0.0)
                return relevance * float(query @ mine[i]) - (1 - relevance) * near if chosen else float(query @ mine[i])

            chosen.append(max((i for i in range(30) if i not in chosen), key=worth))
        assert sorted(numbers) == sorted(chosen)
        likeness = [float(query @ mine[i]) for i in numbers]
        assert likeness == sorted(likeness)  # far to near


def test_never_the_own_dialogue():
    pool = [LabelledText(f"{group} {i}", "a" if i % 2 else "b", group) for group in ("one", "two") for i in range(4)]
    vectors = units(8, 2)
    asked = [LabelledText("?", "a", "one"), LabelledText("?", "a", "two"), LabelledText("?", "a")]
    found = nearest(pool, vectors, asked, vectors[:3], 8)
    assert {pool[i].group for i in found[0]} == {"two"} and len(found[0]) == 4
    assert {pool[i].group for i in found[1]} == {"one"} and len(found[2]) == 8
    alone = [LabelledText(str(i), "a") for i in range(4)]
    assert nearest(alone, vectors[:4], alone[:1], vectors[:1], 4) == [[i for i in nearest(alone, vectors[:4], [
        LabelledText("?", "a")], vectors[:1], 4)[0] if i != 0]]  # fmt: skip


def test_fixed_ones_are_the_same_for_all_but_their_own():
    asked = [LabelledText("?", "ann", f"g{i}") for i in range(3)] + [LabelledText("?", "ann")]
    found = fixed(POOL, asked, ["ann", "anna", "bob"], 1, seed=1)
    usual = found[3]
    assert sorted(POOL[i].label for i in usual) == ["ann", "anna", "bob"]
    for record, numbers in zip(asked, found, strict=True):
        assert all(POOL[i].group != record.group for i in numbers) and len(numbers) == 3
        if all(POOL[i].group != record.group for i in usual):
            assert numbers == usual
    assert fixed(POOL, asked, ["ann", "anna", "bob"], 1, seed=1) == found
    with pytest.raises(BadInput, match="no record is labelled 'carl'"):
        fixed(POOL, asked, ["ann", "carl"], 1)


@pytest.mark.parametrize("how", ["nearest", "fixed"])
def test_few_shot_judges_each_number(how):
    model = tiny("llama")
    found = few_shot(model, task(), POOL, [*TEXTS, POOL[0]], shots=(0, 2), how=how, calibration="none", draws=100)
    assert [f.shots for f in found] == [0, 2] and found[1].tokens > found[0].tokens
    plain = score(model, task(), [*TEXTS, POOL[0]]).raw.argmax(1).tolist()
    assert found[0].quality.answers == plain and found[0].quality.truth == [2, 2, 2, 0]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"shots": ()}, "given: none"),
        ({"shots": (1, 1)}, "each once"),
        ({"shots": (-1,)}, "from 0 up"),
        ({"how": "best"}, "nearest or fixed"),
        ({"train": []}, "one of them is empty"),
        ({"train": [LabelledText("x", "carl")]}, "train has the label 'carl'"),
        ({"relevance": 0.0}, "relevance"),
    ],
)
def test_bad_input(settings, says):
    settings = dict(settings)
    with pytest.raises(BadInput, match=says):
        few_shot(tiny("llama"), task(), settings.pop("train", POOL), TEXTS, **settings)
