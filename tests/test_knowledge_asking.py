"""What a learned graph says: answers, likeness, reasons, context for a prompt, maps and files; and the same by command.

A small atlas: capitals lie in the country that they are the capital of, which nobody wrote down for a few of them."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from intarsia.cli import app
from intarsia.data import Fact, FactSnapshot
from intarsia.data.snapshots import SPLITS
from intarsia.knowledge import (
    AskConfig,
    Asker,
    ExplainConfig,
    ExportConfig,
    GrowConfig,
    KnowledgeGraph,
    MapConfig,
    NearestConfig,
    RetrieveConfig,
    StatusConfig,
    ask,
    explain,
    export,
    grow,
    kernels,
    map_entities,
    nearest,
    retrieve,
    status,
)
from intarsia.knowledge.asking import confidence
from intarsia.knowledge.graph.growing import directed
from tests.failing import fails

ATLAS = {
    "France": ("Paris", "Lyon", "Nice", "Lille"),
    "Spain": ("Madrid", "Seville", "Bilbao", "Malaga"),
    "Italy": ("Rome", "Milan", "Turin", "Naples"),
    "Germany": ("Berlin", "Bonn", "Bremen", "Ulm"),
    "Poland": ("Warsaw", "Gdansk", "Poznan", "Lodz"),
    "Japan": ("Tokyo", "Osaka", "Kobe", "Nara"),
    "China": ("Beijing", "Wuhan", "Harbin", "Dalian"),
    "India": ("New Delhi", "Mumbai", "Pune", "Agra"),
    "Peru": ("Lima", "Cusco", "Piura", "Tacna"),
    "Chile": ("Santiago", "Arica", "Talca", "Temuco"),
    "New Zealand": ("Wellington", "Auckland", "Napier", "Nelson"),
    "Australia": ("Canberra", "Sydney", "Perth", "Alice Springs"),
}
CONTINENTS = dict(zip(ATLAS, ["Europe"] * 5 + ["Asia"] * 3 + ["South America"] * 2 + ["Oceania"] * 2, strict=True))
UNKNOWN = ("Berlin", "Canberra")  # nothing says where they lie
HELD = {"Rome": "valid", "Warsaw": "valid", "Beijing": "valid", "Tokyo": "test", "Lima": "test"}
TWINS = "Lyon Milan  Milan Osaka  Osaka Wuhan  Nice Naples  Naples Kobe  Kobe Pune  Pune Turin  Turin Lille"
TWINS_HELD = "Lyon Pune  Nice Wuhan  Seville Osaka  Bilbao Harbin  Gdansk Nara  Agra Lodz"  # nobody can tell
ABOUT = {"Paris": "Paris, City of Light: the capital of France", "Lima": "in Peru"}


def twins(text: str) -> list[Fact]:
    pairs = (pair.split() for pair in text.split("  "))
    return [Fact(one, "twin_of", other) for one, other in pairs]


def snapshots() -> list[FactSnapshot]:
    out = []
    for name, countries in (("old world", list(ATLAS)[:8]), ("new world", list(ATLAS)[8:])):
        facts = []
        for country in countries:
            capital, *others = ATLAS[country]
            facts += [Fact(capital, "capital_of", country), Fact(country, "part_of", CONTINENTS[country])]
            facts += [Fact(city, "located_in", country) for city in others]
            if capital not in UNKNOWN:
                facts.append(Fact(capital, "located_in", country))
        out.append(
            FactSnapshot(name, facts, descriptions={k: v for k, v in ABOUT.items() if (k == "Lima") == bool(out)})
        )
    out[0].train += twins(TWINS)
    out[0].valid += twins(TWINS_HELD)
    for snapshot in out:
        for fact in list(snapshot.train):
            if fact.relation == "located_in" and (split := HELD.get(fact.head)):
                snapshot.train.remove(fact)
                getattr(snapshot, split).append(fact)
    return out


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the learned graph `atlas` in it, and a few other things."""
    folder = tmp_path_factory.mktemp("asking")
    graph = KnowledgeGraph.open(folder / "atlas")
    graph.append(snapshots())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_fast", lambda tensor: None)  # nothing to compile
        patch.setattr(confidence, "LEAST", 9)
        grow(graph, GrowConfig(width=64, scorer="complex", epochs=30, patience=30))
    graph.close()
    waiting = KnowledgeGraph.open(folder / "waiting")
    waiting.add(snapshots()[0].train)
    waiting.close_snapshot("first")
    waiting.close()
    (folder / "capitals.tsv").write_text(
        "Oslo\tcapital_of\tNorway\nOslo\tlocated_in\tNorway\nBergen\tlocated_in\tNorway\n"
    )
    (folder / "bad.tsv").write_text("Oslo\tcapital_of\tNorway\nOslo Norway\n")
    (folder / "empty.tsv").write_text("")
    for name in ("0", "1"):
        (folder / "several" / name).mkdir(parents=True)
        (folder / "several" / name / "train.tsv").write_text(f"Oslo\tlocated_in\tplace {name}\n")
    return folder


@pytest.fixture(scope="module")
def atlas(place) -> KnowledgeGraph:
    return KnowledgeGraph.open(place / "atlas")


@pytest.fixture(scope="module")
def asker(atlas) -> Asker:
    return Asker.of(atlas)


def odds(confidence: float) -> float:
    return confidence / (1 - confidence)


# ---- ask


def test_the_tail(atlas):
    found = ask(atlas, AskConfig(head="Berlin", relation="located_in"))
    assert found.question == "Berlin located_in ?" and found.known == 0
    assert found.answers[0].name == "Germany" and found.answers[0].place == 1 and found.answers[0].confidence > 0.1
    assert "Nothing is known of this; most likely: Germany" in found.summary
    assert len(found.answers) == 10 and [row.place for row in found.answers] == [*range(1, 11)]


def test_the_head(atlas):
    found = ask(atlas, AskConfig(relation="located_in", tail="Germany", top=3))
    assert found.question == "? located_in Germany"
    assert [row.name for row in found.answers if row.known] == ["Bonn", "Bremen", "Ulm"] and found.known == 3
    assert [row.name for row in found.answers][3] == "Berlin" and len(found.answers) == 6
    assert found.summary.startswith("Known: Bonn, Bremen, Ulm; most likely beside these: Berlin")


def test_the_relation(atlas):
    found = ask(atlas, AskConfig(head="Madrid", tail="Spain"))
    assert [row.name for row in found.answers[:2]] == ["capital_of", "located_in"]
    assert [row.known for row in found.answers] == [True, True, False, False] and found.candidates == 2
    assert found.summary == "Known: capital_of, located_in."
    found = ask(atlas, AskConfig(head="Berlin", tail="Germany", top=1))
    assert [(row.name, row.known) for row in found.answers] == [("capital_of", True), ("located_in", False)]
    for row in found.answers[1:]:
        whole = ask(atlas, AskConfig(head="Berlin", relation=row.name, tail="Germany")).answers[0]
        assert row.confidence == pytest.approx(whole.confidence)
    none = ask(atlas, AskConfig(head="Bonn", tail="Peru"))
    assert none.known == 0 and none.summary.startswith("No fact joins them; the likeliest is ")


def test_whether_a_fact_holds(atlas):
    yes = ask(atlas, AskConfig(head="Madrid", relation="located_in", tail="Spain"))
    no = ask(atlas, AskConfig(head="Madrid", relation="located_in", tail="Peru"))
    likely = ask(atlas, AskConfig(head="Berlin", relation="located_in", tail="Germany"))
    assert yes.known == 1 and yes.summary.startswith("Known; left out of what is known, its confidence is")
    assert no.known == 0 and no.summary.startswith("Not known;") and no.answers[0].place > 5
    assert yes.answers[0].confidence > likely.answers[0].confidence > no.answers[0].confidence
    assert likely.answers[0] == ask(atlas, AskConfig(head="Berlin", relation="located_in")).answers[0]


def test_two_parts_are_the_least(atlas):
    for given in ({}, {"head": "Berlin"}, {"relation": "part_of"}):
        fails(lambda given=given: ask(atlas, AskConfig(**given)), "give two of --head, --relation and --tail")


def test_unknown_names_are_told_with_near_ones(atlas):
    fails(lambda: ask(atlas, AskConfig(head="berlin", relation="located_in")), "no entity 'berlin'; near: Berlin")
    fails(lambda: ask(atlas, AskConfig(head="Berlim", relation="located_in")), "near: Berlin")
    fails(lambda: ask(atlas, AskConfig(head="zealand", relation="located_in")), "near: New Zealand")
    fails(
        lambda: ask(atlas, AskConfig(head="Berlin", relation="lies_in")),
        "no relation 'lies_in'; there are: capital_of, part_of, located_in, twin_of",
    )


def test_known_answers_come_first_and_the_chances_of_the_rest_sum_to_one(atlas, asker):
    for given in ({"head": "Berlin", "relation": "located_in"}, {"relation": "part_of", "tail": "Europe"}):
        rows = ask(atlas, AskConfig(**given, top=1000)).answers
        known = [row.known for row in rows]
        assert known == sorted(known, reverse=True)
        assert all(row.confidence is None and row.place is None for row in rows if row.known)
        chances = [row.confidence for row in rows if not row.known]
        assert chances == sorted(chances, reverse=True) and sum(chances) == pytest.approx(1, abs=1e-5)
        names = {row.name for row in rows}
        assert names == set(asker.ids) - {given.get("head") or given["tail"]} and len(names) == len(rows)
        some = ask(atlas, AskConfig(**given, top=5)).answers
        assert some == rows[: len(some)] and sum(row.confidence or 0 for row in some) <= 1


def test_chances_are_a_softmax_with_the_fitted_temperature(asker):
    assert asker.calibrated
    h, r = asker.entity("Bonn"), asker.relation("located_in")
    x, q = asker.entities.double(), asker.relations.double()
    (hr, hi), (qr, qi) = x[h].chunk(2), q[r].chunk(2)
    logits = (x @ torch.cat([hr * qr - hi * qi, hr * qi + hi * qr])) / asker.temperature
    logits[[asker.entity("Germany"), h]] = -torch.inf  # known, and itself
    chances, out = asker.chances(h, r)
    assert out.tolist() == sorted([asker.entity("Germany"), h])
    assert torch.allclose(chances.double(), logits.softmax(0), atol=1e-5)


def test_an_entity_answers_its_own_question_only_where_a_relation_has_such_facts(tmp_path):
    graph = KnowledgeGraph(tmp_path / "graph")
    graph.add([Fact(f"e{i}", "next", f"e{(i + 1) % 9}") for i in range(9)] + [Fact("e0", "like", "e0")])
    grow(graph, GrowConfig(width=8, scorer="complex", epochs=2, hold_out=0.0))
    for relation, there in (("next", False), ("like", True)):
        answers = ask(graph, AskConfig(head="e3", relation=relation, top=99)).answers
        assert ("e3" in {row.name for row in answers}) is there


def test_as_the_graph_was_then(atlas, asker):
    then = AskConfig(relation="located_in", tail="Spain", snapshot=0)
    now = then.model_copy(update={"snapshot": 1})
    before, after = ask(atlas, then), ask(atlas, now)
    sizes = [snapshot.entities for snapshot in asker.graph.snapshots]
    assert (before.candidates, after.candidates) == (sizes[0] - 5, sizes[1] - 5)
    assert after == ask(atlas, then.model_copy(update={"snapshot": None}))
    assert not {row.name for row in ask(atlas, then.model_copy(update={"top": 999})).answers} & set(ATLAS["Peru"])
    fails(lambda: ask(atlas, AskConfig(head="Lima", relation="located_in", snapshot=0)), "'Lima' is not learned as of")
    fails(
        lambda: ask(atlas, AskConfig(head="Rome", relation="located_in", snapshot=2)),
        "no learned snapshot 2; there are 0 to 1",
    )
    old = Asker.of(atlas, 0)
    assert torch.equal(old.entities, atlas.state(0).tensors["entities"]) and len(old.entities) == sizes[0]


def test_held_out_answers_are_known_but_were_not_learned(atlas, asker):
    tokyo, japan, row = asker.entity("Tokyo"), asker.entity("Japan"), asker.relation("located_in")
    assert asker.answers.to(tokyo, row).tolist() == [japan] and not len(asker.learned.to(tokyo, row))
    assert ask(atlas, AskConfig(head="Tokyo", relation="located_in")).known == 1


def test_a_graph_that_is_not_learned_says_so(place):
    waiting = KnowledgeGraph.open(place / "waiting")
    config = AskConfig(head="Berlin", relation="located_in")
    fails(lambda: ask(waiting, config), "nothing is learned yet", "intarsia knowledge grow")
    fails(lambda: ask(waiting, config.model_copy(update={"snapshot": 0})), "nothing is learned yet")


# ---- nearest


def test_nearest_by_the_cosine_of_vectors(atlas, asker):
    found = nearest(atlas, NearestConfig(entity="Lyon", top=5))
    x = asker.entities.double()
    cosines = torch.nn.functional.cosine_similarity(x, x[asker.entity("Lyon")][None])
    order = [i for i in cosines.argsort(descending=True).tolist() if i != asker.entity("Lyon")][:5]
    assert [row.name for row in found.neighbours] == [asker.graph.entities[i] for i in order]
    assert [row.likeness for row in found.neighbours] == pytest.approx(cosines[order].tolist(), abs=1e-5)
    assert {row.name for row in found.neighbours[:2]} < set(ATLAS["France"])


def test_shared_facts_of_neighbours(atlas):
    rows = {row.name: row for row in nearest(atlas, NearestConfig(entity="France", top=999)).neighbours}
    assert (rows["Spain"].count, rows["Spain"].shared) == (1, ["part_of Europe"]) and rows["Peru"].count == 0
    assert "France" not in rows and rows["Lima"].about == "in Peru"
    rows = {row.name: row for row in nearest(atlas, NearestConfig(entity="Paris", top=999)).neighbours}
    assert rows["Nice"].shared == ["located_in France"] and rows["Rome"].count == 0
    fails(lambda: nearest(atlas, NearestConfig(entity="Pariss")), "near: Paris")


# ---- explain


@pytest.fixture(scope="module")
def berlin(atlas):
    return explain(atlas, ExplainConfig(head="Berlin", relation="located_in", top=100))


def test_the_decisive_fact(atlas, berlin):
    """What was asked for is the likeliest tail; the fact that says most of it is the first, and costs most."""
    asked = ask(atlas, AskConfig(head="Berlin", relation="located_in"))
    assert berlin.fact == "Berlin located_in Germany" and not berlin.known and berlin.place == 1
    assert berlin.confidence == pytest.approx(asked.answers[0].confidence, rel=1e-5)
    first = berlin.supports[0]
    assert (first.fact, first.of) == ("Berlin capital_of Germany", "Berlin")
    assert first.effect > 0 and first.without < berlin.confidence / 1.5
    assert first.effect == max(support.effect for support in berlin.supports)
    assert "Most of it comes from 'Berlin capital_of Germany'" in berlin.summary


def test_effects_are_log_odds(berlin):
    for support in berlin.supports:
        assert odds(support.without) == pytest.approx(odds(berlin.confidence) * math.exp(-support.effect), rel=1e-3)


def test_facts_that_are_tried_are_those_of_head_and_tail(berlin, atlas):
    told = {(support.fact, support.of) for support in berlin.supports}
    germany = {f"{city} located_in Germany" for city in ATLAS["Germany"][1:]}
    germany |= {"Berlin capital_of Germany", "Germany part_of Europe"}
    assert told == {("Berlin capital_of Germany", "Berlin"), *((fact, "Germany") for fact in germany)}
    few = explain(atlas, ExplainConfig(head="Berlin", relation="located_in", facts=1, top=100))
    assert [support.of for support in few.supports].count("Germany") == 1


def test_a_known_fact_is_explained_without_itself(atlas):
    found = explain(atlas, ExplainConfig(head="Madrid", relation="located_in", tail="Spain", top=100))
    assert found.known and "is known" in found.summary
    assert "Madrid located_in Spain" not in {support.fact for support in found.supports}
    assert ["Madrid located_in Spain"] not in [path.steps for path in found.paths]


def naive_share(asker, rule: list[str], head: str, relation: str) -> tuple[float, int]:
    """Pairs that a way over learned facts joins, which comes to nothing twice, but for those from the head."""
    facts = {(h, asker.row_name(r), t) for h, r, t in directed(asker.graph.facts(asker.index, ("train",))).tolist()}
    joined = {(entity,) for entity in range(len(asker.entities)) if entity != asker.entity(head)}
    for step in rule:
        joined = {(*way, t) for way in joined for h, r, t in facts if (h, r) == (way[-1], step) and t not in way}
    pairs = {(way[0], way[-1]) for way in joined}
    return sum((h, relation, t) in facts for h, t in pairs) / len(pairs), len(pairs)


def test_the_figures_of_ways(atlas, asker, berlin):
    rules = {path.rule: path for path in berlin.paths}
    assert rules["capital_of"].steps == ["Berlin capital_of Germany"]
    for path in berlin.paths:
        share, pairs = naive_share(asker, path.rule.split(" · "), "Berlin", "located_in")
        assert (path.holds, path.pairs) == (pytest.approx(share), pairs)
    assert [path.holds for path in berlin.paths] == sorted((path.holds for path in berlin.paths), reverse=True)
    config = ExplainConfig(head="Bonn", relation="part_of", tail="Europe", top=100)
    found = explain(atlas, config)
    ways = {path.rule: path for path in found.paths}
    assert ways["located_in · part_of"].steps == ["Bonn located_in Germany", "Germany part_of Europe"]
    assert {len(path.steps) for path in found.paths} == {2}
    assert explain(atlas, config.model_copy(update={"longest": 1})).paths == []


@pytest.mark.parametrize(
    ("head", "tail", "rule"),
    [
        ("Paris", "Milan", "located_in · located_in⁻¹ · twin_of"),
        ("Lyon", "Turin", "twin_of · located_in · located_in⁻¹"),
    ],
)
def test_a_way_that_turns_back_is_none(atlas, asker, head, tail, rule):
    """To a city of its country and on to that one's twin: if this were the city again, the rule would often hold."""
    found = explain(atlas, ExplainConfig(head=head, relation="twin_of", tail=tail, top=100))
    share, pairs = naive_share(asker, rule.split(" · "), head, "twin_of")
    assert {(path.holds, path.pairs) for path in found.paths if path.rule == rule} == {(share, pairs)}
    assert share == 0 and pairs > 10


def test_neighbours_with_the_same_answer(atlas, asker, berlin):
    assert {row.name for row in berlin.kin} == set(ATLAS["Germany"][1:])
    likeness = [row.likeness for row in berlin.kin]
    assert likeness == sorted(likeness, reverse=True)
    near = {row.name: row.likeness for row in nearest(atlas, NearestConfig(entity="Berlin", top=999)).neighbours}
    assert all(row.likeness == pytest.approx(near[row.name], abs=1e-5) for row in berlin.kin)
    assert berlin.kin[0].fact == f"{berlin.kin[0].name} located_in Germany"


# ---- retrieve


def test_entities_of_a_text_in_its_order(atlas):
    found = retrieve(atlas, RetrieveConfig(text="Is Alice Springs, in Australia, hotter than NEW ZEALAND or Lima?"))
    assert [(row.words, row.entity) for row in found.linked] == [
        ("Alice Springs", "Alice Springs"),
        ("Australia", "Australia"),
        ("NEW ZEALAND", "New Zealand"),
        ("Lima", "Lima"),
    ]
    assert found.linked[3].about == "in Peru" and "4 entities in the text: Alice Springs, Australia" in found.summary


def test_entities_by_the_words_of_their_description(atlas):
    found = retrieve(atlas, RetrieveConfig(text="Who built the City of Light?"))
    assert [(row.words, row.entity) for row in found.linked] == [("City of Light", "Paris")]
    assert found.prompt.startswith("Paris: Paris, City of Light: the capital of France\n")
    fails(lambda: retrieve(atlas, RetrieveConfig(text="nothing of Berlinn here")), "names no entity", "near: Berlin")


def test_names_with_signs_in_them(tmp_path):
    names = ["O'Brien", "The Night Watch (painting)", "Guns N' Roses", "Sweet, Child", "C++", "Zoë 日本"]
    graph = KnowledgeGraph(tmp_path / "graph")
    graph.add([Fact(name, "is_a", "thing") for name in names])
    graph.close_snapshot()
    text = "Did O'Brien see the night watch (painting), or sing Guns N' Roses' Sweet, Child with Zoë\n日本 (in C++)?"
    found = retrieve(graph, RetrieveConfig(text=text))
    assert [row.entity for row in found.linked] == [names[i] for i in (0, 1, 2, 3, 5, 4)]
    assert [row.words for row in found.linked][:2] == ["O'Brien", "the night watch (painting)"]


def test_facts_by_their_steps_from_the_text(atlas):
    def facts(hops: int) -> set[tuple[str, str, str]]:
        rows = retrieve(atlas, RetrieveConfig(text="Bonn", hops=hops, most=999)).facts
        assert [row.weight for row in rows] == sorted((row.weight for row in rows), reverse=True)
        return {(row.head, row.relation, row.tail) for row in rows}

    germany = {(city, "located_in", "Germany") for city in ATLAS["Germany"][1:]}
    assert facts(1) == {("Bonn", "located_in", "Germany")}
    assert facts(2) == germany | {("Berlin", "capital_of", "Germany"), ("Germany", "part_of", "Europe")}
    third = {(country, "part_of", "Europe") for country, continent in CONTINENTS.items() if continent == "Europe"}
    assert facts(3) == facts(2) | third
    few = retrieve(atlas, RetrieveConfig(text="Bonn", hops=3, most=2)).facts
    assert len(few) == 2 and few[0].line == "Bonn located in Germany"


def test_predicted_facts_are_flagged(atlas):
    config = RetrieveConfig(text="Berlin and Canberra", predicted=3, least_confidence=0.01, most=4)
    found = retrieve(atlas, config)
    known, likely = found.facts[:4], found.facts[4:]
    assert all(row.confidence is None for row in known) and 1 <= len(likely) <= 3
    every = {tuple(fact) for fact in KnowledgeGraph.open(atlas.path).growing().facts(1).tolist()}
    names, relations = atlas.names.entity, atlas.names.relation
    for row in likely:
        assert row.confidence >= 0.01 and (names(row.head), relations(row.relation), names(row.tail)) not in every
        assert f"{row.head} {row.relation.replace('_', ' ')} {row.tail} (likely, {row.confidence:.0%})" in found.prompt
    assert found.prompt.count("\n") == len(found.facts) - 1 and found.prompt.count("likely") == len(likely)
    sure = retrieve(atlas, config.model_copy(update={"least_confidence": 1.0}))
    assert all(row.confidence is None for row in sure.facts)


def test_retrieving_needs_nothing_learned(place):
    found = retrieve(KnowledgeGraph.open(place / "waiting"), RetrieveConfig(text="Bonn", hops=1))
    assert [row.line for row in found.facts] == ["Bonn located in Germany"]


# ---- map


def test_a_map_marks_what_is_new_and_is_drawn_alike_again(atlas, asker):
    found = map_entities(atlas, MapConfig(), seed=3)
    old = asker.graph.snapshots[0].entities
    assert found.groups == ["known before", "new in new world"] and found.entities == len(asker.entities)
    assert {spot.name for spot in found.spots if spot.group == found.groups[1]} == set(asker.graph.entities[old:])
    assert len(found.spots) == len(asker.entities) and 0 < found.together <= 1
    facts = {spot.name: spot.facts for spot in found.spots}
    assert (facts["Germany"], facts["Bonn"], facts["Tokyo"]) == (5, 1, 1)  # what is held out does not count
    assert found == map_entities(atlas, MapConfig(), seed=3)


@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_a_map_of_one_entity(tmp_path, method):
    graph = KnowledgeGraph(tmp_path / "graph")
    graph.add([Fact("a", "is", "a")])
    grow(graph, width=4, epochs=1)
    found = map_entities(graph, MapConfig(method=method))
    assert [(spot.name, spot.x, spot.y) for spot in found.spots] == [("a", 0, 0)]
    known = explain(graph, ExplainConfig(head="a", relation="is", tail="a"))
    assert known.paths and "best way" not in known.summary  # it holds for nothing


def test_other_maps(atlas):
    found = map_entities(atlas, MapConfig(method="pca", by="relation"))
    groups = {spot.name: spot.group for spot in found.spots}
    assert (
        groups["Bonn"] == "located_in" and groups["Europe"] == "part_of" and set(found.groups) >= set(groups.values())
    )
    few = map_entities(atlas, MapConfig(method="pca", most=20), seed=1)
    assert 15 <= len(few.spots) <= 25 and len({spot.group for spot in few.spots}) == 2
    assert few == map_entities(atlas, MapConfig(method="pca", most=20), seed=1)
    first = map_entities(atlas, MapConfig(method="pca", snapshot=0))
    assert first.groups == ["new in old world"] and "Lima" not in {spot.name for spot in first.spots}


# ---- export


def test_numpy_files(atlas, asker, tmp_path):
    path = export(atlas, ExportConfig(to="numpy")).save(tmp_path / "out")
    assert np.array_equal(np.load(path / "entities.npy"), asker.entities.numpy())
    assert np.array_equal(np.load(path / "relations.npy"), asker.relations.numpy())
    assert (path / "entities.txt").read_text().splitlines() == asker.graph.entities
    assert (path / "relations.txt").read_text().splitlines() == asker.graph.relations
    for split in SPLITS:
        assert np.array_equal(np.load(path / f"{split}.npy"), asker.graph.facts(1, (split,)))
    readme = (path / "README.md").read_text()
    assert "64 entities" in readme and "Scorer: complex" in readme and 'after snapshot "new world"' in readme


def test_parquet_files(atlas, asker, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = export(atlas, ExportConfig(to="parquet")).save(tmp_path / "out")
    facts = parquet.read_table(path / "facts.parquet").to_pylist()
    wanted = [
        {"head": fact.head, "relation": fact.relation, "tail": fact.tail, "snapshot": snapshot.name, "split": split}
        for snapshot in snapshots() for split in SPLITS for fact in getattr(snapshot, split)
    ]  # fmt: skip
    assert facts == wanted
    entities = parquet.read_table(path / "entities.parquet").to_pylist()
    assert [row["name"] for row in entities] == asker.graph.entities
    assert np.array_equal(np.array([row["vector"] for row in entities], np.float32), asker.entities.numpy())
    assert {row["name"]: row["about"] for row in entities if row["about"]} == ABOUT
    came = {row["name"]: row["snapshot"] for row in entities}
    assert (came["Paris"], came["Lima"]) == ("old world", "new world")
    relations = parquet.read_table(path / "relations.parquet").to_pylist()
    vectors = [row[kind] for row in relations for kind in ("vector", "inverse_vector")]
    assert np.array_equal(np.array(vectors, np.float32), asker.relations.numpy())


def read_by_pandas(path: Path) -> list[tuple[str, str, str]]:
    """As `pykeen.triples.utils.load_triples` does it (1.11)."""
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(path, sep="\t", encoding="utf-8", dtype=str, header=None, keep_default_na=False)
    return [tuple(row) for row in table.to_numpy()]


def test_pykeen_files(atlas, asker, tmp_path):
    path = export(atlas, ExportConfig(to="pykeen")).save(tmp_path / "out")
    ids = [json.loads((path / f"{kind}_to_id.json").read_text()) for kind in ("entity", "relation")]
    assert [list(names) for names in ids] == [asker.graph.entities, asker.graph.relations]
    assert [list(names.values()) for names in ids] == [[*range(64)], [*range(4)]]
    for split in SPLITS:
        rows = [(ids[0][h], ids[1][r], ids[0][t]) for h, r, t in read_by_pandas(path / f"{split}.tsv")]
        assert rows == [tuple(fact) for fact in asker.graph.facts(1, (split,)).tolist()]
    assert np.array_equal(np.load(path / "entities.npy"), asker.entities.numpy())


def test_pykeen_reads_it(atlas, asker, tmp_path):
    triples = pytest.importorskip("pykeen.triples")
    path = export(atlas, ExportConfig(to="pykeen")).save(tmp_path / "out")
    given = {f"{kind}_to_id": json.loads((path / f"{kind}_to_id.json").read_text()) for kind in ("entity", "relation")}
    factory = triples.TriplesFactory.from_path(path / "train.tsv", **given)
    assert {tuple(fact) for fact in factory.mapped_triples.tolist()} == set(
        map(tuple, asker.graph.facts(1, ("train",)).tolist())
    )


def test_names_that_would_break_a_file(tmp_path):
    names = ['"quoted', 'half "quoted"', '"whole"', "tab\there", "line\nhere", "odd\u2028line", "# no comment", "NA"]
    names.insert(5, "tab here")
    graph = KnowledgeGraph.open(tmp_path / "graph")
    graph.add([Fact(name, "is", "thing") for name in names])
    grow(graph, GrowConfig(width=4, scorer="distmult", epochs=1, hold_out=0.0))
    numpy = export(graph, ExportConfig(to="numpy")).save(tmp_path / "numpy")
    plain = [name.translate({9: " ", 10: " ", 0x2028: " "}) for name in graph.names.entities()]
    plain[plain.index("tab here")] = "tab\\there"  # the other one has its place already
    assert (numpy / "entities.txt").read_text("utf-8").splitlines() == plain
    pykeen = export(graph, ExportConfig(to="pykeen")).save(tmp_path / "pykeen")
    ids = json.loads((pykeen / "entity_to_id.json").read_text("utf-8"))
    assert list(ids) == plain
    rows = read_by_pandas(pykeen / "train.tsv")
    assert [(ids[h], r, ids[t]) for h, r, t in rows] == [(i, "is", 1) for i in (0, *range(2, 10))]


def test_an_export_as_of_then_and_never_over_something(atlas, tmp_path):
    graph = export(atlas, ExportConfig(snapshot=0))
    path = graph.save(tmp_path / "out")
    assert len(np.load(path / "entities.npy")) == atlas.growing().snapshots[0].entities
    assert np.load(path / "test.npy").shape == (1, 3)
    (path / "mine.txt").write_text("mine")
    fails(lambda: graph.save(path), "is there already", "--force")
    assert (path / "mine.txt").exists()
    graph.save(path, force=True)
    assert not (path / "mine.txt").exists()


# ---- status


def test_status(atlas, place):
    found = status(atlas, StatusConfig())
    assert [row.name for row in found.results] == ["old world", "new world"] and found.scorer == "complex"
    assert "2 snapshots, 84 facts. Held-out facts: MRR " in found.summary
    assert {tuple(row.right) for row in found.answered} == {("Japan",), ("Peru",)}
    found = status(KnowledgeGraph.open(place / "waiting"), StatusConfig())
    assert found.results == [] and "51 facts are not learned yet: intarsia knowledge grow" in found.summary


# ---- the command line


@pytest.fixture
def cli(place, monkeypatch, capsys):
    """Run `intarsia knowledge` in `place`; gives (exit code, stdout, stderr)."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> tuple[int, str, str]:
        code = app.run(["knowledge", *map(str, arguments)])
        out, errors = capsys.readouterr()
        return code, out, errors

    return call


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ask", "atlas", "--head", "Berlin", "--relation", "located_in"], ["Berlin located_in ?", "Germany", "place"]),
        (["ask", "atlas", "--relation", "located_in", "--tail", "Spain"], ["known", "Bilbao", "Malaga"]),
        (["ask", "atlas", "--head", "Madrid", "--tail", "Spain"], ["capital_of", "located_in", "part_of"]),
        (["ask", "atlas", "--head", "Rome", "--relation", "located_in", "--tail", "Peru"], ["Not known", "place"]),
        (["nearest", "atlas", "--entity", "France", "--top", "3"], ["Most like France", "likeness", "shared facts"]),
        (["explain", "atlas", "--head", "Berlin", "--relation", "located_in"],
         ["Facts that made it", "Berlin capital_of Germany", "Ways from head to tail", "rule holds", "Neighbours"]),
        (["retrieve", "atlas", "--text", "Where is New Zealand?"], ["New Zealand", "Oceania", "part_of", "weight"]),
        (["map", "atlas", "--method", "pca"], ["A map of atlas", "known before", "new in new world"]),
        (["status", "atlas"], ["old world", "new world", "MRR", "Hits@1", "Questions that were held out", "Tokyo"]),
        (["status", "waiting"], ["51 facts are not learned yet", "knowledge grow waiting"]),
    ],
)  # fmt: skip
def test_what_a_reader_needs_is_printed(cli, arguments, words):
    code, out, errors = cli(*arguments, "--quiet")
    assert (code, errors) == (0, "")
    for word in words:
        assert word in out, out
    code, out, _ = cli(*arguments, "--json", "--quiet")
    assert code == 0 and json.loads(out)["title"]


def test_a_page_of_a_map(cli, place):
    code, out, _ = cli("map", "atlas", "--method", "pca", "--html", "map.html")
    page = (place / "map.html").read_text("utf-8")
    assert code == 0 and "page: map.html" in out and "New Zealand" in page and "<svg" in page


def test_exporting_by_command(cli, place):
    for to, file in (("numpy", "entities.npy"), ("pykeen", "train.tsv")):
        code, _, errors = cli("export", "atlas", "--to", to, "--out", f"out-{to}")
        assert code == 0 and f"saved: out-{to}" in errors and (place / f"out-{to}" / file).is_file()
    code, _, errors = cli("export", "atlas", "--out", "out-numpy")
    assert code == 2 and "--force" in errors


def test_growing_by_command(cli, place):
    """A file becomes a graph under `runs`; the same again changes nothing; more facts are one more snapshot."""
    quick = ["--width", "8", "--scorer", "distmult", "--epochs", "2", "--quiet"]
    code, out, _ = cli("grow", "capitals.tsv", *quick)
    assert code == 0 and "3 new facts. 1 snapshot learned; 3 entities, 2 relations by now." in out and "capitals" in out
    code, out, _ = cli("grow", "capitals.tsv", "--quiet")
    assert code == 0 and "0 new facts (3 were known). Nothing was left to learn" in out
    (place / "more.tsv").write_text("Oslo\tpart_of\tEurope\n")
    code, out, _ = cli("grow", "runs/capitals", "--facts", "more.tsv", "--json", "--quiet")
    found = json.loads(out)
    assert code == 0 and (found["added"], found["grown"]) == (1, 1)
    assert [row["name"] for row in found["results"]] == ["capitals", "more"]
    code, out, _ = cli("ask", "runs/capitals", "--head", "Oslo", "--relation", "part_of", "--quiet")
    assert code == 0 and "Europe" in out
    code, _, errors = cli("grow", "runs/capitals", "--facts", "more.tsv", "--method", "lkge")
    assert code == 2 and "learned with method distil, not lkge" in errors and "--relearn" in errors
    shutil.rmtree(place / "runs")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ask", "atlas"], "give two of --head, --relation and --tail"),
        (["ask", "nowhere", "--head", "a", "--tail", "b"], "nowhere: no graph there"),
        (["ask", "waiting", "--head", "Bonn", "--tail", "Germany"], "nothing is learned yet"),
        (["ask", "atlas", "--head", "Bon", "--tail", "Germany"], "no entity 'Bon'; near: Bonn"),
        (["ask", "atlas", "--head", "Bonn", "--relation", "lies_in"], "no relation 'lies_in'; there are: capital_of"),
        (["ask", "atlas", "--head", "Bonn", "--tail", "Rome", "--snapshot", "7"], "no learned snapshot 7"),
        (["ask", "atlas", "--head", "Bonn", "--tail", "Rome", "--top", "0"], "top"),
        (["nearest", "atlas", "--entity", "pariss"], "near: Paris"),
        (["nearest", "atlas"], "entity"),
        (["explain", "atlas", "--head", "Berlin", "--relation", "located_in", "--longest", "4"], "longest"),
        (["explain", "atlas", "--head", "Berlin", "--relation", "located_in", "--tail", "Mars"], "no entity 'Mars'"),
        (["retrieve", "atlas", "--text", "nothing at all"], "the text names no entity of the graph"),
        (["map", "atlas", "--by", "size"], "by"),
        (["map", "waiting"], "nothing is learned yet"),
        (["export", "waiting", "--out", "x"], "nothing is learned yet"),
        (["export", "atlas", "--out", "x", "--to", "excel"], "numpy"),
        (["status", "nowhere"], "nowhere: no graph there"),
        (["grow", "nowhere"], "nowhere: no graph there"),
        (["grow", "nowhere", "--facts", "nofile.tsv"], "nofile.tsv"),
        (["grow", "bad.tsv"], "bad.tsv: line 2"),
        (["grow", "empty.tsv"], "empty.tsv: the file is empty"),
        (["grow", "several", "--name", "x"], "several brings snapshots with names of their own"),
        (["compare", "atlas", "--keep", "bad.tsv/kept"], "bad.tsv/kept: cannot be written to"),
        (["grow", "atlas", "--width", "16"], "learned with width 64, not 16"),
        (["grow", "atlas", "--method", "lkgee"], "lkge"),
        (["grow", "atlas", "--options", "alphaa=1"], "has no option 'alphaa'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(cli, place, arguments, words):
    code, out, errors = cli(*arguments)
    assert (code, out) == (2, ""), errors
    assert errors.startswith("intarsia: ") and words in errors, errors
    assert errors.strip().count("\n") <= 1 and "Traceback" not in errors
    assert not (place / "nowhere").exists() and not (place / "x").exists() and not [*place.glob("runs/*")]
