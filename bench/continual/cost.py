"""What a step costs: five blocks against one, and the trunk with answer logits against plain PEFT on the same rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from bench.common import interleave, ratio, show, timing_rows
from intarsia.adaptation.continual.reading import Reader
from intarsia.adaptation.continual.routing.router import Same
from intarsia.adaptation.continual.rows import Row
from intarsia.adaptation.continual.skills import attach, detach, layer_names
from intarsia.adaptation.trunk import Trunk
from intarsia.measure.likelihood import left_padded
from intarsia.models import Model

ROWS, TOKENS, ANSWER, FIRST = 8, 128, 4, 20


def run(model: Model, *, quick: bool) -> dict[str, float]:
    """Forward and backward over eight rows of 128 tokens."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(100, 40_000, (ROWS, TOKENS), generator=generator).tolist()
    rows = [Row("", tuple(row[:-ANSWER]), tuple(row[-ANSWER:]), ()) for row in ids]
    rounds = 3 if quick else 7
    blocks = {
        "PEFT, one LoRA": _peft(model, rows, 0, answers=True),
        "one block": _ours(model, rows, 1, 0, trunk=False),
        "five blocks": _ours(model, rows, 5, 0, trunk=False),
    }
    first = interleave(blocks, rounds)
    columns = ["", "median ms", "quartiles ms", "over PEFT"]
    show("All blocks adapted, answer logits", columns, timing_rows(first, "PEFT, one LoRA"))
    steps = {
        "PEFT, all layers, all logits": _peft(model, rows, 0, answers=False),
        f"PEFT, layers from {FIRST}, all logits": _peft(model, rows, FIRST, answers=False),
        "ours: trunk, answer logits, layers from 20": _ours(model, rows, 1, FIRST, trunk=True),
        "ours, five blocks": _ours(model, rows, 5, FIRST, trunk=True),
    }
    second = interleave(steps, rounds)
    plain = "PEFT, all layers, all logits"
    show("A step", columns, timing_rows(second, plain))
    return {
        "step_cost_5_blocks": ratio(first["five blocks"], first["PEFT, one LoRA"]),
        "step_speedup_plain_peft": 1 / ratio(second["ours: trunk, answer logits, layers from 20"], second[plain]),
    }


def _ours(model: Model, rows: list[Row], count: int, first: int, *, trunk: bool) -> Callable[[], Any]:
    new = model.copy()
    new.network.requires_grad_(False)
    skills = attach(new.network, layer_names(new.network, ("auto",), first))
    skills.router = Same(count)
    for i in range(count):
        skills.add(str(i), 8, 4.0)
    parameters = skills.open(count - 1)
    reader = Reader(new, skills, Trunk(new, first, "float16") if trunk else None)
    reader.prepare(rows)
    weights = torch.full((len(rows), count), 1 / count)

    def step() -> None:
        for parameter in parameters:
            parameter.grad = None
        reader.loss(rows, weights).backward()

    return step


def _peft(model: Model, rows: list[Row], first: int, *, answers: bool) -> Callable[[], Any]:
    import peft

    new = model.copy()
    detach(new.network)
    names = layer_names(new.network, ("auto",), first)
    adapted = peft.get_peft_model(new.network, peft.LoraConfig(r=8, lora_alpha=32, target_modules=names)).eval()
    batch = left_padded([[*row.prompt, *row.answer] for row in rows], 0)
    labels = torch.full_like(batch["input_ids"], -100)
    labels[:, -ANSWER:] = batch["input_ids"][:, -ANSWER:]

    def step() -> None:
        adapted.zero_grad(set_to_none=True)
        if answers:
            logits = adapted(**batch, logits_to_keep=ANSWER + 1, use_cache=False).logits[:, :-1]
            cross_entropy(logits.flatten(0, 1), labels[:, -ANSWER:].flatten()).backward()
        else:
            adapted(**batch, labels=labels, use_cache=False).loss.backward()

    return step
