"""A detector from its corpus to its verdicts, with a tiny random language model: what it refuses, what it keeps."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from intarsia.cli import app
from intarsia.data import Document
from intarsia.detection import Detector, Documents, calibrate, check, evaluate, register_detector, train
from intarsia.detection.checking.checker import Checker, bank_of
from intarsia.detection.checking.passages import share_of_words, windows
from intarsia.detection.checking.references import shared_runs
from intarsia.detection.detector import VOICES
from intarsia.detection.learning import corpora, learn
from intarsia.detection.methods import Engines, find_method, methods
from intarsia.errors import BadInput
from tests.failing import fails
from tests.tiny import tiny

DOMAINS = {
    "letters": "dear friend we went to the harbour and my brother ate all of it while rain fell on us again today",
    "reports": "the committee reviewed annual figures for roads bridges and water supply in the northern district now",
}
TELLS = ("it is important to note that", "in conclusion this highlights", "a rich tapestry of")


def text(domain: str, number: int, machine: bool, words: int = 0) -> str:
    """People and machines draw from the same words; machines put in a phrase now and then."""
    draw = np.random.default_rng([number, machine, len(domain)])
    words = words or int(draw.integers(80, 150))
    some = list(draw.choice(DOMAINS[domain].split(), words))
    for at in sorted(draw.integers(0, words, 5 if machine else 1), reverse=True):
        some.insert(at, str(draw.choice(TELLS)) if machine else "as my aunt used to say")
    for at in range(11, len(some), 13):
        some[at] += "."
    return " ".join(some).capitalize() + "."


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """What tiny models read is not kept among what real ones did."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTARSIA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("detection")
    tiny("llama").save(folder / "scorer")
    tiny("bert-encoder").save(folder / "encoder")
    for domain in DOMAINS:
        for kind in ("human", "machine"):
            for number in range(70):
                file = folder / "corpus" / domain / kind / f"{number}.txt"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text(domain, number, kind == "machine"))
    return folder


@pytest.fixture(scope="module")
def detector(place) -> Detector:
    made = train(Documents.open(place / "corpus"), scorer=str(place / "scorer"), tokens=64, bank_share=0.6)
    made.save(place / "mine")
    return made


@pytest.fixture
def cli(place, detector, monkeypatch, capsys):
    monkeypatch.chdir(place)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = app.run(["detection", *map(str, arguments)])
        out, errors = capsys.readouterr()
        return code, out, errors

    return call


def documents(machine: bool, count: int = 20, domain: str = "letters", start: int = 500) -> list[Document]:
    kind = "machine" if machine else "human"
    return [Document(text(domain, start + i, machine), kind, name=f"{kind} {i}", domain=domain) for i in range(count)]


def test_the_machine_is_found_and_people_are_left_alone(detector):
    checker = Checker(detector, detector.bank("letters"), 0.05)
    found = checker(documents(True))
    left = checker(documents(False, 40))
    assert sum(c.verdict == "machine_like" for c in found) >= 15
    assert sum(c.verdict == "machine_like" for c in left) <= 6
    one = found[0]
    assert one.certified and one.bank.texts == detector.bank("letters").texts >= 19
    low, high = one.score[1:]
    assert low <= one.score[0] <= high and 0 < one.p_human <= 0.05
    # Nothing polished was learned from, so that there are no voices for it.
    known = {name for name in VOICES if not name.startswith(("polished", "references"))}
    assert {v.name for v in one.voices} == known and all(v.weight >= 0 for v in one.voices)


def test_polished_texts_have_voices_of_their_own(place):
    """A machine that rewrote a person's text leaves other traces than one that wrote all of it."""

    def polished(number: int, domain: str) -> Document:
        words = text(domain, number, False).split()
        for at in (5, 40):
            words.insert(at, "moreover and thus")
        return Document(" ".join(words), "polished", name=f"polished {number}", domain=domain, language="en")

    some = [d for domain in DOMAINS for kind in (False, True) for d in documents(kind, 45, domain, 0)]
    some += [polished(3000 + i, domain) for domain in DOMAINS for i in range(30)]
    made = train(Documents("here", some), scorer=str(place / "scorer"), tokens=64, bank_share=0.6)
    made.save(place / "polished")
    again = Detector.open(place / "polished")
    assert again.polished_probe is not None and again.polished_ngrams is not None
    people, found = documents(False, 30, start=600), [polished(4000 + i, "letters") for i in range(20)]
    texts = [d.text for d in (*people, *found)]
    values = again.values(texts, (160,))[:, 0]
    np.testing.assert_allclose(values, made.values(texts, (160,))[:, 0], rtol=1e-2, atol=2e-2)
    assert np.isfinite(values[:, :-1]).all()
    column = values[:, VOICES.index("polished words")]
    assert np.mean(column[30:, None] > column[None, :30]) > 0.9
    checked = Checker(again, again.bank("letters"), 0.05, passages=0)(found)
    assert {v.name for v in checked[0].voices} == {*VOICES} - {"references"}
    # By words alone the model is not asked, and both voices of words are heard.
    again.hold(made.kept)
    unread = Checker(again, again.bank("letters"), 0.05, read=False, passages=0)(found[:3])
    assert {v.name for v in unread[0].voices} == {"words", "polished words"}


class Unread:
    """A language model that must not be asked."""

    def __call__(self, texts, most=None):
        raise AssertionError("it was asked")


@pytest.mark.parametrize(
    ("people", "machine", "group", "said"),
    [
        (60, 60, "the one task", "letters: too few topics"),
        (12, 60, None, "no domain has 20 texts of people"),
        (60, 60, None, "it was asked"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_before_an_hour_of_reading(people, machine, group, said):
    some = [replace(d, group=group) for d in documents(False, people) + documents(True, machine)]
    with pytest.raises((BadInput, AssertionError), match=said):
        learn(corpora(some, 0.5, 0), Unread())


def test_kept_is_kept(detector, place):
    again = Detector.open(place / "mine")
    some = [d.text for d in documents(True, 5)]
    for name, bank in detector.banks.items():
        before, after = detector.judge(bank, some), again.judge(again.bank(name), some)
        np.testing.assert_allclose(after.score, before.score, rtol=0.02)
    assert again.facts == json.loads(json.dumps(detector.facts)) and "letters" in again.facts["unseen"]
    raw = (place / "mine" / "detector.safetensors").read_bytes()
    assert b"my aunt used to say" not in raw  # no text is kept
    fails(lambda: Detector.open(place / "mein"), "no detector there", "did you mean mine?")
    fails(lambda: again.bank("leters"), "no bank for the domain 'leters'", "did you mean letters?")
    fails(lambda: again.save(place / "mine"), "is not empty")


def test_another_scoring_model_is_refused(detector, place):
    again = Detector.open(place / "mine")
    again.scorer = "other"
    fails(lambda: again.listen_with(tiny("llama", seed=9)), "is another model")


@pytest.mark.parametrize(
    ("given", "verdict", "words"),
    [
        ("", "unreadable", ""),
        ("   \n ", "unreadable", ""),
        ("Three short words", "too_short", "50 are needed"),
        ("我们在河边看到了很多石头和新的道路，" * 20, "unsupported_language", "zh"),
        ("Wir gingen gestern zum Hafen, und mein Bruder hat alles gegessen. " * 12, "unsupported_language", "de"),
        ("🎈" * 300, "unsupported_language", "no language"),
    ],
)  # fmt: skip
def test_of_some_texts_nothing_is_said(detector, given, verdict, words):
    (found,) = Checker(detector, detector.bank("letters"), 0.05)([Document(given, name="x")])
    assert found.verdict == verdict and found.score is None and not found.passages
    assert words in " ".join(found.warnings)


def test_a_small_bank_vouches_for_no_small_rate(detector):
    (found,) = Checker(detector, detector.bank("letters"), 0.001)(documents(True, 1))
    assert found.verdict != "machine_like" and not found.certified
    assert "vouch for" in " ".join(found.warnings)


def test_without_a_domain_the_kindest_bank_decides(detector):
    some = documents(True, 6)
    (free, by_letters, by_reports) = (
        [c.p_human for c in Checker(detector, bank, 0.05, passages=0)(some)]
        for bank in (None, detector.bank("letters"), detector.bank("reports"))
    )
    assert free == [max(a, b) for a, b in zip(by_letters, by_reports, strict=True)]
    (one,) = Checker(detector, None, 0.05, passages=0)(some[:1])
    assert not one.certified and "no domain given" in one.warnings[0]


def test_a_hundred_pages_are_read_in_passages(detector):
    pages = " ".join(text("letters", i, 100 <= i < 130) for i in range(260))
    (found,) = Checker(detector, detector.bank("letters"), 0.05, passages=80)([Document(pages, name="book")])
    assert found.words > 28_000 and len(found.passages) == 80
    assert "80 of" in " ".join(found.warnings)
    inside = [p.flagged for p in found.passages if 0.40 < p.start / len(pages) < 0.48]
    outside = [p.flagged for p in found.passages if not 0.36 < p.start / len(pages) < 0.52]
    assert np.mean(inside) > 0.5 > 0.2 > np.mean(outside)
    assert all(pages[p.start : p.end] == p.text for p in found.passages)
    assert found.verdict == "inconclusive" and "read like a machine's" in " ".join(found.warnings)
    share, low, high = found.flagged_share
    assert low <= share <= high and 0 < share < 0.4


def test_triage_asks_the_language_model_only_in_doubt(detector, monkeypatch):
    people, machines = documents(False, 20), documents(True, 5)
    asked = []
    kept = detector.kept

    class Spy:
        model = kept.model

        def __call__(self, texts, most=None):
            asked.extend(texts)
            return kept(texts, most)

    watched = replace(detector, _kept=Spy())
    found = Checker(watched, detector.bank("letters"), 0.05, triage=True, passages=0)([*people, *machines])
    unread = [c for c in found[:20] if not c.read]
    assert 3 <= len(unread) < 20 and all(c.verdict != "machine_like" for c in unread)
    assert all(c.read for c in found[20:]) and not {people[i].text for i in range(20) if not found[i].read} & set(asked)
    whole = Checker(detector, detector.bank("letters"), 0.05, passages=0)(machines)
    assert [c.p_human for c in found[20:]] == [c.p_human for c in whole]


def test_words_alone(detector):
    (found,) = Checker(detector, detector.bank("letters"), 0.05, read=False)(documents(True, 1))
    assert not found.read and [v.name for v in found.voices] == ["words"] and found.score is not None


def test_windows_hold_every_word():
    long = " ".join(f"w{i}" for i in range(300))
    every = windows(long)
    assert {w for one in every for w in range(one.first, one.last)} == set(range(300))
    assert all(one.last - one.first == 125 for one in every) and long[every[-1].start : every[-1].end].endswith("w299")
    assert len(windows("a b")) == 1 and windows("") == [] and len(windows(long, most=2)) == 2
    assert share_of_words(every[:1], every) == pytest.approx(125 / 300) and share_of_words([], []) == 0


def test_references_are_evidence(detector, place, monkeypatch):
    (place / "essay.txt").write_text(text("letters", 900, True))
    refs = place / "refs"
    refs.mkdir(exist_ok=True)
    (refs / "near.txt").write_text(text("letters", 900, True).replace("harbour", "market") + " And more.")
    (refs / "far.txt").write_text(text("reports", 901, True))
    found = check(
        Documents.open(place / "essay.txt"), detector=str(place / "mine"), domain="letters", references=str(refs),
        embedder=str(place / "encoder"), fpr=0.05,
    )  # fmt: skip
    (one,) = found.documents
    assert {r.name for r in one.references} == {"near.txt", "far.txt"}
    near = next(r for r in one.references if r.name == "near.txt")
    assert near.shared and all(len(run.split()) >= 4 for run in near.shared)
    assert "Passages of essay.txt" in str([b.title for b in found.blocks()]) and found.statement in str(found.tables())
    (refs / "same.txt").write_text((place / "essay.txt").read_text())
    fails(
        lambda: check(
            Documents.open(place / "essay.txt"), detector=str(place / "mine"), references=str(refs),
            embedder=str(place / "encoder"),
        ),
        "same.txt is the document essay.txt itself",
    )  # fmt: skip


def test_an_encoder_that_compares_with_references(place):
    some = [
        replace(d, group=str(i % 20), prompt=f"p{i % 3}" if d.label == "machine" else "", generator=d.label)
        for i, d in enumerate([*documents(False, 60), *documents(True, 60, start=600)])
    ]  # fmt: skip
    made = train(
        Documents("x", some), scorer=str(place / "scorer"), tokens=32, siamese=True, encoder=str(place / "encoder")
    )
    made.save(place / "paired", force=True)
    (place / "one.txt").write_text(text("letters", 950, True))
    (place / "other.txt").write_text(text("letters", 951, True))
    found = check(
        Documents.open(place / "one.txt"), detector=str(place / "paired"), domain="letters", fpr=0.05,
        references=str(place / "other.txt"), embedder=str(place / "encoder"),
    )  # fmt: skip
    again = Detector.open(place / "paired")
    wanted = again.siamese.score([text("letters", 950, True)], [[text("letters", 951, True)]])[0]
    one = found.documents[0]
    assert one.siamese == pytest.approx(wanted, abs=1e-4) and "Siamese log odds" in str(found.tables())
    # It is a voice among those of the bank's texts that had references, too, and one that counts.
    bank = again.bank("letters")
    (voice,) = (v for v in one.voices if v.name == "references")
    assert voice.value == pytest.approx(wanted, abs=1e-3) and voice.weight > 0
    assert bank.heard("references").texts == one.bank.texts > 19
    at = np.array([wanted])
    with_it = again.judge(bank.heard("references"), [text("letters", 950, True)], paired=at)
    assert one.score[0] == pytest.approx(with_it.score[0], abs=1e-3)
    assert again.judge(bank.heard("references"), [text("letters", 950, True)], paired=at + 5).score > with_it.score
    # Whom no bank can hear it of is judged without it.
    for values in bank.values.values():
        values[5:, VOICES.index("references")] = np.nan
    checker = Checker(again, bank, 0.05, passages=0)
    (without,) = checker([Document(text("letters", 950, True), name="one")], at)
    assert without.siamese == wanted and "references" not in {v.name for v in without.voices}
    other = Detector.open(place / "paired")
    other.save(place / "copied", force=True)
    assert Detector.open(place / "copied").siamese is not None


def test_topics_are_wanted_before_anything_is_read(place):
    some = Documents("x", [*documents(False, 60), *documents(True, 60, start=600)])
    fails(lambda: train(some, scorer="not-a-model", siamese=True), "topic", "train without it")


def test_shared_runs_are_the_longest_and_none_lies_in_another():
    mine = "We saw the old green bridge over the river, and then we went home again."
    other = "They say the old green bridge over the river fell. We went home again, too."
    assert shared_runs(mine, other) == ["the old green bridge over the river", "we went home again"]
    assert shared_runs("a b c", "a b c") == [] and shared_runs("", "x") == []


def test_a_bank_of_ones_own(detector, place):
    made = Detector.open(place / "mine")
    made.save(place / "other", force=True)
    folder = place / "papers"
    folder.mkdir(exist_ok=True)
    for i in range(30):
        (folder / f"{i}.txt").write_text(text("letters", 2000 + i, False))
    found = calibrate(Detector.open(place / "other"), humans=str(folder), domain="papers")
    assert found.texts == 30 and found.reach == pytest.approx(1 / 31) and found.language == "en"
    assert "papers" in Detector.open(place / "other").banks
    again = Detector.open(place / "other")
    fails(lambda: calibrate(again, humans=str(folder), domain="papers"), "already", "--replace")
    stays = {p.name: p.read_bytes() for p in (place / "other").iterdir()}
    found = calibrate(again, humans=str(folder), domain="more", copy_to=str(place / "copy"))
    assert "more" in Detector.open(place / "copy").banks and found.provenance["settings"]["domain"] == "more"
    assert {p.name: p.read_bytes() for p in (place / "other").iterdir()} == stays
    other = Detector.open(place / "other")
    fails(lambda: calibrate(other, humans=str(folder), domain="most", copy_to=str(place / "copy")), "is there already")
    fails(
        lambda: calibrate(Detector.open("english"), humans=str(folder), domain="x"), "comes with Intarsia", "--copy-to"
    )
    few = place / "few"
    few.mkdir(exist_ok=True)
    (few / "a.txt").write_text(text("letters", 1, False))
    fails(lambda: calibrate(again, humans=str(few), domain="few"), "1 texts of 10 words or more", "99 to vouch for 1 %")


def test_a_bank_that_is_unfair_to_a_group_is_refused(detector, place):
    made = Detector.open(place / "mine")
    made.save(place / "fair", force=True)
    rows = [
        {"text": text("letters", 3000 + i, i % 2 == 1), "label": "human", "topic": str(i), "group": "ab"[i % 2]}
        for i in range(60)
    ]  # people of group b write as machines do
    (place / "groups.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = dict(humans=str(place / "groups.jsonl"), domain="groups")
    fails(
        lambda: calibrate(Detector.open(place / "fair"), **given), "group 'b' would be flagged", "--accept-group-risk"
    )
    found = calibrate(Detector.open(place / "fair"), **given, accept_group_risk=True)
    assert {g.group for g in found.groups} == {"a", "b"}


def test_the_command_says_it_all(cli, place):
    (place / "essay.txt").write_text(text("letters", 901, True))
    code, out, errors = cli("check", "essay.txt", "--detector", "mine", "--domain", "letters", "--fpr", "0.05",
                            "--html", "page.html", "--force")  # fmt: skip
    assert (code, errors) == (0, "") and "machine_like" in out and "does not" in out
    page = (place / "page.html").read_text()
    assert "Passages of essay.txt" in page and "who wrote it" in page
    files = ("corpus/letters/human", "--bank", "corpus/letters/human", "--detector", "mine")
    code, out, _ = cli("check", *files, "--json", "--fpr", "0.05", "--passages", "0")
    found = json.loads(out)
    assert code == 0 and len(found["documents"]) == 70
    # The bank is the documents themselves: each ties with itself, and none is beyond the bank.
    assert sum(d["verdict"] == "machine_like" for d in found["documents"]) <= 0.05 * 70


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "nothing.txt"], "no such file"),
        (["check", "binary.txt", "--detector", "mine"], "binary.txt"),
        (["check", "corpus/letters/human/1.txt", "--detector", "mein"], "did you mean mine?"),
        (["check", "corpus/letters/human/1.txt", "--detector", "mine", "--domain", "leters"], "did you mean letters?"),
        (["check", "corpus/letters/human/1.txt", "--detector", "mine", "--domain", "letters", "--bank", "x"], "either"),
        (["check", "corpus/letters/human/1.txt", "--detector", "mine", "--fpr", "2"], "fpr"),
        (["train", "corpus/letters/human"], "labelled human, machine or polished"),
        (["evaluate", "corpus/letters/human"], "texts of people and of machines"),
        (["evaluate", "corpus", "--methods", "loglikk"], "did you mean loglik"),
    ],
)
def test_bad_input_is_one_line(cli, place, arguments, words):
    (place / "binary.txt").write_bytes(bytes(range(256)) * 4)
    code, out, errors = cli(*arguments)
    assert code == 2 and words in errors and out == "" and "Traceback" not in errors
    assert len([line for line in errors.splitlines() if not line.startswith("intarsia: note")]) == 1


def test_training_needs_topics_to_judge_by(place):
    few = [
        Document(text("letters", i, m), "machine" if m else "human", domain="letters") for i in range(4) for m in (0, 1)
    ]
    fails(lambda: train(Documents("few", few), scorer=str(place / "scorer")), "give more")


def test_short_and_double_texts_are_left_out_with_a_note(place):
    some = (
        documents(False, 60)
        + documents(True, 60)
        + documents(False, 3)
        + [Document("short", "human", domain="letters")]
    )
    with pytest.warns(match="1 of fewer than 10 words and 3 that stand there twice"):
        train(Documents("some", some), scorer=str(place / "scorer"), tokens=32)


def test_detectors_are_evaluated_under_one_protocol(detector, place):
    found = evaluate(
        Documents.open(place / "corpus"), detectors=(str(place / "mine"),), methods=("loglik", "curvature"),
        scorer=str(place / "scorer"), fpr=0.05, tokens=64,
    )  # fmt: skip
    rows = {(r.detector, r.domain): r for r in found.rows if r.kind == "all"}
    assert len(rows) == 6
    mine = rows[str(place / "mine"), "letters"]
    assert mine.auroc[0] > 0.9 and mine.auroc[1] <= mine.auroc[0] <= mine.auroc[2]
    assert mine.people == mine.bank == 35 and mine.machine == 70
    assert 0.2 < rows["loglik", "letters"].auroc[0] < 0.8  # a random model knows nothing
    assert found.figures()[0].series[0].name == str(place / "mine") and len(found.tables()[0].rows) >= 6


def test_a_method_of_ones_own():
    name = "length-of-text"
    if name not in methods():

        @register_detector(name)
        def _by_length(some, engines):
            return np.array([float(len(d.text)) for d in some])

    assert find_method(name)([Document("abc"), Document("a")], Engines()).tolist() == [3.0, 1.0]
    fails(lambda: register_detector(name, lambda some, engines: np.zeros(0)), "already")
    fails(lambda: find_method("logLik2"), "did you mean loglik")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fails(lambda: find_method("loglik")([Document("a b c")], Engines()), "needs a scoring model")


def test_a_bank_is_made_of_texts_that_say_something(detector):
    some = [*documents(False, 25), *documents(False, 5), Document("short"), Document("")]
    made = bank_of(detector, some, "x")
    assert made.texts == 25 and made.language == "en" and set(made.values) and (made.lengths >= 50).all()
