"""The techniques that judge explanations: what they report is what the measures say, and chance is the floor."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import transformers as tf

import intarsia as ia
from intarsia.data import LabelledText, RationaleText
from intarsia.errors import BadInput, IntarsiaError
from intarsia.interpretation import compare, explain, faithfulness, plausibility, sanity
from intarsia.interpretation.attribution.methods import attribute_one
from intarsia.interpretation.evaluation import rationales, removal, stability, variants
from intarsia.interpretation.evaluation.compare import Rank
from intarsia.interpretation.evaluation.compare_run import recommend
from intarsia.interpretation.evaluation.correlation import spearman
from intarsia.interpretation.explained import explain_text
from intarsia.measure import LabelTask
from intarsia.report import Finding, to_text
from tests.tiny import tiny, tokenizer

TEXTS = ["This film is bad.", "The food was cold", "abc def", "I love it", "we go", "x y z", "hi", "So it is"]


def with_task(family="llama"):
    model = tiny(family)
    LabelTask(verbalisers={"joy": " joy", "sad": " sad"}).attach(model)
    return model


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_explain_reports_the_measures_of_its_scores(family):
    model = with_task(family)
    found = explain(model, texts=TEXTS[:3], method="leave_one_out", beam=1)
    for text, shown in zip(TEXTS, found.texts, strict=False):
        explained = explain_text(model, text)
        scores = attribute_one(explained, "leave_one_out")
        ranking = removal.order(scores)
        assert shown.scores == pytest.approx(scores.tolist(), abs=1e-6)
        assert shown.comprehensiveness == pytest.approx(
            removal.aopc(removal.comprehensiveness(explained, ranking)), abs=1e-6
        )
        assert shown.sufficiency == pytest.approx(removal.aopc(removal.sufficiency(explained, ranking)), abs=1e-6)
        assert shown.probability == pytest.approx(float(explained.value().exp()), abs=1e-6)
        assert shown.choice == explained.name and shown.stability == 1
    assert found.comprehensiveness[0] == pytest.approx(np.mean([t.comprehensiveness for t in found.texts]))
    gain = [t.sufficiency - t.sufficiency_random for t in found.texts]
    assert found.sufficiency_gain[0] == pytest.approx(np.mean(gain))
    assert Finding.from_json(found.to_json()) == found and "leave_one_out" in to_text(found)
    assert len(found.maps()) == 3


def test_one_prompt_is_enough_and_random_scores_are_not_stable():
    model = with_task()
    one = explain(model, prompt="I love it", method="random")
    assert len(one.scores) == 1 and len(one.scores[0]) == len("I love it")
    assert one.stability < 0.9 and "Other seeds" in one.summary
    again = explain(model, prompt="I love it", method="random", seed=0)
    assert again == one and explain(model, prompt="I love it", method="random", seed=1).scores != one.scores
    with pytest.raises(BadInput, match="either a prompt or texts"):
        explain(model)


def test_faithfulness_has_all_measures_with_the_floor_beside_them():
    model = with_task()
    found = faithfulness(model, texts=[*TEXTS, *(t[::-1] for t in TEXTS[:3])], beam=1, floors=4, draws=6)
    loo = found.score("tau_loo")
    assert loo.value == pytest.approx((1, 1, 1)) and abs(loo.floor[0]) < 0.5 and loo.above
    assert found.score("violation_rate").value[0] == 0
    assert found.score("monotonicity").value[0] == pytest.approx(1)
    comp = found.score("comprehensiveness")
    assert comp.above and comp.gain[0] == pytest.approx(comp.value[0] - comp.floor[0])
    assert comp.value[0] == pytest.approx(np.mean(found.dropped))
    assert comp.floor[0] == pytest.approx(np.mean(found.dropped_random))
    assert found.score("seed_stability").value[0] == 1 and found.score("max_sensitivity").value[0] > 0
    assert found.score("simulatability").floor is not None  # eleven texts, two choices
    assert 0 < found.score("normalised").value[0] <= 1.2
    assert found.forwards == pytest.approx(np.mean([len(t) for t in [*TEXTS, *(t[::-1] for t in TEXTS[:3])]]))
    names = {s.name for s in found.scores}
    assert {"deletion", "insertion", "sensitivity_n", "flip_fraction", "flips_at_first", "log_odds_drop"} <= names
    assert {"completeness_error", "soft_comprehensiveness", "soft_sufficiency", "sufficiency_normalised"} <= names
    assert Finding.from_json(found.to_json()) == found


def test_random_scores_are_at_the_floor():
    texts = [*TEXTS, *(t[::-1] for t in TEXTS)]
    found = faithfulness(with_task(), texts=texts, method="random", beam=1, noise_draws=0, seeds=1, floors=8)
    assert not found.score("normalised").above
    assert abs(found.score("comprehensiveness").gain[0]) < 0.15
    assert all(s.name not in ("max_sensitivity", "seed_stability") for s in found.scores)


def test_compare_ranks_by_the_measure_and_counts_the_cost():
    model = with_task()
    methods = ["leave_one_out", "gradient_x_input", "random", "integrated_gradients"]
    found = compare(model, texts=TEXTS, methods=methods, beam=1, settings={"integrated_gradients.steps": "5"})
    assert {r.method for r in found.ranks} == {"leave_one_out", "gradient_x_input", "integrated_gradients"}
    assert [r.quality[0] for r in found.ranks] == sorted((r.quality[0] for r in found.ranks), reverse=True)
    assert found.ranks[0].behind is None and all(r.behind[0] <= 0 for r in found.ranks[1:])
    loo = found.rank("leave_one_out")
    assert loo.above and loo.forwards == np.mean([len(t) for t in TEXTS]) and loo.backwards == 0
    assert found.rank("gradient_x_input").backwards == 1
    assert found.rank("integrated_gradients").backwards >= 5
    alone = explain(model, texts=TEXTS, method="leave_one_out", beam=1)
    assert loo.comprehensiveness[0] == pytest.approx(alone.comprehensiveness[0], abs=1e-6)
    assert loo.quality[0] == pytest.approx(np.mean([t.normalised for t in alone.texts]), abs=1e-5)
    assert set(found.seconds) == {r.method for r in found.ranks} and "seconds" in type(found).volatile
    plain = compare(model, texts=TEXTS, methods=["leave_one_out"], beam=0)
    row = plain.ranks[0]
    assert row.quality[0] == pytest.approx(row.comprehensiveness[0] - row.sufficiency[0])
    assert Finding.from_json(found.to_json()) == found


def test_the_cheapest_of_the_best_is_recommended():
    def rank(method, quality, forwards, gain=0.1, behind=None):
        zero = (0.0, 0.0, 0.0)
        behind = None if behind is None else (behind - 0.1, behind - 0.2, behind)
        return Rank(
            method=method, quality=(quality,) * 3, gain=(gain, gain, gain), behind=behind, comprehensiveness=zero,
            sufficiency=zero, forwards=forwards, backwards=0,
        )  # fmt: skip

    best, tied, beaten = rank("a", 0.9, 200), rank("b", 0.8, 10, behind=0.01), rank("c", 0.7, 1, behind=-0.05)
    assert recommend([best, tied, beaten]) == "b"
    assert recommend([best, beaten]) == "a"
    assert recommend([best, rank("b", 0.8, 10, gain=0.08, behind=0.01)]) == "a"  # so few texts that nothing is sure
    assert recommend([rank("a", 0.5, 1, gain=-0.1)]) is None


def test_variants_share_what_they_do_not_change():
    model = with_task("gpt2")  # its head is tied to its embeddings
    blocks = list(model.sites.blocks)
    ids = model.encode(["I love it"])["input_ids"]
    before = model.network(ids).logits.detach()
    random = variants.with_random_blocks(model, 2, seed=1)
    inside = {id(p) for b in blocks[2:] for p in b.parameters() if p.dim() > 1}
    new = dict(random.network.named_parameters())
    for name, p in model.network.named_parameters():
        assert (new[name] is p) == (id(p) not in inside), name
        if id(p) in inside:
            assert float(new[name].detach().std()) == pytest.approx(float(p.detach().std()), rel=0.1)
    assert not torch.allclose(random.network(ids).logits, before)
    noisy = variants.with_noise(model, 0.02)
    moved = noisy.network.get_input_embeddings().weight - model.network.get_input_embeddings().weight
    lengths = moved.norm(dim=-1) / model.network.get_input_embeddings().weight.norm(dim=-1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, 0.02), rtol=1e-3, atol=1e-5)
    assert noisy.network.get_output_embeddings().weight is model.network.get_output_embeddings().weight
    assert 0 < (noisy.network(ids).logits - before).abs().max() < before.abs().max()
    assert torch.equal(model.network(ids).logits, before)


def test_sensitivity_and_randomisation_against_the_formula():
    model = with_task()
    explained = explain_text(model, "I love it")

    def attribute(e, seed):
        return attribute_one(e, "leave_one_out", seed)

    base = attribute_one(explained, "leave_one_out")
    noisy = [variants.with_noise(model, 0.05, seed) for seed in (0, 1)]
    far = []
    for other in noisy:
        scores = attribute_one(explain_text(other, "I love it", target=explained.name), "leave_one_out")
        far.append(float((scores - base).norm() / base.norm()))
    assert stability.max_sensitivity(attribute, explained, noisy) == pytest.approx(max(far), rel=1e-3)
    random = variants.with_random_blocks(model, 4)
    scores = attribute_one(explain_text(random, "I love it", target=explained.name), "leave_one_out")
    signed, absolute = stability.randomisation(attribute, explained, random)
    assert signed == pytest.approx(spearman(base, scores))
    assert absolute == pytest.approx(spearman(base.abs(), scores.abs()))
    assert stability.seed_stability(attribute, explained, [0, 1]) == 1
    same = stability.randomisation(attribute, explained, variants.twin(model))
    assert same == pytest.approx((1, 1))


def test_sanity_fails_a_method_that_ignores_the_model():
    model = with_task()
    found = sanity(model, texts=TEXTS[:4], methods=["random", "leave_one_out"], steps=2)
    assert [(r.method, r.blocks) for r in found.rows] == [
        ("random", 2), ("random", 4), ("leave_one_out", 2), ("leave_one_out", 4),
    ]  # fmt: skip
    # With one seed, random scores are the same for every model: they say nothing about any.
    assert found.rows[1].signed == pytest.approx((1, 1, 1)) and not found.passed["random"]
    assert found.rows[3].signed[0] < 0.9
    assert "random:" in found.summary
    assert Finding.from_json(found.to_json()) == found


def test_plausibility_compares_with_what_people_marked():
    model = with_task()
    records = [
        RationaleText("This film is bad", "sad", rationale=((13, 16),)),
        RationaleText("I love it so", "joy", rationale=((2, 6),)),
    ]
    found = plausibility(model, texts=records, methods=["leave_one_out"])
    expected = []
    for record in records:
        explained = explain_text(model, record, target=record.label)
        human = rationales.token_mask(record.text, explained.tokens, record.rationale)
        scores = attribute_one(explained, "leave_one_out").numpy()
        expected.append(rationales.average_precision(scores, human))
        assert human.sum() == record.rationale[0][1] - record.rationale[0][0]
    row = found.row("leave_one_out")
    assert row.average_precision[0] == pytest.approx(np.mean(expected), abs=1e-6)
    assert row.gain[0] == pytest.approx(row.average_precision[0] - found.row("random").average_precision[0])
    assert found.marked == pytest.approx((3 / 16 + 4 / 12) / 2)
    assert found.rows[-1].method == "random" and found.texts == 2
    assert Finding.from_json(found.to_json()) == found
    with pytest.raises(BadInput, match="text 2 has no rationale"):
        plausibility(model, texts=[records[0], LabelledText("a", "joy")])
    with pytest.warns(match="only up to 3 tokens"), pytest.raises(BadInput, match="cuts off all"):
        plausibility(model, texts=records[:1], max_tokens=3)


@pytest.mark.parametrize(
    ("call", "settings", "words"),
    [
        (explain, {"method": "leave_one_ot"}, "did you mean"),
        (faithfulness, {"settings": {"stepz": "3"}}, "unknown setting 'stepz'"),
        (compare, {"methods": ["random"]}, "nothing to compare"),
        (compare, {"settings": {"lime.samples": "3"}, "methods": ["leave_one_out"]}, "METHOD.SETTING"),
        (compare, {"texts": []}, "no text"),
        (sanity, {"target": "jo"}, "no choice 'jo'"),
        (compare, {"texts": ["a"], "methods": ["leave_one_out"]}, "no text can be scored"),
    ],
)
def test_bad_input(call, settings, words):
    settings = {"texts": TEXTS[:2], **settings}
    with pytest.raises(BadInput, match=words):
        call(with_task(), **settings)


def test_long_texts_are_cut_and_it_is_said():
    with pytest.warns(match="1 of 1 texts are read only up to 5"):
        found = explain(with_task(), texts=[LabelledText("abcdefghij", "joy")], max_tokens=5)
    assert "".join(found.texts[0].tokens) == "abcde" and found.texts[0].label == "joy"
    assert not math.isnan(found.comprehensiveness[0])


@pytest.mark.parametrize(
    ("family", "removal"), [("gpt2", "delete"), ("gemma3", "token"), ("neox", "attention"), ("bert", "delete")]
)
def test_other_architectures_and_other_removals(family, removal):
    if family == "bert":
        config = tf.BertConfig(
            vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
            num_labels=3, max_position_embeddings=64,
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = ia.wrap(tf.BertForSequenceClassification(config).eval(), tokenizer(bos=True))
    else:
        model = with_task(family)
    settings = {"texts": TEXTS[:3], "removal": removal}
    assert sanity(model, methods=["leave_one_out"], steps=1, **settings).texts == 3
    found = compare(model, methods=["leave_one_out", "gradient_x_input"], beam=1, **settings)
    # No order can be better than the best, nor can the mean of random ones be outside.
    assert 0 < found.floor[0] < 1 and found.rank("leave_one_out").comprehensiveness[0] > 0
    assert len(faithfulness(model, beam=0, draws=3, noise_draws=1, **settings).scores) >= 15


def test_words_that_follow_have_no_choice_to_flip():
    found = faithfulness(tiny("llama"), texts=TEXTS[:3], beam=0, noise_draws=0, draws=4)
    names = {s.name for s in found.scores}
    assert "comprehensiveness" in names and not names & {"flip_fraction", "flips_at_first", "normalised"}


@pytest.mark.real
def test_a_real_model_says_paris_for_france():
    try:
        model = ia.load("smollm2-135m")
    except IntarsiaError as error:
        pytest.skip(f"SmolLM2 is not available: {error}")
    found = explain(model, prompt="The capital of France is", target=" Paris", method="leave_one_out")
    (text,) = found.texts
    words = dict(zip(text.tokens, text.scores, strict=True))
    del words[" is"]  # the answer is read there: without it nothing can be said at all
    assert set(sorted(words, key=words.__getitem__)[-2:]) == {" capital", " France"}
    assert text.comprehensiveness > text.comprehensiveness_random
