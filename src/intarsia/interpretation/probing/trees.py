"""Trees over words: the gold one from heads or a CoNLL-U file, and the one that distances span."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from intarsia.errors import BadInput


@dataclass(frozen=True)
class Parsed:
    """A sentence as words with a head each: 1-based numbers of the word above, 0 at the root. `punctuation` words count
    in no score."""

    words: tuple[str, ...]
    heads: tuple[int, ...]
    punctuation: tuple[bool, ...]

    @property
    def edges(self) -> set[tuple[int, int]]:
        """The undirected edges between words that are no punctuation, 0-based, the smaller first."""
        return {
            (min(i, h - 1), max(i, h - 1))
            for i, h in enumerate(self.heads)
            if h and not self.punctuation[i] and not self.punctuation[h - 1]
        }

    def distances(self) -> np.ndarray:
        """[word, word] number of edges on the way from one word to another."""
        n = len(self.words)
        out = np.full((n, n), np.inf)
        np.fill_diagonal(out, 0)
        for i, h in enumerate(self.heads):
            if h:
                out[i, h - 1] = out[h - 1, i] = 1
        for k in range(n):  # Floyd and Warshall: sentences are short
            out = np.minimum(out, out[:, k : k + 1] + out[k : k + 1])
        return out


def of_records(records: Sequence[Any], what: str) -> list[Parsed]:
    """Sentences from records whose text is words set apart by spaces and whose label is their heads: `"2 0 2"`."""
    out = []
    for number, record in enumerate(records, 1):
        words, label = record.text.split(), getattr(record, "label", "")
        try:
            heads = tuple(int(part) for part in str(label).split())
        except ValueError:
            heads = ()
        where = f"{what}: text {number}"
        if len(heads) != len(words):
            raise BadInput(
                f"{where} has {len(words)} words and {len(heads)} heads: wants as its label one head a word, "
                "1-based and 0 at the root, as in text 'the cat sat' and label '2 3 0'"
            )
        out.append(_checked(words, heads, [not any(c.isalnum() for c in w) for w in words], where))
    return out


def of_conllu(path: str, what: str) -> list[Parsed]:
    """Sentences of a CoNLL-U file (https://universaldependencies.org/format.html)."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise BadInput(f"{what}: {path}: no such file (wants a treebank in CoNLL-U format)")
    out, rows = [], []
    for number, line in enumerate([*file.read_text("utf-8").splitlines(), ""], 1):
        if line.startswith("#"):
            continue
        if line.strip():
            cells = line.split("\t")
            if len(cells) < 8:
                raise BadInput(f"{what}: {path}: line {number}: {len(cells)} fields, CoNLL-U has 10 set apart by tabs")
            if cells[0].isdigit():  # ranges (1-2) and empty words (1.1) are no words of the tree
                rows.append(cells)
        elif rows:
            where = f"{what}: {path}: the sentence that ends at line {number}"
            try:
                heads = [int(cells[6]) for cells in rows]
            except ValueError:
                raise BadInput(f"{where} has a word without a head") from None
            out.append(_checked([c[1] for c in rows], heads, [c[3] == "PUNCT" for c in rows], where))
            rows = []
    if not out:
        raise BadInput(f"{what}: {path}: no sentences in it")
    return out


def _checked(words: Sequence[str], heads: Sequence[int], punctuation: Sequence[bool], where: str) -> Parsed:
    parsed = Parsed(tuple(words), tuple(heads), tuple(punctuation))
    inside = all(0 <= h <= len(words) and h != i + 1 for i, h in enumerate(heads))
    if not inside or sum(h == 0 for h in heads) != 1 or not np.isfinite(parsed.distances()).all():
        raise BadInput(f"{where}: the heads {' '.join(map(str, heads))} are no tree: one root (0), the rest under it")
    return parsed


def spanning_tree(distances: np.ndarray, skip: Sequence[bool] = ()) -> set[tuple[int, int]]:
    """The edges of the minimum spanning tree of [word, word] distances, the smaller first (Prim's algorithm).

    skip: words that are left out."""
    words = [i for i in range(len(distances)) if not (len(skip) and skip[i])]
    if len(words) < 2:
        return set()
    inside, edges = {words[0]}, set()
    while len(inside) < len(words):
        _, i, j = min((distances[i, j], i, j) for i in inside for j in words if j not in inside)
        inside.add(j)
        edges.add((min(i, j), max(i, j)))
    return edges


def chain(parsed: Parsed) -> set[tuple[int, int]]:
    """Every word with its neighbour: the floor that a tree has to beat."""
    words = [i for i in range(len(parsed.words)) if not parsed.punctuation[i]]
    return set(itertools.pairwise(words))


def uuas(found: Sequence[set[tuple[int, int]]], gold: Sequence[Parsed]) -> float:
    """Unlabelled undirected attachment score: share of gold edges found, over all sentences together."""
    right = sum(len(f & p.edges) for f, p in zip(found, gold, strict=True))
    return right / max(1, sum(len(p.edges) for p in gold))


def word_positions(
    model: Any, words: Sequence[str], limit: int | None, where: str
) -> tuple[list[int], list[list[int]]]:
    """Token ids of the words joined by spaces, and the positions of each word's tokens.

    Raises `BadInput` for a sentence that is too long, or a word without a token of its own."""
    text = " ".join(words)
    encoded = model.tokenizer(text, return_offsets_mapping=True, verbose=False)
    ids, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
    if limit and len(ids) > limit:
        raise BadInput(f"{where} has {len(ids)} tokens, and {limit} are read: leave it out or raise max_tokens")
    out, start = [], 0
    for word in words:
        end = start + len(word)
        # A token belongs to the word that its last character is in; a space that is a token belongs to none.
        out.append([i for i, (a, b) in enumerate(offsets) if b > a and start < b <= end])
        if not out[-1]:
            raise BadInput(f"{where}: the word '{word}' has no token of its own")
        start = end + 1
    return ids, out
