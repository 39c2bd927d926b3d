"""A store: added to bit by bit, stopped anywhere, searched meanwhile, and the same as a naive search."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from intarsia.errors import BadInput, IntarsiaError
from intarsia.prompting.data import SourceDocument, Store
from intarsia.prompting.data.store import Added
from intarsia.prompting.data.store.vectors import Matrix, file_of
from tests.store_help import HashedWords

CATS = {
    "a.md": "# Cats\n\nCats purr and sleep.\n\n## Food\n\nThey eat fish and mice.\n",
    "b.md": "# Dogs\n\nDogs bark and run.\n\n## Food\n\nThey eat bones.\n",
    "c.txt": "A parrot speaks. It flies over the garden.",
}


def folder(tmp_path, files=CATS):
    place = tmp_path / "animals"
    place.mkdir(exist_ok=True)
    for name, text in files.items():
        (place / name).write_text(text)
    return place


def doc(text, source, **metadata):
    return SourceDocument(text, source, metadata=metadata)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store", HashedWords()) as made:
        yield made


def test_added_again_only_what_changed_is_embedded(tmp_path, store):
    place = folder(tmp_path)
    seen = store.encoder.embed.seen
    assert store.add(place) == Added(new=3, chunks=5, embedded=5)
    assert len(seen) == 5 and "Cats > Food\n## Food\n\nThey eat fish and mice." in seen
    assert store.add(place) == Added(unchanged=3)
    (place / "a.md").write_text(CATS["a.md"].replace("mice", "birds"))
    assert store.add(str(place)) == Added(changed=1, unchanged=2, chunks=2, embedded=1)
    assert seen[5:] == ["Cats > Food\n## Food\n\nThey eat fish and birds."]
    assert store.search("mice", mode="words").hits == ()
    assert store.search("birds", mode="words")[0].source == f"{place}/a.md"
    # New metadata alone embeds nothing.
    assert store.add(place, where={"kind": "pets"}) == Added(changed=3, chunks=5)
    assert {row.metadata["kind"] for row in store.documents()} == {"pets"}
    (place / "b.md").unlink()
    assert store.add(place, where={"kind": "pets"}) == Added(unchanged=2)
    assert store.add(place, where={"kind": "pets"}, remove_missing=True) == Added(unchanged=2, removed=1)
    assert [Path(row.source).name for row in store.documents()] == ["a.md", "c.txt"]
    # A file that is there and cannot be read has not gone.
    (place / "a.md").write_bytes(b"\xff\xff\0")
    with pytest.warns(UserWarning, match="left out 1 file"):
        assert store.add(place, where={"kind": "pets"}, remove_missing=True).removed == 0
    assert len(store.documents()) == 2


def test_equal_chunks_are_embedded_once(store):
    store.add([doc("The same words.", "a"), doc("The same words.", "b")])
    assert len(store.encoder.embed.seen) == 1
    assert [hit.source for hit in store.search("same words", mode="dense")] == ["a", "b"]
    assert store.remove("a") == 1
    assert [hit.source for hit in store.search("same words")] == ["b"]


def test_hits_tell_where_they_stand(tmp_path, store):
    store.add(folder(tmp_path))
    hit = store.search("Which animals eat mice?", k=1)[0]
    assert hit.path == ("Cats", "Food") and hit.headings == "Cats > Food" and hit.anchor == "food"
    assert hit.citation.endswith("animals/a.md#food")
    assert hit.text == CATS["a.md"][hit.start : hit.end] == "## Food\n\nThey eat fish and mice."
    assert hit.scores.words_rank == 1 and hit.scores.dense_rank >= 1 and -1.001 <= hit.scores.dense <= 1.001
    whole = store.document(hit.source)
    assert whole.text == CATS["a.md"] and whole.title == "Cats"
    parrot = store.search("parrot", k=1)[0]
    assert parrot.citation.endswith("c.txt:0-42")


def test_dense_search_is_a_naive_one(store):
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(60)]
    documents = [doc(" ".join(rng.choice(words, 12)), f"d{i}", number=i, even=i % 2 == 0) for i in range(150)]
    store.add(documents)
    queries = [" ".join(rng.choice(words, 4)) for _ in range(9)]
    encoder = HashedWords()
    rows = encoder([d.text for d in documents]).astype(np.float64)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(np.float64)
    asked = encoder(queries).astype(np.float64)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    found = store.search_many(queries, 7, mode="dense")
    assert [one.query for one in found] == queries
    for query, one in zip(asked, found, strict=True):
        wanted = np.sort(rows @ query)[::-1][:7]
        assert np.allclose([hit.scores.dense for hit in one], wanted, atol=1e-6)
        for hit in one:
            assert hit.scores.dense == pytest.approx(rows[hit.metadata["number"]] @ query, abs=1e-6)
    for query, one in zip(asked, store.search_many(queries, 7, mode="dense", where={"even": True}), strict=True):
        wanted = np.sort(rows[::2] @ query)[::-1][:7]
        assert np.allclose([hit.scores.dense for hit in one], wanted, atol=1e-6)
        assert all(hit.metadata["even"] for hit in one)


def test_blocks_and_mapped_vectors_are_the_same(tmp_path, monkeypatch):
    from intarsia.prompting.data.store import vectors

    rng = np.random.default_rng(1)
    rows = rng.normal(size=(1000, 8)).astype(np.float16)
    rows.tofile(tmp_path / "v")
    queries = rng.normal(size=(3, 8)).astype(np.float32)
    live = np.flatnonzero(rng.random(1000) < 0.7)
    whole = Matrix(tmp_path / "v", 1000, 8).nearest(queries, live, 20)
    monkeypatch.setattr(vectors, "BLOCK", 37)
    monkeypatch.setattr(vectors, "IN_MEMORY", 0)
    for (places, scores), (others, same), query in zip(
        whole, Matrix(tmp_path / "v", 1000, 8).nearest(queries, live, 20), queries, strict=True
    ):
        assert places.tolist() == others.tolist() and np.allclose(scores, same, atol=1e-5)
        naive = rows.astype(np.float64) @ query
        assert places.tolist() == sorted(live.tolist(), key=lambda i: -naive[i])[:20]


def test_hybrid_by_ranks_is_the_sum_of_reciprocal_ranks(tmp_path, store):
    store.add(folder(tmp_path))
    found = store.search("what do cats eat?", k=5, fusion="ranks")
    assert len(found) == 5 and [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
    for hit in found:
        ranks = (hit.scores.dense_rank, hit.scores.words_rank)
        assert hit.score == pytest.approx(sum(1 / (60 + rank) for rank in ranks if rank))


def test_hybrid_by_scores_is_their_weighted_mean(tmp_path, store):
    from intarsia.prompting.data.store.fusing import WEIGHTS

    weights = WEIGHTS["scores"]
    assert sum(weights.values()) == sum(WEIGHTS["name"].values()) == pytest.approx(1)
    store.add(folder(tmp_path))
    found = store.search("what do cats eat?", k=5, fusion="scores")
    ends = {}
    for name in weights:
        values = [getattr(hit.scores, name) for hit in found if getattr(hit.scores, name) is not None]
        ends[name] = min(values), max(values)
    assert len(found) == 5 and [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
    for hit in found:
        wanted = 0.0
        for name, (low, high) in ends.items():
            if (score := getattr(hit.scores, name)) is not None:
                wanted += weights[name] * (score - low) / (high - low)
        assert hit.score == pytest.approx(wanted)


def test_hybrid_with_feedback_is_a_naive_one(tmp_path, store):
    from intarsia.prompting.data.store.fusing import DOCUMENT, FIRST, TOWARDS, WEIGHTS

    store.add(folder(tmp_path))
    query = "what do cats eat?"
    words = {hit.chunk: hit.scores.words for hit in store.search(query, 50, mode="words")}
    all_hits = {hit.chunk: hit for hit in store.search(query, 50, mode="dense")}
    made = HashedWords()([f"{hit.headings}\n{hit.text}" for hit in all_hits.values()] + [query]).astype(np.float64)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    rows, asked = dict(zip(all_hits, made[:-1], strict=True)), made[-1]

    def shares(scores):
        low, high = min(scores.values()), max(scores.values())
        return {chunk: (score - low) / (high - low) for chunk, score in scores.items()}

    def mean(vector, weights):
        dense, by_words = shares({chunk: row @ vector for chunk, row in rows.items()}), shares(words)
        return {chunk: weights["dense"] * dense[chunk] + weights["words"] * by_words.get(chunk, 0) for chunk in rows}

    first = mean(asked, WEIGHTS["scores"])
    best = sorted(first, key=lambda chunk: -first[chunk])[:FIRST]
    again = asked + TOWARDS * np.mean([rows[chunk] for chunk in best], axis=0)
    second = mean(again / np.linalg.norm(again), WEIGHTS["feedback"])
    of = {chunk: hit.source for chunk, hit in all_hits.items()}
    wanted = {
        chunk: (score + DOCUMENT * max(second[other] for other in second if of[other] == of[chunk])) / (1 + DOCUMENT)
        for chunk, score in second.items()
    }
    found = store.search(query, 50)
    assert len(found) == len(wanted) and [hit.score for hit in found] == sorted((h.score for h in found), reverse=True)
    for hit in found:
        assert hit.score == pytest.approx(wanted[hit.chunk], abs=2e-3)  # rows are kept in float16
        assert hit.scores.dense == pytest.approx(rows[hit.chunk] @ asked, abs=1e-3)  # of what was asked, not moved
    # One name of a program is asked once, and weighs words more.
    name = store.search("cats.eat", 50)
    assert [hit.chunk for hit in name] == [hit.chunk for hit in store.search("cats.eat", 50, fusion="scores")]


def test_rare_words_tell_more(tmp_path, store):
    store.add(folder(tmp_path))  # five chunks
    worth = store.rarity(["cats", "food", "they", "unicorn"])
    assert worth["unicorn"] == pytest.approx(np.log(6)) and worth["cats"] == pytest.approx(np.log(1 + 5 / 3))
    assert worth["food"] == worth["they"] == worth["cats"]


def test_one_ranking_that_is_empty_or_flat():
    from intarsia.prompting.data.store.ranking import combined

    weights = {"dense": 0.5, "words": 0.5}
    assert combined({"dense": {1: 0.3, 2: 0.1}, "words": {}}, weights) == {1: 0.5, 2: 0.0}
    assert combined({"dense": {1: 0.3}, "words": {1: 2.0}}, weights) == {1: 1.0}
    assert combined({"dense": {}, "words": {}}, weights) == {}


def test_a_store_of_words_alone(tmp_path):
    with Store.open(tmp_path / "s", None) as store:
        store.add(folder(tmp_path))
        assert store.search("fish")[0].path == ("Cats", "Food")
        assert not (tmp_path / "s" / "vectors.f16").exists()
        with pytest.raises(BadInput, match="has no vectors"):
            store.search("fish", mode="dense")
    with pytest.raises(BadInput, match="was made without an encoder"):
        Store.open(tmp_path / "s", HashedWords())
    with Store.open(tmp_path / "s") as store:
        assert store.reembed(HashedWords()) == 5
        assert store.search("They eat fish and mice.", mode="dense")[0].path == ("Cats", "Food")


def test_another_encoder_is_refused(tmp_path):
    with Store.open(tmp_path / "s", HashedWords()) as store:
        store.add(folder(tmp_path))
        before = store.search("cats", mode="dense").hits
    with pytest.raises(BadInput, match=r"its vectors are by .*HashedWords.* `intarsia store reembed`"):
        Store.open(tmp_path / "s", HashedWords("other"))
    with Store.open(tmp_path / "s", None) as store:  # read by words
        assert store.search("cats")
        with pytest.raises(BadInput, match="opened without an encoder"):
            store.add(doc("More.", "more"))
    with Store.open(tmp_path / "s", HashedWords()) as store:
        assert store.search("cats", mode="dense").hits == before
        assert store.reembed(HashedWords("other")) == 5
        assert store.vectors_file().name == "vectors.1.f16" and not (tmp_path / "s" / "vectors.f16").exists()
        assert [hit.chunk for hit in store.search("cats", mode="dense")] == [hit.chunk for hit in before]
        assert store.add(folder(tmp_path)) == Added(unchanged=3)
        store.add(doc("More cats.", "more"))
        assert store.search("more cats", mode="dense")[0].source == "more"
    Store.open(tmp_path / "s", HashedWords("other")).close()


def test_encoders_that_give_nonsense(tmp_path):
    for given, said in (
        (lambda texts: np.zeros((1, 4)), "2 texts gave an array of shape"),
        (lambda texts: np.full((len(texts), 4), np.nan), "not finite"),
    ):
        with Store.open(tmp_path / said[:3].strip(), given) as store, pytest.raises(BadInput, match=said):
            store.add([doc("One.", "a"), doc("Two.", "b")])
    with pytest.raises(BadInput, match="encoder: 3 is none"):
        Store.open(tmp_path / "x", 3)


def test_places_that_are_no_store(tmp_path):
    with pytest.raises(BadInput, match="no store there; `intarsia store add"):
        Store.open(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()
    with pytest.raises(BadInput, match="holds other things"):
        Store.open(folder(tmp_path))
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "rows.sqlite").write_text("no database, but a text that is long enough to be one" * 30)
    with pytest.raises(BadInput, match="not a store that Intarsia made"):
        Store.open(tmp_path / "s")
    Store.open(tmp_path / "t", None, size=100).close()
    with pytest.raises(BadInput, match="was made with size 100, given: 50"):
        Store.open(tmp_path / "t", size=50)
    with sqlite3.connect(tmp_path / "t" / "rows.sqlite") as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'version'")
    with pytest.raises(BadInput, match="layout 99, this version reads 1"):
        Store.open(tmp_path / "t")
    with pytest.raises(BadInput, match="size: 3 tokens are too few"):
        Store.open(tmp_path / "u", None, size=3)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[3])
from tests.store_help import HashedWords
from intarsia.prompting.data import SourceDocument, Store
from intarsia.prompting.data.store import adding, vectors
adding.BATCH = 4
store = Store.open(sys.argv[1], HashedWords())
append, left = vectors.append, int(sys.argv[2])
def counted(file, rows, place):
    global left
    append(file, rows, place)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)  # the vectors are on the disk, the rows are not
vectors.append = counted
store.add([SourceDocument(f"Text number {i} of many.", f"d{i}") for i in range(10)])
"""


def test_killed_between_vectors_and_rows(tmp_path):
    place = tmp_path / "s"
    done = subprocess.run([sys.executable, "-c", KILLED, str(place), "2", str(Path(__file__).parent.parent)])
    assert done.returncode == -signal.SIGKILL
    size = (place / "vectors.f16").stat().st_size
    assert size == 8 * 64 * 2  # two batches, of which one is noted
    with Store.open(place, HashedWords()) as store:
        assert (place / "vectors.f16").stat().st_size == 4 * 64 * 2  # the tail is cut off
        assert len(store.documents()) == 4
        added = store.add([SourceDocument(f"Text number {i} of many.", f"d{i}") for i in range(10)])
        assert added == Added(new=6, unchanged=4, chunks=6, embedded=6)
        assert (place / "vectors.f16").stat().st_size == 10 * 64 * 2
        for i in range(10):
            hit = store.search(f"Text number {i} of many.", 1, mode="dense")[0]
            assert hit.scores.dense == pytest.approx(1, abs=1e-3) and hit.text == f"Text number {i} of many."


def test_vectors_that_are_missing_are_told(tmp_path):
    with Store.open(tmp_path / "s", HashedWords()) as store:
        store.add(folder(tmp_path))
    os.truncate(tmp_path / "s" / "vectors.f16", 100)
    with Store.open(tmp_path / "s", HashedWords()) as store:
        with pytest.raises(IntarsiaError, match=r"vectors are missing: .*reembed"):
            store.search("cats")
        store.reembed()
        assert store.search("cats")


def test_readers_go_on_while_one_writes(tmp_path):
    writer = Store.open(tmp_path / "s", HashedWords())
    writer.add([doc(f"Text {i} is here.", f"d{i}") for i in range(40)])
    reader = Store.open(tmp_path / "s", HashedWords())
    trouble, stop = [], threading.Event()

    def read():
        try:
            while not stop.is_set():
                found = reader.search("Text 7 is here.", 40, candidates=40)
                assert len(found) >= 30 and found[0].source == "d7", found
        except Exception as error:
            trouble.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(6):
        writer.add([doc(f"Text {i} is here, turn {turn}.", f"d{i}") for i in range(30, 40)])
        writer.compact()
    stop.set()
    for thread in threads:
        thread.join()
    assert trouble == []
    assert [p.name for p in (tmp_path / "s").glob("vectors*")] == ["vectors.6.f16"]
    assert writer.vectors_file().stat().st_size == 40 * 64 * 2
    reader.close()
    writer.close()


def test_only_one_writes(tmp_path, store):
    from filelock import FileLock

    with FileLock(store.path / ".lock"), pytest.raises(BadInput, match="another process is writing"):
        store.add(doc("One.", "a"))
    assert store.add(doc("One.", "a")).new == 1


def test_dead_rows_are_written_out(tmp_path, monkeypatch):
    from intarsia.prompting.data.store import rewriting

    monkeypatch.setattr(rewriting, "WORTH", 5)
    with Store.open(tmp_path / "s", HashedWords()) as store:
        store.add([doc(f"Text {i}.", f"d{i}") for i in range(20)])
        for i in range(4):
            store.remove(f"d{i}")
        assert store.vectors_file() == file_of(store.path, 0)
        store.add([doc("Other.", "d4"), doc("Others.", "d5")])
        assert store.vectors_file() == file_of(store.path, 1)
        assert store.vectors_file().stat().st_size == 16 * 64 * 2
        assert store.search("Text 11.", 1, mode="dense")[0].source == "d11"
        assert store.search("Other.", 1, mode="dense")[0].source == "d4"


WHERE = [
    doc("One kettle.", "a.md", year=2020, tags=["tea", "hot"], price=9.5, sold=True),
    doc("Two kettles.", "b.md", year=2023, tags=["tea"], price=20, sold=False),
    doc("Three kettles.", "c.md", year=2024, maker='Ö\'Brien "x"'),
]


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        (None, "abc"), ({}, "abc"), ({"year": 2023}, "b"), ({"year": [2020, 2024]}, "ac"), ({"year": []}, ""),
        ({"year": {">=": 2021}}, "bc"), ({"year": {">": 2020, "<": 2024}}, "b"), ({"year": {"!=": 2020}}, "bc"),
        ({"tags": "tea"}, "ab"), ({"tags": ["hot", "cold"]}, "a"), ({"price": {"<": 10}}, "a"), ({"sold": True}, "a"),
        ({"sold": False}, "b"), ({"maker": "Ö'Brien \"x\""}, "c"), ({"maker": "x' OR 1=1 --"}, ""),
        ({"none": 1}, ""), ({"none": "\ud800"}, ""), ({"\ud800": 1}, ""), ({"source": "b.md"}, "b"),
        ({"source": ["a.md", "c.md"]}, "ac"),
        ({"media": "text/plain"}, "abc"),
        ({"year": {"<": "3"}}, ""), ({"tags": "tea", "year": {"<=": 2020}}, "a"),
        (lambda m: m.get("year", 0) > 2020 and "maker" not in m, "b"), (lambda m: m["source"] == "c.md", "c"),
    ],
)  # fmt: skip
def test_where(store, where, wanted):
    store.add(WHERE)
    for mode in ("hybrid", "dense", "words"):
        found = store.search("kettles", 5, mode=mode, where=where)
        assert "".join(sorted(hit.source[0] for hit in found)) == wanted
        assert "".join(sorted(row.source[0] for row in store.documents(where))) == wanted
        # Conditions hold before the best k are taken.
        assert len(store.search("kettles", 1, mode=mode, where=where)) == min(1, len(wanted))


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"year": {"~": 1}}, "no comparisons"), ({"year": None}, "a text, a number"), ({'a"b': 1}, "cannot be a name"),
        ({"year": {"<": [1]}}, "a text, a number"), ("year", "neither a mapping"), ({"year": 2**70}, "64 bits"),
        ({"year": [0] * 10_001}, "10,001 values"), ({"year": {}}, "no comparisons"),
    ],
)  # fmt: skip
def test_where_of_another_form(store, where, said):
    store.add(WHERE)
    with pytest.raises(BadInput, match=said):
        store.search("kettles", where=where)


def test_settings_that_make_no_sense(store):
    for given, said in (
        ({"k": 0}, "k: 0"), ({"mode": "wordz"}, "no 'wordz' .did you mean words"), ({"diversity": 2}, "diversity: 2"),
        ({"hops": 3}, "hops: 3"), ({"fusion": "x"}, "fusion: no 'x'"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=said):
            store.search("x", **given)
    for documents, said in (
        ([doc("a", "")], "without a source"), ([doc("a", "x"), doc("b", "x")], "two documents of one source"),
        ([doc("a", "x", y={"z": 1})], "metadata 'y' must be"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=said):
            store.add(documents)


def test_copies_make_room_for_others(store):
    texts = ["red apples fall", "red apples fall down", "red apples fall down too", "red cars"]
    store.add([doc(text, f"d{i}") for i, text in enumerate(texts)])
    plain = [hit.source for hit in store.search("red apples fall", 2)]
    assert plain == ["d0", "d1"]
    assert "d3" in [hit.source for hit in store.search("red apples fall", 3, diversity=0.6)]


def test_judged_anew(store):
    store.add([doc(f"word {'x ' * i}", f"d{i}") for i in range(1, 6)])
    found = store.search("word", 2, rerank=lambda query, texts: [len(text) for text in texts])
    assert [hit.source for hit in found] == ["d5", "d4"] and found[0].score == found[0].scores.rerank
    with pytest.raises(BadInput, match="rerank: gave 1 scores for 5 texts"):
        store.search("word", rerank=lambda query, texts: [1])


def test_remove(tmp_path, store):
    place = folder(tmp_path)
    store.add(place)
    assert store.remove(f"{place}/c.txt") == 1
    assert store.remove(place) == 2
    assert store.documents() == [] and store.search("cats").hits == ()
    store.add(f"{place}/*.md")
    assert store.remove(f"{place}/*.md") == 2
    with pytest.raises(BadInput, match=r"no document 'x.md'"):
        store.remove("x.md")


def test_context_fits_a_budget(store):
    store.add([doc(f"Kettle number {i} boils water in {i} minutes.", f"d{i}") for i in range(12)])
    found = store.search("kettle boils", 10)
    whole = found.context(10_000)
    assert len(whole.passages) == 10 and whole.dropped == () and whole.note == ""
    assert whole.text.startswith(f"[1] ({found[0].citation})\nKettle number")
    for budget in range(1, 400, 7):
        some = found.context(budget, count=lambda text: len(text.split()))
        assert len(some.text.split()) == some.tokens <= budget
        assert len(some.passages) + len(some.dropped) == 10
        if some.passages and some.dropped:
            assert some.text.endswith(some.note) and "left out for want of room" in some.note
    with pytest.raises(BadInput, match="budget_tokens: 0"):
        found.context(0)
