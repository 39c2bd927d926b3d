"""The Siamese detector: its pairs, heads, losses, what learns, and what is kept."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from intarsia.data import Document
from intarsia.detection.siamese import (
    Pair,
    SiameseConfig,
    SiameseDetector,
    fit,
    frozen_cosine,
    make_pairs,
)
from intarsia.detection.siamese.heads import MARGIN, Head, contrastive, cross_entropy, distances, features
from intarsia.detection.siamese.pairs import admissible
from intarsia.detection.siamese.reading import Reader, pool
from intarsia.detection.siamese.tuning import bare, open_to_training
from intarsia.errors import BadInput, Note
from intarsia.models import load
from tests.tiny import tiny

HEADS = ["diff", "abs", "full", "single"]
QUICK = dict(max_tokens=16, batch_size=4, references=2)


def doc(text: str, label: str, group: str | None = "a", prompt: str = "", generator: str = "") -> Document:
    return Document(text, label=label, group=group, prompt=prompt, generator=generator)


def toy(topics: int = 6) -> list[Document]:
    """People write letters, machines write digits: anybody can tell them apart."""
    out = []
    for t in range(topics):
        topic = "abcdefgh"[t % 8]
        out.append(doc(f"{topic} nice words of people", "human", f"t{t}"))
        out.append(doc(f"{topic} other words by them", "human", f"t{t}"))
        out.append(doc(f"{topic} 0123 4567 890{t}", "machine", f"t{t}", "plain", "g"))
        out.append(doc(f"{topic} 9876 5432 10{t}", "machine", f"t{t}", "plain:1", "g"))
        out.append(doc(f"{topic} 1357 9024 68{t}", "machine", f"t{t}", "plain", "h"))
    return out


def quiet_pairs(documents, **given):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)
        return make_pairs(documents, **given)


# --- pairs ---


HUMAN = doc("a person wrote this", "human")
MACHINE = doc("a machine wrote this", "machine", prompt="plain", generator="g")


@pytest.mark.parametrize(
    ("inquiry", "reference", "allowed"),
    [
        (HUMAN, MACHINE, True),
        (MACHINE, doc("another prompt", "machine", prompt="plain:1", generator="g"), True),
        (MACHINE, doc("another generator", "machine", prompt="plain", generator="h"), True),
        (doc("a polish", "polished", prompt="polish", generator="g"), MACHINE, True),
        (doc("a mixture", "mixed", prompt="fusion", generator="g"), MACHINE, True),
        # another topic, or none
        (HUMAN, replace(MACHINE, group="b"), False),
        (replace(HUMAN, group=None), replace(MACHINE, group=None), False),
        # what is no machine's own text
        (HUMAN, doc("another person", "human"), False),
        (HUMAN, doc("a polish", "polished", prompt="polish", generator="g"), False),
        (MACHINE, doc("a polish", "polished", prompt="polish", generator="h"), False),
        (HUMAN, doc("a mixture", "mixed", prompt="fusion", generator="g"), False),
        (HUMAN, doc("once more", "machine", prompt="evade:many", generator="g"), False),
        (HUMAN, doc("once more", "machine", prompt="self_edit:technical", generator="g"), False),
        # itself, and what says the same
        (MACHINE, MACHINE, False),
        (doc("A machine  wrote this!", "human"), MACHINE, False),
        (MACHINE, replace(MACHINE, generator="h"), False),
        # the same prompt and generator
        (MACHINE, doc("a second sample", "machine", prompt="plain", generator="g"), False),
        (doc("nobody knows how", "machine"), doc("nor here", "machine"), False),
        # its own source, perhaps
        (doc("once more", "machine", prompt="evade:many", generator="g"), MACHINE, False),
        (doc("once more", "machine", prompt="evade:many", generator="h"), MACHINE, True),
    ],
)
def test_what_may_stand_beside_what(inquiry, reference, allowed):
    assert admissible(inquiry, reference) is allowed
    assert ((0, 1) in {(p.inquiry, p.reference) for p in quiet_pairs([inquiry, reference])}) is allowed


def test_pairs_are_exactly_the_admissible_ones_where_enough_are_asked_for():
    documents = [
        *toy(3), doc("a polish", "polished", "t0", "polish", "g"), doc("evaded", "machine", "t1", "evade:x", "g"),
        doc("a mixture", "mixed", "t2", "fusion", "g"), doc("alone", "human", "t9"), doc("nowhere", "human", None),
    ]  # fmt: skip
    pairs = quiet_pairs(documents, references=99)
    wanted = {(i, j) for i, a in enumerate(documents) for j, b in enumerate(documents) if admissible(a, b)}
    assert {(p.inquiry, p.reference) for p in pairs} == wanted and len(pairs) == len(wanted)
    assert all(p.machine == (documents[p.inquiry].label != "human") for p in pairs)
    assert [p.inquiry for p in pairs] == sorted(p.inquiry for p in pairs)


def test_references_are_drawn_by_the_seed_and_no_more_than_asked_for():
    documents = [doc("a person", "human"), *(doc(f"text {i}", "machine", prompt=f"p{i}") for i in range(9))]
    for k in (1, 3):
        counts = [sum(p.inquiry == i for p in make_pairs(documents, references=k)) for i in range(len(documents))]
        assert counts == [k] * len(documents)
    assert make_pairs(documents, seed=1) == make_pairs(documents, seed=1)
    assert make_pairs(documents, seed=1) != make_pairs(documents, seed=2)
    # What is drawn for one does not depend on the others.
    more = [*documents, doc("b", "human", "b"), doc("c", "machine", "b", "p")]
    assert quiet_pairs(more)[:30] == make_pairs(documents)


def test_references_of_one_text_are_different_texts():
    documents = [doc("a person", "human"), *(doc("the same", "machine", prompt=f"p{i}") for i in range(4))]
    assert [p.inquiry for p in quiet_pairs(documents)] == [0]


def test_a_note_counts_what_is_left_out():
    documents = [
        doc("person", "human", "a"), doc("machine", "machine", "a", "p", "g"),
        doc("alone", "human", "b"), doc("polish", "polished", "b", "polish", "g"), doc("nowhere", "human", None),
    ]  # fmt: skip
    with pytest.warns(
        Note, match=r"1 of 2 topics without an admissible reference \(2 texts\); 1 texts that .*; 1 texts"
    ):
        assert make_pairs(documents) == [Pair(0, 1, False)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_pairs(toy())
        assert make_pairs([]) == []


def test_pairs_refuse_what_they_cannot_use():
    with pytest.raises(BadInput, match="document 2: its label is '', wanted is one of human"):
        make_pairs([HUMAN, doc("who knows", "")])
    with pytest.raises(BadInput, match="references: at least 1"):
        make_pairs([HUMAN], references=0)


# --- heads ---


def vectors(pairs: int = 7, width: int = 5, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    u, v = (torch.randn(pairs, width, generator=generator, dtype=torch.float64) for _ in range(2))
    return u, v, torch.arange(pairs) % 3 == 0


@pytest.mark.parametrize("kind", HEADS)
def test_logits_are_those_of_a_naive_sum(kind):
    u, v, _ = vectors()
    size = features(kind, u, v).shape[1]
    weight, bias = torch.randn(size, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    got = Head(kind, weight, bias).logits(u, v)
    for row, (a, b) in enumerate(zip(u.tolist(), v.tolist(), strict=True)):
        both = list(zip(a, b, strict=True))
        naive = {
            "single": a,
            "diff": [x - y for x, y in both],
            "abs": [abs(x - y) for x, y in both],
            "full": [*a, *b, *(abs(x - y) for x, y in both)],
        }[kind]
        logit = sum(w * x for w, x in zip(weight.tolist(), naive, strict=True)) + 0.3
        assert got[row].item() == pytest.approx(logit, abs=1e-12)


def test_cross_entropy_is_that_of_the_formula():
    logits = torch.tensor([-40.0, -1.5, 0.0, 2.0, 40.0], dtype=torch.float64)
    machine = torch.tensor([False, True, True, False, True])
    naive = [
        -np.log(1 / (1 + np.exp(-x))) if y else -np.log(1 - 1 / (1 + np.exp(-x)))
        for x, y in zip(logits.tolist(), machine.tolist(), strict=True)
    ]
    assert cross_entropy(logits, machine).item() == pytest.approx(np.mean(naive), abs=1e-12)


def test_contrastive_loss_is_that_of_the_formula():
    u, v, machine = vectors(40)
    v[:20] = u[:20] + 0.3 * v[:20]  # some within the margin
    total, inside = 0.0, 0
    for a, b, same in zip(u.numpy(), v.numpy(), machine.tolist(), strict=True):
        d = np.sqrt(((a / np.sqrt((a**2).sum()) - b / np.sqrt((b**2).sum())) ** 2).sum())
        total += d**2 / 2 if same else max(0.0, 1.0 - d) ** 2 / 2
        inside += not same and d < 1
    assert 0 < inside < 26
    assert contrastive(u, v, machine).item() == pytest.approx(total / 40, abs=1e-12)
    head = Head("distance")
    assert head.loss(u, v, machine) == contrastive(u, v, machine) and head.parameters == []
    assert torch.equal(head.logits(u, v), MARGIN / 2 - distances(u, v))


def test_contrastive_loss_pulls_machine_pairs_and_pushes_human_ones_and_bears_equal_vectors():
    u, v, _ = vectors(1)
    near = (u + 0.1 * v).requires_grad_()
    for same, sign in ((True, -1), (False, 1)):
        (step,) = torch.autograd.grad(contrastive(near, u, torch.tensor([same])), near)
        with torch.no_grad():
            moved = distances(near - 1e-3 * step, u) - distances(near, u)
        assert torch.sign(moved).item() == sign
    equal = u.clone().requires_grad_()
    for same in (True, False):
        (step,) = torch.autograd.grad(contrastive(equal, u, torch.tensor([same])), equal)
        assert torch.isfinite(step).all()


def test_pooling_leaves_padding_out():
    states = torch.randn(2, 4, 3, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    got = pool(states, mask, "mean").numpy()
    assert np.allclose(got[0], states[0].numpy().mean(0)) and np.allclose(got[1], states[1, :2].numpy().mean(0))
    assert torch.equal(pool(states, mask, "cls"), states[:, 0])


# --- reading ---


@pytest.mark.parametrize("family", ["bert-encoder", "bert", "llama", "gpt2"])
def test_frozen_blocks_run_once_and_give_the_same_vectors_and_gradients(family):
    model = bare(tiny(family), SiameseConfig(max_tokens=20))
    texts = ["hello there", "a longer text than that one, and cut", "", "hello there"]
    reader = Reader(model, texts, longest=20)
    assert reader.texts == texts[:3] and reader.rows(texts) == [0, 1, 2, 0]
    assert max(map(len, reader.ids)) == 20
    first = len(model.sites.blocks) - 2
    top = next(p for p in model.sites.blocks[-1].parameters() if p.dim() > 1)

    def told():
        found = reader.vectors([2, 1, 0])
        (slope,) = torch.autograd.grad(found.square().sum(), top)
        return found.detach(), slope

    before = told()
    assert torch.allclose(before[0], reader.all()[[2, 1, 0]], atol=1e-5)
    assert reader.keep_below(first)
    for was, now in zip(before, told(), strict=True):
        assert torch.allclose(was, now, atol=1e-5)
    with torch.no_grad():  # they do not run any more
        for parameter in model.sites.blocks[0].parameters():
            parameter.zero_()
    assert torch.allclose(before[0], told()[0], atol=1e-5)
    assert not reader.keep_below(0)


def test_states_that_are_too_large_are_not_kept(monkeypatch):
    monkeypatch.setattr("intarsia.detection.siamese.reading.STORE", 100)
    assert not Reader(bare(tiny("bert-encoder"), SiameseConfig()), ["some text"]).keep_below(1)


def test_the_vector_is_the_mean_of_the_last_states():
    model = tiny("bert-encoder")
    texts = ["hello there", "a text", "x" * 200]
    reader = Reader(model, texts, longest=30)
    for text, got in zip(texts, reader.all(), strict=True):
        batch = model.encode([text], max_length=30)
        with torch.no_grad():
            wanted = model.network(**{k: v for k, v in batch.items() if k != "token_type_ids"}).last_hidden_state[0]
        assert torch.allclose(got, wanted.mean(0), atol=1e-5)


# --- learning ---


def changed(before: dict[str, torch.Tensor], network) -> set[str]:
    return {name for name, value in network.state_dict().items() if not torch.equal(before[name], value)}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("tune", ["last2", "all", "lora", "none"])
def test_only_what_tune_says_changes_and_the_given_model_never(tune, head):
    model = tiny("bert-encoder")
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    found = fit(model, toy(3), SiameseConfig(tune=tune, head=head, epochs=1, weight_decay=0, **QUICK))
    assert not changed(before, model.network) and all(p.requires_grad for p in model.network.parameters())
    moved = changed(before, found.model.network)
    match tune:
        case "none":
            assert not moved and found.model.network is model.network
        case "last2":
            assert moved and all(name.startswith(("encoder.layer.1.", "encoder.layer.2.")) for name in moved)
            wanted = {n for n in before if n.startswith(("encoder.layer.1.", "encoder.layer.2."))}
            # Nothing learns the bias of the keys: softmax does not see it.
            assert {n for n in wanted if "key.bias" not in n} <= moved
        case "all":
            assert not any("pooler" in name for name in moved)
            assert any("word_embeddings" in name for name in moved) and any("layer.0." in name for name in moved)
        case "lora":
            wanted = {n for n in before if n.endswith("weight") and ".layer." in n and "LayerNorm" not in n}
            assert moved == wanted
            assert set(found.model.network.state_dict()) == set(before)  # merged: a plain network
    assert found.head.weight.abs().sum() > 0 and not found.head.weight.requires_grad


def test_gradients_reach_only_what_tune_says():
    for tune, first in (("last2", "encoder.layer.1."), ("all", "embeddings.word")):
        model = bare(tiny("bert-encoder"), SiameseConfig(tune=tune))
        tuned = open_to_training(model, SiameseConfig(tune=tune))
        Reader(model, ["some text"]).vectors([0]).square().sum().backward()
        named = dict(model.network.named_parameters())
        reached = [name for name, p in named.items() if p.grad is not None]
        chosen = [name for name, p in named.items() if any(p is q for q in tuned.parameters)]
        assert reached == chosen and reached[0].startswith(first)


@pytest.mark.parametrize("tune", ["last2", "lora"])
@pytest.mark.parametrize("head", ["diff", "single"])
def test_kept_states_change_nothing_that_is_learned(tune, head, monkeypatch):
    config = SiameseConfig(tune=tune, head=head, layers_from=1, epochs=2, **QUICK)
    kept = fit(tiny("bert-encoder"), toy(3), config)
    monkeypatch.setattr("intarsia.detection.siamese.reading.STORE", 0)
    run = fit(tiny("bert-encoder"), toy(3), config)
    assert np.allclose(kept.trained.losses, run.trained.losses, atol=1e-4)


@pytest.mark.parametrize("tune", ["last2", "all", "lora", "none"])
def test_equal_seeds_give_equal_detectors(tune):
    def scores(seed):
        config = SiameseConfig(tune=tune, epochs=1, dropout=0.1, **QUICK)
        state = torch.get_rng_state()
        found = fit(tiny("bert-encoder"), toy(3), config, seed=seed)
        assert torch.equal(state, torch.get_rng_state())
        return found.score(["abc", "123"], [["456"], ["789", "456"]])

    one, same, other = scores(1), scores(1), scores(2)
    assert np.array_equal(one, same) and not np.array_equal(one, other)


@pytest.mark.parametrize(
    "settings",
    [
        *(dict(head=head, tune="last2", learning_rate=3e-3) for head in HEADS),
        dict(head="diff", tune="lora", learning_rate=1e-2),
        dict(head="single", tune="all", learning_rate=1e-3),
        dict(head="diff", tune="none", epochs=60),
        dict(head="single", tune="none", epochs=60, pooling="cls"),
        dict(loss="contrastive", tune="last2", learning_rate=3e-3),
    ],
    ids=str,
)
def test_it_learns_what_anybody_can_tell(settings):
    train = toy(6)
    config = SiameseConfig(**{"epochs": 8, "warmup": 0.1, **QUICK, **settings})
    pooled = tiny("bert-encoder", bos=True) if config.pooling == "cls" else tiny("bert-encoder")
    found = fit(pooled, train, config)
    losses = found.trained.losses
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:5])
    new = [doc("g more words of people", "human", "new"), doc("g 3141 5926 535", "machine", "new")]
    got = found.score(new, [["g 2718 2818 284", "g 1414 2135 62"]] * 2)
    assert got[1] > got[0]


def test_a_frozen_encoder_runs_once(monkeypatch):
    calls = []
    original = Reader.vectors
    monkeypatch.setattr(Reader, "vectors", lambda self, rows: calls.append(rows) or original(self, rows))
    fit(tiny("bert-encoder"), toy(2), SiameseConfig(tune="none", epochs=5, **QUICK))
    assert sorted(itertools.chain(*calls)) == list(range(10))


# --- asking ---


@pytest.fixture(scope="module")
def detectors():
    configs = {head: SiameseConfig(head=head, epochs=1, **QUICK) for head in HEADS}
    configs["distance"] = SiameseConfig(loss="contrastive", epochs=1, **QUICK)
    return {name: fit(tiny("bert-encoder"), toy(2), config) for name, config in configs.items()}


@pytest.mark.parametrize("name", [*HEADS, "distance"])
def test_a_score_is_the_mean_over_the_references(detectors, name):
    detector = detectors[name]
    refs = ["one reference", "a second one", "and a third, which is longer"]
    together = detector.score(["the text", toy(1)[0], "the text"], [refs, refs[:1], []])
    alone = [detector.score(["the text"], [[ref]])[0] for ref in refs]
    reader = Reader(detector.model, ["the text", *refs], longest=16)
    u, *v = reader.all()
    naive = [detector.head.logits(u[None], w[None]).item() for w in v]
    assert np.allclose(alone, naive, atol=1e-5) and together.dtype == np.float64
    assert together[0] == pytest.approx(np.mean(naive), abs=1e-5)
    if name == "single":
        assert not detector.needs_references
        assert together[2] == together[0] and np.allclose(detector.score(["the text"]), naive[0])
    else:
        assert detector.needs_references and np.isnan(together[2])
        assert np.isnan(detector.score(["the text"])).all()


def test_similarity_is_the_cosine_to_each_reference(detectors):
    detector = detectors["diff"]
    got = detector.similarity(["the text", "another", "x"], [["one", "two 22"], [], ["one"]])
    assert [len(row) for row in got] == [2, 0, 1]
    u, one, two = Reader(detector.model, ["the text", "one", "two 22"]).all().double().numpy()
    for value, v in zip(got[0], (one, two), strict=True):
        assert value == pytest.approx(u @ v / np.linalg.norm(u) / np.linalg.norm(v), abs=1e-6)


def test_frozen_cosine_is_the_mean_cosine_of_the_untrained_encoder():
    model = tiny("bert-encoder")
    got = frozen_cosine(model, ["the text", doc("another", "human"), ""], [["one", "two 22"], [], ["one"]])
    u, one, two = Reader(model, ["the text", "one", "two 22"]).all().double().numpy()
    cosines = [u @ v / np.linalg.norm(u) / np.linalg.norm(v) for v in (one, two)]
    assert got[0] == pytest.approx(np.mean(cosines), abs=1e-6)
    assert np.isnan(got[1]) and np.isfinite(got[2])
    assert frozen_cosine(model, [], []).shape == (0,)


def test_different_texts_are_embedded_once(detectors, monkeypatch):
    seen = []
    original = Reader.vectors
    monkeypatch.setattr(
        Reader, "vectors", lambda self, rows: seen.extend(self.texts[r] for r in rows) or original(self, rows)
    )
    detectors["abs"].score(["a", "b", "a", "nobody needs this"], [["x", "y"], ["x"], ["y", "y"], []])
    assert sorted(seen) == ["a", "b", "x", "y"]


def test_empty_questions_have_empty_answers(detectors):
    for detector in detectors.values():
        assert detector.score([], []).shape == detector.score([]).shape == (0,)
        assert detector.similarity([], []) == []
    assert np.isfinite(detectors["single"].score(["", " ", "🙂", "中文"])).all()


@pytest.mark.parametrize("ask", ["score", "similarity", "frozen"])
def test_questions_that_cannot_be_answered(detectors, ask):
    call = {"frozen": lambda d, r: frozen_cosine(tiny("bert-encoder"), d, r)}.get(
        ask, getattr(detectors["diff"], ask, None)
    )
    with pytest.raises(BadInput, match="document 2: a reference is identical with it"):
        call(["one", "The same."], [["other"], ["x", doc("the  same", "machine")]])
    with pytest.raises(BadInput, match="one sequence for each of the 2 documents"):
        call(["one", "two"], [["x"]])
    with pytest.raises(BadInput, match="references of document 1: a sequence of texts is wanted"):
        call(["one"], ["a text"])
    with pytest.raises(BadInput, match="one sequence for each"):
        call(["one"], "x")


# --- keeping ---


@pytest.mark.parametrize("name", [*HEADS, "distance"])
def test_what_is_saved_scores_the_same(detectors, name, tmp_path):
    detector = detectors[name]
    folder = detector.save(tmp_path / "kept")
    again = SiameseDetector.load(folder)
    texts, refs = ["some text", "another one"], [["one"], ["two", "three"]]
    assert np.array_equal(detector.score(texts, refs), again.score(texts, refs))
    assert again.config == detector.config and again.trained is None
    plain = load(folder)  # a plain folder: transformers reads it
    assert type(plain.network).__name__ == "BertModel"
    assert plain.identity.changes[-1]["technique"] == "detection.siamese"
    json.loads((folder / "intarsia.json").read_text("utf-8"))
    assert (folder / "parts" / "detection.siamese.safetensors").is_file()
    resaved = SiameseDetector.load(again.save(tmp_path / "twice"))
    assert np.array_equal(resaved.score(texts, refs), detector.score(texts, refs))


def test_detectors_of_other_encoders_can_be_kept(tmp_path):
    for family, tune in (("bert", "last2"), ("llama", "lora"), ("gpt2", "all"), ("bert-encoder", "none")):
        detector = fit(tiny(family), toy(2), SiameseConfig(tune=tune, epochs=1, **QUICK))
        again = SiameseDetector.load(detector.save(tmp_path / family))
        texts, refs = ["some text", "another one"], [["one"], ["two", "three"]]
        assert np.allclose(detector.score(texts, refs), again.score(texts, refs), atol=1e-6)


def test_folders_that_hold_no_detector_are_refused(tmp_path):
    with pytest.raises(BadInput, match="no folder"):
        SiameseDetector.load(tmp_path / "nothing")
    tiny("bert-encoder").save(tmp_path / "model")
    with pytest.raises(BadInput, match="holds no Siamese detector"):
        SiameseDetector.load(tmp_path / "model")


# --- bad input ---


@pytest.mark.parametrize(
    ("documents", "settings", "message"),
    [
        ([], {}, "there are no pairs"),
        ([], {"head": "single"}, "there are no documents"),
        ([doc("a", "human"), doc("b", "human", "b")], {}, "there are no pairs"),
        ([doc("a", "human"), doc("b", "machine", prompt="p")], {}, "human text only, in all 1 pairs"),
        ([doc("a", "machine", prompt="q"), doc("b", "machine", prompt="p")], {}, "machine text only, in all 2 pairs"),
        ([doc("a", "human"), doc("b", "human")], {"head": "single"}, "human text only, in all 2 documents"),
        ([doc("a", "polished"), doc("b", "machine")], {"head": "single"}, "machine text only"),
        ([doc("a", "human"), doc("b", "robot")], {"head": "single"}, "document 2: its label is 'robot'"),
        (toy(2), {"loss": "contrastive", "head": "single"}, "contrastive compares"),
        (toy(2), {"loss": "contrastive", "tune": "none"}, "contrastive trains the encoder"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_training(documents, settings, message, monkeypatch):
    monkeypatch.setattr("intarsia.detection.siamese.encoder.train", lambda *_: pytest.fail("trained"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)
        with pytest.raises(BadInput, match=message):
            fit(tiny("bert-encoder"), documents, SiameseConfig(**settings))


def test_models_that_are_no_encoders_of_texts_are_refused():
    nameless = tiny("bert-encoder")
    nameless.tokenizer = None
    for model, settings, message in (
        (nameless, {}, "no tokenizer"),
        (tiny("t5"), {}, "more than one tower"),
        (tiny("clip"), {}, "more than one tower"),
        (tiny("llama"), {"pooling": "cls"}, "sees none of the others"),
    ):
        with pytest.raises(BadInput, match=message):
            fit(model, toy(2), SiameseConfig(**settings))


def test_learning_rates_follow_what_is_tuned():
    for tune, rate in (("last2", 2e-4), ("all", 2e-5), ("lora", 1e-3), ("none", 3e-3)):
        assert SiameseConfig(tune=tune).for_training().learning_rate == rate
    assert SiameseConfig(learning_rate=0.5).for_training().learning_rate == 0.5
    assert SiameseConfig(learning_rate=0.5, tune="none").for_training().learning_rate == 3e-3


def test_importing_it_leaves_torch_alone():
    code = "import sys, intarsia.detection.siamese; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
