"""The paper's experiments: their prompts word for word, their scores against plain loops, and what goes wrong."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from intarsia.cli import app
from intarsia.data import LabelledText, TextPair, shared_data
from intarsia.errors import BadInput
from intarsia.interpretation import (
    Patchscope,
    StateMaps,
    attributes,
    cross_model,
    describe_entity,
    map_states,
    multihop,
    patchscope,
    token_identity,
)
from intarsia.interpretation.patchscopes import scoring
from intarsia.interpretation.patchscopes.describe_entity import DESCRIBE
from intarsia.interpretation.patchscopes.describing import rouge_l
from intarsia.interpretation.patchscopes.extraction import coarse, gaussian_like, say
from intarsia.interpretation.patchscopes.mapping import aligned
from intarsia.interpretation.patchscopes.multihop import COT
from intarsia.interpretation.patchscopes.multihop_run import OF_COUNTRY, joined_queries, read_queries
from intarsia.interpretation.patchscopes.operator import Source, Target, patch, read_states
from intarsia.interpretation.patchscopes.probing import folds_of, probe
from intarsia.interpretation.patchscopes.prompts import encode, place
from intarsia.interpretation.patchscopes.relations import (
    MAIN,
    TARGET_PROMPTS,
    Relation,
    Subject,
    from_records,
    holds,
    read_relations,
)
from intarsia.interpretation.patchscopes.token_identity import PAPER
from intarsia.report import Finding
from intarsia.sites import Replace, generate, read, run
from tests.tiny import tiny, tokenizer

TEXTS = ["Return the sum of the start value and an iterable.", "def f(x): pass", "Stop when the file ends."]


def test_the_prompts_are_those_of_the_paper() -> None:
    assert PAPER == "cat -> cat\n1135 -> 1135\nhello -> hello\n?"
    assert DESCRIBE == (
        "Syria: Country in the Middle East, Leonardo DiCaprio: American actor, Samsung: South Korean multinational "
        "major appliance and consumer electronics corporation, x"
    )
    assert COT == "Let's think step by step. "
    assert len(TARGET_PROMPTS) == 22 and len(MAIN) == 12 and all(p.endswith(" x") for p in TARGET_PROMPTS.values())
    assert TARGET_PROMPTS["country_currency"] == "The official currency of x"


@pytest.mark.real
def test_the_published_relations_are_read_as_they_are() -> None:
    folder = shared_data("patchscopes")
    if folder is None:
        pytest.skip("the published relations are not here")
    with (folder / "tasks.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {row["task"]: row["target_prompt"] for row in rows} == TARGET_PROMPTS
    assert {row["task"] for row in rows if row["in_paper_table2"] == "1"} == set(MAIN)
    for relation, row in zip(read_relations(folder, [r["task"] for r in rows]), rows, strict=True):
        assert len(relation.subjects) == int(row["subjects"])
        for subject in relation.subjects:
            assert all(m.text[: m.end].endswith(subject.name) or m.end <= len(m.text) for m in subject.mentions)


# scoring


def test_scores_are_plain_counts() -> None:
    rng = np.random.default_rng(0)
    hits = rng.random((9, 3, 4)) < 0.3
    names = [f"s{i}" for i in range(9)]
    assert scoring.any_cell(hits).tolist() == [float(h.any()) for h in hits]
    assert scoring.any_target(hits).tolist() == [[float(line.any()) for line in h] for h in hits]
    noise = rng.random((9, 5, 3, 4)) < 0.3
    for row in range(9):
        assert scoring.any_cell(noise)[row] == np.mean([noise[row, v].any() for v in range(5)])
        assert scoring.any_target(noise)[row].tolist() == pytest.approx(
            [np.mean([noise[row, v, a].any() for v in range(5)]) for a in range(3)]
        )
    mean, low, high = scoring.mean_interval(hits.mean((1, 2)), names)
    assert mean == pytest.approx(hits.mean()) and low < mean < high


def test_the_chosen_cell_never_sees_the_rows_it_is_judged_on() -> None:
    rng = np.random.default_rng(1)
    hits = rng.random((20, 3, 4)) < 0.4
    names = [f"s{i // 2}" for i in range(20)]  # two rows a subject
    values, own = scoring.chosen_cell(hits, names, seed=3)
    first = scoring.halves(names, 3)
    assert first.sum() == 10 and all(first[i] == first[i + 1] for i in range(0, 20, 2))
    for half in (first, ~first):
        share = hits[half].mean(0)
        (cell,) = {cell for cell, here in zip(own, half, strict=True) if not here}
        assert share[cell] == share.max()
    assert values.tolist() == [float(hits[(row, *cell)]) for row, cell in enumerate(own)]
    flipped = hits.copy()
    flipped[0] = ~flipped[0]
    assert scoring.chosen_cell(flipped, names, seed=3)[1][0] == own[0]


def test_random_vectors_have_the_norms_of_states() -> None:
    states = torch.randn(6, 3, 32) * torch.tensor([1.0, 10.0, 300.0])[:, None]
    noise = gaussian_like(states, 4, seed=0)
    norms = states.norm(dim=-1)
    for row in noise.norm(dim=-1):
        assert (torch.isclose(row, norms, rtol=1e-4).all(1)).any()
    assert torch.equal(noise, gaussian_like(states, 4, seed=0))
    assert abs(float(torch.cosine_similarity(noise[0, 0], noise[0, 1], dim=0))) < 0.9


def test_an_object_is_found_white_space_aside() -> None:
    assert holds(" the  Bra sília.", ["Brasília"]) and holds("New\nDelhi", ["x y z", "New Delhi"])
    assert not holds("paris", ["Paris"]) and not holds("anything", [""])


def test_coarse_layers_lie_in_the_lower_part() -> None:
    assert coarse(30, 5) == [2, 7, 12, 16, 21] and coarse(4, 0) == [0, 1, 2, 3] and coarse(4, 9) == [0, 1, 2, 3]


def test_the_probe_is_judged_on_subjects_it_has_not_seen() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = ["a", "b"] * 12
    subjects = [f"s{i // 2 % 12}{label}" for i, label in enumerate(labels)]
    signal = torch.tensor([[1.0 if label == "a" else -1.0] for label in labels])
    clear = torch.randn(24, 1, 8, generator=generator) * 0.1 + signal[:, :, None]
    # What only tells the subject apart is worth nothing for another one.
    identity = torch.eye(24)[[sorted(set(subjects)).index(s) for s in subjects]][:, None, :8]
    states = torch.cat([clear, identity], dim=1)
    right, common = probe(states, labels, subjects, folds=3)
    assert right[:, 0].all() and right[:, 1].mean() < 0.8 and right.shape == (24, 2) and common.shape == (24,)
    fold = folds_of(subjects, 3, 0)
    assert all(len(set(fold[[i for i, t in enumerate(subjects) if t == s]])) == 1 for s in set(subjects))


# attributes


def known_records(model, prompt: str, subjects: list[str]) -> list[LabelledText]:
    """Records whose attribute is what the model itself says of the subject."""
    said = say(model, [prompt[:-1] + subject for subject in subjects], 6)
    return [
        LabelledText(f"once {name} was seen", text.strip()[:1] or "?", name)
        for name, text in zip(subjects, said, strict=True)
    ]


def test_attributes_count_what_one_patch_after_the_other_gives() -> None:
    model = tiny("llama")
    prompt, names = "The colour of x", ["apple", "pear", "plum", "fig"]
    records = known_records(model, prompt, names)
    found = attributes(
        model, texts=records, target_prompt=prompt, grid=2, max_new_tokens=6, random_vectors=3, contamination="keep"
    )
    (result,) = found.relations
    assert (result.known, result.asked, result.used, result.rows) == (4, 4, 4, 4) and found.source_layers == [0, 2]
    goal = encode(model, prompt, start=False)
    counted = np.zeros((2, 2))
    for record in records:
        row = encode(model, record.text)
        at = place(row, record.group)
        for a, layer in enumerate([0, 2]):
            state = read(model, [list(row.ids)], f"layers.{layer}.resid_post")[f"layers.{layer}.resid_post"][0, at]
            for b, to in enumerate([0, 2]):
                edit = Replace(f"layers.{to}.resid_post", at=len(goal) - 1, value=state)
                text = generate(model, [list(goal.ids)], edits=[edit], max_new_tokens=6).texts[0]
                counted[a, b] += holds(text, [record.label])
    assert np.allclose(result.cells, counted / 4)
    assert result.mean_cell[0] == pytest.approx(counted.mean() / 4)
    again = Finding.from_json(found.to_json())
    assert again == found and "given" in str(found) and "random" in found.summary


def test_subjects_that_are_not_known_are_counted_and_left_out() -> None:
    model = tiny("llama")
    records = known_records(model, "The colour of x", ["apple", "pear"])
    wrong = [LabelledText("a fig fell", "no such word", "fig"), LabelledText("a plum fell", "nor this", "plum")]
    found = attributes(model, texts=records + wrong, target_prompt="The colour of x", grid=1, max_new_tokens=6)
    assert (found.relations[0].known, found.relations[0].asked) == (2, 4)
    nothing = attributes(model, texts=wrong, target_prompt="The colour of x", grid=1, max_new_tokens=6)
    assert not nothing.scored and "none of 2" in nothing.summary and nothing.headline() == {} and str(nothing)


def test_bad_records_say_what_is_wanted() -> None:
    with pytest.raises(BadInput, match="record 1: wants text, label"):
        from_records(["a text"], "The colour of x")
    with pytest.raises(BadInput, match="'plum' is not in its text"):
        from_records([LabelledText("a fig", "blue", "plum")], "The colour of x")
    with pytest.raises(BadInput, match="must end with the placeholder"):
        from_records([LabelledText("a fig", "blue", "fig")], "The colour of it")
    with pytest.raises(BadInput, match="no folder"):
        attributes(tiny("llama"), folder="/no/such/folder")
    with pytest.raises(BadInput, match="record 1: wants text"):
        multihop(tiny("llama"), texts=["a text"])


# multi-hop


def test_multihop_patches_the_inner_part_into_the_outer_one() -> None:
    model = tiny("gpt2")
    queries = [("The colour of", "the fruit of eden"), ("The colour of", "the fruit of snow"), ("The name of", "her")]
    records = []
    for outer, inner in queries:
        bridge = say(model, [inner], 5)[0].strip()[:1] or "?"
        answer = say(model, [f"{outer} {bridge}"], 5)[0].strip()[:1] or "?"
        records.append(LabelledText(inner, answer, bridge, (outer,)))
    found = multihop(model, texts=records, grid=2, max_new_tokens=5, random_vectors=2, contamination="keep", ask="")
    assert found.known == len(records) == len(found.rows) and found.tries == 4
    by_query = {row.query: row for row in found.rows}
    counted = np.zeros((2, 2))
    for record in records:
        outer = record.context[0]
        row, goal = encode(model, record.text), encode(model, outer, start=False)
        state = read(model, [list(row.ids)], "layers.*.resid_post")
        for a, layer in enumerate([0, 2]):
            for b, to in enumerate([0, 2]):
                value = state[f"layers.{layer}.resid_post"][0, -1]
                edit = Replace(f"layers.{to}.resid_post", at=len(goal) - 1, value=value)
                text = generate(model, [list(goal.ids)], edits=[edit], max_new_tokens=5).texts[0]
                counted[a, b] += holds(text, [record.label])
        line = by_query[f"{outer} {record.text}"]
        assert line.plain == say(model, [f"{outer} {record.text}"], 5)[0]
        assert line.cot == say(model, [f"{COT}{outer} {record.text}"], 5)[0]
    assert np.allclose(found.cells, counted / 3)
    assert Finding.from_json(found.to_json()) == found and "oracle" in found.summary and str(found)


# token identity, descriptions


def test_token_identity_is_the_naive_one() -> None:
    model = tiny("llama")
    found = token_identity(model, texts=TEXTS[1:2], positions=100, prompt="paper")
    row, goal = encode(model, TEXTS[1]), encode(model, PAPER, start=False)
    acts = read(model, [list(row.ids)], "layers.*.resid_post")
    final = run(model, [list(row.ids)]).logits[0].double().log_softmax(-1)
    places = range(2, len(row))  # neither the start token nor the text's own first
    assert found.positions == len(places)
    for layer in range(4):
        right, bits = [], []
        for at in places:
            edit = Replace(
                f"layers.{layer}.resid_post", at=len(goal) - 1, value=acts[f"layers.{layer}.resid_post"][0, at]
            )
            top = int(run(model, [list(goal.ids)], edits=[edit]).logits[0, -1].argmax())
            right.append(top == int(final[at].argmax()))
            bits.append(-float(final[at, top]))
        assert found.layers[layer].agreement[0] == pytest.approx(np.mean(right))
        assert found.layers[layer].surprisal[0] == pytest.approx(np.mean(bits), rel=1e-4)
    # Patched after the last block nothing is left to go wrong.
    assert found.layers[3].agreement[0] == found.layers[3].lens_agreement == 1
    with pytest.raises(BadInput, match="no causal language model"):
        token_identity(tiny("bert"), texts=TEXTS)
    with pytest.raises(BadInput, match="single token"):
        token_identity(model, texts=["a"])


def longest_common(a: list[str], b: list[str]) -> int:
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
    return int(table[-1, -1])


def test_descriptions_are_scored_by_the_longest_common_subsequence() -> None:
    wanted, said = "king of the old kingdom of macedon", "he was a king of macedon once"
    common = longest_common(wanted.split(), said.split())
    p, r = common / 7, common / 7
    assert rouge_l(wanted, said) == pytest.approx(2 * p * r / (p + r))
    model = tiny("llama")
    target = "Rome: Capital of Italy, x"
    pairs = [TextPair("Alexander the Great", "king"), TextPair("Diana", "princess")]
    found = describe_entity(model, texts=pairs, target_prompt=target, max_new_tokens=4, depth=1.0, stride=2)
    assert found.read_layers == [0, 2]
    whole = patch(Source(model, "Diana", layers=[0, 2]), Target(model, target, layers="same"), max_new_tokens=4)
    assert found.texts[1] == [cells[0].split("\n")[0] for cells in whole.texts[0]]
    assert len(found.layers) == 2 and Finding.from_json(found.to_json()) == found and str(found)
    plain = describe_entity(model, texts=["Alexander the Great"], target_prompt=target, max_new_tokens=2)
    assert plain.layers == [] and plain.texts and "without given descriptions" in plain.summary
    with pytest.raises(BadInput, match="no name"):
        describe_entity(model, texts=[])


# another model


def test_positions_are_paired_where_the_same_has_been_read() -> None:
    a = encode(tiny("llama"), "abcd")
    b = encode(tiny("llama"), "abcd")
    assert aligned(a, b) == [(1, 1), (2, 2), (3, 3), (4, 4)]
    coarse_ = type(a)((1, 7, 8), "abcd", 1, (0, 3, 4))  # tokens 'abc', 'd'
    assert aligned(a, coarse_) == [(3, 1), (4, 2)]


def test_a_model_explained_by_itself_needs_no_map_and_gets_none() -> None:
    model = tiny("llama")
    texts = [f"{text} {i}" for i, text in enumerate(TEXTS * 3)]
    maps = map_states(model, explainer=model, texts=texts, penalty=0.0)
    eye = torch.eye(32)
    assert maps.pairs == [(layer, layer) for layer in range(4)]
    assert all(torch.allclose(matrix, eye, atol=1e-3) for matrix in maps.matrix) and maps.bias.abs().max() < 1e-2
    assert all(p.explained > 0.999 for p in maps.finding.pairs) and maps.finding.held_out_positions > 0
    found = cross_model(model, explainer=model, train=texts, test=TEXTS, penalty=0.0, stride=1, positions=12)
    diagonal = [found.agreement[i][i] for i in range(4)]
    assert diagonal == pytest.approx(found.own, abs=1e-9) and found.own[-1] == 1.0
    assert found.surprisal[3][3] == pytest.approx(min(found.surprisal[3]), abs=1e-3)
    assert Finding.from_json(found.to_json()) == found and str(found)


def test_maps_between_models_are_the_least_squares_of_their_states() -> None:
    source, target = tiny("llama"), tiny("gpt2", seed=3)
    maps = map_states(source, explainer=target, texts=TEXTS, stride=3, pairs="all", penalty=0.0, held_out=0.34, seed=1)
    assert maps.pairs == [(0, 0), (0, 3), (3, 0), (3, 3)]
    import random

    order = list(TEXTS)
    random.Random(1).shuffle(order)
    rows = [(encode(source, t), encode(target, t)) for t in order[1:]]
    x, y = ([], [])
    for a, b in rows:
        places = range(1, len(a))
        x.append(read_states(source, [a] * len(places), places, [3])[:, 0])
        y.append(read_states(target, [b] * len(places), places, [0])[:, 0])
    x, y = torch.cat(x).double(), torch.cat(y).double()
    ones = torch.ones(len(x), 1, dtype=torch.float64)
    wanted = torch.linalg.lstsq(torch.cat([x, ones], 1), y).solution
    assert maps.finding.positions == len(x)
    assert torch.allclose(maps.matrix[2].double(), wanted[:-1], atol=1e-3)
    assert torch.allclose(maps.bias[2].double(), wanted[-1], atol=1e-3)


def test_saved_maps_let_another_model_explain(tmp_path) -> None:
    source, reader = tiny("llama"), tiny("gpt2", seed=3)
    maps = map_states(source, explainer=reader, texts=TEXTS, stride=2)
    path = maps.save(tmp_path / "maps")
    again = StateMaps.load(path)
    assert again.pairs == maps.pairs and torch.equal(again.matrix, maps.matrix) and again.finding == maps.finding
    with pytest.raises(BadInput, match="not empty"):
        maps.save(path)
    found = patchscope(source, explainer=reader, prompt=TEXTS[1], show="sink", mapping=str(path), at=-1)
    assert found.layers == [1, 3] and found.explainer == "tiny-gpt2" and found.own_probability is not None
    with pytest.raises(BadInput, match="the model is tiny-llama"):
        patchscope(tiny("llama", seed=5), explainer=reader, prompt=TEXTS[1], mapping=str(path))
    with pytest.raises(BadInput, match="no map from layer 0 to layer 0"):
        again(torch.zeros(1, 32), 0, 0)
    note = json.loads((path / "state-maps.json").read_text())
    (path / "state-maps.json").write_text(json.dumps({**note, "pairs": [[0, 0]]}))
    with pytest.raises(BadInput, match="do not go together"):
        StateMaps.load(path)
    with pytest.raises(BadInput, match="no state maps there"):
        StateMaps.load(tmp_path)
    with pytest.raises(BadInput, match="single text"):
        map_states(source, explainer=reader, texts=TEXTS[:1])


# the look at a prompt


def test_the_picture_of_a_prompt_is_the_diagonal_of_patches() -> None:
    model = tiny("llama")
    found = patchscope(model, prompt="the Great", show="identity", max_tokens=4, candidates=2)
    assert found.tokens == list("reat") and found.positions == [5, 6, 7, 8] and found.layers == [0, 1, 2, 3]
    name = tokenizer().decode
    row, goal = encode(model, "the Great"), encode(model, PAPER, start=False)
    acts = read(model, [list(row.ids)], "layers.*.resid_post")
    own = run(model, [list(row.ids)]).logits[0]
    for layer in range(4):
        for n, at in enumerate(range(len(row) - 4, len(row))):
            edit = Replace(
                f"layers.{layer}.resid_post", at=len(goal) - 1, value=acts[f"layers.{layer}.resid_post"][0, at]
            )
            p = run(model, [list(goal.ids)], edits=[edit]).logits[0, -1].softmax(-1)
            top, mine = int(p.argmax()), int(own[at].argmax())
            assert found.top[layer][n] == (name([top]) or f"[{top}]")
            assert found.probability[layer][n] == pytest.approx(float(p[top]), rel=1e-4)
            assert found.own_probability[layer][n] == pytest.approx(float(p[mine]), rel=1e-3, abs=1e-7)
            assert found.own_rank[layer][n] == 1 + int((p > p[mine]).sum())
        assert found.candidates[layer][0][0] == found.top[layer][-1]
    assert found.own_rank[3] == [1, 1, 1, 1] and all(found.settled(n) is not None for n in range(4))
    for n in range(4):
        ranks = [line[n] for line in found.own_rank]
        assert all(rank == 1 for rank in ranks[found.settled(n) :])
        assert found.settled(n) == 0 or ranks[found.settled(n) - 1] > 1
    assert Finding.from_json(found.to_json()) == found
    text = str(found)
    assert "layer 3" in text and "What each state would say next" in text


def test_all_ways_to_show_a_prompt(tmp_path) -> None:
    model = tiny("gpt2")
    one = patchscope(model, prompt="the Great", at="Great", show="sink")
    assert len(one.tokens) == 1 and one.figures()[0].kind == "line" and str(one)
    said = patchscope(model, prompt="the Great", show="describe", target_prompt="Rome: city, x", max_new_tokens=3)
    assert len(said.texts) == 4 and all(len(row) == 1 for row in said.texts) and "what its state says" in str(said)
    grid = patchscope(
        model, prompt="the Great", show="attribute", target_prompt="The colour of x", max_new_tokens=3, stride=1
    )
    assert [len(row) for row in grid.texts] == [4] * 4 and grid.target_layers == [0, 1, 2, 3]
    word = next(text.strip()[:1] for row in grid.texts for text in row if text.strip())
    hits = patchscope(
        model, prompt="the Great", show="attribute", target_prompt="The colour of x", max_new_tokens=3, stride=1,
        look_for=word,
    )  # fmt: skip
    wanted = [(a, b) for a in range(4) for b in range(4) if word in "".join(grid.texts[a][b].split())]
    assert hits.found() == wanted and f"'{word}' is said in {len(wanted)} of 16" in hits.summary and str(hits)
    assert isinstance(Finding.from_json(hits.to_json()), Patchscope)
    relation = patchscope(
        model, prompt="the Great", show="attribute", target_prompt="country_currency", max_new_tokens=1, stride=3
    )
    assert relation.target_prompt == "The official currency of x"
    with pytest.raises(BadInput, match="needs --target-prompt"):
        patchscope(model, prompt="the Great", show="attribute")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--prompt", "the Great", "--at", "77"], "position 77 is outside the prompt, which has 9 tokens"),
        (["--prompt", "the Great", "--at", "Small"], "'Small' does not occur"),
        (["--prompt", "", "--show", "sink"], "it is empty"),
        (["--prompt", "the Great", "--target-at", "-99"], "target prompt: position -99"),
        (["--prompt", "the Great", "--explainer", "OTHER"], "give a mapping"),
        (["--prompt", "the Great", "--mapping", "nowhere"], "no state maps there"),
    ],
)
def test_bad_input_ends_with_code_2(options, words, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    tiny("llama").save(tmp_path / "model")
    if "OTHER" in options:
        import transformers

        from intarsia.models import wrap

        config = transformers.GPT2Config(vocab_size=300, n_embd=16, n_layer=2, n_head=2, n_positions=128)
        wrap(transformers.GPT2LMHeadModel(config), tokenizer()).save(tmp_path / "other")
    options = [str(tmp_path / "other") if o == "OTHER" else o for o in options]
    code = app.run(["interpretation", "patchscope", "--model", str(tmp_path / "model"), *options])
    assert code == 2
    assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.real
def test_a_real_model_says_paris_late_and_knows_the_great_in_the_middle() -> None:
    import intarsia as ia

    try:
        model = ia.load("smollm2-135m")
    except Exception as error:
        pytest.skip(f"the model is not here: {error}")
    found = patchscope(model, prompt="The Eiffel Tower is in the city of", at=-1, show="sink", stride=3)
    assert found.own == [" Paris"] and 15 <= found.settled(0) <= 26
    said = patchscope(model, prompt="Alexander the Great", show="describe", stride=15, max_new_tokens=6)
    assert said.layers == [14, 29] and "King" in said.texts[0][0] and "King" not in said.texts[1][0]


def test_two_step_queries_are_joined_and_never_hold_their_answer(tmp_path) -> None:
    def subject(name: str, value: str) -> Subject:
        return Subject(name, (value,), ())

    capital = Relation("c", "The capital city of x", (subject("Japan", "Tokyo"), subject("India", "New Delhi")))
    largest = Relation("l", "The largest city in x", (subject("Japan", "Tokyo"), subject("India", "Mumbai")))
    texts = [(q.text, q.bridge, q.answer) for q in joined_queries([capital, largest])]
    assert ("The largest city in the country whose capital city is New Delhi", "India", "Mumbai") in texts
    assert ("The capital city of the country whose largest city is Mumbai", "India", "New Delhi") in texts
    header = "task\tkind\ttarget_prompt\tlre_templates\tlre_zero_shot_templates\n"
    tasks, rows = header, "task\tsubject\tobject\tsource\tsubject_end_char\n"
    for name, relation in zip(OF_COUNTRY, (capital, largest, largest), strict=True):
        tasks += f"{name}\tfactual\t{relation.target_prompt}\t[]\t[]\n"
        for s in relation.subjects:
            rows += f"{name}\t{s.name}\t{s.objects[0]}\tin {s.name}\t{3 + len(s.name)}\n"
    (tmp_path / "tasks.tsv").write_text(tasks)
    (tmp_path / "attributes.tsv").write_text(rows)
    (tmp_path / "multihop.tsv").write_text(
        "rel1\trel2\thop1\thop2\thop3\tpi2\tpi1\n"
        "a\tb\tE\tE\tE\tThe father of\tthe father of E\n"
        "a\tb\tFeijoada\tBrazil\tBras\\u00edlia\tThe capital city of\tthe country of origin of Feijoada\n"
    )
    queries = read_queries(str(tmp_path))
    assert queries[0].answer == "Brasília" and all(not holds(q.text, (q.answer, q.bridge)) for q in queries)
    assert not any("Tokyo" in q.text and q.answer == "Tokyo" for q in queries)
