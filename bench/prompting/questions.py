"""Questions with the place of their answers, for searches: of Python's documentation, and of people who asked Google.

- `python_docs`: no sentence of a question is in what is searched. The first sentence of a docstring is taken out of it
  and becomes the question, without the object's name; the rest, under its name, is the answer's section (the inverse
  cloze task: Lee et al. 2019). `sentence`: as it stands; `keywords`: its four rarest words; `name`: the dotted name.
  `detail`: of other objects, the second sentence, which tells more of what the first one said, and is asked for what
  the rest says.
- `boolq`: questions as people typed them, and the paragraph of Wikipedia that annotators answered them from
  (Clark et al. 2019), among paragraphs of other articles."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from intarsia.data.docstrings import clean
from intarsia.prompting.data import Section, SourceDocument
from intarsia.prompting.data.python_manual import python_manual

MODULE_MOST = 12
"""Questions of one module: no module is what is measured."""
LEAST_WORDS, LEAST_REST = 6, 12
DEVELOPMENT = (2200, 0)
"""Sections and seed of the modules that searching and checking were chosen on: what is reported is of others."""
_SENTENCE = re.compile(r"(.{20,300}?[.!?])(?:\s+|$)")


@dataclass(frozen=True)
class Question:
    """- source, anchor: the section that answers it. group: the module or article; halves and intervals keep it
    whole."""

    kind: str
    text: str
    source: str
    anchor: str
    group: str


def python_docs(
    most: int, sections: int = 0, seed: int = 0, without: Collection[str] = ()
) -> tuple[list[SourceDocument], list[Question]]:  # fmt: skip
    """(the documentation of the running interpreter without what is asked, the questions): `most` objects are asked
    about in three ways, and so many others for a detail.

    - sections: take modules, drawn by the seed, until there are so many sections; 0: all modules, and the topics of the
      language reference. without: modules that are left out: those of another draw."""
    documents = [document for document in python_manual() if document.title not in without]
    if sections:
        documents = _modules(documents, sections, seed)
    asked = _drawn(documents, 1, most, seed)
    details = _drawn(documents, 2, most, seed, asked)
    made = [_without_sentences(document, asked | details) for document in documents]
    frequency = Counter(word for document in made for word in set(_words(document.text)))
    questions = []
    for (source, anchor), (sentence, _) in asked.items():
        module = source.partition(":")[2]
        rare = sorted(dict.fromkeys(_words(sentence)), key=lambda word: frequency[word])[:4]
        keywords = " ".join(word for word in dict.fromkeys(_words(sentence)) if word in rare)
        for kind, text in (("sentence", sentence), ("keywords", keywords), ("name", f"{module}.{anchor}")):
            questions.append(Question(kind, text, source, anchor, module))
    for (source, anchor), (sentence, _) in details.items():
        questions.append(Question("detail", sentence, source, anchor, source.partition(":")[2]))
    return made, questions


def drawn_modules(sections: int, seed: int) -> set[str]:
    """The modules that `python_docs` takes."""
    return {document.title for document in _modules(list(python_manual()), sections, seed)}


def _modules(documents: list[SourceDocument], sections: int, seed: int) -> list[SourceDocument]:
    documents = [document for document in documents if document.metadata["kind"] == "module"]
    random.Random(seed).shuffle(documents)
    sizes = itertools.accumulate(len(document.sections) for document in documents)
    return [document for document, size in zip(documents, sizes, strict=True) if size <= sections]


def _drawn(
    documents: list[SourceDocument], place: int, most: int, seed: int, others: Collection[tuple[str, str]] = ()
) -> dict[tuple[str, str], tuple[str, str]]:
    """(source, anchor) of sections drawn by the seed -> the sentence at a place, counted from 1, without the section's
    name; the docstring without it. others: sections that are not drawn."""
    sentences = Counter(
        _plain(found[0]) for document, section in _entries(documents) if (found := _taken(document, section, place))
    )
    anchors = Counter((document.source, section.anchor) for document, section in _entries(documents))
    order = list(_entries(documents))
    random.Random(seed).shuffle(order)
    out: dict[tuple[str, str], tuple[str, str]] = {}
    modules: Counter[str] = Counter()
    for document, section in order:
        key = (document.source, section.anchor)
        if len(out) >= most or modules[document.title] >= MODULE_MOST or anchors[key] > 1 or key in others:
            continue
        found = _taken(document, section, place)
        # What another docstring says too, word for word, has no one answer.
        if found is None or sentences[_plain(found[0])] > 1:
            continue
        question = _without_names(found[0], section.anchor)
        if len(question.split()) >= LEAST_WORDS and len(found[1].split()) >= LEAST_REST:
            out[key] = question, found[1]
            modules[document.title] += 1
    return out


def boolq(folder: Path) -> tuple[list[SourceDocument], list[Question]]:
    """(paragraphs, questions) of the data set `continual`: BoolQ's, among entries of DBpedia."""
    documents: dict[str, SourceDocument] = {}
    questions = []
    for row in _rows(folder, "boolq"):
        question, _, passage = row["input"].removeprefix("question: ").partition("\npassage: ")
        title, _, text = passage.partition(" -- ")
        source = next((s for s, d in documents.items() if d.text == text), f"boolq/{len(documents)}")
        documents.setdefault(source, SourceDocument(text, source, title))
        questions.append(Question("question", question, source, "", title))
    for number, row in enumerate(_rows(folder, "dbpedia")):
        text = row["input"].strip()
        documents[f"dbpedia/{number}"] = SourceDocument(text, f"dbpedia/{number}")
    return list(documents.values()), questions


def halves(questions: list[Question], seed: int = 0) -> tuple[list[Question], list[Question]]:
    """(for choosing by, for reporting): whole groups, drawn by a seed."""
    groups = sorted({question.group for question in questions})
    random.Random(seed).shuffle(groups)
    dev = set(groups[: len(groups) // 2])
    return [q for q in questions if q.group in dev], [q for q in questions if q.group not in dev]


def _rows(folder: Path, task: str) -> Iterator[dict[str, str]]:
    for split in ("train", "val", "test"):
        for line in (folder / "long" / f"{task}.{split}.jsonl").read_text("utf-8").splitlines():
            yield json.loads(line)


def _entries(documents: list[SourceDocument]) -> Iterator[tuple[SourceDocument, Section]]:
    for document in documents:
        if document.metadata["kind"] == "module":
            for section in document.sections:
                yield document, section


def _taken(document: SourceDocument, section: Section, place: int) -> tuple[str, str] | None:
    """(the sentence of a docstring at a place, the docstring without it); None where it cannot be told."""
    docstring = document.text[section.start : section.end].partition("\n\n")[2].strip()
    text, at, found = clean(docstring, 80), 0, None
    for _ in range(place):
        found = _SENTENCE.match(text, at)
        if found is None:
            return None
        at = found.end()
    assert found is not None
    sentence = found[1]
    pattern = r"[\s`*:]+".join(re.escape(word) for word in sentence.split())
    rest, count = re.subn(pattern, " ", docstring, count=1)
    return (sentence, rest.strip()) if count else None


def _without_sentences(
    document: SourceDocument, asked: dict[tuple[str, str], tuple[str, str]]
) -> SourceDocument:  # fmt: skip
    if document.metadata["kind"] != "module":
        return document
    parts, sections, length = [], [], 0
    for section in document.sections:
        piece = document.text[section.start : section.end]
        if rest := asked.get((document.source, section.anchor)):
            piece = f"{piece.partition(chr(10))[0]}\n\n{rest[1]}\n\n"
        sections.append(Section(section.path, length, length + len(piece), section.anchor))
        parts.append(piece)
        length += len(piece)
    return replace(document, text="".join(parts), sections=tuple(sections))


def _without_names(sentence: str, name: str) -> str:
    """A sentence without the names of what it is about: the whole, its last part, the class's."""
    for part in sorted({name, *name.split(".")}, key=len, reverse=True):
        sentence = re.sub(rf"(?i)(?<![\w.]){re.escape(part)}(?:\(\))?(?!\w)", " ", sentence)
    return " ".join(sentence.split())


_STOP = frozenset("a an the of to in on for and or is are be it its this that with as by from if not".split())  # noqa: SIM905


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"[a-z][a-z0-9_]+", text.lower()) if word not in _STOP]


def _plain(text: str) -> str:
    return " ".join(_words(text))
