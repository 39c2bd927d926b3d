"""The benchmark of editing: edits are counterfactual, each subject is edited once, and no neighbour is edited."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import editing
from tests.tiny import tiny

OBJECTS = {f"Land {i}": ("Bogot\\u00e1", "Rome", "Oslo")[i % 3] for i in range(9)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ways = {
        "lre_zero_shot_templates": ["What is it for {}? It is", "The capital of {} is"],
        "lre_templates": ["{} has"],
    }
    names = ["country_capital_city", "country_largest_city"]
    lines = ["task\tlre_zero_shot_templates\tlre_templates"]
    lines += [
        "\t".join([name, *('"' + json.dumps(w).replace('"', '""') + '"' for w in ways.values())]) for name in names
    ]
    (tmp_path / "tasks.tsv").write_text("\n".join(lines))
    rows = [f"{name}\t{subject}\t{obj}" for name in names for subject, obj in OBJECTS.items()]
    (tmp_path / "attributes.tsv").write_text("\n".join(["task\tsubject\tobject", *rows, rows[0]]))
    return tmp_path


def test_relations_have_their_plainest_wording_first(folder, monkeypatch):
    monkeypatch.setattr(editing, "RELATIONS", ("country_capital_city",))
    (found,) = editing.relations(folder)
    assert found.wordings == ["{} has", "The capital of {} is", "What is it for {}? It is"]
    assert found.objects["Land 0"] == "Bogotá" and len(found.objects) == 9


def test_edits_are_counterfactual_and_spare_their_neighbours(folder, monkeypatch):
    monkeypatch.setattr(editing, "RELATIONS", ("country_capital_city", "country_largest_city"))
    monkeypatch.setattr(
        editing, "known", lambda model, relation: {s: relation.objects[s] for s in ("Land 1", "Land 5")}
    )
    facts = editing.edits(tiny("llama"), folder, 100)
    subjects = [fact.subject for fact in facts]
    assert len(set(subjects)) == len(subjects) >= 6
    assert facts == editing.edits(tiny("llama"), folder, 100) and facts[:3] == editing.edits(tiny("llama"), folder, 3)
    for fact in facts:
        assert fact.prompt == f"{fact.subject} has" and fact.target != fact.old and len(fact.paraphrases) == 2
        near = [text.removesuffix(" has") for text in fact.neighbours]
        assert near and not set(near) & {f.subject for f in facts if f.group == fact.group}
        assert len(fact.neighbour_targets) == len(near)
        first = [answer == fact.old for answer in fact.neighbour_targets]
        assert first == sorted(first, reverse=True)  # those of the same object come first


def test_only_what_the_model_says_counts_as_known(folder, monkeypatch):
    monkeypatch.setattr(editing, "RELATIONS", ("country_capital_city",))
    (relation,) = editing.relations(folder)

    def say(model, prompts, **given):
        return type("Said", (), {"texts": [" rome is" if "Land 1" in p else " no" for p in prompts]})

    monkeypatch.setattr(editing, "generate", say)
    assert editing.known(tiny("llama"), relation) == {"Land 1": "Rome"}
