"""Topics: what texts are written about. Whatever divides documents leaves a topic whole, so that nothing is judged by
what was written on the same task."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from intarsia.data.records import Text
from intarsia.data.splits import normalised_text, split
from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.data import Document


def topics_of(documents: Sequence[Document]) -> list[int]:
    """Of each document its topic: the number of the first document that it is tied to, by `group` or by text, over any
    number of others. Data sets repeat a person's text for each generator; a document without a group is its own."""
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


def drawn(topics: Sequence[Hashable], share: float, seed: int = 0) -> list[bool]:
    """Whether each text, given its topic, is in a part of about `share` of them, drawn from the seed topic by topic.
    Where all are of one topic, none is. Raises `BadInput` where there are too few topics for so small a part."""
    if len(set(topics)) < 2:
        return [False] * len(topics)
    # `split` divides records by their group: these carry a text's number.
    units = [Text(str(i), group=str(topic)) for i, topic in enumerate(topics)]
    part = split(units, {"rest": 1 - share, "part": share}, by="group", seed=seed)["part"]
    mine = {unit.text for unit in part}
    return [unit.text in mine for unit in units]


def by_topic(
    documents: Sequence[Document], dev_share: float = 0.2, seed: int = 0
) -> tuple[list[Document], list[Document]]:
    """(train, dev) with about `dev_share` of the documents in dev; in each they keep their order.

    Raises `BadInput` for a share outside (0, 1) and where there are too few topics to divide."""
    if not 0 < dev_share < 1:
        raise BadInput(f"dev_share: a share between 0 and 1 is wanted (given: {dev_share})")
    mine = drawn(topics_of(documents), dev_share, seed)
    if documents and not any(mine):
        raise BadInput("nothing is left for dev: all documents are of one topic")
    train, dev = ([d for d, yes in zip(documents, mine, strict=True) if yes == which] for which in (False, True))
    return train, dev
