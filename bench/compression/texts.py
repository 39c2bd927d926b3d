"""The texts, scripts of MELD, and the model off its 4-bit grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch

import intarsia as ia
from intarsia.compression.linears import linears
from intarsia.compression.quantization.folding import folds
from intarsia.compression.statistics import windows_of
from intarsia.data import Text, Turn, load_data, shared_data, shuffled
from intarsia.models import Model

MODEL = "smollm2-135m"
WINDOW = 512
SPAN = 40_000  # tokens of test text that the windows are spread over
SPREAD = 0.3


def scripts(split: str) -> list[str]:
    """Dialogues of MELD as they would stand in a script: a line a turn, in the data's order."""
    folder = shared_data("dialogue/meld")
    if folder is None:
        raise SystemExit("the data set dialogue/meld is not there (INTARSIA_DATA)")
    turns: dict[str, list[Turn]] = {}
    for turn in load_data(folder)[split]:
        turns.setdefault(turn.group or "", []).append(turn)
    return ["\n".join(f"{t.speaker}: {t.text}" for t in some) for some in turns.values()]


def domains() -> dict[str, list[str]]:
    """Kinds of text that quality is measured on: the one that calibration text is of, and one that it has not seen."""
    return {"MELD": scripts("test"), "Python docs": [record.text for record in load_data("python-docs")["text"]]}


def calibration() -> tuple[list[Text], list[Text]]:
    """Text to calibrate on: of MELD's train; and that mixed with pages of Python's documentation none of which is in
    `domains`, as many characters of each at any length."""
    first = records(scripts("train"))
    second = list(shuffled(load_data("python-docs")["calibration"]))
    mixed: list[Text] = []
    read = [0, 0]
    waiting = (iter(first), iter(second))
    while True:
        least = read.index(min(read))
        record = next(waiting[least], None)
        if record is None:
            return first, mixed
        mixed.append(record)
        read[least] += len(record.text)


def spread(model: Model, texts: Sequence[str], count: int) -> list[list[int]]:
    """So many windows, evenly spread over the first `SPAN` tokens (all there are, where there are fewer)."""
    every = windows(model, texts, SPAN)
    return [every[i * len(every) // count] for i in range(count)] if count < len(every) else every


def windows(model: Model, texts: Sequence[str], tokens: int) -> list[list[int]]:
    """Windows of 512 token ids."""
    return windows_of(model, list(texts), tokens, WINDOW)


def records(texts: Sequence[str]) -> list[Text]:
    return [Text(text) for text in texts]


def off_grid(seed: int = 0) -> Model:
    """The model with its weights moved off the 16 values that its file holds, or 4 bits would cost nothing: inputs are
    scaled by exp(U(-.3, .3)) where that changes no output."""
    model = ia.load(MODEL).copy()
    generator = torch.Generator().manual_seed(seed)
    for fold in folds(model, linears(model)):
        fold.apply(torch.exp((torch.rand(fold.size, generator=generator) * 2 - 1) * SPREAD))
    return model
