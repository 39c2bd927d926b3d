"""Typed records: what a data file holds, a line or an object each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Text:
    """A plain text. `group` names what it belongs to (a module, a dialogue): splits and bootstraps keep it whole."""

    text: str
    group: str | None = None


@dataclass(frozen=True)
class LabelledText:
    """A text and its label. `context` is what comes before it (earlier turns), oldest first."""

    text: str
    label: str
    group: str | None = None
    context: tuple[str, ...] = ()


@dataclass(frozen=True)
class RationaleText(LabelledText):
    """A labelled text with the places that people marked as the reason: character spans (start, end) of `text`."""

    rationale: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Turn(LabelledText):
    """What one speaker says in a dialogue. `label` is empty where nobody labelled the turn: it is context then.

    - group: the dialogue. number: the turn's place in it; numbers that are missing are turns that are missing.
    - clip: the path of its video, where there is one. about: what is to be seen in it, in words.
    - fields: further columns of its row (season, sentiment), as texts."""

    speaker: str = ""
    number: int = 0
    clip: str = ""
    about: str = ""
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Document(LabelledText):
    """A whole text, with what is known of where it comes from.

    - label: whose text it is: `human`, `machine`, `polished` (a person's, rewritten by a machine) or `mixed`; empty:
      nobody knows. group: the topic; texts of one topic answer one task, and splits keep them together.
    - name: its file, or its id. domain: the kind of text (essays, abstracts of a field). task: what it answers: an
      assignment, a title. language: ISO 639-1, where it is said. writers: who the people are that wrote it
      (`nonnative`). generator, prompt: the machine, and how it was asked. split: `train`, `cal` or `test`."""

    label: str = ""
    name: str = ""
    domain: str = ""
    task: str = ""
    language: str = ""
    writers: str = ""
    generator: str = ""
    prompt: str = ""
    split: str = ""


@dataclass(frozen=True)
class Chat:
    """A conversation for instruction tuning: messages `{"role": "system"|"user"|"assistant", "content": str}`."""

    messages: tuple[dict[str, str], ...]
    group: str | None = None


@dataclass(frozen=True)
class TextPair:
    """A prompt and the text wanted for it (generation, distillation, paraphrase)."""

    prompt: str
    target: str
    group: str | None = None


@dataclass(frozen=True)
class TaskPair(TextPair):
    """An example of one of several tasks, for a model that takes them on one after the other.

    - prompt: instruction and input, joined; `instruction` and `input` hold them apart.
    - targets: every right answer (the first is `target`).
    - task: the task's name; split: `train`, `dev` or `test`, where it is said."""

    task: str = ""
    instruction: str = ""
    input: str = ""
    targets: tuple[str, ...] = ()
    split: str = ""


@dataclass(frozen=True)
class FactEdit(TextPair):
    """A fact to write into a model: after `prompt`, which names `subject`, it shall say `target`.

    `{subject}` or `{}` in prompt and paraphrases stands for the subject and is written out here.

    - old: the answer that `target` has to beat; empty: what the model itself says today.
    - paraphrases: other ways to ask for the same, where `target` is right too.
    - neighbours: prompts about other things, whose answers must stay; `neighbour_targets` are these, where they are
      known: one each, or none at all.
    - consequences: (prompt, answer) pairs that follow from the new fact."""

    subject: str = ""
    old: str = ""
    paraphrases: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    neighbour_targets: tuple[str, ...] = ()
    consequences: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt", self._filled(self.prompt))
        object.__setattr__(self, "paraphrases", tuple(map(self._filled, self.paraphrases)))

    def _filled(self, text: str) -> str:
        return text.replace("{subject}", self.subject).replace("{}", self.subject)


@dataclass(frozen=True)
class ImageText:
    """A picture by its path, with the text that goes with it (a caption; may be empty) and its label, where known."""

    image: str
    text: str = ""
    label: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class ImageQuestion:
    """A picture by its path, a question about it, and the answer (empty when it is not known)."""

    image: str
    question: str
    answer: str = ""
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact of a knowledge graph: two entities and the relation from the first to the second, all by their names."""

    head: str
    relation: str
    tail: str


Record = (
    Text
    | LabelledText
    | RationaleText
    | Turn
    | Document
    | Chat
    | TextPair
    | TaskPair
    | FactEdit
    | ImageText
    | ImageQuestion
    | Fact
)


@dataclass
class Dataset(Mapping[str, list[Any]]):
    """Splits of records by name (`train`, `dev`, `test`, `text`), with a name, notes and a hash of the contents."""

    splits: dict[str, list[Any]]
    name: str = "data"
    facts: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, split: str) -> list[Any]:
        return self.splits[split]

    def __iter__(self) -> Iterator[str]:
        return iter(self.splits)

    def __len__(self) -> int:
        return len(self.splits)

    @property
    def sha256(self) -> str:
        """Of all records in order: equal data, equal hash. A picture counts by its bytes, not by where it lies; a clip
        by its name and size, as films are large."""
        digest = hashlib.sha256()
        for name, records in sorted(self.splits.items()):
            digest.update(name.encode())
            for record in records:
                facts = asdict(record)
                if isinstance(record, ImageText | ImageQuestion):
                    facts["image"] = _sha256_of(Path(record.image))
                elif isinstance(record, Turn) and record.clip:
                    facts["clip"] = _name_and_size(Path(record.clip))
                digest.update(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode())
        return digest.hexdigest()


def _name_and_size(path: Path) -> str:
    try:
        return f"{path.name} {path.stat().st_size}"
    except OSError:
        return f"missing {path.name}"


def _sha256_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return f"missing {path.name}"
