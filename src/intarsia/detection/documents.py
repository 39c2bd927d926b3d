"""`Documents`: what is to be checked, as a command line names it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from intarsia.data import Document


@dataclass(frozen=True)
class Documents:
    """- source: where they come from. records: the documents."""

    source: str
    records: list[Document]

    @staticmethod
    def open(text: str | Path) -> Documents:
        """From a file, a folder, or `-` for standard input. Raises `BadInput` for anything that cannot be read."""
        from intarsia.data.documents import read_documents

        return Documents(str(text), read_documents(text))
