"""What a detector is asked: documents, and the references of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from intarsia.data.records import Document
from intarsia.data.splits import normalised_text
from intarsia.errors import BadInput

if TYPE_CHECKING:
    Asked = Sequence[Document | str]
    References = Sequence[Sequence[Document | str]]


def text_of(document: Document | str) -> str:
    """The text, of a document or as it is."""
    return document if isinstance(document, str) else document.text


def asked(documents: Asked, references: References | None) -> tuple[list[str], list[list[str]]]:
    """The texts, and the texts of each one's references (none where `references` is None).

    Raises `BadInput` unless there is one sequence of references for each document, and for a reference that is
    identical with its text: letter by letter, but for case, punctuation and white space."""
    texts = [text_of(document) for document in documents]
    if references is None:
        return texts, [[] for _ in texts]
    if isinstance(references, str) or len(references) != len(texts):
        raise BadInput(f"references: one sequence for each of the {len(texts)} documents is wanted")
    found: list[list[str]] = []
    for number, (text, some) in enumerate(zip(texts, references, strict=True), 1):
        if isinstance(some, str | Document):
            raise BadInput(f"references of document {number}: a sequence of texts is wanted, not one text")
        found.append([text_of(reference) for reference in some])
        plain = normalised_text(text)
        if any(normalised_text(reference) == plain for reference in found[-1]):
            raise BadInput(f"document {number}: a reference is identical with it and says nothing about who wrote it")
    return texts, found
