"""`knowledge.export`: a graph and its vectors for other tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.knowledge.store import KnowledgeGraph

if TYPE_CHECKING:
    from intarsia.knowledge.asking.exporting import GraphExport


class ExportConfig(Config):
    to: Literal["numpy", "parquet", "pykeen"] = Field(
        "numpy", description="numpy: arrays and lists of names; parquet: tables; pykeen: what its TriplesFactory reads"
    )
    snapshot: int | None = Field(None, description="as the graph was after this snapshot; unset: the last one")


@technique(
    "knowledge.export",
    kind="learn",
    family="growing graphs",
    source="Ali et al. 2021 (PyKEEN), triples factories",
    needs="facts",
    gives="GraphExport",
    extra="knowledge",
    example={"subject": "python", "to": "numpy"},
)
def export(graph: KnowledgeGraph, config: ExportConfig) -> GraphExport:
    """Facts, names and vectors of a grown graph as files that other tools read; a README beside them says how.

    - numpy: `entities.npy` and `relations.npy` (vectors, a row an entity or relation, inverses among them),
      `entities.txt` and `relations.txt` (names, a line each), `train.npy`, `valid.npy`, `test.npy` (ids).
    - parquet: `facts.parquet`, `entities.parquet` and `relations.parquet`, with names, snapshots and vectors.
    - pykeen: `train.tsv`, `valid.tsv`, `test.tsv`, `entity_to_id.json`, `relation_to_id.json`, and the vectors to start
      a model from.

    - GRAPH: the folder of a graph that `knowledge.grow` learned, or `python`."""
    from intarsia.knowledge.asking.exporting import make

    return make(graph, config)
