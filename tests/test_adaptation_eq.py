"""The EQ test: the formulas, the scores against plain forwards, and what is wrong with a file."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from intarsia.adaptation import eq
from intarsia.adaptation.eq.items import read_items
from intarsia.adaptation.eq.scoring import distances, percentile, quotient, similarity
from intarsia.cli import app
from intarsia.errors import BadInput
from tests.tiny import tiny

ITEMS = [
    {"story": "The cup broke.", "options": ["joy", "fear", "anger", "shame"], "human": [0.5, 3.0, 3.5, 3.0]},
    {"story": "She won.", "options": ["joy", "pride", "envy", "calm"], "human": [5.0, 4.0, 0.4, 0.6]},
    {"story": "They left.", "options": ["hope", "loss", "awe", "dread"], "human": [1.0, 6.0, 0.5, 2.5]},
]


def write(folder, rows) -> str:
    path = folder / "items.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def naive_scores(model, story: str, options: list[str]) -> list[float]:
    """Ten times the softmax over the words' likelihoods; all words here part at their first letter."""
    tokenizer = model.tokenizer
    ids = tokenizer(f"{story}\nAt the end of the story, the feeling is ")["input_ids"]
    with torch.no_grad():
        logits = model.network(torch.tensor([ids])).logits[0, -1].double()
    wanted = [tokenizer(option[0], add_special_tokens=False)["input_ids"][0] for option in options]
    return (10 * logits[wanted].softmax(-1)).tolist()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_eq_is_the_naive_formula(family, tmp_path):
    model = tiny(family, dtype=torch.float64)
    templates = [2.0, 1.0, 4.0]
    rows = [{**row, "template": t} for row, t in zip(ITEMS, templates, strict=True)]
    found = eq(model, items=write(tmp_path, rows))
    apart = []
    for row, item in zip(ITEMS, found.items, strict=True):
        scores = naive_scores(model, row["story"], row["options"])
        assert item.scores == pytest.approx(scores, abs=1e-9) and sum(item.scores) == pytest.approx(10)
        apart.append(math.dist(scores, row["human"]))
        assert item.distance == pytest.approx(apart[-1], abs=1e-9)
    s = sum(apart) / 3
    assert found.distance[0] == pytest.approx(s) and found.eq[0] == pytest.approx(100 + 15 * (2.79 - s) / 0.822)
    assert found.percentile == pytest.approx(50 * (1 + math.erf((2.79 - s) / 0.822 / math.sqrt(2))))
    assert found.similarity == pytest.approx(np.corrcoef(apart, templates)[0, 1])
    assert found.eq[1] <= found.eq[0] <= found.eq[2] and found.distance[1] <= s <= found.distance[2]
    even = np.mean([math.dist([2.5] * 4, row["human"]) for row in ITEMS])
    assert found.even == pytest.approx(even)
    assert "likeness" in str(found) and f"EQ is {found.eq[0]:.0f}" in found.summary
    assert type(found).from_json(found.to_json()) == found


def test_words_that_begin_alike_are_told_apart(tmp_path):
    model = tiny("llama", dtype=torch.float64)
    rows = [{**ITEMS[0], "options": ["shy", "shame", "shock", "joy"]}]
    (item,) = eq(model, items=write(tmp_path, rows)).items
    encode = model.tokenizer
    prompt = encode("The cup broke.\nAt the end of the story, the feeling is ")["input_ids"]

    def log_probs(path: str, ways: str) -> torch.Tensor:
        ids = prompt + (encode(path, add_special_tokens=False)["input_ids"] if path else [])
        with torch.no_grad():
            logits = model.network(torch.tensor([ids])).logits[0, -1].double()
        return logits[[encode(w, add_special_tokens=False)["input_ids"][0] for w in ways]].softmax(-1)

    first, then = log_probs("", "sj"), log_probs("sh", "yao")
    expected = [10 * float(first[0] * p) for p in then] + [10 * float(first[1])]
    assert item.scores == pytest.approx(expected, abs=1e-9)


def test_published_figures():
    # Mean distance, EQ and percentile of two rows of DialogueLLM's table.
    for s, published in ((2.31, 109), (3.12, 94), (2.79, 100), (3.72, 83)):
        assert round(quotient(s)) == published
    assert percentile(100) == pytest.approx(50) and percentile(115) == pytest.approx(84.134, abs=1e-3)
    assert distances(np.array([[1.0, 2.0], [3.0, 7.0]]), np.array([[1.0, 5.0], [0.0, 3.0]])) == pytest.approx([3, 5])


def test_similarity_is_pearson():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 40))
    assert similarity(a.tolist(), b.tolist()) == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-12)
    assert similarity([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None


def test_content_free_calibration_takes_the_empty_story_off(tmp_path):
    model = tiny("llama", dtype=torch.float64)
    found = eq(model, items=write(tmp_path, ITEMS[:1]), calibration="content-free").items[0]
    story, empty = (np.log(naive_scores(model, text, ITEMS[0]["options"])) for text in (ITEMS[0]["story"], ""))
    expected = np.exp(story - empty) / np.exp(story - empty).sum() * 10
    assert found.scores == pytest.approx(expected.tolist(), abs=1e-6)


BAD = {
    "nothing": ([], "no items in it"),
    "not JSON": (["{story"], "line 1: not JSON"),
    "a list": (["[1]"], "wanted an object"),
    "no story": ([{**ITEMS[0], "story": " "}], "'story' must be a text"),
    "three options": ([{**ITEMS[0], "options": ["a", "b", "c"]}], "four words"),
    "twice": ([{**ITEMS[0], "options": ["joy", "Joy", "c", "d"]}], "names a word twice"),
    "three scores": ([{**ITEMS[0], "human": [1, 2, 7]}], "four scores"),
    "a negative score": ([{**ITEMS[0], "human": [-1, 2, 7, 2]}], "four scores"),
    "another sum": ([ITEMS[1], {**ITEMS[0], "human": [1, 1, 1, 1]}], "line 2: the scores of 'human' sum to 4"),
    "some templates": ([{**ITEMS[0], "template": 1.0}, ITEMS[1]], "item 2 has no 'template'"),
    "a template of words": ([{**ITEMS[0], "template": "x"}], "a distance"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_items_are_one_line_that_says_which(name, tmp_path):
    rows, says = BAD[name]
    path = write(tmp_path, rows)
    with pytest.raises(BadInput, match=says) as error:
        read_items(path)
    assert str(error.value).startswith(path) and "\n" not in str(error.value)


def test_bad_settings(tmp_path):
    path = write(tmp_path, ITEMS)
    with pytest.raises(BadInput, match="exactly once"):
        eq(tiny("llama"), items=path, template="the feeling is")
    with pytest.raises(BadInput, match="no other field"):
        eq(tiny("llama"), items=path, template="{story} {text}")
    with pytest.raises(BadInput, match="causal"):
        eq(tiny("t5"), items=path)
    with pytest.raises(BadInput, match="no such file"):
        eq(tiny("llama"), items=str(tmp_path / "nowhere.jsonl"))
    with pytest.raises(BadInput, match=r"a \.jsonl file"):
        eq(tiny("llama"), items=str(tmp_path))


def test_the_command(tmp_path, capsys):
    tiny("llama").save(tmp_path / "model")
    path = write(tmp_path, ITEMS)
    assert app.run(["adapt", "eq", "--model", str(tmp_path / "model"), "--items", path, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["items"]) == 3
