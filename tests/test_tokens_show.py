"""Which patches went where: the groups that are drawn are those the network worked with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from intarsia.errors import BadInput
from intarsia.models.seeing import embed_pictures
from intarsia.report import Finding, render_finding
from intarsia.sites.recomposing import installed
from intarsia.tokens import TokenMaps, merge, show
from intarsia.tokens.likeness import likeness
from intarsia.tokens.matching import Pairs
from tests.tiny import tiny
from tests.tokens_help import blip_answers, classifier, folder, no_notes, pictures


@pytest.fixture(autouse=True)
def quiet():
    with no_notes():
        yield


def test_groups_are_those_of_the_rows_by_hand() -> None:
    model = merge(tiny("clip"), removed=(4, 3, 0))
    found = show(model, images=pictures(5), pictures=5, batch_size=2)
    for index, picture in enumerate(pictures(5)):
        from intarsia.models.pixels import pixels

        with torch.no_grad():
            embed_pictures(model, pixels(model, [picture]))
        flow = installed(model.network)["vision"].flow
        owner = flow.traces[-1].owner[0, 1:].tolist()  # without the class token
        drawn = found.maps[index].panels
        assert [panel.name for panel in drawn] == [
            "as seen: 16 patches", "after vision block 0: 12 left", "after vision block 1: 9 left"
        ]  # fmt: skip
        pairs = {(a, b) for a in range(16) for b in range(16) if owner[a] == owner[b]}
        groups = drawn[-1].groups
        assert {(a, b) for a in range(16) for b in range(16) if groups[a] == groups[b]} == pairs
        assert found.pictures[index].left == len(set(owner)) == 9
        assert found.pictures[index].largest == max(owner.count(row) for row in owner)
    assert [(b.before, b.after) for b in found.blocks_] == [(17, 13), (13, 10)]


def test_similarity_is_the_cosine_of_what_was_compared() -> None:
    metric = torch.randn(2, 5, 4, dtype=torch.float64)
    pairs = Pairs(
        torch.tensor([[0, 2], [3, 1]]), torch.tensor([[1, 4], [0, 0]]), torch.tensor([[True, True], [True, False]])
    )
    found = likeness(metric, pairs)
    for b, i, s, t in ((0, 0, 0, 1), (0, 1, 2, 4), (1, 0, 3, 0)):
        a, c = metric[b, s], metric[b, t]
        assert float(found[b, i]) == pytest.approx(float(a @ c / (a.norm() * c.norm())), abs=1e-5)
    assert found[1, 1].isnan()


def test_nothing_is_kept_when_nobody_looks() -> None:
    model = merge(tiny("clip"), keep=0.6)
    found = show(model, images=pictures(3))
    assert all(-1 <= b.lowest <= b.similarity <= 1 for b in found.blocks_)
    from intarsia.models.pixels import pixels

    embed_pictures(model, pixels(model, pictures(1)))
    assert all(trace.score is None for trace in installed(model.network)["vision"].flow.traces)


def test_more_alike_pictures_have_more_alike_pairs() -> None:
    from PIL import Image

    model = tiny("clip")
    plain = show(model, images=[Image.new("RGB", (16, 16), (90, 30, 200))] * 2, keep=0.7)
    noisy = show(model, images=pictures(2), keep=0.7)
    assert plain.blocks_[0].similarity > noisy.blocks_[0].similarity


def test_a_dense_model_is_merged_by_the_settings_and_stays_dense() -> None:
    model = tiny("clip")
    found = show(model, images=pictures(2), keep=0.6, matcher="bipartite")
    assert found.blocks_ and not installed(model.network)
    same = show(merge(model, keep=0.6, matcher="bipartite"), images=pictures(2))
    assert same.maps == found.maps


def test_pruned_patches_are_struck_through() -> None:
    found = show(tiny("clip"), images=pictures(1), matcher="prune", removed=(5, 0, 0))
    last = found.maps[0].panels[-1].groups
    assert last.count(-1) == 5 and found.pictures[0].left == 11
    assert found.blocks_[0].similarity is None and 'class="gone"' in render_finding(found)


def test_siglip_blip_and_classifiers_have_maps() -> None:
    for model in (tiny("siglip"), blip_answers(), classifier()):
        found = show(model, images=pictures(2), keep=0.6, panels=1)
        assert len(found.maps) == 2 and [len(m.panels) for m in found.maps] == [2, 2]
        assert all(1 <= p.left < 16 for p in found.pictures)


def test_a_language_models_own_step_comes_after_the_towers() -> None:
    found = show(tiny("llava"), images=pictures(2), keep=0.7, decoder_keep=0.5)
    names = [panel.name for panel in found.maps[0].panels]
    assert names[-1].startswith("after text block 1") and names[1].startswith("after vision block 0")
    assert not any("text block 0" in name for name in names)  # taking up the tower's rows groups nothing anew
    vision, last = found.maps[0].panels[-2].groups, found.maps[0].panels[-1].groups
    where = {}
    for old, new in zip(vision, last, strict=True):
        assert where.setdefault(old, new) == new  # what was one row stays one row
    assert len(set(last)) < len(set(vision))
    only = show(tiny("llava"), images=pictures(1), keep=1.0, decoder_keep=0.5, matcher="prune", importance="attention")
    assert [b.tower for b in only.blocks_] == ["text"] and -1 in only.maps[0].panels[-1].groups


def test_keep_one_says_that_nothing_was_merged() -> None:
    found = show(tiny("clip"), images=pictures(1), keep=1.0)
    assert "Nothing was merged" in found.summary and found.pictures[0].left == 16
    assert str(found) and render_finding(found)


def test_pictures_from_a_folder_broken_ones_counted(tmp_path: Path) -> None:
    found = show(tiny("clip"), images=str(folder(tmp_path, 4, broken=2)), keep=0.6, pictures=1, panels=1)
    assert found.unread == 2 and [p.name for p in found.pictures] == ["0.png", "1.png", "2.png", "3.png"]
    few = show(tiny("clip"), images=str(tmp_path), keep=0.6, max_pictures=2, seed=3)
    assert len(few.pictures) == 2  # broken ones are not among those wanted


def test_it_draws_and_survives_json() -> None:
    found = show(tiny("clip"), images=pictures(2), keep=0.6)
    again = Finding.from_json(found.to_json())
    assert isinstance(again, TokenMaps) and again == found
    page, text = render_finding(found), str(found)
    assert page.count("<image id=") == 2 and "left as rows" in text and "Block by block" in text


def test_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no vision tower"):
        show(tiny("llama"), images=pictures(1))
    with pytest.raises(BadInput, match="merged already, by its own settings: leave out keep"):
        show(merge(tiny("clip"), keep=0.6), images=pictures(1), keep=0.5)
    with pytest.raises(BadInput, match="keep is 0: give the share"):
        show(tiny("clip"), images=pictures(1), keep=0.0)
    with pytest.raises(BadInput, match="none of 2 pictures can be read"):
        show(tiny("clip"), images=str(folder(tmp_path, 0, broken=2)))
    with pytest.raises(BadInput, match="no pictures given"):
        show(tiny("clip"), images=[])
