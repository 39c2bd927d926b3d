"""Facts in a store: added, found around names and questions, taken from a knowledge graph."""

import pytest

from intarsia.data import Fact
from intarsia.errors import BadInput
from intarsia.knowledge import KnowledgeGraph
from intarsia.prompting.data import Edge, SourceDocument, Store
from tests.store_help import HashedWords

FACTS = [
    ("Rembrandt", "painted", "The Night Watch"),
    ("The Night Watch", "hangs_in", "Rijksmuseum", "guide.md"),
    ("Rijksmuseum", "is_in", "Amsterdam"),
    ("Vermeer", "painted", "The Milkmaid"),
    ("The Milkmaid", "hangs_in", "Rijksmuseum"),
    ("Rembrandt", "born_in", "Leiden", "encyclopedia", 0.7),
]


@pytest.fixture(params=["vectors", "words"])
def store(tmp_path, request):
    with Store.open(tmp_path / "store", HashedWords() if request.param == "vectors" else None) as made:
        yield made


def test_linked_and_found_by_name(store):
    assert store.link(FACTS, source="museum") == 6
    assert store.link([FACTS[0], Fact("Vermeer", "born_in", "Delft")]) == 1
    near = store.edges("Rembrandt")
    assert [(e.relation, e.tail, e.source, e.confidence) for e in near] == [
        ("painted", "The Night Watch", "", None), ("born_in", "Leiden", "encyclopedia", 0.7),
    ]  # fmt: skip
    assert [e.tail for e in store.edges("Rembrandt", 2)] == ["The Night Watch", "Leiden", "Rijksmuseum"]
    assert len(store.edges("Rembrandt", 3)) == 5
    assert near[1].line == "Rembrandt born in Leiden (likely, 70%)"
    with pytest.raises(BadInput, match="no entity 'Rembrant'; near: Rembrandt"):
        store.edges("Rembrant")
    with pytest.raises(BadInput, match="hops: 0"):
        store.edges("Rembrandt", 0)
    assert store.unlink("museum") == 3
    assert [e.relation for e in store.edges("Rembrandt")] == ["painted", "born_in"]


def test_a_known_fact_is_not_made_likely_again(store):
    store.link([("a", "r", "b", "s", 0.5)])
    store.link([("a", "r", "b", "t", 0.9)])
    assert store.edges("a") == [Edge(1, "a", "r", "b", "t", 0.9)]
    store.link([("a", "r", "b", "u")])
    store.link([("a", "r", "b", "v", 0.1)])
    assert store.edges("a") == [Edge(1, "a", "r", "b", "u", None)]


@pytest.mark.parametrize(
    "fact", [("a", "b"), ("a", "", "b"), (1, "r", "b"), ("a", "r", "b", "s", 2), ("a", "r", "b", 3)]
)
def test_what_is_no_fact(store, fact):
    with pytest.raises(BadInput, match=r"a fact is|confidence is a number"):
        store.link([fact])


def test_facts_around_a_question(store):
    store.add(SourceDocument("Rembrandt was a painter who lived in Leiden and Amsterdam.", "text"))
    store.link(FACTS)
    plain = store.search("Where does Rembrandt come from?")
    assert plain.facts == () and plain.entities == ()
    one = store.search("Where was Rembrandt born, in Leiden?", hops=1)
    assert one.entities == ("Rembrandt", "Leiden") and len(one.hits) == 1
    assert {path.line for path in one.facts} == {
        "Rembrandt born in Leiden (likely, 70%)", "Rembrandt painted The Night Watch",
    }  # fmt: skip
    two = store.search("Where does the painting hang that Rembrandt painted?", hops=2, facts=10)
    assert "Rembrandt painted The Night Watch; The Night Watch hangs in Rijksmuseum" in [p.line for p in two.facts]
    assert list(two.facts) == sorted(two.facts, key=lambda path: -path.score)
    assert len(store.search("Rembrandt", hops=2, facts=1).facts) == 1
    assert store.search("nothing of that kind", hops=2).facts == ()


def test_the_likest_path_comes_first(tmp_path):
    with Store.open(tmp_path / "s", HashedWords()) as store:
        store.link(FACTS)
        for question, line in (
            ("Rembrandt born in", "Rembrandt born in Leiden (likely, 70%)"),
            ("Rembrandt painted", "Rembrandt painted The Night Watch"),
        ):
            assert store.search(question, hops=1).facts[0].line == line


def test_facts_in_the_context_are_cited_by_their_edges(store):
    store.add(SourceDocument("Rembrandt lived in Amsterdam.", "life.md"))
    store.link(FACTS)
    context = store.search("Rembrandt in Amsterdam", hops=2).context(500)
    ids = [passage.id for passage in context.passages]
    assert ids[0] == "1" and all(name.startswith("E") for name in ids[1:]) and len(ids) > 2
    assert "[E1] fact\nRembrandt painted The Night Watch" in context.text
    assert "[E2] fact (guide.md)" in context.text or "+E2] fact (guide.md)" in context.text


def test_descriptions_give_other_names(store):
    store.link([("n1", "is_a", "n2")], about={"n1": "mouse, rodent: a small animal"})
    assert store.search("Is a rodent small?", hops=1).entities == ("n1",)


def test_a_question_of_any_signs_finds_or_does_not(store):
    store.link([("C++", "is_a", "language"), ("\ud800x", "is_a", "thing\0")])
    for question in ("", "?!", "C++", "\ud800", "a\0b", "(" * 50):
        store.search(question, hops=2)
    assert store.search("what is C++ ?", hops=1).entities == ("C++",)


def test_a_knowledge_graph_is_a_source(tmp_path, store):
    graph = KnowledgeGraph.open(tmp_path / "graph")
    graph.add([Fact("a", "likes", "b"), Fact("b", "likes", "c")], about={"a": "rodent: small"})
    graph.close_snapshot()
    assert store.add_graph(graph) == 2 and store.add_graph(graph) == 0
    assert {edge.source for edge in store.edges("b")} == {str(tmp_path / "graph")}
    assert store.search("the rodent", hops=1).entities == ("a",)
    with pytest.raises(BadInput, match="nothing is learned"):
        store.add_graph(graph, predicted=2)


@pytest.mark.slow  # numba compiles
def test_likely_facts_of_a_learned_graph(tmp_path):
    pytest.importorskip("numba")
    from intarsia.knowledge import grow

    graph = KnowledgeGraph.open(tmp_path / "graph")
    people = [Fact(f"p{i}", "lives_in", f"town{i % 2}") for i in range(12)]
    graph.add([*people, *(Fact(f"p{i}", "likes", f"p{(i + 2) % 12}") for i in range(10))])
    grow(graph, epochs=20, hold_out=0)
    with Store.open(tmp_path / "s", None) as store:
        before = store.add_graph(graph)
        assert before == 22
        assert store.add_graph(graph, predicted=1, least_confidence=0, entities=["p0", "p1"]) >= 1
        likely = [edge for edge in store.edges("p0") + store.edges("p1") if edge.confidence is not None]
        assert likely and all(0 <= edge.confidence <= 1 for edge in likely)
        assert all(str(graph) == edge.source for edge in likely)
