"""How often a prompt's task is told by its token embeddings alone, on all fifteen tasks of both published streams."""

from __future__ import annotations

import time

import torch

from bench.common import show
from bench.continual.streams import TEMPLATE, examples_of, tasks_in
from intarsia.adaptation.continual.routing.closed import Closed, Statistics, features
from intarsia.adaptation.continual.routing.features import pooled_prompts
from intarsia.models import Model

SIZES = {"train": 100, "dev": 0, "test": 50}
CASES = (
    ("superni_order1", "instruction and input", False), ("superni_order1", "input only", None),
    ("long_order1", "instruction and input", False), ("long_order1", "shared wording", True),
    ("long_order1", "input only", None),
)  # fmt: skip


def run(model: Model, *, quick: bool) -> dict[str, float]:
    """Macro accuracy of each case, in percent."""
    rows, found = [], {}
    for order, what, generic in CASES[:1] if quick else CASES:
        begun = time.process_time()
        accuracy = _accuracy(model, order, generic)
        spent = (time.process_time() - begun) / (15 * (SIZES["train"] + SIZES["test"])) * 1e3
        rows.append([order.partition("_")[0], what, f"{accuracy:.1f}", f"{spent:.2f}"])
        found[f"routing_{order.partition('_')[0]}_{what.replace(' ', '_')}"] = accuracy
    show(
        "Tasks told apart by token embeddings, fifteen tasks",
        ["stream", "prompt", "macro accuracy %", "ms a text"],
        rows,
    )
    return found


def _accuracy(model: Model, order: str, generic: bool | None) -> float:
    router, tests = Closed(hard=True), []
    embedding = model.network.get_input_embeddings()
    for stream, task in tasks_in(order):
        examples = examples_of(stream, task, SIZES, generic=bool(generic))
        prompts = [
            (e.input if generic is None else TEMPLATE.format(instruction=e.instruction, input=e.input).strip(), e.split)
            for e in examples
        ]
        ids = {
            split: [model.tokenizer(text).input_ids[:256] for text, where in prompts if where == split]  # type: ignore[misc]
            for split in ("train", "test")
        }
        router.add(Statistics.of(features(pooled_prompts(embedding, ids["train"]))))
        tests.append(pooled_prompts(embedding, ids["test"]))
    right = [float((router.scores(test).argmax(1) == i).float().mean()) for i, test in enumerate(tests)]
    return 100 * float(torch.tensor(right).mean())
