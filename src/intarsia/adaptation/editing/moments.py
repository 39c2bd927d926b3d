"""The second moment of keys, C = E[k k^T], over the tokens of ordinary text (ROME, section 3.1 and eq. 2).

It is kept in the cache: one file a layer, named by the weights, the layer, and the tokens it was taken over."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from intarsia.adaptation.editing.exact import exact
from intarsia.adaptation.editing.keeping import keep, kept, mark
from intarsia.adaptation.editing.places import Place
from intarsia.adaptation.editing.wording import BEGINNINGS
from intarsia.data import load_data, shuffled
from intarsia.errors import BadInput, Note
from intarsia.measure.likelihood import length_batches
from intarsia.models.saved import Saved
from intarsia.models.weights import weights_key
from intarsia.progress import track
from intarsia.sites import generate, read

if TYPE_CHECKING:
    from intarsia.models import Model

T = TypeVar("T")
WINDOW = 256  # tokens of a text that are read together
BATCH = 2048  # padded tokens in one forward
HELD = 8  # of so many texts one is kept to measure perplexity
SAMPLES, SAMPLE = 96, 128  # most texts that the model writes at once, and their tokens


def moments(model: Model, where: Sequence[Place], windows: Sequence[Sequence[int]]) -> dict[int, Tensor]:
    """C at each place: layer -> [neuron, neuron] float64, over all tokens of the windows.

    The first token of a text counts as any other, as it does in the papers."""
    name = f"{weights_key(model)}-{mark(*windows)}"
    found: dict[int, Tensor] = {}
    for place in where:
        saved = kept(
            f"{name}-{place.key}", lambda s, n=place.neurons: [t.shape for t in s.tensors.values()] == [(n, n)]
        )
        if saved is not None:
            found[place.layer] = saved.tensors["moment"].to(exact(place.module.weight[:0]).device)
    missing = [place for place in where if place.layer not in found]
    if missing:
        found |= _computed(model, missing, windows)
        for place in missing:
            keep(f"{name}-{place.key}", Saved({"moment": found[place.layer]}, {"tokens": sum(map(len, windows))}))
    return found


@torch.no_grad()
def _computed(model: Model, where: Sequence[Place], windows: Sequence[Sequence[int]]) -> dict[int, Tensor]:
    sums: dict[int, Tensor] = {}
    names = [place.key for place in where]
    for numbers in track(length_batches([len(w) for w in windows], BATCH), "keys of ordinary text"):
        acts = read(model, [list(windows[i]) for i in numbers], names)
        for place in where:
            keys = exact(acts[place.key][acts.mask])
            if place.layer not in sums:
                sums[place.layer] = keys.new_zeros(keys.shape[1], keys.shape[1])
            sums[place.layer].addmm_(keys.T, keys)
    count = sum(map(len, windows))
    neurons = min(len(total) for total in sums.values())
    if count < neurons:
        told = f"the covariance of {neurons} neurons is taken over {count} tokens only: give more tokens of text"
        warnings.warn(Note(told), stacklevel=2)
    return {layer: total / count for layer, total in sums.items()}


def windows_of(model: Model, texts: Sequence[str], tokens: int) -> list[list[int]]:
    """Token ids of the texts in windows, until there are `tokens` of them."""
    window = min(WINDOW, model.context_length or WINDOW)
    windows: list[list[int]] = []
    left = tokens
    for text in texts:  # one by one: there may be far more of them than are needed
        ids = model.tokenizer(text, verbose=False)["input_ids"]  # type: ignore[misc]
        for start in range(0, len(ids), window):
            if part := list(ids[start : start + window][:left]):
                windows.append(part)
                left -= len(part)
        if left <= 0:
            break
    if not windows:
        raise BadInput("adaptation.edit: the texts have no tokens: give text for the covariance of keys")
    return windows


def divided(texts: Sequence[T]) -> tuple[list[T], list[T]]:
    """Texts for the covariance and, one in eight, for perplexity; a few texts serve both."""
    if len(texts) < HELD:
        return list(texts), list(texts)
    return [t for i, t in enumerate(texts) if i % HELD], list(texts[::HELD])


def embedded() -> tuple[list[str], list[str]]:
    """The texts of `python-docs`: what the Python language reference says, for the covariance and for perplexity."""
    data = load_data("python-docs")
    if "text" not in data:
        raise BadInput(
            "adaptation.edit: this Python has no documentation topics to take the covariance over: give texts, or "
            "background: samples"
        )
    return tuple([r.text for r in shuffled(data[split])] for split in ("text", "calibration"))  # type: ignore[return-value]


def samples(model: Model, tokens: int, seed: int) -> list[list[int]]:
    """Token ids of what the model itself writes, in windows, at least `tokens` in all. Kept in the cache."""
    name = f"{weights_key(model)}-written-{mark(tokens, seed)}"
    if (saved := kept(name, lambda s: "windows" in s.note)) is not None:
        return saved.note["windows"]
    length = min(SAMPLE, (model.context_length or SAMPLE) // 2)
    count = math.ceil(tokens / length)
    rounds = math.ceil(count / SAMPLES)
    each = math.ceil(count / rounds)  # equal rounds: a small last one would take as long as a large one
    starts = [BEGINNINGS[i % len(BEGINNINGS)] for i in range(each)]
    head = model.tokenizer(starts, verbose=False)["input_ids"]  # type: ignore[misc]
    windows: list[list[int]] = []
    for number in track(range(rounds), "the model writes text of its own"):
        new = generate(
            model, starts, max_new_tokens=length, min_new_tokens=length, do_sample=True, top_k=0, top_p=1.0,
            temperature=1.0, seed=seed + number,
        ).ids.tolist()  # fmt: skip
        windows += [[*first, *ids] for first, ids in zip(head, new, strict=True)]
    keep(name, Saved({}, {"windows": windows}))
    return windows
