"""A knowledge graph that grows: its facts, snapshot by snapshot, from a folder, an archive or a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from intarsia.data.fact_tables import Problem, text_lines
from intarsia.data.facts import FACT_FORMATS, OnBad, bad_line, numbered_facts, place, whole
from intarsia.data.files import (
    ARCHIVES,
    Folder,
    Source,
    folder_in_archive,
    folder_on_disk,
    is_archive,
    must_exist,
    natural,
    source_on_disk,
    split_name,
)
from intarsia.data.records import Fact
from intarsia.errors import BadInput
from intarsia.progress import track

SPLITS = ("train", "valid", "test")
_ALIASES = {"dev": "valid", "val": "valid", "validation": "valid"}
_ENTITIES = "entities.tsv"
_WORDS = ("words", "label")
_GLOSS = ("gloss", "description")
_NO_FACTS = ("readme", "license", "licence", "copying", "notice", "changelog")


@dataclass
class FactSnapshot:
    """What is new in a knowledge graph at one time: the graph is the union of the snapshots up to this one.

    - descriptions: a text about an entity, by its name, for those that occur in no earlier snapshot.
    - duplicates: how many facts were dropped because the same split, here or earlier, has them already."""

    name: str
    train: list[Fact] = field(default_factory=list)
    valid: list[Fact] = field(default_factory=list)
    test: list[Fact] = field(default_factory=list)
    descriptions: dict[str, str] = field(default_factory=dict)
    duplicates: int = 0

    @property
    def divided(self) -> bool:
        """Whether facts were set aside for validation or test."""
        return bool(self.valid or self.test)


Plan = list[tuple[str, dict[str, Source]]]
"""The name of each snapshot and the file of each of its splits."""


def read_snapshots(path: str | Path, *, skip_bad: bool = False, on_bad: OnBad | None = None) -> list[FactSnapshot]:
    """The snapshots of a growing knowledge graph, in the natural order of their names (2 before 10).

    `path` is, in any of the formats of `read_facts`,

    - a folder whose folders hold a file `train` and perhaps `valid` (or `dev`, `val`, `validation`) and `test`: each
      of these folders is a snapshot;
    - a folder with such files directly: one snapshot, named as the folder;
    - a folder of other files: each is a snapshot, all its facts in train (a README or LICENSE is passed over);
    - a folder with nothing but one such folder in it;
    - an archive of one of these (`.tar`, `.tar.gz`, `.tar.xz`, `.zip`), read in memory, without writing to the disk;
    - a single file: one snapshot, named as the file, all facts in train.

    `entities.tsv` beside the snapshots (in the outer folder, or next to the single file) describes entities: a header
    with `name`, and `words` (or `label`), `gloss` (or `description`) or both, joined to "words: gloss". A description
    goes to the first snapshot its entity occurs in, and is left out where there is none.

    A fact that its split has already, in the same or an earlier snapshot, is dropped and counted. One that another
    split has is an error, whichever snapshots the two are in: what is tested must not have been learned.

    `skip_bad` leaves bad lines out, and the later one of two facts in different splits, and tells
    `on_bad(where, problem)` of each. Raises `BadInput` with the file and the line, and `MissingExtra`."""
    path = Path(path)
    must_exist(path)
    if path.is_dir() or is_archive(path):
        folder = folder_on_disk(path, _wanted) if path.is_dir() else folder_in_archive(path, _wanted)
        plan, entities = _plan(folder)
    else:
        if split_name(path.name)[1] not in FACT_FORMATS:
            raise BadInput(
                f"{path}: unknown format '{path.suffix.lower() or path.name}'; known: {', '.join(FACT_FORMATS)}, "
                f"archives ({', '.join(ARCHIVES)}) and folders"
            )
        plan, entities = [(split_name(path.name)[0], {"train": source_on_disk(path)})], None
    reading = _Reading(skip_bad, on_bad)
    # Before the facts, which take longer: a bad line is told of at once.
    texts = dict(_descriptions(entities, skip_bad, on_bad)) if entities else {}
    if path.is_file() and not is_archive(path):
        texts = described_beside(path, skip_bad=skip_bad, on_bad=on_bad)
    snapshots = [reading.snapshot(name, files) for name, files in track(plan, "reading facts")]
    for snapshot in snapshots:
        for fact in (*snapshot.train, *snapshot.valid, *snapshot.test) if texts else ():
            for entity in (fact.head, fact.tail):
                if text := texts.pop(entity, None):
                    snapshot.descriptions[entity] = text
    return snapshots


def described_beside(path: str | Path, *, skip_bad: bool = False, on_bad: OnBad | None = None) -> dict[str, str]:
    """The descriptions that lie beside a single file of facts, in `entities.tsv`; none where there is no such file."""
    beside = Path(path).parent / _ENTITIES
    if not beside.is_file() or beside.name == Path(path).name:
        return {}
    return dict(_descriptions(source_on_disk(beside), skip_bad, on_bad))


class _Reading:
    """What is known of the facts read so far, of all snapshots."""

    def __init__(self, skip_bad: bool, on_bad: OnBad | None):
        self.skip_bad, self.on_bad = skip_bad, on_bad
        self.names: dict[str, str] = {}
        self.anonymous: dict[str, str] = {}
        self.files: list[tuple[Source, str]] = []
        # The place of each fact: the number of its file, and below that, in 40 bits, that of its line. A pair of
        # numbers would take three times the memory.
        self.places: dict[Fact, int] = {}

    def snapshot(self, name: str, files: dict[str, Source]) -> FactSnapshot:
        snapshot = FactSnapshot(name)
        for split in SPLITS:
            if split in files:
                self._add(snapshot, split, files[split])
        return snapshot

    def _add(self, snapshot: FactSnapshot, split: str, source: Source) -> None:
        into: list[Fact] = getattr(snapshot, split)
        start = len(self.files) << 40
        self.files.append((source, split))
        once = self.names.setdefault
        facts = numbered_facts(source, skip_bad=self.skip_bad, on_bad=self.on_bad, anonymous=self.anonymous)
        for number, fact in facts:
            if (known := self.places.get(fact)) is None:
                # A name is held once, however many facts it is in.
                fact = Fact(*(once(name, name) for name in (fact.head, fact.relation, fact.tail)))
                self.places[fact] = start | number
                into.append(fact)
                continue
            other, its_split = self.files[known >> 40]
            if its_split == split:
                snapshot.duplicates += 1
                continue
            where = place(other, known & (1 << 40) - 1)
            bad_line(
                place(source, number),
                f"the fact '{_shown(fact)}' is in {split}, and in {its_split} at {where}; a fact belongs to one split",
                self.skip_bad,
                self.on_bad,
                mend="skip_bad (--skip-bad) leaves the later one out",
            )


def _shown(fact: Fact, most: int = 60) -> str:
    parts = (" ".join(part.split()) for part in (fact.head, fact.relation, fact.tail))
    return " ".join(part if len(part) <= most else f"{part[:most]}…" for part in parts)


def _wanted(name: str) -> bool:
    stem, suffix, _ = split_name(name)
    return suffix in FACT_FORMATS and not stem.lower().startswith(_NO_FACTS)


def _plan(folder: Folder) -> tuple[Plan, Source | None]:
    """The snapshots in a folder, in order, and the file that describes its entities."""
    direct = _splits(folder)
    inner = {name: splits for name in folder.folders if (splits := _splits(folder.folders[name]))}
    files = {name: source for name, source in folder.files.items() if name != _ENTITIES}
    if direct and inner:
        first = min(inner, key=natural)
        raise BadInput(f"{folder.label}: has split files itself and in its folder '{first}'; give one of them")
    if direct:
        plan = [(folder.name, direct)]
    elif inner:
        # One folder without a train file among others with one is more likely misnamed than meant to be passed over.
        for name in sorted(folder.folders, key=natural):
            if name not in inner and folder.folders[name].files:
                raise _no_train(folder.folders[name])
        plan = [(name, inner[name]) for name in sorted(inner, key=natural)]
    elif files:
        sources = sorted(files.values(), key=lambda source: (natural(source.stem), source.name))
        for one, two in pairwise(sources):
            if one.stem == two.stem:
                raise BadInput(f"{folder.label}: two files for the snapshot '{one.stem}': {one.name} and {two.name}")
        plan = [(source.stem, {"train": source}) for source in sources]
    elif len(folder.folders) == 1:
        return _plan(*folder.folders.values())
    else:
        raise BadInput(
            f"{folder.label}: no facts in it; wanted folders with a file train ({', '.join(FACT_FORMATS)}) and perhaps "
            "valid and test, or such files directly, or a file for each snapshot"
        )
    for name, splits in plan:
        if "train" not in splits:
            raise _no_train(folder if direct else folder.folders[name])
    return plan, folder.files.get(_ENTITIES)


def _no_train(folder: Folder) -> BadInput:
    names = sorted(folder.files, key=natural)
    return BadInput(
        f"{folder.label}: no train file in it; files: {', '.join(names[:6])}{', …' if len(names) > 6 else ''}"
    )


def _splits(folder: Folder) -> dict[str, Source]:
    found: dict[str, Source] = {}
    for name in sorted(folder.files):
        stem = folder.files[name].stem.lower()
        if (split := _ALIASES.get(stem, stem)) in SPLITS:
            if split in found:
                raise BadInput(f"{folder.label}: two files for '{split}': {found[split].name} and {name}; keep one")
            found[split] = folder.files[name]
    return found


def _descriptions(source: Source, skip_bad: bool, on_bad: OnBad | None) -> Iterator[tuple[str, str]]:
    """(entity, text) of each line of `entities.tsv`."""
    header: list[str] = []
    seen: dict[str, int] = {}
    for number, line in whole(source, _lines(source)):
        where = place(source, number)
        if not header:
            header = [cell.strip().lower() for cell in line.split("\t")]
            parts = [next((header.index(n) for n in known if n in header), None) for known in (_WORDS, _GLOSS)]
            if "name" not in header or parts == [None, None]:
                wanted = ", ".join((*_WORDS, *_GLOSS))
                raise BadInput(f"{where}: wanted a header with name and one of {wanted}, divided by tabs")
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if isinstance(line, Problem):
            bad_line(where, line, skip_bad, on_bad)
        elif len(cells) != len(header):
            fields = f"{len(cells)} field{'s' if len(cells) > 1 else ''}"
            bad_line(where, f"{fields} where the header has {len(header)}", skip_bad, on_bad)
        elif not (name := cells[header.index("name")]):
            bad_line(where, "empty name", skip_bad, on_bad)
        elif name in seen:
            bad_line(where, f"'{name}' is described already, at line {seen[name]}", skip_bad, on_bad)
        else:
            seen[name] = number
            yield name, ": ".join(cells[part] for part in parts if part is not None and cells[part])
    if not header:
        raise BadInput(f"{source.label}: the file is empty")


def _lines(source: Source) -> Iterator[tuple[int, str | Problem]]:
    with source.stream() as stream:
        for number, line in text_lines(stream):
            if line.strip():
                yield number, line
