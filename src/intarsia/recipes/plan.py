"""The plan of a run: its units of work, each known by the hash of all that goes into it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import intarsia
from intarsia.data import Dataset
from intarsia.models import Model
from intarsia.recipes.binding import facts_for, records_hash
from intarsia.recipes.recipe import Recipe
from intarsia.recipes.steps import BASE, Step


@dataclass(frozen=True)
class Unit:
    """One piece of work: a change, or a look at one state. What is finished stays finished at this grain.

    - number: the step's place in the recipe, from 1.
    - on: the state it works on; gives: the state it makes (None for a look).
    - digest: 12 hex digits of the hash of technique, settings, the states' own hashes, the records, the seed and
      Intarsia's version. Equal digest, equal result."""

    number: int
    step: Step
    on: str
    gives: str | None
    splits: dict[str, str]
    seed: int
    digest: str
    hashes: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"{self.number:02d}-{self.step.technique.name}-{self.digest}"

    @property
    def title(self) -> str:
        """What a person reads."""
        return f"{self.step.technique.name} on {self.on}" + (f" → {self.gives}" if self.gives else "")

    @property
    def states(self) -> tuple[str, ...]:
        """All states it needs, its own first."""
        return (self.on, *self.step.models.values())


def plan(recipe: Recipe, base: Model, data: Dataset | None) -> list[Unit]:
    """The units of a recipe in order."""
    states = {BASE: state_hash(base)}
    records: dict[str, str] = {}
    count: dict[str, int] = {}
    units: list[Unit] = []
    for number, step in enumerate(recipe.steps, 1):
        name = step.technique.name
        splits = recipe.bind(step, data)
        for split in splits.values():
            if split not in records:
                records[split] = records_hash(data[split])  # type: ignore[index]
        seed = step.seed
        if seed is None:
            # Looks of one technique share a seed, so that they sample the same texts and compare; repeated changes do
            # not. The place in the recipe plays no part: a look put in between leaves later steps finished.
            count[name] = count.get(name, 0) + 1
            seed = step_seed(recipe.seed, name, count[name] if step.state else 0)
        hashes = {entry: records[split] for entry, split in splits.items()}
        facts = facts_for(step.technique, data)
        for entry, value in facts.items():
            hashes[entry] = value.sha256 if isinstance(value, Dataset) else digest(value)
        for on in step.on:
            whole = digest(
                {
                    "technique": name,
                    "config": step.config.model_dump(mode="json"),
                    "on": states[on],
                    "models": {entry: states[state] for entry, state in step.models.items()},
                    "data": hashes,
                    "seed": seed,
                    "intarsia": intarsia.__version__,
                }
            )
            units.append(Unit(number, step, on, step.state, splits, seed, whole[:12], hashes))
            if step.state:
                states[step.state] = whole
    return units


def step_seed(seed: int, technique: str, count: int) -> int:
    """The seed of a step, 31 bits, from the recipe's seed."""
    return int(digest([seed, technique, count])[:8], 16) >> 1


def state_hash(model: Model) -> str:
    """What tells one model from another: its weights, its history and its extras."""
    return digest([weights_id(model), list(model.identity.changes), model.extras])


def weights_id(model: Model) -> str:
    """The sha256 of the weight file, or of the weights themselves.

    The latter where the model was changed before: its identity has the sha256 of what it was made from."""
    identity = model.identity
    return identity.sha256 if identity.sha256 and not identity.changes else weights_hash(model)


def weights_hash(model: Model) -> str:
    """The sha256 of the weights in memory, by name."""
    import torch

    total = hashlib.sha256()
    for name, tensor in sorted(model.network.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def digest(value: Any) -> str:
    """The sha256 of a JSON-able value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()
