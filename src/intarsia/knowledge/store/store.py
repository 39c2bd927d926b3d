"""`KnowledgeGraph`: a growing graph on disk."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia.data import Fact, FactSnapshot
from intarsia.data.snapshots import SPLITS
from intarsia.errors import BadInput, writing_to
from intarsia.knowledge.store.database import connect, get_blob, put_blob, transaction
from intarsia.knowledge.store.holding import held_out
from intarsia.knowledge.store.names import Names
from intarsia.knowledge.store.place import FILE, place_of

if TYPE_CHECKING:
    from intarsia.knowledge.graph.growing import GrowingGraph
    from intarsia.models.saved import Saved

BATCH = 20_000  # facts in one transaction while they are appended


@dataclass(frozen=True)
class Added:
    """What came of facts that were added: how many are new, and how many were there already."""

    facts: int = 0
    known: int = 0

    def __add__(self, other: Added) -> Added:
        return Added(self.facts + other.facts, self.known + other.known)


@dataclass(frozen=True)
class Stage:
    """One snapshot of a stored graph: open (facts may come), closed, or learned (it has a result)."""

    index: int
    name: str
    open: bool
    result: dict[str, Any] | None
    facts: int
    added: str

    @property
    def learned(self) -> bool:
        return self.result is not None


class KnowledgeGraph:
    """A folder with names, facts, snapshots and what was learned, in one SQLite file.

    Ids of entities and relations never change. Facts are appended to the snapshot that is open, durably, batch by
    batch; a fact that is there already is passed over. Closing a snapshot fixes what belongs to it; learning one is a
    single transaction, so a crash leaves the snapshots before it as they were.

        graph = KnowledgeGraph.open("museum")          # the folder need not be there yet
        graph.add([Fact("Rembrandt", "painted", "The Night Watch")])
        grow(graph)                                    # closes the snapshot, and learns it

    A graph is safe for one writer and many readers at a time."""

    def __init__(self, path: str | Path, source: str | Path | None = None):
        self.path, self.source = Path(path), source
        self._connection: sqlite3.Connection | None = None
        self._names: Names | None = None

    @staticmethod
    def open(source: str | Path) -> KnowledgeGraph:
        """A graph by its folder; or one that is made, under `runs`, of a known name, a file or a folder of facts."""
        return KnowledgeGraph(*place_of(source))

    @property
    def exists(self) -> bool:
        """Whether anything was stored yet."""
        return (self.path / FILE).is_file()

    def __str__(self) -> str:
        return str(self.path)

    # ---- the connection

    @property
    def connection(self) -> sqlite3.Connection:
        """To the file, which must be there. Raises `BadInput` that says how a graph is made."""
        if self._connection is None:
            if not self.exists:
                what = self.source or "FACTS"
                raise BadInput(f"{self.path}: no graph there; `intarsia knowledge grow {what}` makes one")
            self._connection = connect(self.path / FILE)
        return self._connection

    def create(self) -> None:
        """Make the file where it is not there."""
        if not self.exists:
            if self.path.is_file():
                raise BadInput(f"{self.path}: is a file; a graph is a folder")
            with writing_to(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
            self._connection = connect(self.path / FILE, create=True)

    def remove(self) -> None:
        """Take the file away, and the folder where nothing else is in it."""
        self.close()
        for file in (*self.path.glob(f"{FILE}*"), self.path / ".lock"):
            file.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Only one process at a time. Raises `BadInput` when another one is at it."""
        from filelock import FileLock, Timeout

        self.create()
        try:
            with writing_to(self.path):
                lock = FileLock(self.path / ".lock", timeout=1)
                lock.acquire()
        except Timeout:
            raise BadInput(f"{self.path}: another process is growing this graph; wait for it") from None
        try:
            yield
        finally:
            lock.release()

    @property
    def names(self) -> Names:
        """Its entities and relations by name."""
        if self._names is None:
            self._names = Names(self.connection)
        return self._names

    # ---- facts

    def add(self, facts: Iterable[Fact], split: str = "train", about: dict[str, str] | None = None) -> Added:
        """Append facts to the open snapshot, which begins where there is none. `about`: texts about entities by name.

        What was added before an error, in whole batches, stays."""
        self.create()
        number, total, rows = SPLITS.index(split), Added(), iter(facts)
        with transaction(self.connection):
            index = self._open()
        while batch := list(islice(rows, BATCH)):
            with self._rolled_back():
                total += self._insert(batch, index, number)
        if about:
            with transaction(self.connection):
                self._describe(about)
        return total

    def append(
        self, snapshots: Iterable[FactSnapshot], *, hold_out: float = 0.0, seed: int = 0, more: bool = False
    ) -> Added:
        """Add whole snapshots, each of them in one transaction, and close them. Those that are there already, by name,
        are passed over, so that a call that was stopped can be made again.

        Facts that wait in an open snapshot become part of the first of them.

        - hold_out: as in `close_snapshot`, for snapshots that are not divided.
        - more: whether they come after what is there; else they are all there is, in this order.

        Raises `BadInput` when other snapshots are there."""
        self.create()
        total, had = Added(), [stage.name for stage in self.stages() if not stage.open]
        for i, snapshot in enumerate(snapshots):
            if snapshot.name in had if more else had[i : i + 1] == [snapshot.name]:
                continue
            if not more and i < len(had):
                raise BadInput(
                    f"{self.path}: its snapshot {i} is '{had[i]}', not '{snapshot.name}': these facts belong to "
                    "another graph; give another folder"
                )
            with self._rolled_back():
                index = self._open(snapshot.name)
                for number, split in enumerate(SPLITS):
                    total += self._insert(getattr(snapshot, split), index, number)
                self._describe(snapshot.descriptions)
                if hold_out and not snapshot.divided:
                    held_out(self.connection, index, hold_out, seed)
                self._close(index, snapshot.name)
        return total

    def close_snapshot(self, name: str | None = None, hold_out: float = 0.0, seed: int = 0) -> int | None:
        """Close the open snapshot and give its index; None where none is open. One without facts is taken away.

        - name: its name from now on; a number is put behind one that is taken.
        - hold_out: share of its facts that is set aside, half of it for choosing the epoch and half for testing; only
          facts whose entities and relation are in other training facts too. None, where some were set aside already."""
        stages = self.stages()
        stage = next((stage for stage in stages if stage.open), None)
        if stage is None:
            return None
        if not stage.facts:
            with transaction(self.connection):
                self.connection.execute("DELETE FROM snapshots WHERE id = ?", (stage.index,))
            return None
        name, taken = name or stage.name, {other.name for other in stages if not other.open}
        if name in taken:
            name = next(f"{name}-{n}" for n in count(2) if f"{name}-{n}" not in taken)
        with transaction(self.connection):
            if hold_out:
                held_out(self.connection, stage.index, hold_out, seed)
            self._close(stage.index, name)
        return stage.index

    @contextmanager
    def _rolled_back(self) -> Iterator[None]:
        """A transaction after whose failure names are read again: some may be known that were never stored."""
        try:
            with transaction(self.connection):
                yield
        except BaseException:
            self._names = None
            raise

    def _open(self, name: str | None = None) -> int:
        row = self.connection.execute("SELECT id FROM snapshots WHERE entities IS NULL").fetchone()
        if row:
            return row[0]
        index = self.connection.execute("SELECT COUNT(*) FROM snapshots").fetchone()[0]
        self.connection.execute("INSERT INTO snapshots (id, name) VALUES (?, ?)", (index, name or str(index)))
        return index

    def _close(self, index: int, name: str) -> None:
        """Inside a transaction."""
        self.connection.execute(
            "UPDATE snapshots SET name = ?, entities = (SELECT COUNT(*) FROM entities), "
            "relations = (SELECT COUNT(*) FROM relations) WHERE id = ?",
            (name, index),
        )

    def _insert(self, facts: list[Fact], index: int, split: int) -> Added:
        names, last = self.names, "SELECT COALESCE(MAX(place), -1) FROM facts WHERE snapshot = ? AND split = ?"
        place = self.connection.execute(last, (index, split)).fetchone()[0] + 1
        rows = []
        for i, fact in enumerate(facts):
            head, relation = names.entity_for(fact.head), names.relation_for(fact.relation)
            rows.append((head, relation, names.entity_for(fact.tail), index, split, place + i))
        names.flush()
        before = self.connection.total_changes
        self.connection.executemany("INSERT OR IGNORE INTO facts VALUES (?, ?, ?, ?, ?, ?)", rows)
        new = self.connection.total_changes - before
        return Added(new, len(rows) - new)

    def _describe(self, about: dict[str, str]) -> None:
        rows = ((text, name) for name, text in about.items())
        self.connection.executemany("UPDATE entities SET about = ? WHERE name = ?", rows)

    # ---- snapshots

    def stages(self) -> list[Stage]:
        """All snapshots in order."""
        rows = self.connection.execute(
            "SELECT id, name, entities IS NULL, result, added, "
            "(SELECT COUNT(*) FROM facts WHERE snapshot = snapshots.id) FROM snapshots ORDER BY id"
        ).fetchall()
        return [Stage(i, name, bool(o), json.loads(r) if r else None, n, added) for i, name, o, r, added, n in rows]

    @property
    def learned(self) -> int:
        """How many snapshots are learned."""
        return sum(stage.learned for stage in self.stages())

    def growing(self) -> GrowingGraph:
        """All closed snapshots as arrays of ids, as `GrowingGraph.of` gives them."""
        import numpy as np

        from intarsia.knowledge.graph.growing import GrowingGraph, Snapshot

        if not self.exists and self.source is not None:
            return GrowingGraph.of(self.facts_of_source())
        snapshots = []
        for index, name, entities, relations in self.connection.execute(
            "SELECT id, name, entities, relations FROM snapshots WHERE entities IS NOT NULL ORDER BY id"
        ).fetchall():
            arrays = []
            for number in range(len(SPLITS)):
                rows = self.connection.execute(
                    "SELECT head, relation, tail FROM facts WHERE snapshot = ? AND split = ? ORDER BY place",
                    (index, number),
                ).fetchall()
                arrays.append(np.array(rows, np.int64).reshape(-1, 3))
            snapshots.append(Snapshot(name, *arrays, entities=entities, relations=relations))
        about = self.connection.execute("SELECT name, about FROM entities WHERE about != ''").fetchall()
        return GrowingGraph(self.names.entities(), self.names.relations(), tuple(snapshots), dict(about))

    def facts_of_source(self, skip_bad: bool = False, on_bad: Any = None) -> list[FactSnapshot]:
        """The snapshots that the graph is made of, where it was opened by these."""
        from intarsia.data import read_snapshots
        from intarsia.knowledge.store.place import KNOWN

        assert self.source is not None
        if str(self.source) in KNOWN:
            return KNOWN[str(self.source)]()
        return read_snapshots(self.source, skip_bad=skip_bad, on_bad=on_bad)

    # ---- what was learned

    def keep(self, index: int, saved: Saved, result: dict[str, Any], history: int | None = None) -> None:
        """Store what was learned of a snapshot, whole or not at all.

        - history: keep the vectors of no more than this many snapshots; results stay."""
        data = saved.to_bytes()
        with transaction(self.connection):
            put_blob(self.connection, index, data)
            self.connection.execute("UPDATE snapshots SET result = ? WHERE id = ?", (json.dumps(result), index))
            if history is not None:
                self.connection.execute("DELETE FROM learned WHERE snapshot <= ?", (index - history,))

    def state(self, index: int | None = None) -> Saved:
        """What was learned of a snapshot (default: the last learned one)."""
        from intarsia.models.saved import Saved

        index = self.learned - 1 if index is None else index
        data = get_blob(self.connection, index) if index >= 0 else None
        if data is None:
            have = [row[0] for row in self.connection.execute("SELECT DISTINCT snapshot FROM learned").fetchall()]
            told = f"vectors are kept of: {', '.join(map(str, sorted(have)))}" if have else "nothing is learned yet"
            raise BadInput(
                f"{self.path}: no vectors of snapshot {index}; {told} (`intarsia knowledge grow {self.path}`)"
            )
        return Saved.from_bytes(data)

    def forget(self, since: int = 0) -> None:
        """Drop what was learned of snapshots from `since` on; facts stay."""
        with transaction(self.connection):
            self.connection.execute("DELETE FROM learned WHERE snapshot >= ?", (since,))
            self.connection.execute("UPDATE snapshots SET result = NULL WHERE id >= ?", (since,))

    # ---- notes

    def note(self, key: str, default: Any = None) -> Any:
        """A note of the graph's own, as `set_note` left it."""
        row = self.connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else default

    def set_note(self, key: str, value: Any) -> None:
        """Keep a JSON-able value."""
        with transaction(self.connection):
            self.connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))
