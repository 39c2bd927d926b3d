"""The token-merging test bed: scenes, questions whose answers hold, and training that goes on where it was."""

from __future__ import annotations

import hashlib
import itertools
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench.tokens.bed import asked as asked_module
from bench.tokens.bed import blip, dual, llava, tower, warm, words
from bench.tokens.bed import drawings as drawings_module
from bench.tokens.bed.asked import asked, blind_accuracy, fidelity, judged
from bench.tokens.bed.concepts import COUNTS, NAMES, PLACES, STYLES, UNSEEN_STYLE
from bench.tokens.bed.drawings import data_folder, drawings
from bench.tokens.bed.questions import KINDS, Question, ask, caption
from bench.tokens.bed.scenes import (
    CELL,
    PATCH,
    SIDE,
    Scene,
    Thing,
    cell_concepts,
    draw,
    patch_concepts,
    photo_split,
    picture,
)
from bench.tokens.bed.training import fit
from intarsia.data import shared_data

data = pytest.mark.skipif(shared_data("vision_language") is None, reason="the vision_language data set is not there")


@pytest.fixture(scope="module", autouse=True)
def few_photographs() -> Iterator[None]:
    """A hundred are enough here, and the others take seconds to read."""
    kept = (drawings_module.drawings, asked_module.test_set, asked_module._usual, dual.test_set, tower.lesson)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawings_module, "MOST", 100)
        for function in kept:
            function.cache_clear()
        yield
    for function in kept:
        function.cache_clear()


def scene_of(*things: tuple[str, int, int]) -> Scene:
    """A scene of (name, cell, size index)."""
    made = [Thing(NAMES.index(name), 0, size, 1, cell, 0, 0) for name, cell, size in things]
    return Scene(tuple(made), ((0, 0, 0, 0),) * 4)


def true_answers(scene: Scene, text: str) -> set[str]:
    """All right answers to a question, read from the layout by another way than they were made: rows and columns."""
    word = text.split()
    spots = {(PLACES[t.cell]): t for t in scene.things}
    grid = [[spots.get(PLACES[3 * row + column]) for column in range(3)] for row in range(3)]
    if text.startswith("how many"):
        return {COUNTS[sum(t.name == word[2] for t in scene.things) - 1]}
    if text.startswith("what is at the"):
        return {spots[word[4]].name}
    if text.startswith("where is the only"):
        return {place for place, thing in spots.items() if thing.name == word[4]}
    if text.startswith("is there a"):
        return {"yes" if any(t.name == word[3] for t in scene.things) else "no"}
    if text == "what is the largest thing ?":
        return {t.name for t in scene.things if all(t.pixels >= other.pixels for other in scene.things)}
    found = set()
    for row, column in itertools.product(range(3), range(3)):
        thing = grid[row][column]
        if thing is None or thing.name != word[4]:
            continue
        down, right = {"right-of": (0, 1), "left-of": (0, -1), "above": (-1, 0), "below": (1, 0)}[word[2]]
        other = grid[row + down][column + right]
        found.add(other.name if other else "nothing")
    return found


def test_questions_of_a_known_scene() -> None:
    scene = scene_of(("bee", 0, 0), ("bee", 4, 0), ("car", 5, 5))
    rng = np.random.default_rng(0)
    seen = {kind: {ask(scene, kind, rng) for _ in range(60)} for kind in KINDS}
    assert {(q.text, q.answer) for q in seen["count"]} == {
        ("how many bee are there ?", "two"), ("how many car are there ?", "one")
    }  # fmt: skip
    assert {(q.text, q.answer) for q in seen["at"]} == {
        ("what is at the top-left ?", "bee"), ("what is at the center ?", "bee"), ("what is at the right ?", "car")
    }  # fmt: skip
    assert seen["where"] == {Question("where", "where is the only car ?", "right")}
    assert seen["beside"] == {Question("beside", "what is left-of the car ?", "bee")}
    assert seen["largest"] == {Question("largest", "what is the largest thing ?", "car")}
    assert {q.answer for q in seen["exists"]} == {"yes", "no"}
    # Nobody stands beside the only single thing; none is clearly the largest.
    alone = scene_of(("bee", 0, 3), ("bee", 1, 3), ("car", 8, 3))
    assert ask(alone, "beside", rng) is None and ask(alone, "largest", rng) is None


def test_words() -> None:
    text = "is there a bee here ?"
    assert words.tokenizer()(text)["input_ids"] == words.ids(text) and len(words.ids(text)) == words.QUESTION
    assert len(set(words.WORDS)) == len(words.WORDS)
    assert words.tokenizer().pad_token_id == words.PAD and words.tokenizer().eos_token_id == words.EOS


def test_judging() -> None:
    questions = (Question("count", "", "one"), Question("at", "", "bee"), Question("exists", "", "yes"))
    answers = torch.tensor([words.IDS[q.answer] for q in questions])
    scores = torch.zeros(3, len(words.WORDS))
    scores[[0, 2], answers[[0, 2]]] = 1.0
    made = asked_module.Asked(torch.zeros(3, 0), torch.zeros(3, 0), answers, (), questions)
    found = judged(scores, made)
    assert found["accuracy"] == 0.5 and found["all"] == pytest.approx(2 / 3)
    assert (found["accuracy_count"], found["accuracy_at"], found["accuracy_exists"]) == (1.0, 0.0, 1.0)
    assert found["standard_error"] == pytest.approx((0.25 / 2) ** 0.5)
    assert made.open.tolist() == [True, True, False]
    # A constant added to all scores changes no answer and no fidelity.
    assert fidelity({"embedding": found["embedding"][[0, 2]]}, {"embedding": judged(scores + 3, made)["embedding"][
        [0, 2]]}) == pytest.approx(1.0)  # fmt: skip


@data
def test_scenes_are_what_they_say() -> None:
    art = drawings()
    rng = np.random.default_rng(3)
    for _ in range(60):
        scene = draw(rng, art)
        assert 4 <= len(scene.things) <= 6
        cells = cell_concepts(scene)
        assert len({t.cell for t in scene.things}) == len(scene.things) == (cells > 0).sum()
        for thing in scene.things:
            height, width = art.sprites[thing.concept][thing.style][thing.size][thing.turn][1].shape[:2]
            assert max(height, width) == thing.pixels and STYLES[thing.style] != UNSEEN_STYLE
            row, column = divmod(thing.cell, 3)
            assert column * CELL <= thing.left and thing.left + width <= (column + 1) * CELL
            assert row * CELL <= thing.top and thing.top + height <= (row + 1) * CELL
        # A thing changes the picture where its patches say it is, and nowhere else.
        shown, bare = picture(scene, art), picture(Scene((), scene.photos), art)
        changed = np.abs(shown - bare).sum(-1).reshape(SIDE // PATCH, PATCH, SIDE // PATCH, PATCH).max((1, 3)) > 0
        patches = patch_concepts(scene, art).reshape(SIDE // PATCH, SIDE // PATCH)
        assert changed[patches > 0].all() and (patches > 0).sum() >= len(scene.things)
        assert set(patches[patches > 0] - 1) <= {t.concept for t in scene.things}
        assert shown.min() >= 0 and shown.max() <= 255.01


@data
def test_answers_are_true_and_deterministic() -> None:
    one, again, other = asked(5, 0, 60, 5), asked(5, 0, 60, 5), asked(5, 1, 60, 5)
    assert torch.equal(one.pixels, again.pixels) and one.asked == again.asked
    assert not torch.equal(one.pixels, other.pixels)
    for row, question in enumerate(one.asked):
        assert true_answers(one.scenes[row // 5], question.text) == {question.answer}, question
        assert words.ids(question.text) == one.questions[row].tolist()
        assert words.IDS[question.answer] == one.answers[row]
    assert set(Counter(q.kind for q in one.asked)) == set(KINDS)


@data
def test_captions_are_true() -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        scene = draw(rng, drawings())
        said = [part.split() for part in caption(scene, rng).split(" , ")]
        assert Counter(part[0] for part in said) == Counter(t.name for t in scene.things)
        there = {(t.name, PLACES[t.cell]) for t in scene.things}
        assert all(tuple(part) in there for part in said if len(part) == 2)
        assert 2 + len(words.ids(caption(scene, rng))) <= words.CAPTION


@data
def test_splits_share_no_picture() -> None:
    assert [photo_split(split) for split in ("train", "test", "unseen")] == ["train", "test", "test"]
    with zipfile.ZipFile(data_folder() / "cifar10_subset" / "images.zip") as pack:
        photos = {
            split: {hashlib.sha256(pack.read(n)).digest() for n in pack.namelist() if n.startswith(f"{split}/")}
            for split in ("train", "test")
        }
    assert len(photos["train"]) > 7000 and not photos["train"] & photos["test"]
    unseen = asked(5, 0, 20, split="unseen")
    assert {STYLES[t.style] for scene in unseen.scenes for t in scene.things} == {UNSEEN_STYLE}


@data
def test_who_cannot_see_fails() -> None:
    blind = blind_accuracy(asked(6, 0, 400).asked, size=1000)
    assert blind["accuracy"] < 0.2 and blind["accuracy_count"] < 0.45 and blind["accuracy_exists"] < 0.6


@data
def test_batches_are_ready_for_the_networks() -> None:
    for module in (dual, blip, llava):
        torch.manual_seed(0)
        network = module.build().eval()
        batch, same = next(module.batches(3, 4)), next(module.batches(3, 4))
        assert all(torch.equal(value, same[name]) for name, value in batch.items())
        loss = module.task_loss(network, batch)
        loss.backward()
        assert loss.isfinite() and any(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())
        found = module.evaluate(network, size=24)
        assert 0 <= found["accuracy"] <= 0.5 and found["embedding"].isfinite().all()
        assert fidelity(found, found) == pytest.approx(1.0)


@data
def test_turns_of_a_conversation_equal_single_questions() -> None:
    torch.manual_seed(0)
    network = llava.build().eval()
    several = asked(8, 0, 2, 3)
    batch = llava.inputs(several, 3)
    assert (batch["labels"] != llava.IGNORED).sum() == 6
    firsts = asked_module.Asked(several.pixels, several.questions[::3], several.answers[::3], (), several.asked[::3])
    single = llava.inputs(firsts)
    with torch.no_grad():
        place = single["input_ids"].shape[1] - 2
        long, short = network(**batch).logits[:, place], network(**single).logits[:, place]
    assert torch.allclose(long, short, atol=1e-5)
    assert torch.equal(batch["labels"][:, place + 1], firsts.answers)


@data
def test_blip_tower_starts_near_the_clip_tower() -> None:
    clip = tower.started(data_folder()).eval()
    pixels = tower.lesson(0, 0, 8)[0]
    near = blip.without_first_norm(clip, pixels).eval()
    with torch.no_grad():
        wanted = clip.post_layernorm(clip(pixel_values=pixels).last_hidden_state)
        got = near(pixel_values=pixels).last_hidden_state
    assert nn.functional.cosine_similarity(wanted, got, dim=-1).mean() > 0.9


@data
def test_words_find_what_they_name_before_any_training() -> None:
    # A tower whose patches show one thing clearly: the row of its word must look there, in both models.
    torch.manual_seed(0)
    localiser = tower.Localiser(tower.started(data_folder()))
    vectors = warm.directions(localiser, normed=True)
    assert set(vectors) == {words.IDS[word] for word in (*NAMES, *PLACES)}
    row = localiser.tower.post_layernorm(torch.randn(4, 7, tower.WIDTH))
    for names, head in ((NAMES, localiser.patches.weight[1:]), (PLACES, localiser.places.weight)):
        for number, name in enumerate(names):
            # Higher along the word's direction, higher in the head's score over the mean of all scores.
            moved = row + vectors[words.IDS[name]]
            scores = (moved - row) @ head.T
            assert (scores[..., number] > scores.mean(-1)).all()
    network = blip.build()
    blip.look(network, localiser)
    embedding = network.text_encoder.embeddings.word_embeddings.weight
    token = words.IDS["bee"]
    assert torch.allclose(embedding[token] / embedding[token].norm(), vectors[token], atol=1e-5)


@data
def test_projector_gives_out_what_the_tower_shows() -> None:
    torch.manual_seed(0)
    localiser = tower.Localiser(tower.started(data_folder()))
    network = llava.build().eval()
    network.model.vision_tower.load_state_dict(localiser.tower.state_dict())
    pixels = tower.lesson(0, 0, 8)[0]
    llava.look(network, localiser, pixels)
    with torch.no_grad():
        rows = localiser.tower(pixel_values=pixels).last_hidden_state[:, 1:]
        given = torch.stack(network.get_image_features(pixel_values=pixels).pooler_output)
    centred = [x - x.mean((0, 1)) for x in (rows, given)]
    assert nn.functional.cosine_similarity(*centred, dim=-1).mean() > 0.95


class Killed(Exception):
    """Stands for a kill."""


def test_training_goes_on_where_it_was(tmp_path: Path) -> None:
    def run(path: Path, dies_at: int | None) -> nn.Module:
        torch.manual_seed(0)
        module = nn.Linear(3, 1)

        def loss(step: int) -> torch.Tensor:
            if step == dies_at:
                raise Killed
            steps.append(step)
            return module(torch.randn(8, 3, generator=torch.Generator().manual_seed(step))).square().mean()

        return fit(module, loss, path, steps=3, rate=0.1, warmup=1, every_s=0.0, say=lambda text: None)

    steps: list[int] = []
    whole = run(tmp_path / "whole.pt", None)
    with pytest.raises(Killed):
        run(tmp_path / "cut.pt", 2)
    assert not (tmp_path / "cut.pt").exists() and (tmp_path / "cut.part").exists()
    resumed = run(tmp_path / "cut.pt", None)
    assert steps == [0, 1, 2, 0, 1, 2] and not (tmp_path / "cut.part").exists()
    assert torch.equal(whole.weight, resumed.weight) and torch.equal(whole.bias, resumed.bias)
    # A finished one is only read.
    assert torch.equal(run(tmp_path / "cut.pt", 0).weight, whole.weight) and len(steps) == 6
