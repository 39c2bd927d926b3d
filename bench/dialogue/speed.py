"""Training examples a second: our recipe against the published one by plain PEFT and the Transformers Trainer."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import torch

import intarsia as ia
from bench.common import show
from bench.dialogue.contenders import MODEL
from intarsia.adaptation.dialogue.learning import words_of
from intarsia.adaptation.dialogue.published import Asking
from intarsia.adaptation.dialogue.scripts import Writer, Writing
from intarsia.adaptation.dialogue.tagging import tune
from intarsia.adaptation.dialogue.technique import DialogueConfig
from intarsia.data import Dataset, Turn

EPOCHS = 3


def run(data: Dataset, *, quick: bool) -> dict[str, float]:
    """The same turns by both, in CPU time; ours with its trunk filled and three epochs, as it is used."""
    import numpy as np

    groups = list(dict.fromkeys(t.group for t in data["train"]))[:: 100 if quick else 40]
    turns = [t for t in data["train"] if t.group in set(groups)]
    labels = sorted({t.label for t in turns})
    model = ia.load(MODEL)
    config = DialogueConfig(epochs=EPOCHS)
    y = np.array([labels.index(t.label) for t in turns])
    scripts = Writer(model.tokenizer, Writing(speaker_last=config.speaker_last)).write(turns)
    new = model.copy()
    began = time.process_time()
    tune(new, scripts, y, words_of(labels, config), config, 0)
    ours = EPOCHS * len(turns) / (time.process_time() - began)
    theirs, tokens = _trainer(model, turns, labels)
    show(
        f"Training on {len(turns)} turns, examples a CPU second",
        ["recipe", "tokens a turn", "examples a second"],
        [["PEFT and Trainer, the published prompt, loss on all tokens", f"{tokens:.0f}", f"{theirs:.2f}"],
         [f"ours, {EPOCHS} epochs", f"{sum(len(s.ids) for s in scripts) / len(turns):.0f}", f"{ours:.2f}"],
         ["ratio", "", f"{ours / theirs:.1f}"]],
    )  # fmt: skip
    return {"examples_per_second_ratio": ours / theirs}


def _trainer(model: Any, turns: list[Turn], labels: list[str]) -> tuple[float, float]:
    """(examples a CPU second, tokens an example) of one epoch over a part of the turns, as the released scripts set it:
    rank 8 on queries and values, four rows at a time."""
    import peft
    import transformers as tf

    some = turns[: max(16, len(turns) // 4)]
    asking = Asking(labels, 1, 0, "none")
    tokenizer = model.tokenizer
    rows = [
        [*ids, *tokenizer(t.label, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        for ids, t in zip(asking.prompts(some, tokenizer, 256), some, strict=True)
    ]
    network = peft.get_peft_model(
        model.copy().network,
        peft.LoraConfig(r=8, lora_alpha=64, lora_dropout=0.05, target_modules=["q_proj", "v_proj"], bias="none"),
    )

    def collate(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        width = -(-max(len(row["ids"]) for row in batch) // 8) * 8
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        mask, wanted = torch.zeros_like(ids), torch.full_like(ids, -100)
        for i, row in enumerate(batch):
            n = len(row["ids"])
            ids[i, width - n :] = wanted[i, width - n :] = torch.tensor(row["ids"])
            mask[i, width - n :] = 1
        return {"input_ids": ids, "attention_mask": mask, "labels": wanted}

    with tempfile.TemporaryDirectory() as folder:
        trainer = tf.Trainer(
            model=network,
            args=tf.TrainingArguments(
                folder, per_device_train_batch_size=4, num_train_epochs=1, learning_rate=3e-4, report_to=[],
                save_strategy="no", disable_tqdm=True, remove_unused_columns=False, use_cpu=True, logging_steps=10_000,
            ),
            train_dataset=[{"ids": row} for row in rows],
            data_collator=collate,
        )  # fmt: skip
        began = time.process_time()
        trainer.train()
        spent = time.process_time() - began
    return len(some) / spent, sum(map(len, rows)) / len(rows)
