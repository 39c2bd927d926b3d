"""The faithfulness benchmark names methods and settings that exist, and picks the texts it says."""

from __future__ import annotations

from bench import attribution
from intarsia.data import Text
from intarsia.interpretation.attribution.methods import METHODS
from intarsia.interpretation.evaluation import plant
from intarsia.interpretation.evaluation.texts import Asker
from intarsia.measure import LabelTask
from tests.tiny import tiny


def test_settings_are_of_methods_that_exist():
    assert len(METHODS) - len(attribution.LEFT_OUT) >= 8 and set(attribution.LEFT_OUT) <= set(METHODS)
    for key, value in attribution.SETTINGS.items():
        method, _, name = key.partition(".")
        assert str(getattr(Asker(method, attribution.SETTINGS).config, name)) == value


def test_texts_are_chosen_by_their_tokens():
    records = [Text("a" * n) for n in range(1, 20)]
    assert [len(r.text) for r in attribution.short_texts(tiny("llama"), records, 8, 12)] == [8, 9, 10, 11, 12]


def test_planted_words_have_the_labels_of_the_task():
    task = LabelTask.parse(attribution.SHORTCUT_TASK)
    planted = plant(["one two", "three four"], attribution.SHORTCUTS)
    assert sorted(r.label for r in planted) == sorted(task.labels)
