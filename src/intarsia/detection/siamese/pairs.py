"""Pairs of an inquiry and a reference: which machine text may stand beside which text.

Source: Dou et al. 2024 (arXiv 2401.08046), the scenario of §1: a student hands in an inquiry, and the reference is what
a machine writes on the same topic. The paper's rules of pairing could not be read; these are ours, so that a pair
never tells more than a teacher could know."""

from __future__ import annotations

import random
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from intarsia.data.documents import LABELS
from intarsia.data.splits import normalised_text
from intarsia.errors import BadInput, Note

if TYPE_CHECKING:
    from intarsia.data import Document

# Kinds of prompt (what stands before the first colon) that rewrite a text instead of writing one.
REWRITES = frozenset(
    {"evade", "fusion", "paraphrase_dipper", "paraphrase_polish", "polish", "polished", "rewrite", "self_edit"}
)


@dataclass(frozen=True)
class Pair:
    """Two documents by their numbers; machine: whether a machine wrote the inquiry, or some of it."""

    inquiry: int
    reference: int
    machine: bool


def make_pairs(documents: Sequence[Document], *, references: int = 3, seed: int = 0) -> list[Pair]:
    """For each document up to `references` pairs with different machine texts of its topic (`group`), drawn by `seed`.

    The pair is positive where the inquiry is `machine`, `polished` or `mixed`, negative where it is `human`. See
    `admissible` for what may be a reference. Pairs stand in the order of their inquiries.

    A topic without any pair is left out, and so is a text whose topic has a reference for others only; a `Note`
    counts both. Raises `BadInput` for a label that is none of the four, and for fewer than one reference."""
    if references < 1:
        raise BadInput(f"references: at least 1 for a text is wanted (given: {references})")
    check_labels(documents)
    topics: dict[str | None, list[int]] = defaultdict(list)
    for i, document in enumerate(documents):
        topics[document.group].append(i)
    candidates = {topic: [i for i in members if may_refer(documents[i])] for topic, members in topics.items()}
    plain = [normalised_text(document.text) for document in documents]
    pairs: list[Pair] = []
    paired: set[int] = set()
    for i, inquiry in enumerate(documents):
        # Each inquiry has a generator of its own: what others draw does not depend on it.
        order = random.Random(f"{seed} {i}").sample(found := candidates[inquiry.group], len(found))
        drawn: dict[str, int] = {}  # two references that say the same are one
        for other in order:
            if len(drawn) < references and admissible(inquiry, documents[other], plain[i], plain[other]):
                drawn.setdefault(plain[other], other)
        pairs += [Pair(i, other, inquiry.label != "human") for other in drawn.values()]
        if drawn:
            paired.add(i)
    _tell([members for topic, members in topics.items() if topic is not None], topics.get(None, []), paired)
    return pairs


def check_labels(documents: Sequence[Document]) -> None:
    """Raise `BadInput` that names the first document whose label is none of the four."""
    for number, document in enumerate(documents, 1):
        if document.label not in LABELS:
            raise BadInput(f"document {number}: its label is '{document.label}', wanted is one of {', '.join(LABELS)}")


def rewrites(document: Document) -> bool:
    """Whether a text was made from another one, as far as its label and prompt say."""
    return document.label in ("polished", "mixed") or document.prompt.partition(":")[0] in REWRITES


def may_refer(document: Document) -> bool:
    """Whether a document can be a reference at all: machine text on a topic, and no rewriting of another text (its
    source is of the same topic, and beside it the pair would be known by its wording)."""
    return document.label == "machine" and document.group is not None and not rewrites(document)


def admissible(inquiry: Document, reference: Document, inquiry_text: str = "", reference_text: str = "") -> bool:
    """Whether `reference` may stand beside `inquiry`:

    - it may be a reference, and is of the same topic;
    - it is another text, also when case, punctuation and white space are left out of account;
    - it comes of another prompt or of another generator. A second sample of a prompt counts as another prompt where
      its name says so (`plain_resample:0`);
    - where a machine rewrote a machine's text, it is not by the same generator: it may be what was rewritten.

    The texts may be given as `normalised_text` makes them, where many pairs are asked."""
    if not may_refer(reference) or inquiry.group != reference.group:
        return False
    if (inquiry_text or normalised_text(inquiry.text)) == (reference_text or normalised_text(reference.text)):
        return False
    if (inquiry.prompt, inquiry.generator) == (reference.prompt, reference.generator):
        return False
    return not (inquiry.label == "machine" and rewrites(inquiry) and inquiry.generator == reference.generator)


def _tell(topics: Sequence[list[int]], alone: Sequence[int], paired: set[int]) -> None:
    """Say what was left out."""
    empty = [members for members in topics if not paired.intersection(members)]
    single = sum(i not in paired for members in topics for i in members) - sum(map(len, empty))
    said = []
    if empty:
        count = sum(map(len, empty))
        said.append(f"{len(empty)} of {len(topics)} topics without an admissible reference ({count} texts)")
    if single:
        said.append(f"{single} texts that no reference of their topic suits")
    if alone:
        said.append(f"{len(alone)} texts without a topic")
    if said:
        warnings.warn(f"left out of the pairs: {'; '.join(said)}", Note, stacklevel=3)
