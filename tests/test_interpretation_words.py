"""Reasons in words: the prompts are what they should be, and each test of a reason finds what it looks for."""

from __future__ import annotations

import random

import pytest
import torch

from intarsia.errors import BadInput
from intarsia.interpretation import self_explanation
from intarsia.interpretation.words import asking
from intarsia.interpretation.words.dialogue import Dialogue
from intarsia.measure import LabelTask
from intarsia.measure.likelihood import score
from intarsia.report import Finding
from tests.tiny import tiny

ASKED = {"question": "Is it good?", "labels": ["yes", "no"], "ask": "Why?", "max_new_tokens": 6, "inserts": 4}
TEXTS = ["It was a joy.", "It was bad."]


def test_prompts_with_a_chat_template_and_without():
    model = tiny("llama")
    chat = Dialogue(model, "Good?", ["yes", "no"], "Why?")

    def text(ids):
        return model.tokenizer.decode(ids)

    user = "<|user|>A film\nGood?<|end|><|assistant|>"
    assert text(chat.answering("A film")) == user
    assert text(chat.after("A film", "no")) == f"{user}no<|end|><|user|>Why?<|end|><|assistant|>"
    before = chat.before("A film")
    assert text(before) == "<|user|>A film\nGood?\nWhy? Then answer.<|end|><|assistant|>"
    assert text(chat.then(before, " It is. ")) == text(before) + "It is.\nAnswer:\n"
    plain = tiny("llama")
    LabelTask(verbalisers={"joy": " joy", "sad": " sad"}, template="{text}\nMood:").attach(plain)
    own = Dialogue(plain, None, [], "Why?")
    assert text(own.answering("A film")) == "A film\nMood:"
    assert text(own.after("A film", "sad")) == "A film\nMood: sad\nWhy?\n"
    assert text(own.then(own.before("A film"), "It is.")) == "A film\nWhy?\nIt is.\nMood:"


def test_a_bos_token_is_there_once():
    model = tiny("llama", bos=True)
    model.tokenizer.chat_template = "<s>" + model.tokenizer.chat_template
    asked = Dialogue(model, "Good?", ["yes", "no"], "Why?")
    assert asked.answering("A film").count(1) == asked.after("A film", "no").count(1) == 1


def test_answers_and_reasons_are_what_the_model_says():
    model = tiny("llama")
    found = self_explanation(model, texts=TEXTS, **ASKED)
    asked = Dialogue(model, "Is it good?", ["yes", "no"], "Why?")
    for said, text in zip(found.texts, TEXTS, strict=True):
        raw = score(model, asked.task, [text], calibration="none").raw[0]
        assert said.answer == asked.task.labels[raw.argmax()]
        prompt = torch.tensor([asked.after(text, said.answer)])
        ids = model.network.generate(prompt, max_new_tokens=6, do_sample=False, pad_token_id=0)
        written = model.tokenizer.decode(ids[0, prompt.shape[1] :], skip_special_tokens=True).strip()
        assert said.reason == written
        again = score(model, asked.task, [written or " "], calibration="none").raw[0]
        assert said.rebuilt == asked.task.labels[again.argmax()]
        assert said.inserts == 4 and said.silent <= said.flips <= 4
    assert found.rebuilt[0] == sum(t.rebuilt == t.answer for t in found.texts) / 2
    assert Finding.from_json(found.to_json()) == found


def test_a_reason_that_comes_first_is_read_before_the_answer():
    model = tiny("llama")
    found = self_explanation(model, texts=TEXTS, when="before", **ASKED)
    asked = Dialogue(model, "Is it good?", ["yes", "no"], "Why?")
    for said, text in zip(found.texts, TEXTS, strict=True):
        prompt = asked.before(text)
        assert said.reason == asking.write(model, [prompt], 6)[0]
        logits = model.network(torch.tensor([asked.then(prompt, said.reason)])).logits[0, -1].double()
        first = [model.tokenizer(name)["input_ids"][0] for name in ("yes", "no")]
        assert said.probability == pytest.approx(float(logits[first].softmax(0).max().detach()), abs=1e-5)
        assert said.answer == ("yes", "no")[int(logits[first].argmax())]
        assert said.plain in ("yes", "no")


def test_silence_about_an_inserted_word_is_found(monkeypatch):
    """A model whose answer follows one inserted word, and whose reason names it or not."""
    model = tiny("llama")

    def reasons(named):
        def of(model, config, dialogue, explained, texts, only_flips_from=None):
            out = []
            for text in texts:
                word = next((w for w in asking.INSERTS if w in text.split()), None)
                answer = "no" if word else "yes"
                reason = f"It was {word}, so no." if word and named else "The film is a joy."
                out.append((reason, answer, 0.9))
            return out

        return of

    for named in (True, False):
        monkeypatch.setattr(asking, "_reasons", reasons(named))
        found = self_explanation(model, texts=["The film is a joy"], **ASKED)
        assert found.flips == 4 and found.silent == (0 if named else 4)
    assert "put in" in found.table().note
    assert found.texts[0].named == 1 and found.texts[0].named_by_chance == 1  # every word of the text is in the reason


def test_words_are_found_whole_and_put_in_whole():
    assert asking.mentions("It was old, so no.", "Old") and asking.mentions("a 'bad' film", "bad.")
    assert not asking.mentions("It was bold.", "old") and not asking.mentions("anything", "...")
    for seed in range(5):
        new, word = asking.insert("one two three", random.Random(seed))
        assert " ".join(w for w in new.split() if w != word) == "one two three" and len(new.split()) == 4
    assert len(set(asking.INSERTS)) == len(asking.INSERTS)


@pytest.mark.parametrize(
    ("family", "settings", "words"),
    [
        ("llama", {"question": None}, "question and labels together"),
        ("llama", {"question": None, "labels": []}, "no label task"),
        ("llama", {"texts": []}, "no text"),
        ("llama", {"texts": ["a long text " * 9]}, "context is 128"),
        ("llama", {"method": "lim"}, "did you mean"),
        ("bert-encoder", {}, "writes text"),
    ],
)
def test_bad_input(family, settings, words):
    with pytest.raises(BadInput, match=words):
        self_explanation(tiny(family), **{"texts": TEXTS, **ASKED, **settings})
