"""A split of documents that leaves topics whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from intarsia.data.records import Text
from intarsia.data.splits import normalised_text, split
from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.data import Document


def by_topic(
    documents: Sequence[Document], dev_share: float = 0.2, seed: int = 0
) -> tuple[list[Document], list[Document]]:
    """(train, dev) with about `dev_share` of the documents in dev; in each they keep their order.

    All texts of a topic (`group`) go to one side, and so do topics that share a text: data sets repeat a person's text
    for each generator. A document without a topic is its own. Raises `BadInput` for a share outside (0, 1) and where
    there are too few topics to divide."""
    if not 0 < dev_share < 1:
        raise BadInput(f"dev_share: a share between 0 and 1 is wanted (given: {dev_share})")
    roots = _joined(documents)
    # `split` divides records by their group: these carry a document's number as their text.
    units = [Text(str(i), group=str(root)) for i, root in enumerate(roots)]
    parts = split(units, {"train": 1 - dev_share, "dev": dev_share}, by="group", seed=seed)
    train, dev = ([documents[int(unit.text)] for unit in parts[name]] for name in ("train", "dev"))
    return train, dev


def _joined(documents: Sequence[Document]) -> list[int]:
    """Of each document the number of the first one that it is tied to, by topic or text, over any number of others."""
    parent = list(range(len(documents)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, document in enumerate(documents):
        keys = [("text", normalised_text(document.text))]
        if document.group is not None:
            keys.append(("topic", document.group))
        for key in keys:
            a, b = root(i), root(first.setdefault(key, i))
            parent[max(a, b)] = min(a, b)
    return [root(i) for i in range(len(documents))]
