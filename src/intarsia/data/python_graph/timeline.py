"""The facts as a graph that grew: snapshots by the version of the latest entity, divided so that nothing leaks."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable

from intarsia.data.python_chapters import CHAPTER_OF
from intarsia.data.python_graph.relations import DEFAULTS, QUESTIONS
from intarsia.data.python_graph.versions import OLDEST, Versions
from intarsia.data.records import Fact
from intarsia.data.snapshots import FactSnapshot

VALID_SHARE, TEST_SHARE = 0.1, 0.1
LEAST_FACTS = 150
"""A version with fewer facts shares a snapshot with the next one."""
_ENDS = {"exception": ("Error", "Exception", "error"), "warning": ("Warning",)}


def snapshots_of(
    facts: Iterable[Fact], descriptions: dict[str, str], versions: Versions, seed: int = 0
) -> list[FactSnapshot]:
    """The snapshots, oldest first. A fact is in that of its latest entity; a description in that of the first fact of
    its entity."""
    by_version: dict[int, list[Fact]] = defaultdict(list)
    for fact in facts:
        by_version[max(versions.of(fact.head), versions.of(fact.tail))].append(fact)
    snapshots: list[FactSnapshot] = []
    known: set[str] = set()
    described: set[str] = set()
    for name, group in merged(by_version):
        snapshot = divided(name, group, known, versions, seed)
        for entity in dict.fromkeys(entity for fact in group for entity in (fact.head, fact.tail)):
            if entity in descriptions and entity not in described:
                snapshot.descriptions[entity] = descriptions[entity]
        described |= snapshot.descriptions.keys()
        snapshots.append(snapshot)
    return snapshots


def merged(by_version: dict[int, list[Fact]]) -> list[tuple[str, list[Fact]]]:
    """(name, facts) of each snapshot: "3.2", "3.3", "3.9-3.10", ..."""
    groups: list[tuple[list[int], list[Fact]]] = []
    for version in sorted(by_version):
        if groups and len(groups[-1][1]) < LEAST_FACTS:
            groups[-1][0].append(version)
            groups[-1][1].extend(by_version[version])
        else:
            groups.append(([version], list(by_version[version])))
    if len(groups) > 1 and len(groups[-1][1]) < LEAST_FACTS:
        numbers, facts = groups.pop()
        groups[-1][0].extend(numbers)
        groups[-1][1].extend(facts)
    names = ["-".join(dict.fromkeys(f"3.{number}" for number in (numbers[0], numbers[-1]))) for numbers, _ in groups]
    if groups and groups[0][0][0] == OLDEST:
        names[0] = f"up to 3.{groups[0][0][-1]}"
    return [(name, facts) for name, (_, facts) in zip(names, groups, strict=True)]


def divided(name: str, facts: Iterable[Fact], known: set[str], versions: Versions, seed: int) -> FactSnapshot:
    """One snapshot: by a hash of each fact, most to train, a tenth to valid, a tenth to test.

    What can be read off the names trains, and so does a fact with an entity or a relation that is in no train split so
    far; `known` holds those and is added to."""
    snapshot = FactSnapshot(name)
    aside: list[tuple[Fact, list[Fact]]] = []
    for fact in facts:
        place = 1.0 if readable(fact, versions) else _place(fact, seed)
        if place >= VALID_SHARE + TEST_SHARE:
            _learn(snapshot, fact, known)
        else:
            aside.append((fact, snapshot.valid if place < VALID_SHARE else snapshot.test))
    for fact, split in sorted(aside, key=lambda item: _place(item[0], seed)):
        if {fact.head, fact.tail, _relation(fact)} <= known:
            split.append(fact)
        else:
            _learn(snapshot, fact, known)
    return snapshot


def readable(fact: Fact, versions: Versions) -> bool:
    """Whether the names answer the question already."""
    own, said = fact.head.rpartition(".")[2], fact.tail.rpartition(".")[2]
    match fact.relation:
        case "chapter":  # a part is in the chapter of its package
            return fact.head.replace("os.path", "posixpath") not in CHAPTER_OF
        case "is_a":  # ValueError is an exception
            ends = _ENDS.get(fact.tail, ())
            return fact.tail in DEFAULTS or own.endswith(ends)
        case "inherits_from" | "alias_of":  # RuntimeWarning is a Warning
            return own.endswith(said)
        case "added_in":  # what came with its module
            owner = fact.head.rpartition(".")[0]
            return bool(owner) and versions.of(owner) == versions.of(fact.head)
    return fact.relation not in QUESTIONS


def _learn(snapshot: FactSnapshot, fact: Fact, known: set[str]) -> None:
    snapshot.train.append(fact)
    known |= {fact.head, fact.tail, _relation(fact)}


def _relation(fact: Fact) -> str:
    return f"<{fact.relation}>"  # not an entity


def _place(fact: Fact, seed: int) -> float:
    """A number in [0, 1) that hangs on the fact and the seed only."""
    text = "\t".join((str(seed), fact.head, fact.relation, fact.tail))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
