"""The table of methods: every figure against a naive one; texts matched to pictures; the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from intarsia.data import ImageQuestion, ImageText, Text, shared_data
from intarsia.errors import BadInput
from intarsia.measure import count_macs
from intarsia.models import load
from intarsia.models.pixels import pixels
from intarsia.models.seeing import answer, embed_pictures, embed_texts, question_inputs
from intarsia.report import Finding, render_finding
from intarsia.sites.recomposing import installed
from intarsia.tokens import TokenComparison, compare, diff, merge
from intarsia.tokens.compare import METHODS
from intarsia.tokens.outcomes import Asking, divergences, outcome, same_words
from intarsia.tokens.subjects import own_text, subjects
from tests.tiny import tiny
from tests.tokens_help import blip_answers, classifier, folder, no_notes, pictures

SAID = ["az", "by", "cz", "dy", "ez"]
ONE = {"keeps": (0.7,), "rounds": 0}


@pytest.fixture(autouse=True)
def quiet():
    with no_notes():
        yield


def unit(x: torch.Tensor) -> torch.Tensor:
    return x.double() / x.double().norm(dim=-1, keepdim=True)


# ---- every figure, naively


def test_a_row_is_what_merging_by_hand_gives() -> None:
    model, shown = tiny("clip"), pictures(5)
    said = SAID
    found = compare(model, images=shown, texts=said, methods=("bipartite",), batch_size=2, **ONE)
    dense, row = found.rows
    merged = merge(model, keep=0.7, matcher="bipartite", importance="none")
    values = pixels(model, shown)
    with torch.no_grad():
        texts = unit(embed_texts(model, said))
        before, after = (unit(embed_pictures(m, values)) for m in (model, merged))
        macs = [count_macs(lambda m=m: embed_pictures(m, values)).macs / 5 for m in (model, merged)]
    assert row.fidelity == pytest.approx(float((before * after).sum(1).mean()), abs=1e-6)
    assert row.worst == pytest.approx(float((before * after).sum(1).min()), abs=1e-6)
    assert (dense.gmacs, row.gmacs) == pytest.approx((macs[0] / 1e9, macs[1] / 1e9))
    assert row.share == pytest.approx(macs[1] / macs[0]) and row.share < 0.9
    scale = model.network.logit_scale.exp().item()
    p, q = ((scale * v @ texts.T).softmax(-1) for v in (before, after))
    assert row.kl == pytest.approx(float((p * (p / q).log()).sum(1).mean()), rel=1e-3)
    right = [int((a @ texts.T).argmax()) == i for i, a in enumerate(after)]
    back = [int((after @ texts[i]).argmax()) == i for i in range(5)]
    assert row.accuracy == {"image→text R@1": sum(right) / 5, "text→image R@1": sum(back) / 5}
    agree = [(a @ texts.T).argmax() == (b @ texts.T).argmax() for a, b in zip(before, after, strict=True)]
    assert row.agreement == pytest.approx(sum(map(float, agree)) / 5)


def test_the_dense_row_and_keep_one_are_exact() -> None:
    found = compare(tiny("clip"), images=pictures(3), texts=["a", "b"], methods=("dominance",), keeps=(1.0,), rounds=0)
    dense, row = found.rows
    assert (dense.fidelity, dense.kl, dense.agreement, dense.share) == (1, 0, 1, 1)
    assert row.fidelity == pytest.approx(1, abs=1e-6) and row.kl == 0 and row.share == 1 and row.agreement == 1


@pytest.mark.parametrize("family", ["llava", "blip"])
def test_answers_are_compared_by_hand(family: str) -> None:
    model = tiny("llava") if family == "llava" else blip_answers()
    shown, asked = pictures(3), "how many boxes?"
    found = compare(model, images=shown, texts=[asked], methods=("dominance",), new_tokens=3, **ONE)
    merged = merge(model, keep=0.7, importance="attention")
    values = pixels(model, shown)
    both = [answer(m, question_inputs(m, values, [asked] * 3), 3) for m in (model, merged)]
    p, q = (one.first.double() for one in both)
    assert found.rows[1].kl == pytest.approx(float((p.exp() * (p - q)).sum(1).mean()), rel=1e-3, abs=1e-7)
    same = [same_words(a) == same_words(b) for a, b in zip(both[0].texts, both[1].texts, strict=True)]
    assert found.rows[1].agreement == pytest.approx(sum(same) / 3) and found.asked == 3
    given = question_inputs(model, values, [asked] * 3)
    dense = count_macs(lambda: answer(model, given, 1)).macs / 3
    assert found.rows[0].gmacs == pytest.approx(dense / 1e9) and found.rows[1].share < 0.95
    assert found.rows[1].fidelity is None and not found.rows[1].accuracy


def test_known_answers_give_an_accuracy() -> None:
    model, shown = tiny("llava"), pictures(2)
    written = answer(model, question_inputs(model, pixels(model, shown), ["a?", "b?"]), 8).texts
    records = [ImageQuestion(p, q, a) for p, q, a in zip(shown, ["a?", "b?"], [written[0], "never"], strict=True)]
    found = compare(model, images=records, methods=("random",), **ONE)
    assert same_words(written[0]) and found.rows[0].accuracy == {"answers right": 0.5}


def test_classes_of_a_classifier() -> None:
    model, shown = classifier(), pictures(4)
    with torch.no_grad():
        best = model.network(pixel_values=pixels(model, shown)).logits.argmax(1).tolist()
    said = [model.config.id2label[i] for i in best]
    said[0] = "bird" if said[0] != "bird" else "cat"
    records = [ImageText(p, label=s) for p, s in zip(shown, said, strict=True)]
    found = compare(model, images=records, methods=("dominance",), **ONE)
    assert found.kind == "class" and found.rows[0].accuracy == {"class right": 0.75} and found.rows[1].kl > 0


# ---- methods


def test_all_methods_run_where_they_have_a_place() -> None:
    both = compare(tiny("llava"), images=pictures(2), texts=["what?"], new_tokens=1, **ONE)
    assert [row.method for row in both.rows] == ["dense", *METHODS] and not both.notes
    assert all(row.share < 0.95 for row in both.rows[1:])
    dual = compare(tiny("siglip"), images=pictures(2), **ONE)
    assert [row.method for row in dual.rows] == ["dense", *(m for m in METHODS if not m.startswith("llm-"))]
    assert all(0 < row.fidelity < 1 for row in dual.rows[1:])


def test_the_model_is_left_alone_and_methods_do_not_touch_each_other() -> None:
    model = tiny("clip")
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    many = compare(model, images=pictures(3), methods=("random", "bipartite"), **ONE)
    alone = compare(model, images=pictures(3), methods=("bipartite",), **ONE)
    assert many.rows[2] == alone.rows[1]
    assert not installed(model.network)
    assert all(torch.equal(before[name], value) for name, value in model.network.state_dict().items())


def test_a_share_that_a_language_model_cannot_save_is_said() -> None:
    found = compare(
        tiny("llava"), images=pictures(1), texts=["a"], methods=("llm-prune",), keeps=(0.1,), rounds=0, new_tokens=1
    )
    assert "can bring the work down to" in found.rows[1].note and found.rows[1].note in found.notes[0]


def test_speeds_are_ratios_and_do_not_count_as_results() -> None:
    found = compare(tiny("clip"), images=pictures(2), methods=("random",), keeps=(0.7,), rounds=2)
    ratio = found.speed_of(found.rows[1])
    assert ratio[1] <= ratio[0] <= ratio[2] and found.rate > 0
    assert {"speeds", "rate"} <= found.volatile and found.speed_of(found.rows[0]) is None


# ---- texts and pictures


def test_captions_by_order_by_file_and_candidates(tmp_path: Path) -> None:
    place = folder(tmp_path / "p", 3, broken=0)
    model = tiny("clip")
    by_order = subjects(model, str(place), [Text("a"), Text("b"), Text("c")])
    assert by_order.captions == ["a", "b", "c"] == by_order.texts and own_text(by_order) == [0, 1, 2]
    by_file = subjects(model, str(place), [ImageText("elsewhere/2.png", "z"), ImageText(str(place / "0.png"), "x")])
    assert by_file.captions is None  # one picture has none
    whole = subjects(model, str(place), [ImageText(f"{i}.png", f"t{i}") for i in (2, 0, 1)])
    assert whole.captions == ["t0", "t1", "t2"]
    loose = subjects(model, str(place), ["x", "y", "x"][:2])
    assert loose.captions is None and loose.texts == ["x", "y"] and own_text(loose) is None
    (place / "1.png").write_bytes(b"broken")
    left = subjects(model, str(place), ["a", "b", "c"])
    assert left.captions == ["a", "c"] and left.unread == 1  # the order is that of the folder, broken ones included


def test_labels_from_folders_are_matched_to_texts(tmp_path: Path) -> None:
    place = folder(tmp_path, 4, broken=0, kinds=("cat", "hot_dog"))
    model = tiny("clip")
    named = subjects(model, str(place), ["a photo of a hot dog", "a picture of a cat.", "a bird"])
    assert own_text(named) == [1, 1, 0, 0]
    made = subjects(model, str(place))
    assert made.texts == ["a photo of a cat", "a photo of a hot_dog"] and own_text(made) == [0, 0, 1, 1]
    unclear = subjects(model, str(place), ["a cat", "a cat and a hot dog"])
    assert own_text(unclear) is None
    assert own_text(subjects(model, str(place), ["cat", "cats", "hot dog"])) == [0, 0, 2, 2]


def test_questions_for_all_or_their_own(tmp_path: Path) -> None:
    model, place = tiny("llava"), folder(tmp_path, 2, broken=0)
    both = subjects(model, str(place), ["what?", "why?", "who?"])
    assert [(a.picture, a.question) for a in both.asked[:3]] == [(0, "what?"), (0, "why?"), (0, "who?")]
    assert len(both.asked) == 6
    own = subjects(model, str(place), [ImageQuestion("1.png", "how many?", "2"), ImageQuestion("1.png", "which?", "")])
    assert [(a.picture, a.question, a.answer) for a in own.asked] == [(1, "how many?", "2"), (1, "which?", "")]
    assert len(subjects(model, [ImageQuestion(str(place / "0.png"), q) for q in "abc"])) == 1
    assert [a.question for a in subjects(model, str(place)).asked] == ["Describe the picture."] * 2


def test_equal_captions_are_both_right() -> None:
    model, shown = tiny("clip"), pictures(4)
    found = subjects(model, [ImageText(p, t) for p, t in zip(shown, ["x", "x", "y", "y"], strict=True)])
    result = outcome(model, found, Asking())
    with torch.no_grad():
        scores = result.vectors @ unit(embed_texts(model, ["x", "y"])).float().T
    best = [int(scores[:, t].argmax()) for t in (0, 0, 1, 1)]
    assert [rank == 1 for rank in result.back] == [best[i] in ((0, 1) if i < 2 else (2, 3)) for i in range(4)]


def test_words_are_compared_as_vqa_does() -> None:
    assert same_words(" The  Red box. ") == same_words("a red BOX") != same_words("red boxes")
    assert same_words("?") == "?" != same_words("!")  # nothing but signs is compared as it stands


def test_divergence_is_zero_only_for_equals() -> None:
    one = outcome(classifier(), subjects(classifier(), pictures(3)), Asking())
    other = outcome(classifier(1), subjects(classifier(1), pictures(3)), Asking())
    assert divergences(one, one) == [0, 0, 0] and min(divergences(one, other)) > 0


def test_more_pictures_than_wanted_are_drawn_by_the_seed() -> None:
    shown = pictures(9)
    first, again, other = (subjects(tiny("clip"), shown, most=4, seed=seed).names for seed in (0, 0, 1))
    assert first == again != other and len(first) == 4
    assert subjects(tiny("clip"), shown, most=4).unused == 5


# ---- merge and its table


def test_merge_with_pictures_leaves_the_table() -> None:
    model = tiny("clip")
    merged = merge(model, keep=0.7, images=pictures(4), texts=["a", "b", "c", "d"])
    found = merged.finding
    assert isinstance(found, TokenComparison)
    assert [row.method for row in found.rows] == ["dense", "this", "bipartite", "random", "prune"]
    alone = compare(model, images=pictures(4), texts=["a", "b", "c", "d"], methods=("dominance", "bipartite"), **ONE)
    for mine, same in ((found.rows[1], alone.rows[1]), (found.rows[2], alone.rows[2])):
        assert mine.model_copy(update={"method": ""}) == same.model_copy(update={"method": ""})
    assert set(found.headline()) == {"gmacs_share", "fidelity", "agreement"}
    assert merge(model, keep=0.7).finding is None
    assert merge(model, keep=0.7, images=pictures(2), compare=False).finding is None
    assert merged.copy().finding is None  # it is about this model only


def test_broken_pictures_do_not_stop_a_measured_schedule(tmp_path: Path) -> None:
    place = folder(tmp_path, 3, broken=2)
    merged = merge(tiny("clip"), keep=0.7, schedule="sensitivity", images=str(place), compare=False)
    assert installed(merged.network) and merged.finding is None
    assert merge(tiny("clip"), keep=0.7, schedule="sensitivity", images=str(place)).finding.unread == 2


def test_the_command_gives_the_model_and_the_table(tmp_path: Path, capsys) -> None:
    from intarsia.cli import app

    tiny("clip").save(tmp_path / "m")
    place = folder(tmp_path / "pictures", 4, broken=1)
    (tmp_path / "texts.txt").write_text("one\ntwo\nthree\n")
    call = ["tokens", "merge", "--model", str(tmp_path / "m"), "--keep", "0.7", "--images", str(place)]
    call += ["--texts", str(tmp_path / "texts.txt"), "--out"]
    assert app.run([*call, str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    assert "Fewer tokens: what they cost and what they save" in told.out and "bipartite" in told.out
    assert "1 of 5 pictures cannot be read and were left out" in told.err and f"saved: {tmp_path / 'out'}" in told.err
    merged = load(tmp_path / "out")
    assert installed(merged.network) and merged.identity.changes[-1]["technique"] == "tokens.merge"
    assert app.run([*call, str(tmp_path / "json"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["model"] == str(tmp_path / "json") and said["finding"]["type"] == "TokenComparison"
    against = ["--against", str(tmp_path / "m"), "--images", str(place), "--html", str(tmp_path / "d.html")]
    assert app.run(["tokens", "diff", "--model", str(tmp_path / "out"), *against]) == 0
    assert "data:image/png" in (tmp_path / "d.html").read_text()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--keep", "0"], "keep is 0: give the share to keep, above 0 and at most 1"),
        (["--keep", "1.5"], "keep is 1.5"),
        (["--images", "text"], "is a folder without pictures"),
        (["--images", "broken"], "none of 2 pictures can be read"),
        (["--images", "nowhere"], "no such file"),
        (["--model", "llama"], "has no vision tower"),
    ],
)
def test_the_command_refuses_in_one_line(tmp_path: Path, capsys, monkeypatch, arguments, words) -> None:
    from intarsia.cli import app

    monkeypatch.chdir(tmp_path)
    tiny("clip").save(tmp_path / "m")
    tiny("llama").save(tmp_path / "llama")
    folder(tmp_path / "broken", 1, broken=2)
    (tmp_path / "broken" / "0.png").unlink()
    (tmp_path / "text").mkdir()
    call = ["tokens", "merge", "--model", "m", "--images", str(folder(tmp_path / "p", 2)), "--out", "out", *arguments]
    assert app.run(call) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "note:" not in line]
    assert len(errors) == 1 and words in errors[0] and not (tmp_path / "out").exists()


def test_a_recipe_keeps_the_finding_of_a_change(tmp_path: Path, monkeypatch) -> None:
    from intarsia.recipes import Recipe, run

    monkeypatch.chdir(tmp_path)
    tiny("clip").save(tmp_path / "m")
    folder(tmp_path / "p", 3, broken=0)
    text = (
        "name: small\nmodel: m\ndata: {images: p}\nsteps:\n"
        "  - tokens.merge: {keep: 0.7}\n    as: small\n"
        "  - tokens.diff: {on: small, against: base, worst: 1}\n"
    )
    (tmp_path / "r.yaml").write_text(text)
    bundle = run(Recipe.read("r.yaml"), tmp_path / "out")
    assert [entry.technique for entry in bundle.entries] == ["tokens.merge", "tokens.diff"]
    assert [entry.on for entry in bundle.entries] == ["small", "small"]
    page = bundle.report.read_text()
    assert "Fewer tokens" in page and "<image id=" in page and "Diff: small against base" in page


def test_it_draws_and_survives_json() -> None:
    found = compare(tiny("clip"), images=pictures(3), texts=["a", "b", "c"], keeps=(0.8, 0.6), rounds=1)
    again = Finding.from_json(found.to_json())
    assert isinstance(again, TokenComparison) and again == found
    titles = [figure.title for figure in found.figures()]
    assert titles == ["What is lost of the embeddings", "How far the answers move"]
    assert "Asked to keep" in found.summary and "standard error" in found.summary
    assert "ToMe" in str(found) and render_finding(found).count('<svg class="chart"') >= 4


def test_clear_errors() -> None:
    shown = pictures(1)
    with pytest.raises(BadInput, match="has no vision tower"):
        compare(tiny("llama"), images=shown)
    with pytest.raises(BadInput, match="merged already"):
        compare(merge(tiny("clip"), keep=0.7), images=shown)
    with pytest.raises(BadInput, match="keeps holds 0"):
        compare(tiny("clip"), images=shown, keeps=(0.0,))
    with pytest.raises(BadInput, match="keeps is empty"):
        compare(tiny("clip"), images=shown, keeps=())
    with pytest.raises(BadInput, match="llm-prune works in a language model that reads pictures, which CLIPModel"):
        compare(tiny("clip"), images=shown, methods=("llm-prune",))
    with pytest.raises(BadInput, match="none of the methods can be put on this model"):
        compare(tiny("clip"), images=shown, methods=("random",), keeps=(0.001,))


# ---- diff


def test_diff_rows_by_hand_and_worst_first() -> None:
    model, shown = tiny("clip"), pictures(5)
    merged = merge(model, keep=0.6)
    found = diff(merged, against=model, images=shown, texts=SAID, worst=2)
    values = pixels(model, shown)
    with torch.no_grad():
        before, after = (unit(embed_pictures(m, values)) for m in (model, merged))
        texts = unit(embed_texts(model, SAID))
    near = (before * after).sum(1).tolist()
    order = sorted(range(5), key=lambda i: near[i])
    assert [row.name for row in found.moved] == [f"picture {i + 1}" for i in order]
    for row, i in zip(found.moved, order, strict=True):
        assert row.fidelity == pytest.approx(near[i], abs=1e-6) and row.wanted == SAID[i]
        scores = [v[i] @ texts.T for v in (before, after)]
        ranks = [int((score > score[i]).sum()) + 1 for score in scores]
        assert [row.rank_before, row.rank_after] == ranks
        firsts = [SAID[int((v[i] @ texts.T).argmax())] for v in (before, after)]
        assert [row.before, row.after] == firsts and row.changed == (firsts[0] != firsts[1])
    assert [m.title for m in found.maps] == [row.name for row in found.moved[:2]]
    assert found.fidelity[0] == pytest.approx(sum(near) / 5, abs=1e-6)
    lost = sum(a.rank_before == 1 and a.rank_after > 1 for a in found.moved)
    assert found.lost == lost


def test_diff_with_itself_is_nothing() -> None:
    model = tiny("clip")
    found = diff(model, against=model, images=pictures(3), texts=["a", "b"])
    assert found.fidelity[0] == pytest.approx(1, abs=1e-6) and found.kl == 0 and not found.maps
    assert found.agreement[0] == 1 and not any(row.changed for row in found.moved)


@pytest.mark.parametrize("family", ["llava", "blip"])
def test_diff_of_answers(family: str) -> None:
    model = tiny("llava") if family == "llava" else blip_answers()
    found = diff(merge(model, keep=0.6), against=model, images=pictures(2), texts=["what?", "why?"], new_tokens=3)
    assert len(found.moved) == 4 and found.moved[0].kl >= found.moved[-1].kl > 0
    assert len(found.maps) == 2 and "first choice changed for" in found.summary
    assert Finding.from_json(found.to_json()) == found and str(found)


def test_diff_refuses_models_that_do_different_things() -> None:
    with pytest.raises(BadInput, match="do different things with a picture"):
        diff(tiny("clip"), against=tiny("llava"), images=pictures(1))
    with pytest.raises(BadInput, match="no vision tower"):
        diff(tiny("llama"), against=tiny("llama"), images=pictures(1))


@pytest.mark.real
def test_on_drawings_matching_beats_random_pairs_and_pruning() -> None:
    place = shared_data("vision_language")
    if place is None:
        pytest.skip("the shared data vision_language is not there")
    import io
    import zipfile

    model = load(place / "emoji_clip_256")
    ids = (place / "emoji_clip_256/concepts.txt").read_text().split()[:48]
    with zipfile.ZipFile(place / "emoji/images.zip") as archive:
        shown = [Image.open(io.BytesIO(archive.read(f"noto/{name}.png"))) for name in ids]
    found = compare(model, images=shown, methods=("dominance", "bipartite", "random", "prune"), keeps=(0.35,), rounds=0)
    near = {row.method: row.fidelity for row in found.rows}
    assert near["dominance"] > near["bipartite"] > near["random"] > near["prune"]
    assert near["dominance"] > 0.99 and found.rows[1].share == pytest.approx(0.36, abs=0.03)
