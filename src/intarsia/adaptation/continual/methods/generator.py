"""Pseudo-samples of a task: a generator of its own, trained on the task's examples and then asked for more.

Source: Zhao et al. 2024 (SAPT), section 3.3 and released code: LoRA of rank 8 on prompts that only say "generate", with
the whole example as the answer; samples by top-k 20 with repetition penalty 2.5; what does not read as an example is
left out. The three marks, which that code adds to the vocabulary, are plain text here: the vocabulary stays as it
is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from intarsia.adaptation import lora
from intarsia.adaptation.continual.methods.base import Lesson
from intarsia.adaptation.continual.technique import ContinualConfig
from intarsia.adaptation.conversations import IGNORED
from intarsia.adaptation.training import fixed_batches, seeded, train
from intarsia.measure.likelihood import left_padded

if TYPE_CHECKING:
    from intarsia.models import Model

ASK = "__gen__ "
TOP_K, REPETITION, ROUNDS = 20, 2.5, 4
RANK, ALPHA = 8, 32


def pseudo_prompts(model: Model, lesson: Lesson, count: int, config: ContinualConfig) -> list[list[int]]:
    """At most `count` prompts, as token ids, that a generator writes after it was trained on the lesson's."""
    from intarsia.adaptation.continual.skills import detach

    plain = model.copy()
    detach(plain.network)
    settings = lora.LoraConfig(
        rank=RANK, alpha=ALPHA, epochs=config.epochs, max_steps=config.max_steps, batch_size=config.batch_size,
        learning_rate=config.learning_rate, schedule="constant", warmup=0.0,
    )  # fmt: skip
    tokenizer = model.tokenizer
    assert tokenizer is not None
    ask = list(tokenizer(ASK, verbose=False)["input_ids"])
    samples = [[*row.prompt, tokenizer.eos_token_id] for row in lesson.train]
    with seeded(lesson.seed + 1):
        adapted, parameters = lora.attach(plain.network, settings)
        batches = fixed_batches([len(sample) for sample in samples], config.batch_size, lesson.seed)

        def loss_of(number: int) -> torch.Tensor:
            return _loss(adapted, ask, [samples[i] for i in batches[number]], model.device)

        train([(parameters, 1.0)], len(batches), loss_of, settings, lesson.seed, f"a generator of {lesson.name}")
        longest = min(512, max(map(len, samples)) + 8)
        return _sampled(adapted, ask, count, longest, tokenizer, model.device)


def _loss(network, ask: list[int], samples: Sequence[list[int]], device) -> torch.Tensor:
    batch = left_padded([ask + sample[:-1] for sample in samples], 0)
    keep = max(map(len, samples))
    wanted = torch.tensor([[IGNORED] * (keep - len(s)) + s for s in samples], device=device)
    batch = {name: value.to(device) for name, value in batch.items() if name != "position_ids"}
    logits = network(**batch, logits_to_keep=keep, use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=IGNORED)


def _sampled(network, ask: list[int], count: int, longest: int, tokenizer, device) -> list[list[int]]:
    """Samples that end, each once."""
    found: dict[tuple[int, ...], None] = {}
    for _ in range(ROUNDS):
        if len(found) >= count:
            break
        ids = torch.tensor([ask] * count, device=device)
        with torch.no_grad():
            out = network.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=TOP_K,
                repetition_penalty=REPETITION, max_new_tokens=longest, pad_token_id=tokenizer.pad_token_id or 0,
            )  # fmt: skip
        for row in out[:, len(ask) :].tolist():
            if tokenizer.eos_token_id in row:
                row = row[: row.index(tokenizer.eos_token_id)]
            if row and tokenizer.decode(row, skip_special_tokens=True).strip():
                found[tuple(row)] = None
    return [list(row) for row in found][:count]
