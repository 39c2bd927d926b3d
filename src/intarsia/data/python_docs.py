"""The embedded data set `python-docs`: what the installed Python says about itself, labelled with the chapter of the
library reference it belongs to. Nothing is downloaded.

A text is an object's name and the first words of its docstring; its module is never named. Splits go by module: no
module of `test` or `dev` occurs in `train`, and no text occurs twice."""

from __future__ import annotations

import itertools
import platform
import re
from collections import Counter, defaultdict

from intarsia.data.docstrings import clean, docstrings
from intarsia.data.python_chapters import CHAPTER_OF, LEFT_OUT
from intarsia.data.records import Dataset, LabelledText, Text
from intarsia.data.splits import normalised, shuffled, split

MIN_WORDS = 5
TEST_SHARE, TEST_MOST = 0.2, 70
DEV_SHARE, DEV_MOST = 0.1, 35
LEAST = {"train": 60, "dev": 6, "test": 15}
MODULE_CAP = {"train": 80, "dev": 20, "test": 20}
TEMPLATE = "{text}\nTopic:"
VERBALISERS = {
    "Text Processing Services": " text",
    "Binary Data Services": " bytes",
    "Data Types": " data",
    "Numeric and Mathematical Modules": " math",
    "Functional Programming Modules": " functions",
    "File and Directory Access": " files",
    "Data Persistence": " database",
    "Data Compression and Archiving": " compression",
    "File Formats": " format",
    "Cryptographic Services": " security",
    "Concurrent Execution": " threads",
    "Networking and Interprocess Communication": " network",
    "Internet Data Handling": " email",
    "Structured Markup Processing Tools": " XML",
    "Internet Protocols and Support": " web",
    "Multimedia Services": " audio",
    "Internationalization": " language",
    "Program Frameworks": " graphics",
    "Graphical User Interfaces with Tk": " window",
    "Debugging and Profiling": " debugging",
    "Software Packaging and Distribution": " software",
    "Custom Python Interpreters": " shell",
    "Importing Modules": " import",
    "Python Language Services": " syntax",
}


def python_docs(seed: int = 0) -> Dataset:
    """Build the data set: `train`, `dev`, `test` (`LabelledText`, group = module) and, from pydoc's topics, `text` and
    `calibration` (`Text`, group = topic; no topic is in both). Takes a few seconds; equal for equal interpreters.

    - A chapter is kept when its modules can be divided so that each split gets enough of it (`LEAST`); the largest
      module always trains. `test` gets about a fifth of a chapter, at most about `TEST_MOST` texts.
    - No module gives more texts to a split than `MODULE_CAP` (chosen by `seed`): a chapter is more than its largest
      module, and what is measured should not hang on a few modules."""
    chapters = _texts()
    splits: dict[str, list[LabelledText]] = {"train": [], "dev": [], "test": []}
    left_out = dict(LEFT_OUT)
    modules: dict[str, dict[str, list[str]]] = {}
    for chapter, texts in chapters.items():
        divided = _divide({module: len(found) for module, found in texts.items()})
        if divided is None:
            left_out[chapter] = "too few texts or modules to divide by module"
            continue
        modules[chapter] = divided
        for name, members in divided.items():
            for module in members:
                keep = set(shuffled(texts[module], seed)[: MODULE_CAP[name]])
                splits[name] += [LabelledText(t, chapter, group=module) for t in texts[module] if t in keep]
    topics = _topics()
    if topics:
        splits |= split(topics, {"text": 0.75, "calibration": 0.25}, by="group", seed=seed)  # type: ignore[arg-type]
    labels = sorted(modules)
    facts = {
        "python": platform.python_version(),
        "counts": {name: len(records) for name, records in splits.items()},
        "labels": labels,
        "classes": {
            name: dict(sorted(Counter(record.label for record in splits[name]).items()))
            for name in ("train", "dev", "test")
        },
        "modules": modules,
        "left_out": left_out,
        "cap": MODULE_CAP,
        "seed": seed,
        "label_task": {
            "template": TEMPLATE,
            "labels": labels,
            "verbalisers": {label: VERBALISERS[label] for label in labels},
            # The subject is in the first sentence; what follows costs time and says little more.
            "max_tokens": 48,
        },
    }
    return Dataset(dict(splits), name="python-docs", facts=facts)


def _texts() -> dict[str, dict[str, list[str]]]:
    """Chapter -> module -> texts, each text once. A docstring found in two chapters says nothing and is left out."""
    found: dict[str, tuple[str, str, str]] = {}
    homes: dict[str, set[str]] = defaultdict(set)
    for package, chapter in CHAPTER_OF.items():
        if chapter in LEFT_OUT:
            continue
        for module, name, docstring in docstrings(package):
            text = clean(docstring)
            if len(text.split()) < MIN_WORDS:
                continue
            key = normalised(Text(text))
            homes[key].add(chapter)
            found.setdefault(key, (chapter, module, f"{name}: {text}"))
    chapters: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for key, (chapter, module, text) in found.items():
        if len(homes[key]) == 1:
            chapters[chapter][module].append(text)
    return chapters


def _divide(sizes: dict[str, int]) -> dict[str, list[str]] | None:
    """Modules -> splits, by their numbers of texts; None when a split would get less than `LEAST`."""
    total = sum(sizes.values())
    largest = min(sizes, key=lambda module: (-sizes[module], module))
    free = sorted(set(sizes) - {largest})
    test = _choose(sizes, free, min(TEST_SHARE * total, TEST_MOST), LEAST["test"])
    free = [module for module in free if module not in test]
    dev = _choose(sizes, free, min(DEV_SHARE * total, DEV_MOST), LEAST["dev"])
    divided = {
        "train": [module for module in sizes if module not in test and module not in dev],
        "dev": dev,
        "test": test,
    }
    enough = all(sum(sizes[m] for m in members) >= LEAST[name] for name, members in divided.items())
    return divided if enough else None


def _choose(sizes: dict[str, int], free: list[str], wanted: float, least: int) -> list[str]:
    """The subset of modules whose texts come nearest to `wanted`, with `least` or more; among nearly equal ones (4
    texts) that of three or more modules, since a split over several modules says more."""
    subsets = itertools.chain.from_iterable(itertools.combinations(free, n) for n in range(1, len(free) + 1))

    def rank(subset: tuple[str, ...]) -> tuple[int, int, float, tuple[str, ...]]:
        off = abs(sum(sizes[module] for module in subset) - wanted)
        return int(off // 4), -min(len(subset), 3), off, subset

    enough = (subset for subset in subsets if sum(sizes[module] for module in subset) >= least)
    return list(min(enough, key=rank, default=()))


def _topics(words: int = 150, least: int = 30) -> list[Text]:
    """pydoc's topics (the language reference as plain text) in pieces of whole paragraphs, about `words` words each."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return []
    pieces: dict[str, Text] = {}
    for topic, body in sorted(topics.items()):
        piece: list[str] = []
        for paragraph in [*re.split(r"\n\s*\n", body), None]:
            lines = [] if paragraph is None else paragraph.strip().splitlines()
            text = "\n".join(line for line in lines if not re.fullmatch(r"\s*[*=~\-^\"]{3,}\s*", line))
            length = sum(len(part.split()) for part in piece)
            if piece and (paragraph is None or length + len(text.split()) > words):
                record = Text("\n\n".join(piece), group=topic)
                if length >= least:
                    pieces.setdefault(normalised(record), record)
                piece = []
            if text:
                piece.append(text)
    return list(pieces.values())
