"""What relation experiments share: what the model knows by itself, patched generations, and vectors for the control."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from intarsia.interpretation.patchscopes.operator import Source, Target, patch
from intarsia.interpretation.patchscopes.prompts import Encoded, encode, token_at
from intarsia.interpretation.patchscopes.relations import Mention, Subject, holds
from intarsia.progress import tell
from intarsia.sites import generate

if TYPE_CHECKING:
    from intarsia.models import Model

T = TypeVar("T")
Step = tuple[Sequence[str], Sequence[str]]
"""Wordings of a question, and the answers that are right."""
BATCH = 32


def say(model: Model, prompts: Sequence[str], new_tokens: int) -> list[str]:
    """Greedy continuations of prompts, which are read as the tokenizer gives them: nothing is patched here."""
    out: list[str] = []
    for start in range(0, len(prompts), BATCH):
        part = list(prompts[start : start + BATCH])
        out += generate(model, part, max_new_tokens=new_tokens).texts or [""] * len(part)
    return out


def known(
    model: Model,
    items: Sequence[T],
    steps: Callable[[T], Sequence[Step]],
    *,
    most: int,
    asked: int,
    new_tokens: int,
    seed: int,
    task: str,
) -> tuple[list[T], int]:
    """The first `most` items, in an order drawn by `seed`, all of whose steps the model knows by itself.

    - steps: an item's steps, each as wordings of a question and the answers that are right; a step is known when the
      model goes on from one of its wordings with one of the answers.
    - asked: how many items are tried at most.

    Gives the items and how many were tried."""
    order = list(items)
    random.Random(seed).shuffle(order)
    order = order[:asked]
    found: list[T] = []
    tried = 0
    for start in range(0, len(order), BATCH):
        tell(task, start, len(order))
        part = order[start : start + BATCH]
        for item, good in zip(part, _all_known(model, [list(steps(item)) for item in part], new_tokens), strict=True):
            if len(found) < most:
                tried += 1
                if good:
                    found.append(item)
        if len(found) >= most:
            break
    tell(task, len(order), len(order), finished=True)
    return found, tried


def _all_known(model: Model, items: list[list[Step]], new_tokens: int) -> list[bool]:
    """Of each item whether all its steps are known. Later steps and wordings are asked only where it still matters."""
    alive = set(range(len(items)))
    for number in range(max(map(len, items), default=0)):
        open_ = {i for i in alive if number < len(items[i])}
        for wording in range(max((len(items[i][number][0]) for i in open_), default=0)):
            here = sorted(i for i in open_ if wording < len(items[i][number][0]))
            said = say(model, [items[i][number][0][wording] for i in here], new_tokens)
            open_ -= {i for i, text in zip(here, said, strict=True) if holds(text, items[i][number][1])}
        alive -= open_
    return [i in alive for i in range(len(items))]


def mention_rows(model: Model, subjects: Sequence[Subject], most: int, seed: int) -> list[tuple[Subject, Encoded, int]]:
    """Up to `most` mentions of each subject, drawn by `seed`: the prompt, and the index of the subject's last token."""
    generator = random.Random(seed)
    rows = []
    for subject in subjects:
        picks: list[Mention] = list(subject.mentions)
        generator.shuffle(picks)
        for mention in picks[:most]:
            prompt = encode(model, mention.text, "source prompt")
            rows.append((subject, prompt, token_at(prompt, mention.end, "source prompt")))
    return rows


def gaussian_like(states: Tensor, count: int, seed: int) -> Tensor:
    """`count` rows [count, layer, width] of random directions with the norms of rows of `states` drawn at random.

    Directions are drawn anew for every layer."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(states), (count,), generator=generator)
    noise = torch.randn(count, *states.shape[1:], generator=generator)
    noise = noise / noise.norm(dim=-1, keepdim=True)
    norms = states.norm(dim=-1, keepdim=True)[rows]
    return (noise.to(states) * norms).to(states.dtype)


def say_patched(
    model: Model,
    rows: Sequence[tuple[Encoded, int]],
    target_prompt: str,
    source_layers: Sequence[int],
    target_layers: Sequence[int],
    *,
    new_tokens: int,
    contamination: str,
    target_at: int = -1,
    states: Tensor | None = None,
    stop: Callable[[str, int], bool] | None = None,
) -> tuple[list[list[list[str]]], Tensor]:
    """Texts [row][source layer][target layer] after patching rows (prompt, index) into the target prompt.

    Gives the states too that were patched, as `Source.states` takes them (the given ones, when `states` is given)."""
    if states is None:
        prompts, places = [prompt for prompt, _ in rows], [index - prompt.own for prompt, index in rows]
        source = Source(model, prompts, places, layers=source_layers)
    else:
        source = Source(model, "", layers=source_layers, states=states)
    found = patch(
        source, Target(model, target_prompt, target_at, target_layers), max_new_tokens=new_tokens,
        contamination=contamination, stop=stop,
    )  # fmt: skip
    return found.texts or [], found.states


def coarse(depth: int, count: int) -> list[int]:
    """`count` layers spread over the lower four fifths of the network, where states of subjects can be read; 0 is all
    layers."""
    if count <= 0 or count >= depth:
        return list(range(depth))
    return sorted({int(0.8 * depth * (k + 0.5) / count) for k in range(count)})
