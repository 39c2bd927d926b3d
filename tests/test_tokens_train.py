"""`tokens.train`: records made into lessons for each kind of network, and a trained model that can be kept."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pytest
import torch

import intarsia as ia
from intarsia.data import ImageQuestion, ImageText
from intarsia.errors import BadInput
from intarsia.sites.recomposing import installed
from intarsia.tokens import merge, train
from intarsia.tokens.train import TokenTraining
from intarsia.tokens.training import Lessons
from tests.sites_help import plain
from tests.tiny import tiny
from tests.tokens_help import blip_answers, classifier, no_notes, pictures
from tests.training_help import feed, weights


@pytest.fixture(autouse=True)
def quiet():
    with no_notes():
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, picture in enumerate(pictures(6)):
        picture.save(tmp_path / f"{i}.png")
    return tmp_path


def captioned(folder: Path) -> list[ImageText]:
    return [ImageText(str(folder / f"{i}.png"), letter * 3) for i, letter in enumerate(string.ascii_lowercase[:6])]


def asked(folder: Path) -> list[ImageQuestion]:
    return [
        ImageQuestion(str(folder / f"{i}.png"), "what?" + "?" * (i % 2), "no" if i % 2 else "yes") for i in range(6)
    ]


FAST = {"steps": 6, "batch_size": 4, "learning_rate": 2e-3, "warmup": 0.0}


def test_a_trained_model_is_saved_and_loaded_with_everything(folder: Path, tmp_path: Path):
    start = merge(tiny("clip"), keep=0.6, cross=True)
    before = weights(start)
    model = train(start, train=captioned(folder), **FAST)
    assert all(torch.equal(value, before[name]) for name, value in weights(start).items())
    assert model.identity.changes[-1]["technique"] == "tokens.train" and model.identity.changes[-1]["steps"] == 6
    assert isinstance(model.finding, TokenTraining) and len(model.finding.task) == 6 == len(model.finding.aligned)
    assert model.finding.summary and model.finding.figures()
    x = feed("clip")
    wanted = plain(model, x)
    assert not torch.allclose(wanted, plain(start, x), atol=1e-3)
    model.save(tmp_path / "saved")
    loaded = ia.load(str(tmp_path / "saved"))
    assert torch.equal(
        installed(loaded.network)["vision"].rule.offsets, installed(model.network)["vision"].rule.offsets
    )
    torch.testing.assert_close(plain(loaded, x), wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", ["siglip", "blip", "blip-vqa", "llava", "class"])
def test_every_kind_learns_from_records(kind: str, folder: Path):
    made = {"blip-vqa": blip_answers, "class": classifier}.get(kind, lambda: tiny(kind))()
    records = {"siglip": captioned(folder), "class": labelled(made, folder)}.get(kind, asked(folder))
    model = train(merge(made, keep=0.6), train=records, **{**FAST, "steps": 16, "batch_size": 6, "anneal": 0.0})
    assert np.mean(model.finding.task[-4:]) < 0.9 * np.mean(model.finding.task[:4])
    assert installed(model.network)


def labelled(model, folder: Path) -> list[ImageText]:
    names = list(model.config.id2label.values())
    return [ImageText(str(folder / f"{i}.png"), label=names[i % 2]) for i in range(6)]


def test_adapters_are_added_to_the_weights_at_the_end(folder: Path):
    start = merge(tiny("llava"), keep=0.6, cross=True)
    before = weights(start)
    model = train(start, train=asked(folder), trains="lora", rank=2, **FAST)
    after = weights(model)
    assert set(after) == set(before) and type(model.network) is type(start.network)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert all(
        "language_model.layers" in n or "multi_modal_projector" in n or n.endswith("offsets") for n in changed
    ), changed
    for part in ("language_model.layers.0", "multi_modal_projector", "vision.offsets"):
        assert any(part in name for name in changed), part
    assert plain(model, feed("llava")).isfinite().all() and installed(model.network)["vision"].flow.traces


def test_epochs_count_in_records_and_pictures_that_are_broken_are_left_out(folder: Path):
    (folder / "5.png").write_bytes(b"no picture")
    with pytest.warns(ia.errors.Note, match="1 of 6 pictures cannot be read"):
        model = train(merge(tiny("clip"), keep=0.6), train=captioned(folder), epochs=2, batch_size=2)
    # five records: two pairs, and one left over that has nothing to be told apart from
    assert len(model.finding.task) == 4 and model.finding.pictures == 5 and model.finding.unread == 1


def test_batches_are_the_same_at_every_call_and_go_round(folder: Path):
    lessons = Lessons(tiny("clip"), captioned(folder), 4, seed=3)
    assert lessons.rounds == 2
    first, again = lessons(5), lessons(5)
    assert all(torch.equal(first[name], again[name]) for name in first)
    ids = [row.tolist() for step in (0, 1) for row in lessons(step)["input_ids"]]
    assert sorted(ids) == sorted(lessons.model.encode([r.text for r in captioned(folder)])["input_ids"].tolist())
    orders = {tuple(map(tuple, lessons._order(number))) for number in range(5)}
    assert len(orders) > 1


def test_equal_pictures_and_equal_words_count_as_right(folder: Path):
    records = [ImageText(str(folder / f"{i}.png"), text) for i, text in ((0, "a"), (0, "b"), (1, "a"), (2, "c"))]
    lessons = Lessons(tiny("clip"), records, 4)
    same = lessons._same(records)
    wanted = [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]
    assert same.int().tolist() == wanted


def test_an_answer_is_learned_and_its_question_is_not(folder: Path):
    records = asked(folder)
    llava = tiny("llava")
    batch = Lessons(llava, records, 6)(0)
    for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
        learned = ids[labels != -100]
        assert llava.tokenizer.decode(learned) in ("yes<|end|>", "no<|end|>")
        assert torch.equal(labels[labels != -100], learned) and (mask[labels != -100] == 1).all()
    blip = tiny("blip")
    for step in range(2):  # questions of two lengths are not mixed
        batch = Lessons(blip, records, 6)(step)
        assert batch["attention_mask"].shape == batch["labels"].shape
        said = {blip.tokenizer.decode(row[row >= 0]) for row in batch["labels"]}
        assert len(said) == 1 and said < {"yes<|end|>", "no<|end|>"}


def test_what_cannot_be_learned_from_is_refused(folder: Path):
    few = {"steps": 1}
    clip = merge(tiny("clip"), keep=0.6)
    with pytest.raises(BadInput, match="pictures with texts"):
        train(clip, train=[ImageText(str(folder / "0.png"))], **few)
    with pytest.raises(BadInput, match="all the same"):
        train(clip, train=[ImageText(str(folder / f"{i}.png"), "a") for i in range(3)], **few)
    with pytest.raises(BadInput, match="questions with answers"):
        train(tiny("llava"), train=[ImageQuestion(str(folder / "0.png"), "what?")], **few)
    with pytest.raises(BadInput, match="learns from pictures with labels"):
        train(classifier(), train=[ImageText(str(folder / "0.png"), label="nothing known")], **few)
    with pytest.raises(BadInput, match="no vision tower"):
        train(tiny("llama"), train=captioned(folder), **few)
    with pytest.raises(BadInput, match="no pictures"):
        train(clip, train=[], **few)
    with pytest.raises(BadInput, match="no cross tokens to train"):
        train(clip, train=captioned(folder), trains="offsets", **few)
    with pytest.raises(BadInput, match="steps"):
        train(clip, train=captioned(folder), steps=0)
