"""`detection.references`: what a machine writes on a topic."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.data import Document

FILE = "references.jsonl"


@dataclass(frozen=True)
class Topic:
    """What is written about: an assignment, a title, or the first lines of a text."""

    text: str

    @staticmethod
    def open(text: str | Path) -> Topic:
        """The words themselves, or the content of a file. Raises `BadInput` for none."""
        path = Path(text).expanduser()
        try:
            found = path.read_text("utf-8") if len(str(text)) < 255 and path.is_file() else str(text)
        except UnicodeDecodeError:
            raise BadInput(f"{path}: is no text; give the topic in words, or a text file with it") from None
        if not found.strip():
            raise BadInput("the topic is empty: give an assignment, a title, or a text's first lines")
        return Topic(found.strip())


@dataclass
class References:
    """Machine's texts on one topic."""

    records: list[Document] = field(default_factory=list)

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """As `references.jsonl` in a folder, whole or not at all."""
        from intarsia.models import cache

        path = Path(path).expanduser().absolute()
        if path.is_file() or (not force and path.is_dir() and any(path.iterdir())):
            raise BadInput(f"{path} is there already: give another folder, or force (--force) to replace it")
        with cache.beside(path, replace=force) as part:
            lines = [json.dumps({k: v for k, v in asdict(r).items() if v}, ensure_ascii=False) for r in self.records]
            (part / FILE).write_text("\n".join(lines) + "\n", "utf-8")
        return path


class ReferencesConfig(Config):
    """Settings of writing references."""

    writer: str = Field("smollm2-135m", description="a model as for --model elsewhere, or URL#MODEL of a server")
    count: int = Field(3, ge=1, description="texts to write, each by another prompt")
    words: int = Field(200, ge=50, description="about how long")


@technique(
    "detection.references",
    kind="learn",
    family="detection",
    source="Dou et al. 2024, arXiv 2401.08046: the teacher gives the topic to a language model, too",
    needs="documents",
    gives="References",
    extra="detect",
    example={"subject": "Should school start later?", "count": 2, "words": 50},
)
def references(topic: Topic, config: ReferencesConfig, *, seed: int = 0) -> References:
    """Have a machine write on a topic, so that what was handed in can be compared with it.

    The better the writer, the better the references: any OpenAI-compatible server does, its key in OPENAI_API_KEY.

    - TOPIC: the assignment, a title or a text's first lines, or a file that holds them.

    Raises `BadInput` for an empty topic; `IntarsiaError` when the writer does not answer."""
    from intarsia.detection.writing.references import make_references
    from intarsia.detection.writing.writer import open_writer

    writer = open_writer(config.writer)
    return References(make_references(topic.text, writer, k=config.count, words=config.words, seed=seed))
