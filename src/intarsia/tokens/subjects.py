"""What models are compared on: pictures, made into pixels once, and what is said or asked about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from intarsia.data import ImageQuestion, ImageText, gallery, read, shuffled
from intarsia.errors import BadInput
from intarsia.models import Model
from intarsia.models.pixels import as_seen, image_processor, pixels
from intarsia.models.seeing import Kind, kind_of
from intarsia.progress import tell

DESCRIBE = "Describe the picture."


@dataclass(frozen=True)
class Asked:
    """A question about the picture at `picture`; `answer` is empty where it is not known."""

    picture: int
    question: str
    answer: str = ""


@dataclass
class Subjects:
    """Pictures that could be read, and what goes with them.

    - kind: what the network is asked (`intarsia.models.seeing`).
    - values: [picture, 3, height, width] as the network takes them; `names`: of their files.
    - captions: the text that belongs to each picture, where every one has its own; labels: its class.
    - texts: candidates that pictures are held against, without duplicates.
    - asked: questions, for networks that answer.
    - unread, unused: pictures that could not be read, and readable ones beyond the number wanted."""

    kind: Kind
    values: Tensor
    names: list[str]
    processor: Any
    captions: list[str] | None = None
    labels: list[str] | None = None
    texts: list[str] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    unread: int = 0
    unused: int = 0

    def __len__(self) -> int:
        return len(self.names)

    def seen(self, index: int) -> Any:
        """The picture at `index` as the network was shown it, as a Pillow image."""
        return as_seen(self.processor, self.values[index : index + 1])[0]

    def first(self, count: int) -> Subjects:
        """Only the first pictures, and the questions about them."""
        return replace(
            self,
            values=self.values[:count],
            names=self.names[:count],
            captions=self.captions[:count] if self.captions else None,
            labels=self.labels[:count] if self.labels else None,
            asked=[one for one in self.asked if one.picture < count],
        )


def subjects(
    model: Model, images: Any, texts: Sequence[Any] | None = None, *, most: int = 64, seed: int = 0
) -> Subjects:
    """Read pictures (records with `image`, paths, Pillow images, or a folder) and match texts to them.

    - texts: records or strings. With an `image` they belong to the picture of that file. Others are questions to every
      picture for a network that answers; for one that matches they are captions where there are as many as pictures, in
      their order, and candidates for every picture where there are not.
    - most: pictures used; of more, so many are drawn by the seed.

    Raises `BadInput` for a model that takes no pictures, and when not one picture can be read."""
    kind = kind_of(model)
    if isinstance(images, str | Path) and Path(images).is_dir():
        images = read(images)
    if texts is not None and isinstance(texts, str | Path) and Path(texts).is_file():
        texts = read(texts)
    records = _one_a_picture(list(gallery(images or []).records))
    questions = [record for group in records for record in group if isinstance(record, ImageQuestion)]
    firsts = [group[0] for group in records]
    captions, asked, loose = _matched(firsts, questions, list(texts or []), pair=kind != "answer")
    order = list(range(len(firsts)))
    if len(order) > most:
        order = shuffled(order, seed)  # type: ignore[type-var]
    processor = image_processor(model)
    shown = gallery([firsts[i] for i in order])
    opened: dict[int, Tensor] = {}
    for place, _, picture in shown:
        opened[order[place]] = pixels(model, [picture], processor)
        tell("reading pictures", len(opened), min(most, len(order)))
        if len(opened) == most:
            break
    tell("reading pictures", len(opened), len(opened), finished=True)
    shown.tell()
    kept = sorted(opened)
    labels = [getattr(firsts[i], "label", None) for i in kept]
    out = Subjects(
        kind,
        torch.cat([opened[i] for i in kept]),
        [_name(firsts[i], i) for i in kept],
        processor,
        captions=[captions[i] for i in kept] if captions and all(captions[i] for i in kept) else None,
        labels=[str(label) for label in labels] if all(label is not None for label in labels) else None,
        unread=len(shown.skipped),
        unused=len(firsts) - len(kept) - len(shown.skipped),
    )
    return _with_words(out, loose, {old: new for new, old in enumerate(kept)}, asked)


def _one_a_picture(records: list[Any]) -> list[list[Any]]:
    """Records of one file together: several questions about it need it once."""
    groups: dict[Any, list[Any]] = {}
    for place, record in enumerate(records):
        source = getattr(record, "image", record)
        groups.setdefault(str(source) if isinstance(source, str | Path) else (place, "memory"), []).append(record)
    return list(groups.values())


def _matched(
    firsts: list[Any], questions: list[ImageQuestion], texts: list[Any], pair: bool
) -> tuple[list[str], list[tuple[int, str, str]], list[str]]:
    """Captions by picture (empty where there is none), questions as (picture, question, answer), texts for all."""
    captions = [getattr(record, "text", "") or "" for record in firsts]
    place = {str(getattr(record, "image", record)): i for i, record in enumerate(firsts)}
    names: dict[str, int] = {}
    for path, i in place.items():
        names.setdefault(Path(path).name, i)
    asked = [(place[str(record.image)], record.question, record.answer) for record in questions]
    loose: list[str] = []
    for record in texts:
        image = getattr(record, "image", None)
        if image is None:
            loose.append(str(getattr(record, "text", record)))
            continue
        at = place.get(str(image), names.get(Path(image).name))
        if at is None:
            continue  # a picture that is not among those given
        if isinstance(record, ImageQuestion):
            asked.append((at, record.question, record.answer))
        elif isinstance(record, ImageText) and record.text:
            captions[at] = record.text
    labelled = all(getattr(record, "label", None) is not None for record in firsts)
    if pair and loose and len(loose) == len(firsts) and not any(captions) and not labelled:
        return loose, asked, []
    return captions, asked, loose


def _with_words(
    found: Subjects, loose: list[str], places: dict[int, int], asked: list[tuple[int, str, str]]
) -> Subjects:
    loose = list(dict.fromkeys(loose))
    if found.kind == "answer":
        found.asked = [Asked(places[at], question, answer) for at, question, answer in asked if at in places]
        if not found.asked:
            said = loose or [DESCRIBE]
            found.asked = [Asked(i, question) for i in range(len(found)) for question in said]
        return found
    if found.labels is not None and not loose and found.captions is None:
        loose = list(dict.fromkeys(f"a photo of a {label}" for label in found.labels))
    found.texts = list(dict.fromkeys(found.captions)) if found.captions and not loose else loose
    return found


def own_text(found: Subjects) -> list[int] | None:
    """For each picture the candidate that is right: its caption, or the one text that is or names its label; None
    where that is not known for all of them."""
    if found.captions is not None and set(found.captions) <= set(found.texts):
        return [found.texts.index(caption) for caption in found.captions]
    if found.labels is None or not found.texts:
        return None
    right: dict[str, int] = {}
    for label in dict.fromkeys(found.labels):
        word = label.replace("_", " ").casefold()
        exact = [i for i, text in enumerate(found.texts) if text.casefold().strip(" .") == word]
        hits = exact or [i for i, text in enumerate(found.texts) if _names(text, word)]
        if len(hits) != 1:
            return None
        right[label] = hits[0]
    return [right[label] for label in found.labels]


def _names(text: str, word: str) -> bool:
    return f" {word} " in " " + "".join(c if c.isalnum() else " " for c in text.casefold()) + " "


def _name(record: Any, place: int) -> str:
    source = getattr(record, "image", record)
    return Path(source).name if isinstance(source, str | Path) else f"picture {place + 1}"


def check_same(one: Model, other: Model) -> None:
    """Refuse two models that cannot be held against one another."""
    kinds = kind_of(one), kind_of(other)
    if kinds[0] != kinds[1]:
        raise BadInput(
            f"{type(one.network).__name__} and {type(other.network).__name__} do different things with a picture: give "
            "two states of one model"
        )
