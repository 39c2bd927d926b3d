"""An assistant's documents and facts into its store, and up to date."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from intarsia.errors import BadInput
from intarsia.prompting.assistant.opening import Assistant
from intarsia.prompting.data.documents import SourceDocument
from intarsia.prompting.data.loading import PYTHON, is_database, load_documents, source_name
from intarsia.prompting.data.store import Added, Store

if TYPE_CHECKING:
    from intarsia.data import FactSnapshot


def update(assistant: Assistant) -> tuple[Added, int]:
    """Bring the store up to date with the documents and facts that the settings name: what did not change is passed
    over, what is gone is taken out. (what was done with documents, new facts).

    Raises `BadInput` for what cannot be read."""
    settings, folder = assistant.settings, assistant.folder
    total, seen = Added(), set[str]()

    def noted(documents: Iterator[SourceDocument]) -> Iterator[SourceDocument]:
        for document in documents:
            seen.add(document.source)
            yield document

    with Store.open(assistant.store_path, settings.encoder) as store:
        for source in settings.documents:
            total += store.add(noted(named(source, folder)))
        for stored in store.documents():
            if stored.source not in seen:
                store.remove(stored.source)
                total += Added(removed=1)
        facts = 0 if settings.graph is None else add_facts(store, settings.graph, folder)
    return total, facts


def named(source: str, folder: Path) -> Iterator[SourceDocument]:
    """The documents of a source, called by it and what is below it: wherever the assistant's folder lies, a citation
    says `handbook/kettle.md`."""
    if source == PYTHON or is_database(source):
        yield from load_documents(source)
        return
    path = Path(os.path.normpath(folder / Path(source).expanduser()))
    whole = source_name(path)
    for document in load_documents(path):
        yield replace(document, source=path.name + document.source.removeprefix(whole))


def add_facts(
    store: Store, graph: str, folder: Path = Path(), *, predicted: int = 0, least_confidence: float = 0.5
) -> int:
    """The facts of a knowledge graph that was grown; of a file or folder of facts; or of `python`, read off the
    interpreter where no graph of it lies in `folder`. How many are new.

    predicted, least_confidence: as for `Store.add_graph`. Raises `BadInput` for what is none of these, and where facts
    are to be predicted and nothing is learned."""
    from intarsia.knowledge import KnowledgeGraph

    given = folder / Path(graph).expanduser()
    found = KnowledgeGraph.open(given if given.exists() else graph)
    if found.exists and (predicted or found.path == given):
        return store.add_graph(found, predicted=predicted, least_confidence=least_confidence)
    if predicted:
        raise BadInput(f"{graph}: is no knowledge graph that was learned: `intarsia knowledge grow {graph}` first")
    count = 0
    for snapshot in _snapshots(graph, given):
        count += store.link(
            [*snapshot.train, *snapshot.valid, *snapshot.test], source=Path(graph).name, about=snapshot.descriptions
        )
    return count


def known_graphs() -> dict[str, Callable[[], list[FactSnapshot]]]:
    """Graphs that need no file, by name."""
    from intarsia.knowledge.store.place import KNOWN

    return KNOWN


def _snapshots(graph: str, given: Path) -> list[FactSnapshot]:
    if graph in known_graphs() and not given.exists():
        return known_graphs()[graph]()
    if not given.exists():
        raise BadInput(f"{graph}: no graph; give the folder of one, a file of facts (head, relation, tail), or python")
    from intarsia.data import read_snapshots

    return read_snapshots(given)
