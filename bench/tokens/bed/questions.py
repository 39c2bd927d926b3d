"""Questions about a scene with one-word answers, and captions. Every question has six words: no padding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from bench.tokens.bed.concepts import COUNTS, NAMES, PLACES, SIDES
from bench.tokens.bed.scenes import Scene

KINDS = ("count", "at", "where", "beside", "largest", "exists")
CLEARLY = 1.2
"""The largest thing's side over the next one's, at least, for a question about it."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Question:
    """- kind: of KINDS. `exists` alone is answered by yes or no."""

    kind: str
    text: str
    answer: str


def ask(scene: Scene, kind: str, rng: np.random.Generator) -> Question | None:
    """A question of a kind at random, or None when the scene allows none."""
    names = Counter(thing.name for thing in scene.things)
    by_cell = {thing.cell: thing.name for thing in scene.things}
    only = [thing for thing in scene.things if names[thing.name] == 1]
    match kind:
        case "count":
            # Single things are the most common: asked for less, the three answers come about equally often.
            choices = sorted(set(names.values()))
            weights = np.array([0.4 if count == 1 else 1.0 for count in choices])
            count = choices[rng.choice(len(choices), p=weights / weights.sum())]
            name = _one([name for name, found in names.items() if found == count], rng)
            return Question(kind, f"how many {name} are there ?", COUNTS[count - 1])
        case "at":
            cell = _one(sorted(by_cell), rng)
            return Question(kind, f"what is at the {PLACES[cell]} ?", by_cell[cell])
        case "where":
            thing = _one(only, rng)
            return Question(kind, f"where is the only {thing.name} ?", PLACES[thing.cell])
        case "beside":
            known = [
                (thing.name, side, by_cell[beside])
                for thing in only
                for side in SIDES
                if (beside := neighbour(thing.cell, side)) in by_cell
            ]
            if not known:
                return None
            name, side, answer = _one(known, rng)
            return Question(kind, f"what is {side} the {name} ?", answer)
        case "largest":
            first, second, *_ = sorted(scene.things, key=lambda thing: -thing.pixels)
            if first.pixels < CLEARLY * second.pixels:
                return None
            return Question(kind, "what is the largest thing ?", first.name)
        case "exists":
            if rng.integers(2):
                return Question(kind, f"is there a {_one(sorted(names), rng)} here ?", "yes")
            return Question(kind, f"is there a {_one([n for n in NAMES if n not in names], rng)} here ?", "no")
    raise ValueError(kind)


def neighbour(cell: int, side: str) -> int | None:
    """The next cell on a side, or None beyond the edge."""
    row, column = divmod(cell, 3)
    down, right = SIDES[side]
    row, column = row + down, column + right
    return row * 3 + column if 0 <= row < 3 and 0 <= column < 3 else None


def ask_any(scene: Scene, rng: np.random.Generator) -> Question:
    """A question of a kind at random among those the scene allows."""
    for kind in rng.permutation(KINDS):
        if (question := ask(scene, str(kind), rng)) is not None:
            return question
    raise ValueError("a scene with nothing to ask about")


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """All things of a scene in any order, about half of them with their place."""
    said = []
    for index in rng.permutation(len(scene.things)).tolist():
        thing = scene.things[index]
        said.append(f"{thing.name} {PLACES[thing.cell]}" if rng.integers(2) else thing.name)
    return " , ".join(said)


def _one(items: Sequence[Item], rng: np.random.Generator) -> Item:
    return items[int(rng.integers(len(items)))]
