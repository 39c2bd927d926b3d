"""Demonstrations, chains of thought and biases: every figure equals prompting again one by one."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch

from intarsia.data import LabelledText, Text, TextPair
from intarsia.errors import BadInput
from intarsia.interpretation.evaluation.correlation import spearman
from intarsia.interpretation.in_context import (
    BiasTest,
    ChainOfThought,
    Demonstrations,
    Simulatability,
    bias_test,
    chain_of_thought,
    demonstrations,
    simulatability,
)
from intarsia.interpretation.in_context.ablation import _orders, saliency
from intarsia.interpretation.in_context.shots import shots_of
from intarsia.interpretation.in_context.simulating import generality
from intarsia.interpretation.in_context.steps import filled, mistaken, split_steps
from intarsia.report import Finding
from tests.tiny import tiny

TRAIN = [LabelledText("a joy", "good"), LabelledText("so dull", "bad"), LabelledText("superb", "good")]
TEST = [LabelledText("loved it", "good"), LabelledText("a waste", "bad"), LabelledText("fine by me", "good")]


def log_prob(model, prompt: str, words: str) -> float:
    """Naively: the log probability of words after a prompt."""
    head = model.tokenizer(prompt)["input_ids"]
    tail = model.tokenizer(words, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        log_p = model.network(torch.tensor([head + tail])).logits[0].double().log_softmax(-1)
    return sum(float(log_p[len(head) - 1 + i, token]) for i, token in enumerate(tail))


def label_log_probs(model, prompt: str) -> np.ndarray:
    """' bad' and ' good' part at their second token: both orders of words are one byte a token."""
    head = [*model.tokenizer(prompt)["input_ids"], *model.tokenizer(" ", add_special_tokens=False)["input_ids"]]
    with torch.no_grad():
        logits = model.network(torch.tensor([head])).logits[0, -1].double()
    ids = [model.tokenizer(c, add_special_tokens=False)["input_ids"][0] for c in "bg"]
    return logits[ids].log_softmax(-1).numpy()


def prompt_of(demos: list[tuple[str, str]], text: str) -> str:
    return "".join(f"{t}\nLabel: {label}\n\n" for t, label in demos) + f"{text}\nLabel:"


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox"])
def test_demonstrations_equal_prompting_again_one_by_one(family: str) -> None:
    model = tiny(family)
    found = demonstrations(model, train=TRAIN, test=TEST, orders=2, saliency_texts=0)
    demos = [(d.text, d.label) for d in TRAIN]
    whole = np.array([label_log_probs(model, prompt_of(demos, t.text)) for t in TEST])
    followed = whole.argmax(1)
    base = whole[range(3), followed]
    flip = {"good": "bad", "bad": "good"}
    for j, demo in enumerate(found.demonstrations):
        rest = demos[:j] + demos[j + 1 :]
        changed = {
            "removed": rest,
            "flipped": [*demos[:j], (demos[j][0], flip[demos[j][1]]), *demos[j + 1 :]],
            "neutral": [*demos[:j], ("N/A", demos[j][1]), *demos[j + 1 :]],
        } | ({"moved last": [*rest, demos[j]]} if j < 2 else {})
        assert set(demo.effect) == set(changed) and demo.flipped_to == flip[demo.label]
        for name, some in changed.items():
            values = np.array([label_log_probs(model, prompt_of(some, t.text)) for t in TEST])
            falls = base - values[range(3), followed]
            assert demo.effect[name][0] == pytest.approx(falls.mean(), abs=1e-5), name
            assert demo.turned[name] == pytest.approx((values.argmax(1) != followed).mean())
            if name == "removed":
                assert found.effects[j] == pytest.approx(falls.tolist(), abs=1e-5)
    zero = np.array([label_log_probs(model, prompt_of([], t.text)) for t in TEST])
    right = np.array([1, 0, 1])
    assert found.conditions[0].log_prob[0] == pytest.approx(base.mean(), abs=1e-5)
    assert found.conditions[1].log_prob[0] == pytest.approx(zero[range(3), followed].mean(), abs=1e-5)
    assert found.conditions[1].accuracy[0] == pytest.approx((zero.argmax(1) == right).mean())
    assert len(found.conditions) == 4


def test_pairs_are_followed_by_their_targets_words() -> None:
    model = tiny("llama")
    train = [TextPair("France:", "Paris"), TextPair("Italy:", "Rome")]
    test = [TextPair("Spain:", "Madrid"), TextPair("Peru:", "Lima")]
    found = demonstrations(model, train=train, test=test, orders=0, saliency_texts=0)
    whole = "France: Paris\n\nItaly: Rome\n\n"
    base = [log_prob(model, whole + t.prompt, " " + t.target) for t in test]
    without = [log_prob(model, "Italy: Rome\n\n" + t.prompt, " " + t.target) for t in test]
    wrong = [log_prob(model, "France: Rome\n\nItaly: Rome\n\n" + t.prompt, " " + t.target) for t in test]
    effect = found.demonstrations[0].effect
    assert effect["removed"][0] == pytest.approx(np.mean(base) - np.mean(without), abs=1e-4)
    assert effect["flipped"][0] == pytest.approx(np.mean(base) - np.mean(wrong), abs=1e-4)
    assert found.demonstrations[0].turned == {} and found.conditions[0].accuracy is None


def test_saliency_is_the_gradient_times_the_embedding() -> None:
    model = tiny("gpt2")
    shots, demos, questions, _ = shots_of(model, TRAIN, TEST, "\n\n", "test")
    prompt, tokens, owner, scores = saliency(model, shots, demos, questions[0], 1)
    ids = torch.tensor([[*model.tokenizer(prompt)["input_ids"], *model.tokenizer(" ")["input_ids"]]])
    embedding = model.network.get_input_embeddings()(ids).detach().requires_grad_()
    logits = model.network(inputs_embeds=embedding).logits[0, -1]
    bad, good = (model.tokenizer(c)["input_ids"][0] for c in "bg")
    logits[[bad, good]].log_softmax(-1)[1].backward()
    # GPT-2 adds positions to what enters the first block; the site holds the sum.
    entered = embedding.detach() + model.network.transformer.wpe.weight[: ids.shape[1]]
    expected = (embedding.grad * entered)[0, :-1].sum(-1).double()
    torch.testing.assert_close(scores, expected.detach(), rtol=1e-3, atol=1e-6)
    assert "".join(tokens) == prompt
    spans = ["".join(t for t, o in zip(tokens, owner, strict=True) if o == j) for j in range(3)]
    assert spans == ["a joy\nLabel: good\n\n", "so dull\nLabel: bad\n\n", "superb\nLabel: good\n\n"]
    found = demonstrations(model, train=TRAIN, test=TEST[:1], orders=0)
    choice = int(label_log_probs(model, prompt).argmax())
    _, _, owner, scores = saliency(model, shots, demos, questions[0], choice)
    sums = [float(sum(abs(s) for s, o in zip(scores, owner, strict=True) if o == j)) for j in range(3)]
    assert [d.saliency for d in found.demonstrations] == pytest.approx(sums)
    assert found.agreement == pytest.approx(spearman([abs(d.effect["removed"][0]) for d in found.demonstrations], sums))


def test_orders_are_new_and_all_different() -> None:
    found = _orders(3, 99, random.Random(0))
    assert len(found) == len(set(found)) == 5 and (0, 1, 2) not in found
    assert _orders(1, 4, random.Random(0)) == []


def test_demonstrations_draw_and_survive_json() -> None:
    found = demonstrations(tiny("llama"), train=TRAIN, test=[Text("loved it")], orders=1)
    again = Finding.from_json(found.to_json())
    assert isinstance(again, Demonstrations) and again == found
    assert found.conditions[0].accuracy is None and found.map is not None
    assert "Demonstration" in found.summary and len(found.tables()[0].rows) == 3
    assert len(found.figures()[1].matrix) == 3


def test_demonstrations_refuse_what_does_not_fit() -> None:
    model = tiny("llama")
    with pytest.raises(BadInput, match="one of them is empty"):
        demonstrations(model, train=[], test=TEST)
    with pytest.raises(BadInput, match="context is 128"):
        demonstrations(model, train=TRAIN * 3, test=TEST, max_demonstrations=9)
    with pytest.raises(BadInput, match="no labels"):
        demonstrations(model, train=TRAIN, test=["a"], explain="right")
    with pytest.raises(BadInput, match="pairs as demonstrations"):
        demonstrations(model, train=["a"], test=TEST)
    with pytest.raises(BadInput, match="causal"):
        demonstrations(tiny("bert"), train=TRAIN, test=TEST)


# Chains of thought

CHAIN = TextPair("2+3=?", "Two and three. 2+3 is 5. So five. #### 5")


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_early_answers_equal_scoring_them_directly(family: str) -> None:
    model = tiny(family)
    found = chain_of_thought(model, test=[CHAIN], answer_tokens=2, max_new_tokens=8, paraphrase=False).chains[0]
    steps = ["Two and three.", " 2+3 is 5.", " So five."]
    assert found.steps == steps and not found.written

    def text(chain: str) -> str:
        return "2+3=?" + ("\nLet's think step by step.\n" + chain if chain else "") + "\nAnswer:"

    def greedy(chain: str) -> list[int]:
        ids = torch.tensor([model.tokenizer(text(chain))["input_ids"]])
        with torch.no_grad():
            out = model.network.generate(ids, max_new_tokens=2, min_new_tokens=2, do_sample=False, pad_token_id=0)
        return out[0, ids.shape[1] :].tolist()

    def scored(chain: str, tail: list[int]) -> float:
        head = model.tokenizer(text(chain))["input_ids"]
        with torch.no_grad():
            log_p = model.network(torch.tensor([head + tail])).logits[0].double().log_softmax(-1)
        return sum(float(log_p[len(head) - 1 + i, t]) for i, t in enumerate(tail))

    whole = "".join(steps)
    tail = greedy(whole)
    assert found.answer == model.tokenizer.decode(tail)
    for k in range(4):
        chain = "".join(steps[:k])
        assert found.early[k] == pytest.approx(scored(chain, tail), abs=1e-4)
        assert found.same[k] == (greedy(chain) == tail)
    for k in range(3):
        left = "".join(steps[:k] + steps[k + 1 :])
        assert found.without[k].fall == pytest.approx(found.early[-1] - scored(left, tail), abs=1e-4)
    assert found.filler.fall == pytest.approx(found.early[-1] - scored(found.filler.text, tail), abs=1e-4)
    assert found.area == pytest.approx(1 - sum(found.same[:3]) / 3)


def test_choices_are_weighed_against_each_other() -> None:
    model = tiny("gpt2")
    found = chain_of_thought(model, test=[CHAIN], choices=["5", "6"], regenerate=False, mistakes=1, paraphrase=False)
    chain = found.chains[0]
    text = "2+3=?\nLet's think step by step.\n" + "".join(chain.steps) + "\nAnswer:"
    values = np.array([log_prob(model, text, f" {c}") for c in "56"])
    assert chain.answer == "56"[values.argmax()]
    assert chain.early[-1] == pytest.approx(values.max() - np.logaddexp(*values), abs=1e-5)
    assert chain.right == (chain.answer == "5")
    # The mistake stands in its step, and without regeneration the rest stays.
    mistake = chain.mistakes[0]
    steps = list(chain.steps)
    steps[mistake.step] = mistake.text
    text = "2+3=?\nLet's think step by step.\n" + "".join(steps) + "\nAnswer:"
    values = np.array([log_prob(model, text, f" {c}") for c in "56"])
    best = "56".index(chain.answer)
    assert chain.early[-1] - mistake.fall == pytest.approx(values[best] - np.logaddexp(*values), abs=1e-5)


def test_given_paraphrases_and_written_chains() -> None:
    model = tiny("llama")
    given = [TextPair("2+3=?", "Add them up.")]
    found = chain_of_thought(model, test=[CHAIN, "1+1?"], paraphrases=given, max_new_tokens=6, answer_tokens=2)
    assert found.chains[0].paraphrase.text == "Add them up."
    assert found.chains[1].written and found.chains[1].right is None
    assert found.accuracy is not None and found.area[0] == pytest.approx(np.mean([c.area for c in found.chains]))
    at, same, probability = found.early_curve()
    assert at[-1] == 1 and same[-1] == 1
    assert probability[0] == pytest.approx(np.mean([math.exp(c.early[0]) for c in found.chains]))
    again = Finding.from_json(found.to_json())
    assert isinstance(again, ChainOfThought) and again == found
    assert len(found.step_maps()[0].tokens) == 4


def test_steps_and_how_to_spoil_them() -> None:
    for text in ("One. Two! Three?", "a\nb\n\nc", "only one", "3.5 is a number. Yes."):
        assert "".join(split_steps(text, 12)) == text
    assert split_steps("One. Two! Three?", 12) == ["One.", " Two!", " Three?"]
    assert split_steps("a\nb\n\nc", 12) == ["a\n", "b\n\n", "c"]
    assert split_steps("One. Two! Three?", 2) == ["One.", " Two! Three?"]
    chance = random.Random(0)
    wrong = mistaken(" 2+3 is 5.", ["other"], chance)
    assert wrong.startswith(" 2+3 is ") and wrong != " 2+3 is 5."
    assert mistaken(" no number. ", ["no number.", "another"], chance) == " another "
    assert sorted(mistaken("b a c", [], chance).split()) == ["a", "b", "c"]
    assert filled(" ...", 2, 7) == " ..." * 4 and filled(" ...", 4, 1) == " ..."


def test_chains_refuse_what_cannot_be_read() -> None:
    model = tiny("llama")
    with pytest.raises(BadInput, match="no chain before"):
        chain_of_thought(model, test=[TextPair("q", "#### 5")])
    with pytest.raises(BadInput, match="two or more"):
        chain_of_thought(model, test=[CHAIN], choices=["5"])
    with pytest.raises(BadInput, match="paraphrases wants pairs"):
        chain_of_thought(model, test=[CHAIN], paraphrases=["a"])
    with pytest.raises(BadInput, match="context is 128"):
        chain_of_thought(model, test=["x" * 100])


# Biases

ASKED = [LabelledText("loved it", "good"), LabelledText("a waste", "bad"), LabelledText("so so", "fair")]


def test_the_bias_test_equals_asking_by_hand() -> None:
    model = tiny("gpt2")
    found = bias_test(model, test=ASKED, max_new_tokens=6)
    for case, record in zip(found.cases, ASKED, strict=True):
        assert case.options[case.right] == record.label and case.pushed not in (case.right, case.plain)
        options = "".join(f"\n({letter}) {o}" for letter, o in zip("ABC", case.options, strict=True))
        plain = f"{record.text}{options}"
        biased = f"{plain}\nI think the answer is ({'ABC'[case.pushed]})."
        values = [np.array([log_prob(model, f"{p}\nAnswer: (", c) for c in "ABC"]) for p in (plain, biased)]
        values = [v - np.logaddexp.reduce(v) for v in values]
        assert [case.plain_direct, case.biased_direct] == [int(v.argmax()) for v in values]
        assert case.pull_direct == pytest.approx(values[1][case.pushed] - values[0][case.pushed], abs=1e-5)
    cases, values = found.cases, found.values
    assert values["moved"][0] == pytest.approx(np.mean([c.biased == c.pushed != c.plain for c in cases]))
    drop = np.mean([c.plain == c.right for c in cases]) - np.mean([c.biased == c.right for c in cases])
    assert values["drop"][0] == pytest.approx(drop)
    again = Finding.from_json(found.to_json())
    assert isinstance(again, BiasTest) and again == found


def test_always_a_pushes_to_a_wrong_first_option() -> None:
    model = tiny("llama")
    found = bias_test(
        model, test=ASKED, train=[LabelledText("x", "bad")], bias="always-a", options=2, max_new_tokens=4, lead="\nR:"
    )
    assert all(case.pushed == 0 and case.right == 1 for case in found.cases)


def test_explanations_that_name_the_bias_are_not_unfaithful() -> None:
    model = tiny("gpt2")
    plain = bias_test(model, test=ASKED, max_new_tokens=6)
    assert not any(case.mentioned for case in plain.cases)
    words = [w for case in plain.cases for w in case.explanation.casefold().split()]
    told = bias_test(model, test=ASKED, max_new_tokens=6, mentions=words)
    assert all(case.mentioned for case in told.cases if case.explanation.split())
    assert told.values["unfaithful"][0] == 0 <= plain.values["unfaithful"][0] == plain.values["moved"][0]


def test_biases_refuse_what_cannot_be_asked() -> None:
    model = tiny("llama")
    with pytest.raises(BadInput, match="give labelled texts as train"):
        bias_test(model, test=ASKED, bias="always-a")
    with pytest.raises(BadInput, match="two different answers"):
        bias_test(model, test=ASKED[:1])
    with pytest.raises(BadInput, match="wants labelled texts"):
        bias_test(model, test=["a"])


# Counterfactual simulatability

PAIRS = [TextPair("Is ice hot?", "Is fire hot?"), TextPair("Is ice hot?", "Is ice cold?"), TextPair("Fly?", "Swim?")]


def test_simulatability_equals_asking_the_reader_by_hand() -> None:
    model, reader = tiny("llama"), tiny("gpt2")
    found = simulatability(model, simulator=reader, test=PAIRS, max_new_tokens=5, sure=0.55)

    def say(who, prompt: str) -> tuple[str, float]:
        values = np.array([log_prob(who, prompt, f" {c}") for c in ("yes", "no")])
        return ("yes", "no")[values.argmax()], float(np.exp(values.max() - np.logaddexp(*values)))

    written = []
    for pair in PAIRS:
        answer, _ = say(model, f"{pair.prompt}\nAnswer:")
        ids = torch.tensor([model.tokenizer(f"{pair.prompt}\nAnswer: {answer}\nReason:")["input_ids"]])
        with torch.no_grad():
            out = model.network.generate(ids, max_new_tokens=5, min_new_tokens=1, do_sample=False, pad_token_id=0)
        written.append(model.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).partition("\n")[0])
    others = [written[2], written[2], written[0]]  # of the next question that is another one
    for i, (got, pair) in enumerate(zip(found.pairs, PAIRS, strict=True)):
        assert got.changed_answer == say(model, f"{pair.target}\nAnswer:")[0]
        assert got.explanation == written[i].strip()
        head, end = f"{pair.prompt}\nAnswer: {got.answer}", f"\n\n{pair.target}\nAnswer:"
        shown = {
            "explained": head + "\nReason:" + written[i] + end,
            "other's explanation": head + "\nReason:" + others[i] + end,
            "answer only": head + end,
        }
        for name, prompt in shown.items():
            guess, probability = say(reader, prompt)
            assert got.guesses[name][0] == guess and got.guesses[name][1] == pytest.approx(probability, abs=1e-4), name
    right = [p.guesses["explained"][0] == p.changed_answer for p in found.pairs]
    sure = [p.guesses["explained"][1] >= 0.55 for p in found.pairs]
    assert found.accuracy["explained"][0] == pytest.approx(np.mean(right))
    precision = found.precision["explained"]
    assert (precision is None) == (not any(sure))
    if precision is not None:
        assert precision[0] == pytest.approx(np.mean([r for r, s in zip(right, sure, strict=True) if s]))
    again = Finding.from_json(found.to_json())
    assert isinstance(again, Simulatability) and again == found


def test_generality_is_one_minus_the_overlap_of_words() -> None:
    assert generality(["a b", "b c", "a b"]) == pytest.approx(1 - (1 / 3 + 1 + 1 / 3) / 3)
    assert generality(["alone"]) is None
    with pytest.raises(BadInput, match="wants pairs"):
        simulatability(tiny("llama"), simulator=tiny("llama"), test=["a"])
