"""Trees, the structural probe, minimal pairs and perturbed masking against naive computations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from intarsia.data import LabelledText, TextPair
from intarsia.errors import BadInput
from intarsia.interpretation import minimal_pairs, perturbed_masking, structural_probe
from intarsia.interpretation.probing import structure, trees
from intarsia.report import Finding
from tests.tiny import tiny

SENTENCES = [
    LabelledText("the cat sat", "2 3 0"),
    LabelledText("a dog chased the cat .", "2 3 0 5 3 3"),
    LabelledText("birds sing", "2 0"),
    LabelledText("the old man slept", "3 3 4 0"),
]


def masked():
    model = tiny("bert")
    model.tokenizer.mask_token = "<mask>"
    return model


def test_tree_distances_and_spanning_trees() -> None:
    parsed = trees.of_records(SENTENCES, "test")[1]
    assert parsed.edges == {(0, 1), (1, 2), (2, 4), (3, 4)}  # without the full stop
    gold = parsed.distances()
    assert gold[0, 3] == 4 and gold[0, 5] == 3 and (gold == gold.T).all()
    assert trees.spanning_tree(gold, parsed.punctuation) == parsed.edges
    assert trees.uuas([parsed.edges, {(0, 1)}], [parsed, parsed]) == 5 / 8
    assert trees.chain(parsed) == {(0, 1), (1, 2), (2, 3), (3, 4)}


def test_the_spanning_tree_is_the_shortest_of_all() -> None:
    d = np.random.default_rng(0).random((5, 5))
    d = d + d.T
    best = np.inf
    pairs = list(itertools.combinations(range(5), 2))
    for edges in itertools.combinations(pairs, 4):
        reached = {0}
        for _ in range(4):
            reached |= {b for a, b in edges if a in reached} | {a for a, b in edges if b in reached}
        if len(reached) == 5:
            best = min(best, sum(d[e] for e in edges))
    assert sum(d[e] for e in trees.spanning_tree(d)) == pytest.approx(best)


def test_conllu_is_read(tmp_path) -> None:
    rows = ["# text = a dog runs.", "1-2\tx\t_\t_\t_\t_\t_\t_\t_\t_"]
    words = [("a", 2, "DET"), ("dog", 3, "NOUN"), ("runs", 0, "VERB"), (".", 3, "PUNCT")]
    rows += [f"{i}\t{w}\t_\t{p}\t_\t_\t{h}\t_\t_\t_" for i, (w, h, p) in enumerate(words, 1)]
    file = tmp_path / "t.conllu"
    file.write_text("\n".join([*rows, "", "1\tgo\t_\tVERB\t_\t_\t0\troot\t_\t_"]), "utf-8")
    one, two = trees.of_conllu(str(file), "test")
    assert one.words == ("a", "dog", "runs", ".") and one.edges == {(0, 1), (1, 2)} and two.words == ("go",)
    file.write_text("1\ta\tb\n", "utf-8")
    with pytest.raises(BadInput, match="line 1: 3 fields"):
        trees.of_conllu(str(file), "test")
    with pytest.raises(BadInput, match="no such file"):
        structural_probe(tiny("llama"), treebank=str(tmp_path / "none.conllu"))


def test_the_structural_loss_and_a_tree_that_is_there() -> None:
    generator = torch.Generator().manual_seed(0)
    x, b = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((4, 6), (2, 6)))
    gold = torch.from_numpy(trees.of_records(SENTENCES, "test")[3].distances())
    naive = (
        sum(abs(float(gold[i, j]) - float((b @ (x[i] - x[j])).square().sum())) for i in range(4) for j in range(4)) / 16
    )
    assert float(structure.loss(x, gold, b)) == pytest.approx(naive)
    # States in which the tree can be embedded: one coordinate an edge on the way to the root.
    parsed = trees.of_records(SENTENCES * 5, "test")
    states = []
    for p in parsed:
        s = torch.zeros(len(p.words), 8, dtype=torch.float64)
        for i in range(len(p.words)):
            at = i
            while at >= 0:
                s[i, at] = 1
                at = p.heads[at] - 1
        states.append(s + 0.01 * torch.randn(s.shape, generator=generator, dtype=torch.float64))
    b = structure.train(states, [torch.from_numpy(p.distances()) for p in parsed], 8, 200, 0.05, 0)
    spans = [trees.spanning_tree(structure.squared_distances(s, b).numpy(), p.punctuation)
             for s, p in zip(states, parsed, strict=True)]  # fmt: skip
    assert trees.uuas(spans, parsed) == 1


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_structural_probe_runs_on_families(family: str) -> None:
    found = structural_probe(tiny(family), texts=SENTENCES, rank=4, epochs=3, stride=2)
    assert found.tested_on == 1 and found.trained_on == 3
    assert all(0 <= row.uuas <= 1 and -1 <= row.spearman <= 1 for row in found.layers)
    assert Finding.from_json(found.to_json()) == found


def test_word_states_are_means_over_tokens() -> None:
    ids, positions = trees.word_positions(tiny("llama"), ["the", "cat"], None, "test")
    assert len(ids) == 7 and positions == [[0, 1, 2], [4, 5, 6]]  # the space between belongs to none


def test_minimal_pairs_equal_the_naive_sum() -> None:
    model = tiny("llama", bos=True)
    pairs = [TextPair("the cats run", "the cats runs", "n"), TextPair("she saw him", "she saw he")]
    found = minimal_pairs(model, pairs=pairs)

    def naive(text: str) -> float:
        ids = model.encode([text])["input_ids"]
        log_p = model.network(ids).logits[0].detach().double().log_softmax(-1)
        return float(sum(log_p[t, ids[0, t + 1]] for t in range(ids.shape[1] - 1)))

    want = {p.prompt: (naive(p.prompt), naive(p.target)) for p in pairs}
    for scored in found.scored:
        assert (scored.log_p_good, scored.log_p_bad) == pytest.approx(want[scored.good], rel=1e-5)
    right = np.mean([g > b for g, b in want.values()])
    assert found.accuracy[0] == right and found.shorter == 0.5 * (1 + 0)
    assert [g.name for g in found.groups] == ["n"]


def test_masked_models_are_scored_by_pseudo_likelihood() -> None:
    model = masked()
    found = minimal_pairs(model, pairs=[TextPair("abc", "abd")])
    total = 0.0
    ids = model.encode(["abc"])["input_ids"]
    for t in range(3):
        hidden = ids.clone()
        hidden[0, t] = model.tokenizer.mask_token_id
        total += float(model.network(hidden).logits[0, t].detach().double().log_softmax(-1)[ids[0, t]])
    assert found.scored[0].log_p_good == pytest.approx(total, rel=1e-5)
    assert found.how == "pseudo log likelihood"


@pytest.mark.parametrize("distance", ["auto", "probability", "kl"])
def test_the_impact_of_masking_two_words(distance: str) -> None:
    model = masked()
    found = perturbed_masking(model, texts=["ab c de"], distance=distance)
    ids = model.encode(["ab c de"])["input_ids"]
    spans = [[0, 1], [3], [5, 6]]

    def seen(hidden: list[int], word: list[int]) -> torch.Tensor:
        row = ids.clone()
        row[0, hidden] = model.tokenizer.mask_token_id
        out = model.network(row, output_hidden_states=True)
        if distance == "auto":
            return out.hidden_states[-1][0, word].double().mean(0)
        p = out.logits[0, word].double().softmax(-1)
        return p if distance == "kl" else p[range(len(word)), ids[0, word]]

    for i, j in itertools.product(range(3), repeat=2):
        value = found.sentences[0].impact[i][j]
        if i == j:
            assert value is None
            continue
        one, both = seen(spans[i], spans[i]), seen(spans[i] + spans[j], spans[i])
        want = {
            "auto": (one - both).norm(),
            "probability": (one - both).mean(),
            "kl": (one * (one.abs() / both.abs()).log()).sum(-1).mean(),  # states have negative entries, unused here
        }[distance]
        assert value == pytest.approx(float(want.detach()), rel=1e-3, abs=1e-6)


def test_in_a_causal_model_only_earlier_words_matter() -> None:
    model = tiny("llama", bos=True)
    found = perturbed_masking(model, texts=["ab c de"], layer=2, distance="state")
    ids = model.encode(["ab c de"])["input_ids"][:, :6]  # the words before 'de', after the token that begins a text
    impact = found.sentences[0].impact
    assert all((impact[i][j] is None) == (j >= i) for i in range(3) for j in range(3))
    for j, gone in ((0, [1, 2]), (1, [4])):
        rest = ids[:, [p for p in range(6) if p not in gone]]
        with torch.no_grad():
            ends = [model.network(x, output_hidden_states=True).hidden_states[3][0, -1] for x in (ids, rest)]
        assert impact[2][j] == pytest.approx(float((ends[0] - ends[1]).double().norm()), rel=1e-4)
    by_kl = perturbed_masking(model, texts=["ab c de"])
    assert by_kl.distance == "kl" and by_kl.sentences[0].impact[2][0] != impact[2][0]


def test_gold_trees_score_the_spans() -> None:
    found = perturbed_masking(masked(), texts=SENTENCES)
    gold = trees.of_records(SENTENCES, "test")
    assert found.uuas == trees.uuas([set(s.edges) for s in found.sentences], gold)
    assert found.chain == trees.uuas([trees.chain(p) for p in gold], gold)
    assert Finding.from_json(found.to_json()) == found


def test_clear_errors() -> None:
    model = tiny("llama")
    with pytest.raises(BadInput, match="3 words and 2 heads"):
        structural_probe(model, texts=[LabelledText("a b c", "1 2")])
    with pytest.raises(BadInput, match="are no tree"):
        structural_probe(model, texts=[LabelledText("a b c", "2 1 0")])
    with pytest.raises(BadInput, match="either texts"):
        structural_probe(model)
    with pytest.raises(BadInput, match="are equal"):
        minimal_pairs(model, pairs=[TextPair("a b", "a b")])
    with pytest.raises(BadInput, match="no pairs"):
        minimal_pairs(model, pairs=[])
    with pytest.raises(BadInput, match="single word"):
        perturbed_masking(model, texts=["word"])
    with pytest.raises(BadInput, match="no mask token"):
        perturbed_masking(tiny("bert"), texts=["two words"])
