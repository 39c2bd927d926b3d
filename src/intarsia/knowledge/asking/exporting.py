"""The work of `knowledge.export`."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from intarsia.data.snapshots import SPLITS
from intarsia.errors import BadInput, MissingExtra
from intarsia.knowledge.asking.asker import Asker
from intarsia.knowledge.export import ExportConfig
from intarsia.knowledge.store import KnowledgeGraph

Array = np.ndarray[Any, Any]
_HEAD = """\
# {name}

A knowledge graph with its vectors, after snapshot "{snapshot}": {entities:,} entities, {relations:,} relations,
{facts:,} facts. Scorer: {scorer} ({source}). Relation k has row 2k, its inverse row 2k + 1. A question (head, relation)
is answered by comparing one vector with those of all entities.

"""
_READ = {
    "numpy": """\
```python
import numpy as np

entities, relations = np.load("entities.npy"), np.load("relations.npy")
names = open("entities.txt", encoding="utf-8").read().splitlines()
facts = np.load("train.npy")  # [fact, 3]: head, relation, tail
```
""",
    "parquet": """\
```python
import pyarrow.parquet as pq

facts = pq.read_table("facts.parquet")  # head, relation, tail, snapshot, split
entities = pq.read_table("entities.parquet")  # name, snapshot, about, vector
```
""",
    "pykeen": """\
```python
import json
import numpy as np
import torch
from pykeen.triples import TriplesFactory

entity_to_id, relation_to_id = (json.load(open(f"{{kind}}_to_id.json")) for kind in ("entity", "relation"))
given = {{"entity_to_id": entity_to_id, "relation_to_id": relation_to_id}}
training = TriplesFactory.from_path("train.tsv", **given)
vectors = torch.from_numpy(np.load("entities.npy"))  # for pykeen.nn.init.PretrainedInitializer
```
""",
}


@dataclass(frozen=True)
class GraphExport:
    """A graph ready to be written for another tool."""

    asker: Asker
    name: str
    to: str

    def save(self, path: str | Path, force: bool = False) -> Path:
        """Write the folder, whole or not at all. Raises `BadInput` where something is already and not `force`."""
        from intarsia.models import cache

        path = Path(path).expanduser().absolute()
        if path.is_file() or (path.is_dir() and any(path.iterdir()) and not force):
            raise BadInput(f"{path} is there already: give another folder, or force (--force) to replace it")
        with cache.beside(path, replace=force) as part:
            {"numpy": self._numpy, "parquet": self._parquet, "pykeen": self._pykeen}[self.to](part)
            (part / "README.md").write_text(self._readme(), "utf-8")
            cache.share_modes(part)
        return path

    def _readme(self) -> str:
        asker = self.asker
        snapshot = asker.graph.snapshots[asker.index]
        head = _HEAD.format(
            name=self.name, snapshot=snapshot.name, entities=snapshot.entities, relations=snapshot.relations,
            facts=sum(map(len, self._facts().values())), scorer=asker.scorer.name, source=asker.scorer.source,
        )  # fmt: skip
        return head + _READ[self.to].format()

    def _facts(self) -> dict[str, Array]:
        return {split: self.asker.graph.facts(self.asker.index, (split,)) for split in SPLITS}

    def _names(self) -> tuple[list[str], list[str]]:
        snapshot = self.asker.graph.snapshots[self.asker.index]
        return self.asker.graph.entities[: snapshot.entities], self.asker.graph.relations[: snapshot.relations]

    def _vectors(self, part: Path) -> None:
        np.save(part / "entities.npy", self.asker.entities.numpy())
        np.save(part / "relations.npy", self.asker.relations.numpy())

    def _numpy(self, part: Path) -> None:
        self._vectors(part)
        for kind, names in zip(("entities", "relations"), self._names(), strict=True):
            (part / f"{kind}.txt").write_text("".join(f"{name}\n" for name in _lines(names)), "utf-8")
        for split, facts in self._facts().items():
            np.save(part / f"{split}.npy", facts)

    def _pykeen(self, part: Path) -> None:
        self._vectors(part)
        entities, relations = map(_lines, self._names())
        for kind, names in (("entity", entities), ("relation", relations)):
            ids = {name: i for i, name in enumerate(names)}
            (part / f"{kind}_to_id.json").write_text(json.dumps(ids, ensure_ascii=False), "utf-8")
        for split, facts in self._facts().items():
            with (part / f"{split}.tsv").open("w", encoding="utf-8", newline="") as file:
                # PyKEEN reads by pandas, for which a quotation mark at the beginning of a name opens a quoted field.
                rows = csv.writer(file, delimiter="\t", lineterminator="\n")
                for head, relation, tail in facts.tolist():
                    rows.writerow((entities[head], relations[relation], entities[tail]))

    def _parquet(self, part: Path) -> None:
        try:
            import pyarrow as arrow
            import pyarrow.parquet as parquet
        except ImportError:
            raise MissingExtra("export to Parquet", "parquet") from None
        graph, index = self.asker.graph, self.asker.index
        entities, relations = self._names()
        columns: dict[str, list[Any]] = {name: [] for name in ("head", "relation", "tail", "snapshot", "split")}
        for snapshot in graph.snapshots[: index + 1]:
            for split in SPLITS:
                for head, relation, tail in snapshot.split(split).tolist():
                    row = (entities[head], relations[relation], entities[tail], snapshot.name, split)
                    for column, value in zip(columns.values(), row, strict=True):
                        column.append(value)
        parquet.write_table(arrow.table(columns), part / "facts.parquet")
        came = np.zeros(len(entities), np.int64)
        for i in range(index + 1):
            came[graph.before(i)[0] :] = i
        table = {
            "name": entities,
            "snapshot": [graph.snapshots[i].name for i in came.tolist()],
            "about": [graph.descriptions.get(name, "") for name in entities],
            "vector": list(self.asker.entities.numpy()),
        }
        parquet.write_table(arrow.table(table), part / "entities.parquet")
        rows = self.asker.relations.numpy()
        table = {"name": relations, "vector": list(rows[::2]), "inverse_vector": list(rows[1::2])}
        parquet.write_table(arrow.table(table), part / "relations.parquet")


def make(graph: KnowledgeGraph, config: ExportConfig) -> GraphExport:
    """What `save` will write."""
    return GraphExport(Asker.of(graph, config.snapshot), graph.path.name, config.to)


def _lines(names: list[str]) -> list[str]:
    """Names without what would end a field or a line (for `str.splitlines` too), still each its own."""
    breaks = re.compile(r"[\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
    taken = {name for name in names if not breaks.search(name)}
    out = []
    for name in names:
        line = breaks.sub(" ", name)
        if line != name and line in taken:
            line = breaks.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), name)
        while line != name and line in taken:
            line += "_"
        taken.add(line)
        out.append(line)
    return out
