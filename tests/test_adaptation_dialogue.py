"""Labels of turns: scripts and their positions, the loss, the labellers, and the whole from file to folder."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import intarsia as ia
from intarsia.adaptation import dialogue, label
from intarsia.adaptation.dialogue import mixing
from intarsia.adaptation.dialogue.answers import edit_distance, read_answer
from intarsia.adaptation.dialogue.features import columns, features, main_speakers
from intarsia.adaptation.dialogue.linear import Linear, choose
from intarsia.adaptation.dialogue.neighbours import FLOOR, Neighbours
from intarsia.adaptation.dialogue.published import PAPER, Asking, as_published
from intarsia.adaptation.dialogue.reading import embedder as embedder_of
from intarsia.adaptation.dialogue.reading import key_of, reader_of
from intarsia.adaptation.dialogue.scripts import Writer, Writing, by_dialogue
from intarsia.adaptation.dialogue.shifts import difficulty, easier_half
from intarsia.adaptation.dialogue.states import Depths, frozen, whole
from intarsia.adaptation.dialogue.tagging import Head, Loss, States
from intarsia.adaptation.dialogue.technique import NAME, DialogueConfig
from intarsia.adaptation.trunk import Trunk
from intarsia.data import LabelledText, Turn
from intarsia.errors import BadInput, Note
from intarsia.measure import quality
from intarsia.measure.labelling import label_scores, own_way
from intarsia.models.embedding import embed
from intarsia.training.loop import train
from tests.tiny import tiny

WORDS = {"joy": ["great", "lovely"], "anger": ["stop", "hate"], "calm": ["well", "so"]}
QUICK = dict(rank=4, learning_rate=1e-2, epochs=8.0, batch_size=4, layers_from=2, main_speakers=2, nearest=3)


def talk(dialogues: int = 12, turns: int = 5, seed: int = 0) -> list[Turn]:
    """Dialogues whose labels are told by a word."""
    draw, out = random.Random(seed), []
    for d in range(dialogues):
        for n in range(turns):
            name = draw.choice(sorted(WORDS))
            out.append(Turn(f"{draw.choice(WORDS[name])} {draw.randrange(9)}", name, f"d{d}", speaker="AB"[n % 2],
                            number=n, fields=(("mood", name[0]),)))  # fmt: skip
    return out


def roomy():
    """A tiny network that takes instructions, which byte-level tokens make long."""
    model = tiny("llama")
    model.config.max_position_embeddings = 1024
    return model


@pytest.fixture(scope="module")
def embedder(tmp_path_factory) -> str:
    return str(tiny("bert").save(tmp_path_factory.mktemp("bert") / "m"))


@pytest.fixture(scope="module")
def made(embedder):
    return dialogue(tiny("llama"), train=talk(24), dev=talk(6, seed=1), embedder=embedder, **QUICK)


# ---- scripts


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("bos", [True, False])
def test_a_turn_is_read_where_its_cue_ends(last, bos):
    model = tiny("llama", bos=bos)
    turns = talk(3)
    scripts = Writer(model.tokenizer, Writing(speaker_last=last, cue=" =")).write(turns)
    assert sorted(t for s in scripts for t in s.turns) == list(range(len(turns))) and len(scripts) == 3
    for script in scripts:
        text = model.tokenizer.decode(script.ids)
        assert script.reads[-1] == len(script.ids) - 1
        for i, turn in enumerate(script.turns):
            before = model.tokenizer.decode(script.ids[: script.reads[i] + 1])
            said = turns[turn]
            line = f"{said.text} - {said.speaker} =" if last else f"{said.speaker}: {said.text} ="
            assert before.endswith(line), (before, line)
            head = model.tokenizer.decode(script.ids[: script.heads[i] + 1])
            assert head.endswith("\n" if last and i else "" if last else f"{said.speaker}:")
            if last:
                assert model.tokenizer.decode(script.ids[: script.asks[i] + 1]).endswith(f"{said.text} -")
                name = script.names[i]
                assert script.ids[script.asks[i] + 1 :][: len(name)] == name
        assert text.count(" =") == 5


def test_a_dialogue_run_once_gives_what_each_turn_alone_with_its_past_gives():
    model = tiny("llama", dtype=torch.float64)
    turns = talk(4)
    head = Head(torch.randn(3, model.config.hidden_size), torch.randn(3))
    scripts = Writer(model.tokenizer, Writing()).write(turns)
    together = whole(model, scripts, len(turns), None, head).scores
    for script in scripts:
        for turn, read in zip(script.turns, script.reads, strict=True):
            ids = torch.tensor([script.ids[: read + 1]])
            state = model.network(ids, output_hidden_states=True).hidden_states[-1][0, -1]
            naive = (state.float() @ head.weight.T + head.bias).log_softmax(-1)
            np.testing.assert_allclose(together[turn], naive.detach().numpy(), atol=1e-5)


def test_long_dialogues_are_divided_and_every_turn_is_read_once():
    model = tiny("llama")
    turns = talk(2, turns=30)
    with pytest.warns(Note, match="1 turns were cut to fit rows of 64"):
        scripts = Writer(model.tokenizer, Writing(longest=64)).write([*turns, Turn("word " * 200, "joy", "long")])
    assert all(len(s.ids) <= 64 for s in scripts)
    assert sorted(t for s in scripts for t in s.turns) == list(range(61))
    first, second = scripts[0], scripts[1]
    seen = model.tokenizer.decode(second.ids[: second.reads[0]])
    assert turns[first.turns[-1]].text in seen, "a later part begins with turns of the one before"


def test_no_row_is_longer_than_is_said_and_every_turn_is_read_once():
    draw, tokenizer = random.Random(5), tiny("llama").tokenizer
    for longest in (48, 64, 100):
        turns = [
            Turn("x" * draw.choice((0, 3, 20, 60)), "joy", f"d{i // 12}", speaker=draw.choice(("", "Al", "Christine")),
                 number=i % 12)
            for i in range(240)
        ]  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Note)
            for last, past, future in ((True, None, 0), (False, None, 0), (True, 2, 0), (True, 1, 2)):
                scripts = Writer(tokenizer, Writing("name", last, longest=longest, past=past, future=future)).write(
                    turns
                )
                assert max(len(s.ids) for s in scripts) <= longest
                assert sorted(t for s in scripts for t in s.turns) == list(range(240))


def test_a_turn_that_says_nothing_is_read_at_its_cue(made):
    said = [Turn("", "", "d", number=0), Turn("great", "", "d", speaker="A", number=1)]
    found = label_scores(made, said)
    assert np.isfinite(found.scores).all() and found.probabilities.sum(1) == pytest.approx([1, 1])


def test_windows_hold_the_past_and_the_future_that_is_asked_for():
    model = tiny("llama")
    turns = talk(1)
    for past, future, wanted in ((0, 0, [2]), (1, 0, [1, 2]), (2, 1, [0, 1, 2, 3, 2]), (0, 2, [2, 3, 4, 2])):
        scripts = Writer(model.tokenizer, Writing(past=past, future=future, speaker_last=True)).write(turns)
        text = model.tokenizer.decode(scripts[2].ids)
        assert text == "\n".join(f"{turns[i].text} - {turns[i].speaker}" for i in wanted) + " (feels"
        assert scripts[2].turns == (2,) and scripts[2].reads == (len(scripts[2].ids) - 1,)


def test_gaps_descriptions_and_local_names_are_written():
    model = tiny("llama")
    turns = [
        Turn("hello", "joy", "d", speaker="Zoe", number=1, about="a red room"),
        Turn("no", "joy", "d", speaker="Al", number=4),
        Turn("well", "joy", "d", speaker="Zoe", number=5),
    ]
    text = model.tokenizer.decode(Writer(model.tokenizer, Writing("local", False, " =")).write(turns)[0].ids)
    assert text == "[a red room]\nSpeaker_1: hello =\n...\nSpeaker_2: no =\nSpeaker_1: well ="
    plain = model.tokenizer.decode(Writer(model.tokenizer, Writing("none", gap="")).write(turns)[0].ids)
    assert plain == "[a red room]\nhello (feels\nno (feels\nwell (feels"
    with pytest.raises(BadInput, match="cue has no tokens"):
        Writer(model.tokenizer, Writing(cue=""))


def test_turns_are_put_in_order_by_dialogue():
    turns = [
        Turn("b", "x", "d", number=2),
        Turn("c", "x", "e", number=0),
        Turn("a", "x", "d", number=1),
        Turn("z", "x"),
    ]
    assert by_dialogue(turns) == [[2, 0], [1], [3]]


# ---- the network


def test_the_loss_is_the_naive_one():
    model = tiny("llama", dtype=torch.float64)
    turns = talk(4)
    turns[3] = Turn(turns[3].text, "", "d0", speaker="B", number=3)
    labels = np.array([{"anger": 0, "calm": 1, "joy": 2}.get(t.label, -1) for t in turns])
    scripts = Writer(model.tokenizer, Writing(speaker_last=True)).write(turns)
    config = DialogueConfig(next_weight=0.3, speaker_weight=0.7, class_weight=0.5, logit_adjustment=0.4)
    torch.manual_seed(0)
    head, expecting = (Head(torch.randn(3, model.config.hidden_size), torch.randn(3)) for _ in range(2))
    loss = Loss(States(model, model.network, None), scripts, labels, head, expecting, config)
    rows = [2, 0, 3]
    counts = np.bincount(labels[labels >= 0], minlength=3)
    weight = counts**-0.5
    weight = weight * counts.sum() / (weight * counts).sum()
    shift = torch.tensor(0.4 * np.log(counts / counts.sum()))
    own, early, speakers = [], [], []
    for row in rows:
        s = scripts[row]
        states = model.network(torch.tensor([s.ids]), output_hidden_states=True).hidden_states[-1][0]
        for turn, read, at, ask, name in zip(s.turns, s.reads, s.heads, s.asks, s.names, strict=True):
            y = int(labels[turn])
            candidates = sorted(set(s.names))
            assert len(candidates) == 2 and candidates[0][0] == candidates[1][0], "alike but for the last token"
            matrix = model.network.get_output_embeddings().weight
            z = states[ask] @ torch.stack([matrix[list(c)].mean(0) for c in candidates]).T
            speakers.append(-z.log_softmax(-1)[candidates.index(name)])
            if y < 0:
                continue
            for which, place, where in ((head, read, own), (expecting, at, early)):
                if place >= 0:
                    z = states[place] @ which.weight.double().T + which.bias + shift
                    where.append(-weight[y] * z.log_softmax(-1)[y])
    naive = sum(own) / len(own) + 0.3 * sum(early) / len(early) + 0.7 * sum(speakers) / len(speakers)
    assert float(loss(rows).detach()) == pytest.approx(float(naive), rel=1e-5)


def test_before_tuning_scores_are_the_likelihood_of_the_words():
    model = tiny("llama")
    words = ["a", "b", "c"]
    head = Head.of_words(model, words)
    turns = talk(1)
    script = Writer(model.tokenizer, Writing()).write(turns)[0]
    found = whole(model, [script], len(turns), None, head).scores
    logits = model.network(torch.tensor([script.ids])).logits[0, list(script.reads)]
    ids = [model.tokenizer(w, add_special_tokens=False)["input_ids"] for w in words]
    assert all(len(i) == 1 for i in ids)
    naive = logits[:, [i[0] for i in ids]].double().log_softmax(-1)
    np.testing.assert_allclose(found, naive.detach().numpy(), atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_states_are_read_at_the_turns_and_stored_on_the_way(family):
    model = tiny(family)
    turns = talk(4)
    scripts = Writer(model.tokenizer, Writing(speaker_last=True)).write(turns)
    depths = Depths.of(model.config.num_hidden_layers, 2)
    assert (depths.behind, depths.within) == (2, 1) and Depths.of(30, 20) == Depths(20, 10) == Depths.of(30, 30)
    trunk, filled = Trunk(model, 2, "float32"), Trunk(model, 2, "float32")
    early, late = frozen(model, scripts, len(turns), depths, trunk), whole(model, scripts, len(turns), depths, None)
    np.testing.assert_allclose(early.behind.astype(float), late.behind.astype(float), atol=2e-3)
    np.testing.assert_allclose(early.within.astype(float), late.within.astype(float), atol=2e-3)
    filled.fill(s.ids for s in scripts)
    ids = [s.ids for s in scripts]
    torch.testing.assert_close(trunk.final(ids, grad=False), filled.final(ids, grad=False), atol=1e-5, rtol=1e-4)
    for script in scripts:
        states = model.network(torch.tensor([script.ids]), output_hidden_states=True).hidden_states
        for turn, read, (a, b) in zip(script.turns, script.reads, script.spans, strict=True):
            assert model.tokenizer.decode(script.ids[a:b]) == f"{turns[turn].text} - {turns[turn].speaker}"
            np.testing.assert_allclose(early.behind[turn], states[2][0, read].detach().numpy(), atol=3e-3)
            np.testing.assert_allclose(early.within[turn], states[1][0, a:b].mean(0).detach().numpy(), atol=3e-3)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_the_trunk_cache_gives_the_same_losses(family):
    settings = QUICK | {"labellers": ("network",), "epochs": 2.0}
    train, dev = talk(8), talk(3, seed=1)
    plain, cached = (
        dialogue(tiny(family), train=train, dev=dev, trunk_cache=how, **settings) for how in ("off", "float32")
    )
    losses = [m.extras[NAME]["facts"]["network"]["losses"] for m in (plain, cached)]
    np.testing.assert_allclose(*losses, atol=5e-5)


# ---- beside it


def test_the_linear_model_is_the_optimum():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(80, 6)).astype(np.float32), draw.integers(3, size=80)
    fit = Linear.fit(x, y, 3, strength=2.0, exponent=0.5, steps=500)
    z = torch.tensor((x - fit.mean) / fit.spread, dtype=torch.float64)
    w, b = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (fit.weight, fit.bias))
    counts = np.bincount(y, minlength=3)
    each = counts**-0.5 / (counts**-0.5 * counts).sum() * 80
    loss = (
        torch.nn.functional.cross_entropy(z @ w.T + b, torch.tensor(y), reduction="none") * torch.tensor(each[y])
    ).mean()
    (loss + (w * w).sum() / (2 * 2.0 * 80)).backward()
    assert w.grad.abs().max() < 1e-4 and b.grad.abs().max() < 1e-4
    np.testing.assert_allclose(fit.scores(x), (z @ w.T + b).log_softmax(1).detach().numpy(), atol=1e-5)


def test_strength_and_class_weights_are_chosen_on_dev():
    draw = np.random.default_rng(1)
    centres = draw.normal(size=(2, 5)).astype(np.float32) * 3
    y, y_dev = (draw.random(n) < 0.1 for n in (300, 200))
    x, dev = (centres[t.astype(int)] + draw.normal(size=(len(t), 5)).astype(np.float32) for t in (y, y_dev))
    seen = []

    def figure(scores, labels):
        seen.append((scores.argmax(1) == labels).mean())
        return seen[-1]

    chosen = choose(x, y.astype(int), 2, (dev, y_dev.astype(int)), figure, strengths=(0.001, 3.0), exponents=(0.0, 1.0))
    assert len(seen) == 4 and (chosen.linear.scores(dev).argmax(1) == y_dev).mean() == max(seen)
    assert choose(x, y.astype(int), 2, None, figure).strength == 0.1


def test_neighbours_are_the_naive_ones_and_never_of_the_own_dialogue():
    draw = np.random.default_rng(2)
    vectors = draw.normal(size=(30, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels, groups = draw.integers(3, size=30), np.arange(30) // 5
    near = Neighbours(vectors, labels, groups, 3, nearest=4, temperature=0.2)
    for query in (None, groups):
        found = near.scores(vectors, query)
        for i in range(30):
            cosine = vectors @ vectors[i]
            if query is not None:
                cosine[groups == groups[i]] = -9
            best = np.argsort(-cosine)[:4]
            share = np.bincount(labels[best], np.exp(cosine[best] / 0.2), minlength=3)
            naive = np.log((1 - FLOOR) * share / share.sum() + FLOOR / 3)
            np.testing.assert_allclose(found[i], naive, atol=1e-10)


def test_features_fade_with_distance_and_tell_who_speaks():
    turns = [Turn("a", "x", "d", speaker="A", number=0), Turn("b", "x", "d", speaker="B", number=1),
             Turn("c", "x", "d", speaker="A", number=4), Turn("q", "x", "e", speaker="C", number=0)]  # fmt: skip
    vectors = np.eye(4, dtype=np.float32)
    found = features(turns, vectors, window=2, decay=0.5, speakers=["A"], future=1)
    assert found.shape == (4, 13)
    np.testing.assert_allclose(found[2], [0, 0, 1, 0, 0.5**4, 0.5**3, 0, 0, 0, 0, 0, 0, 1])
    np.testing.assert_allclose(found[0], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0.5, 0, 0, 1])
    np.testing.assert_allclose(found[3], [0, 0, 0, 1] + [0] * 9)
    assert columns(4, 1, 1) == [slice(0, 4), slice(4, 8), slice(8, 12), slice(12, None)]
    assert main_speakers(talk(10), 1) == ["A"] and main_speakers(turns, 5) == []


def test_the_mix_is_the_lowest_point_of_its_loss():
    draw = np.random.default_rng(3)
    labels = draw.integers(3, size=200)
    good = np.log(np.where(np.arange(3) == labels[:, None], 0.6, 0.2)) + draw.normal(size=(200, 3)) * 0.3
    given = {"good": good, "noise": draw.normal(size=(200, 3))}
    mix = mixing.fit(given, labels)
    assert mix.weights["good"] > 0.5 > mix.weights["noise"] >= 0

    def loss(m):
        s = m.scores(given)
        start = np.square(np.array(list(m.weights.values())) - 0.5).sum() + np.square(m.bias).sum()
        return -s[np.arange(200), labels].mean() + mixing.PULL * start

    best = loss(mix)
    for name in given:
        for step in (-1e-2, 1e-2):
            moved = mixing.Mix(mix.weights | {name: max(0, mix.weights[name] + step)}, mix.bias)
            assert loss(moved) >= best - 1e-9
    assert loss(mixing.equal(list(given), 3)) > best
    np.testing.assert_allclose(np.exp(mix.scores(given)).sum(1), 1)


def test_the_prior_is_taken_off_where_that_is_better_on_dev():
    labels = np.array([0] * 6 + [1] * 4)
    scores = np.log(np.where(labels[:, None] == 0, [0.9, 0.1], [0.6, 0.4]))
    mix = mixing.Mix({"a": 1.0}, [0.0, 0.0])
    figure = lambda s, y: float((s.argmax(1) == y).mean())  # noqa: E731
    new, tau = mixing.shifted(mix, {"a": scores}, labels, np.log([0.8, 0.2]), figure)
    assert tau > 0 and figure(new.scores({"a": scores}), labels) == 1
    same, none = mixing.shifted(mix, {"a": scores}, labels, np.log([0.5, 0.5]), figure)
    assert none == 0 and same.bias == [0, 0]


def test_difficulty_counts_changes_of_label():
    calm = [Turn("a", "x", "d", speaker=s, number=i) for i, s in enumerate("ABAB")]
    wild = [Turn("a", y, "e", speaker=s, number=i) for i, (s, y) in enumerate(zip("ABAB", "xyyx", strict=True))]
    assert difficulty(calm) == 2 / 6
    assert difficulty(wild) == (2 + 2 + 2) / 6  # A changes, B changes; x-y and y-x between neighbours
    scripts = Writer(tiny("llama").tokenizer, Writing()).write([*wild, *calm])
    assert easier_half(scripts, [*wild, *calm]) == [1]


def test_embeddings_are_means_of_length_one_whatever_the_batch():
    model = tiny("bert")
    texts = ["a b c", "well", "", "a b c", "so it goes " * 5]
    found = embed(model, texts)
    assert found.shape == (5, model.config.hidden_size) and np.array_equal(found[0], found[3])
    for text, vector in zip(texts, found, strict=True):
        batch = model.encode([text or " "])
        state = model.network(**batch, output_hidden_states=True).hidden_states[-1][0].mean(0)
        np.testing.assert_allclose(vector, (state / state.norm()).detach().numpy(), atol=1e-5)


# ---- the whole


def test_it_learns_and_what_it_made_is_the_same_from_its_folder(made, tmp_path):
    test = talk(6, seed=2)
    found = quality(made, test=test)
    assert found.rows[0].label.weighted_f1[0] > 0.9
    facts = made.extras[NAME]["facts"]
    assert facts["dev"]["mix"]["weighted_f1"] > 0.9 and set(facts["dev"]) == {
        "network", "behind", "within", "linear", "neighbours", "mix",
    }  # fmt: skip
    assert facts["network"]["losses"][-1] < facts["network"]["losses"][0] / 2
    folder = made.save(tmp_path / "m")
    again = ia.load(folder)
    one, two = (reader_of(m).mix.scores(reader_of(m).each(m, test)) for m in (made, again))
    np.testing.assert_allclose(one, two, atol=1e-5)
    import transformers

    plain = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(plain(ids).logits, made.network(ids).logits)
    (folder / "parts" / f"{NAME}.safetensors").unlink()
    with pytest.raises(BadInput, match="is missing: without it the model is another one"):
        ia.load(folder)


def test_the_given_model_stays_as_it_was_and_equal_seeds_give_equal_bits(embedder):
    model = tiny("llama")
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    one, two = (dialogue(model, train=talk(6), dev=talk(3, seed=1), embedder=embedder, **QUICK) for _ in range(2))
    assert all(torch.equal(v, before[k]) for k, v in model.network.state_dict().items()) and not model.parts
    a, b = one.network.state_dict(), two.network.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert one.parts[NAME].to_bytes() == two.parts[NAME].to_bytes() and one.extras == two.extras


def test_without_dev_whole_dialogues_are_held_back(embedder):
    with_own = dialogue(tiny("llama"), train=talk(20), embedder=embedder, labellers=("linear",), **QUICK)
    facts = with_own.extras[NAME]["facts"]
    assert facts["dialogues"] == 18 and facts["dev_turns"] == 10
    assert "head.weight" not in with_own.parts[NAME].tensors


def test_another_column_may_hold_the_label(embedder):
    out = dialogue(
        tiny("llama"), train=talk(6), dev=talk(3, seed=1), label="mood", labellers=("linear",), embedder=embedder
    )
    assert out.extras[NAME]["labels"] == ["a", "c", "j"]


def test_other_records_are_dialogues_of_their_own_with_their_context(made):
    record = LabelledText("so 1", "calm", context=("great 2", "stop 3"))
    as_record = label_scores(made, [record, LabelledText("great 4", "joy")])
    turns = [Turn(t, "", "d", number=i) for i, t in enumerate(("great 2", "stop 3", "so 1"))]
    np.testing.assert_allclose(as_record.scores[0], label_scores(made, turns).scores[2], atol=1e-5)
    assert as_record.scores.shape == (2, 3)


def test_the_last_technique_that_taught_labels_is_the_one_that_labels(made, embedder, tmp_path):
    assert own_way(made) == NAME
    records = [LabelledText(t.text, t.label) for t in talk(3)]
    later = label(made, train=records, max_steps=1, layers_from=2)
    assert own_way(later) is None and NAME not in later.parts and own_way(made) == NAME
    again = dialogue(later, train=talk(4), dev=talk(2, seed=1), labellers=("neighbours",), embedder=embedder)
    assert own_way(again) == own_way(ia.load(again.save(tmp_path / "m"))) == NAME


def test_another_embedding_model_under_the_same_name_is_refused(embedder, tmp_path):
    place = tmp_path / "embedder"
    tiny("bert").save(place)
    out = dialogue(tiny("llama"), train=talk(4), dev=talk(2, seed=1), labellers=("neighbours",), embedder=str(place))
    label_scores(out, talk(1))
    tiny("bert", seed=1).save(place, force=True)
    embedder_of.cache_clear()
    key_of.cache_clear()
    with pytest.raises(BadInput, match="is another model than the one these"):
        label_scores(out, talk(1))


def test_dialogues_of_dev_that_train_holds_are_told_of(embedder):
    with pytest.warns(Note, match="2 of 3 dialogues of dev are in train"):
        dialogue(tiny("llama"), train=talk(4), dev=[*talk(2), Turn("hm", "joy", "x")], labellers=("neighbours",),
                 embedder=embedder)  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"verbalisers": {"jou": " joy"}}, "no label is called 'jou' .did you mean joy"),
        ({"verbalisers": {"joy": " "}}, "the words of 'joy' are empty"),
        ({"recipe": "dialoguellm", "verbalisers": {"joy": "up", "calm": "Up"}}, "two labels are both written 'up'"),
    ],
)
def test_words_that_cannot_be_are_refused(settings, words):
    with pytest.raises(BadInput, match=words):
        dialogue(tiny("llama"), train=talk(4), dev=talk(2, seed=1), **settings)


def test_a_curriculum_shows_everything_the_easy_ones_first():
    seen = []

    def loss(number):
        seen.append(number)
        return parameter.square().sum()

    parameter = torch.nn.Parameter(torch.ones(2))
    train([([parameter], 1.0)], 9, loss, DialogueConfig(epochs=1.0), 0, "trying", easy=range(4))
    assert set(seen[:3]) <= set(range(4)) and set(seen[3:8]) == {4, 5, 6, 7, 8} and len(seen) == 9


def test_turns_without_a_label_are_context(made):
    turns = talk(2, seed=4)
    silent = [
        t if i % 2 else Turn(t.text, "", t.group, speaker=t.speaker, number=t.number) for i, t in enumerate(turns)
    ]
    whole, part = quality(made, test=turns), quality(made, test=silent)
    assert part.rows[0].label.n == 5 and whole.rows[0].label.n == 10
    reader = reader_of(made)
    np.testing.assert_array_equal(reader.each(made, turns)["network"], reader.each(made, silent)["network"])


def test_a_label_that_only_the_test_has_is_named(made):
    with pytest.raises(BadInput, match="test has the label 'envy', which the task does not know"):
        quality(made, test=[Turn("hm", "envy", "d")])


@pytest.mark.parametrize(
    ("train", "dev", "words"),
    [
        ([], None, "train is empty; wanted turns of dialogues"),
        ([Turn("a", "", "d")], None, "no turn of train has a label"),
        ([Turn("a", "x", "d"), Turn("b", "x", "e")], None, "every labelled turn of train is 'x'"),
        ([Turn("a", "x", "d"), Turn("b", "y", "d")], None, "train is one dialogue"),
        (talk(2), [Turn("a", "jou", "d")], "dev has the label 'jou', which no turn of train has .did you mean joy"),
        (talk(2), [Turn("a", "", "d")], "no turn of dev has a label"),
    ],
)
def test_bad_data_is_told_of_before_training(train, dev, words):
    with pytest.raises(BadInput, match=words):
        dialogue(tiny("llama"), train=train, dev=dev)


def test_other_records_columns_and_networks_are_refused():
    with pytest.raises(BadInput, match="train holds a Text; wanted turns"):
        dialogue(tiny("llama"), train=[ia.data.Text("a")])
    with pytest.raises(BadInput, match="tone"):
        dialogue(tiny("llama"), train=talk(3), label="tone")
    with pytest.raises(BadInput, match="causal"):
        dialogue(tiny("bert"), train=talk(3))
    with pytest.raises(BadInput, match="states are read below the adapters: set layers_from"):
        dialogue(tiny("llama"), train=talk(3), layers_from=0, labellers=("network", "states"))
    with pytest.raises(BadInput, match="labellers is empty"):
        dialogue(tiny("llama"), train=talk(3), labellers=())


def test_other_data_sets_are_joined_without_what_the_judges_hold(tmp_path, embedder):
    other = tmp_path / "other"
    other.mkdir()
    said = [("great day", "happy"), ("hush", "odd"), ("stop it now", "cross")]
    rows = [
        {"dialogue": "x", "turn": i, "speaker": "A", "text": t, "label": y, "season": 1, "episode": 2}
        for i, (t, y) in enumerate(said)
    ]
    (other / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    maps = {"happy": "joy", "cross": "anger", "odd": ""}
    test = [Turn("Stop it, now!", "anger", "t", fields=(("season", "1"), ("episode", "2")))]
    settings = dict(train=talk(6), dev=talk(3, seed=1), labellers=("linear",), embedder=embedder, others=(str(other),))
    out = dialogue(tiny("llama"), test=test, label_map=maps, **settings)
    assert out.extras[NAME]["facts"]["turns"] == 32 and out.extras[NAME]["facts"]["labelled"] == 31
    with pytest.raises(BadInput, match="has the label 'happy', which train lacks: give a label_map"):
        dialogue(tiny("llama"), **settings)


def test_training_stops_when_its_minutes_are_over(embedder):
    out = dialogue(
        tiny("llama"),
        train=talk(6),
        dev=talk(3, seed=1),
        labellers=("network",),
        **QUICK | {"epochs": 1e4, "minutes": 0.02},
    )
    losses = out.extras[NAME]["facts"]["network"]["losses"]
    assert 1 <= len(losses) < 20_000


# ---- DialogueLLM


def test_the_papers_settings_stand_unless_others_are_given():
    config = as_published(DialogueConfig(recipe="dialoguellm", rank=8, past=2))
    assert (config.rank, config.past) == (8, 2)
    assert all(getattr(config, k) == v for k, v in PAPER.items() if k not in ("rank", "past"))


def test_instructions_hold_the_video_the_context_and_the_target():
    asking = Asking(["joy", "anger"], 1, 0, "name")
    turns = [
        Turn("hi", "joy", "d", speaker="A", number=0),
        Turn("go", "anger", "d", speaker="B", number=1, about="a door"),
    ]
    tokenizer = tiny("llama").tokenizer
    first, second = (tokenizer.decode(ids) for ids in asking.prompts(turns, tokenizer, 400))
    assert '"joy", "anger"' in first and "Video" not in first and "Context" not in first
    assert first.endswith("### Input:\nA: hi\n\n### Response:\n")
    assert second.endswith(
        "### Video description:\na door\n\n### Context:\nA: hi\n\n### Input:\nB: go\n\n### Response:\n"
    )


def test_what_is_too_long_loses_its_oldest_context_first():
    tokenizer = tiny("llama").tokenizer
    turns = [Turn(f"word {i}", "joy", "d", number=i) for i in range(4)]
    asking = Asking(["joy", "anger"], 3, 0, "none")
    whole = asking.prompts(turns, tokenizer, 1000)[3]
    short = asking.prompts(turns, tokenizer, len(whole) - 1)[3]
    assert "word 0" in tokenizer.decode(whole) and "word 0" not in tokenizer.decode(short)
    assert "word 1" in tokenizer.decode(short) and len(short) < len(whole)
    with pytest.raises(BadInput, match="the instruction alone takes"):
        asking.prompts(turns, tokenizer, 10)


def test_dialoguellm_learns_writes_and_is_read_back(tmp_path):
    train, dev = talk(8), talk(2, seed=1)
    settings = dict(
        recipe="dialoguellm", rank=8, alpha=32.0, learning_rate=1e-2, epochs=12.0, batch_size=8, micro_batch=3,
        targets=("all",), loss_on="answer", past=0, dropout=0.0, max_tokens=512,
    )  # fmt: skip
    out = dialogue(roomy(), train=train, dev=dev, **settings)
    facts = out.extras[NAME]["facts"]
    assert facts["dev"]["answers"]["weighted_f1"] > 0.8 and NAME not in out.parts
    again = ia.load(out.save(tmp_path / "m"))
    test = talk(3, seed=2)
    one, two = (quality(m, test=test).rows[0].label for m in (out, again))
    assert one.weighted_f1 == two.weighted_f1 and one.weighted_f1[0] > 0.6


def test_small_steps_of_a_batch_add_up_to_the_whole():
    settings = dict(recipe="dialoguellm", epochs=1.0, batch_size=10, max_steps=2, dropout=0.0, max_tokens=512)
    train, dev = talk(4), talk(2, seed=1)
    whole, parts = (
        dialogue(roomy(), train=train, dev=dev, micro_batch=n, **settings).extras[NAME]["facts"]["network"]
        for n in (10, 3)
    )
    np.testing.assert_allclose(whole["losses"], parts["losses"], atol=1e-4)


def test_shots_stand_before_every_question():
    out = dialogue(roomy(), train=talk(6), dev=talk(2, seed=1), recipe="dialoguellm", shots=1, max_steps=1,
                   max_tokens=900, batch_size=2)  # fmt: skip
    examples = out.extras[NAME]["examples"]
    assert len(examples) == 3 and [e.rsplit("\n", 1)[1] for e in examples] == ["anger", "calm", "joy"]


@pytest.mark.parametrize(
    ("text", "named"),
    [("joy", "joy"), (" Joy.\nmore", "joy"), ("not happy, sad", "happy"), ("it is sadness", "sadness"),
     ("sadnes", "sadness"), ("very happy joy", "very happy"), ("", "joy"), ("unhappy", "happy")],
)  # fmt: skip
def test_answers_are_read_by_place_then_by_distance(text, named):
    labels = ["happy", "very happy", "joy", "sadness"]
    assert labels[read_answer(text, labels)] == named


def test_edit_distance_is_levenshteins():
    assert edit_distance("kitten", "sitting") == 3 and edit_distance("", "abc") == 3 and edit_distance("a", "a") == 0


@pytest.mark.real
def test_real_dialogues_are_learned(tmp_path):
    from intarsia.data import load_data, shared_data

    if (folder := shared_data("dialogue/meld")) is None:
        pytest.skip("the data set dialogue/meld is not there: set INTARSIA_DATA")
    data = load_data(folder)
    kept = list(dict.fromkeys(t.group for t in data["train"]))[::8]
    train = [t for t in data["train"] if t.group in set(kept)]
    out = dialogue(ia.load("smollm2-135m"), train=train, dev=data["dev"][:300], labellers=("linear", "neighbours"))
    figures = out.extras[NAME]["facts"]["dev"]
    assert figures["mix"]["weighted_f1"] > 0.38, "always 'neutral' gives about .25 here"
    assert isinstance(out.save(tmp_path / "m"), Path)
