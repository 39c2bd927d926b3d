"""Pseudo-samples of a task: a generator of its own, trained on the task's examples and then asked for more.

Source: Zhao et al. 2024 (SAPT), section 3.3 and released code: LoRA of rank 8 on prompts that only say "generate", with
the whole example as the answer; samples by top-k 20 with repetition penalty 2.5; what does not read as an example is
left out. The three marks, which that code adds to the vocabulary, are plain text here: the vocabulary stays as it
is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from intarsia.adaptation.continual.methods.base import Lesson
from intarsia.adaptation.continual.reading import Reader
from intarsia.adaptation.continual.rows import Row
from intarsia.adaptation.continual.skills import attach, detach, layer_names
from intarsia.adaptation.continual.technique import ContinualConfig
from intarsia.training import lora
from intarsia.training.loop import fixed_batches, seeded, train

if TYPE_CHECKING:
    from intarsia.models import Model

ASK = "__gen__ "
TOP_K, REPETITION, ROUNDS = 20, 2.5, 4
RANK, ALPHA, DROPOUT = 8, 32, 0.1
LONGEST = 512


def pseudo_prompts(model: Model, lesson: Lesson, count: int, config: ContinualConfig) -> list[list[int]]:
    """At most `count` prompts, as token ids, that a generator writes after it was trained on the lesson's."""
    plain = model.copy()
    detach(plain.network)
    plain.network.requires_grad_(False)
    settings = lora.LoraConfig(
        epochs=config.epochs, max_steps=config.max_steps, batch_size=config.batch_size,
        learning_rate=config.learning_rate, schedule="constant", warmup=0.0,
    )  # fmt: skip
    tokenizer = model.tokenizer
    assert tokenizer is not None and tokenizer.eos_token_id is not None
    ask = tuple(tokenizer(ASK, verbose=False)["input_ids"])
    rows = [Row("", ask, (*row.prompt[: LONGEST - 1], tokenizer.eos_token_id), ()) for row in lesson.train]
    with seeded(lesson.seed + 1):
        skills = attach(plain.network, layer_names(plain.network, config.targets, 0))
        skills.add("generator", RANK, ALPHA / RANK)
        for stack in skills.stacks:
            stack.dropout = DROPOUT
        parameters = skills.open(0)
        reader = Reader(plain, skills, None)
        weights = torch.ones(1, 1, device=model.device)
        batches = fixed_batches([len(row.answer) for row in rows], config.batch_size, lesson.seed)

        def loss_of(number: int) -> torch.Tensor:
            return reader.loss([rows[i] for i in batches[number]], weights)

        train([(parameters, 1.0)], len(batches), loss_of, settings, lesson.seed, f"a generator of {lesson.name}")
        longest = min(LONGEST, max(len(row.answer) for row in rows) + 8)
        found: dict[tuple[int, ...], None] = {}
        for _ in range(ROUNDS):
            if len(found) >= count:
                break
            with torch.no_grad(), skills.given(weights):
                written = reader.sampled(ask, count, longest, top_k=TOP_K, repetition_penalty=REPETITION)
            found |= {tuple(row): None for row in written if tokenizer.decode(row, skip_special_tokens=True).strip()}
    return [list(row) for row in found][:count]
