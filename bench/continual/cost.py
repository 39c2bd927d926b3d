"""What a step costs: five blocks against one, on rows of random tokens; and our step against plain PEFT's on the same
real rows, a batch of eight from each of six tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from bench.common import interleave, ratio, show, timing_rows
from bench.continual.streams import TEMPLATE, examples_of, tasks_in
from intarsia.adaptation.continual.reading import Reader
from intarsia.adaptation.continual.routing.router import Same
from intarsia.adaptation.continual.rows import Row, Writer
from intarsia.adaptation.continual.skills import attach, detach, layer_names
from intarsia.adaptation.trunk import Trunk
from intarsia.measure.likelihood import left_padded
from intarsia.models import Model

ROWS, TOKENS, ANSWER, FIRST = 8, 128, 4, 20


def run(model: Model, *, quick: bool) -> dict[str, float]:
    """Forward and backward."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(100, 40_000, (ROWS, TOKENS), generator=generator).tolist()
    rows = [[Row("", tuple(row[:-ANSWER]), tuple(row[-ANSWER:]), ()) for row in ids]]
    rounds = 3 if quick else 7
    one = "PEFT, one LoRA"
    first = interleave(
        {
            one: _peft(model, rows, 0, answers=True),
            "one block": _ours(model, rows, 1, 0, trunk=False),
            "five blocks": _ours(model, rows, 5, 0, trunk=False),
        },
        rounds,
    )
    columns = ["", "median ms", "quartiles ms", "over PEFT"]
    show("All layers adapted, answer logits, 8 rows of 128 random tokens", columns, timing_rows(first, one))
    real = _real(model)
    tokens = sum(max(len(row.ids) for row in batch) * len(batch) for batch in real)
    plain, ours = "PEFT, all layers, all logits", "trunk, answer logits, instruction once"
    second = interleave(
        {
            plain: _peft(model, real, 0, answers=False),
            f"PEFT, layers from {FIRST}, all logits": _peft(model, real, FIRST, answers=False),
            "trunk, answer logits": _ours(model, real, 1, FIRST, trunk=True, shared=False),
            ours: _ours(model, real, 1, FIRST, trunk=True),
            f"{ours}, five blocks": _ours(model, real, 5, FIRST, trunk=True),
        },
        rounds,
    )
    show(f"Six steps on real rows ({tokens:,} tokens with padding)", columns, timing_rows(second, plain))
    return {
        "step_cost_5_blocks": ratio(first["five blocks"], first[one]),
        "step_speedup_plain_peft": 1 / ratio(second[ours], second[plain]),
    }


def _real(model: Model) -> list[list[Row]]:
    """The first eight training rows of each task of mini6."""
    writer = Writer(model, TEMPLATE, 160, 50)
    sizes = {"train": ROWS, "dev": 0, "test": 0}
    return [writer.rows(examples_of(stream, task, sizes)) for stream, task in tasks_in("mini6")]


def _ours(
    model: Model, batches: list[list[Row]], count: int, first: int, *, trunk: bool, shared: bool = True
) -> Callable[[], Any]:
    new = model.copy()
    new.network.requires_grad_(False)
    skills = attach(new.network, layer_names(new.network, ("auto",), first))
    skills.router = Same(count)
    for i in range(count):
        skills.add(str(i), 8, 4.0)
    parameters = skills.open(count - 1)
    reader = Reader(new, skills, Trunk(new, first, "float16") if trunk else None)
    reader.prepare([row for rows in batches for row in rows])
    if not shared:
        reader._shared = lambda rows, weights: 0  # type: ignore[method-assign]

    def step() -> None:
        for rows in batches:
            for parameter in parameters:
                parameter.grad = None
            reader.loss(rows, torch.full((len(rows), count), 1 / count)).backward()

    return step


def _peft(model: Model, batches: list[list[Row]], first: int, *, answers: bool) -> Callable[[], Any]:
    import peft

    new = model.copy()
    detach(new.network)
    names = layer_names(new.network, ("auto",), first)
    adapted = peft.get_peft_model(new.network, peft.LoraConfig(r=8, lora_alpha=32, target_modules=names)).eval()
    made = [_padded(rows) for rows in batches]

    def step() -> None:
        for batch, labels, keep in made:
            adapted.zero_grad(set_to_none=True)
            if answers:
                logits = adapted(**batch, logits_to_keep=keep + 1, use_cache=False).logits[:, :-1]
                cross_entropy(logits.flatten(0, 1), labels[:, -keep:].flatten()).backward()
            else:
                adapted(**batch, labels=labels, use_cache=False).loss.backward()

    return step


def _padded(rows: list[Row]) -> tuple[dict[str, torch.Tensor], torch.Tensor, int]:
    """Rows as plain training has them: ids, mask, positions; labels where an answer stands; the longest answer."""
    batch = left_padded([[*row.prompt, *row.answer] for row in rows], 0)
    labels = torch.full_like(batch["input_ids"], -100)
    for line, ids, row in zip(labels, batch["input_ids"], rows, strict=True):
        line[-len(row.answer) :] = ids[-len(row.answer) :]
    return batch, labels, max(len(row.answer) for row in rows)
