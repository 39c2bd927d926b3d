"""What a network reads before its layers are factored: a text, or pictures with captions for towers that look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from intarsia.compression.calibration import calibration_windows
from intarsia.compression.checking import check_reads_text
from intarsia.compression.statistics import Run, text_runs
from intarsia.models.pixels import pixels
from intarsia.models.seeing import embed_pictures, embed_texts, kind_of, text_inputs

if TYPE_CHECKING:
    from intarsia.data import ImageText, Text
    from intarsia.models import Model

PICTURES = 16  # in one forward


@dataclass
class Reading:
    """- windows: of token ids, for a network that runs on a text alone. images: pictures. captions: for the text tower
    of a network that has two."""

    windows: list[list[int]] = field(default_factory=list)
    images: list[ImageText] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.windows or self.images)

    def runs(self, model: Model) -> list[Run]:
        """All of it, batch after batch."""
        out = text_runs(model, self.windows)
        for start in range(0, len(self.images), PICTURES):
            values = pixels(model, self.images[start : start + PICTURES])
            out.append((None, partial(embed_pictures, model, values)))
        for start in range(0, len(self.captions), PICTURES):
            some = self.captions[start : start + PICTURES]
            mask = text_inputs(model, some).get("attention_mask")
            out.append((None if mask is None else mask.bool(), partial(embed_texts, model, some)))
        return out


def reading_of(
    model: Model, texts: Sequence[Text] | None, images: Sequence[ImageText] | None, tokens: int, who: str
) -> Reading:
    """What there is to read for this network. Without pictures it must run on a text alone.

    Raises `BadInput` for pictures that a network cannot look at, and for a network that lacks some."""
    if not images:
        windows = calibration_windows(model, texts, tokens)
        check_reads_text(model, windows, f"{who} without images", pairs=True)
        return Reading(windows)
    if kind_of(model) == "dual":
        captions = [one.text for one in images if one.text] if texts is None else [one.text for one in texts]
        return Reading(images=list(images), captions=captions)
    windows = [] if texts is None else calibration_windows(model, texts, tokens)
    if windows:
        check_reads_text(model, windows, who)
    return Reading(windows, list(images))
