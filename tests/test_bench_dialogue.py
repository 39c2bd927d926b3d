"""The benchmark of dialogues: splits, what is kept, and its contenders on a tiny network."""

from __future__ import annotations

import pytest

import intarsia as ia
from bench.dialogue import contenders
from bench.dialogue.ablations import WITHOUT
from bench.kept import Kept
from intarsia.adaptation.dialogue import DialogueConfig
from intarsia.data import Dataset
from tests.test_adaptation_dialogue import talk
from tests.tiny import tiny


def test_what_is_finished_is_not_made_again(tmp_path):
    made = []
    kept = Kept(tmp_path, "meld", False)
    for _ in range(2):
        assert kept("own", lambda: made.append(1) or {"figure": 0.5}) == {"figure": 0.5}
    assert made == [1]
    Kept(tmp_path, "meld", True)("own", lambda: made.append(1) or {})
    Kept(None, "meld", False)("own", lambda: made.append(1) or {})
    assert len(made) == 3


def test_the_quick_splits_keep_dialogues_whole_and_judge_300_turns():
    data = Dataset({"train": talk(20), "dev": talk(2), "test": talk(80, seed=3)})
    train, dev, test = contenders.splits(data, quick=True)
    assert len(train) == 10 and len({t.group for t in train}) == 2 and len(dev) == 10
    assert len(test) == 400 and sum(bool(t.label) for t in test) == 300


def test_ablations_are_settings_there_are():
    for settings in WITHOUT.values():
        DialogueConfig(**settings)


def test_contenders_are_judged_on_test(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    bert = str(tiny("bert").save(tmp_path / "bert"))
    monkeypatch.setattr(ia, "load", lambda name: tiny("llama"))
    monkeypatch.setattr(contenders, "OWN", {"embedder": bert, "epochs": 1.0, "layers_from": 2, "rank": 2})
    data = Dataset({"train": talk(10), "dev": talk(4, seed=1), "test": talk(4, seed=2)})
    found = contenders.run(
        "meld", data, Kept(tmp_path, "meld", False), 1.0, ["majority", "zero-shot", "calibrated", "own"], quick=False
    )
    assert set(found) == {"meld_wf1"} and 0 <= found["meld_wf1"] <= 100
    said = capsys.readouterr().out
    assert "majority" in said and "own, by class" in said
    with pytest.raises(FileNotFoundError):
        (tmp_path / "meld" / "linear.json").read_text()
