"""The model that reads the picture as tokens among its words: a LlavaForConditionalGeneration with a small Llama."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from bench.tokens.bed import words
from bench.tokens.bed.asked import Asked, asked, judged, test_set
from bench.tokens.bed.cache import cache_folder, key
from bench.tokens.bed.tower import GRID, WIDTH, recipe, trained_tower, vision_settings
from bench.tokens.bed.training import fit

STEPS, BATCH, EACH, RATE = 460, 32, 6, 1.2e-3
LAYERS = 4
IGNORED = -100


def build() -> LlavaForConditionalGeneration:
    """Random weights. The picture's rows are those after the tower's last block, without the class row."""
    text = LlamaConfig(
        vocab_size=len(words.WORDS), hidden_size=WIDTH, intermediate_size=3 * WIDTH, num_hidden_layers=LAYERS,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=256, pad_token_id=words.PAD,
        bos_token_id=words.BOS, eos_token_id=words.EOS, initializer_range=0.03,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision_settings()), text_config=text, image_token_index=words.IMAGE,
        image_seq_length=GRID**2, vision_feature_layer=-1,
    )  # fmt: skip
    return LlavaForConditionalGeneration(config)


def weights_path() -> Path:
    """Where the trained weights are, or will be."""
    settings = dict(tower=recipe(), steps=STEPS, batch=BATCH, each=EACH, rate=RATE, layers=LAYERS)
    return cache_folder() / f"{key('llava', settings)}.pt"


def train(say: Callable[[str], None] = print) -> LlavaForConditionalGeneration:
    """Trained before, or now. Several questions about a picture are turns of one conversation."""
    torch.manual_seed(3)
    network = build()
    path = weights_path()
    if not path.exists():
        network.model.vision_tower.load_state_dict(trained_tower(say).state_dict())
    fit(
        network, lambda step: task_loss(network, inputs(asked(4, step, BATCH, EACH), EACH)), path, steps=STEPS,
        rate=RATE, warmup=60, say=say,
        check=lambda: "open questions {accuracy:.3f} of 300".format(**evaluate(network, size=300)),
    )  # fmt: skip
    return network


def inputs(data: Asked, each: int = 1, answered: bool = True) -> dict[str, Tensor]:
    """<bos>, a place for each patch, then turns of a question and its answer: `input_ids` and `attention_mask`
    [pictures, token], `pixel_values`; with `answered` also `labels`, where only the answers count, else the last answer
    is left off."""
    count = len(data.pixels)
    turns = torch.cat([data.questions, data.answers[:, None]], dim=1).reshape(count, -1)
    head = torch.full((count, 1 + GRID**2), words.IMAGE)
    head[:, 0] = words.BOS
    ids = torch.cat([head, turns], dim=1)
    if not answered:
        ids = ids[:, :-1]
    made = {"pixel_values": data.pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if answered:
        labels = torch.full_like(ids, IGNORED)
        labels[:, head.shape[1] + words.QUESTION :: words.QUESTION + 1] = data.answers.reshape(count, each)
        made["labels"] = labels
    return made


def batches(seed: int, size: int) -> Iterator[dict[str, Tensor]]:
    """Training batches without end, a question a picture: keyword arguments of the network's forward."""
    step = 0
    while True:
        yield inputs(asked(1000 + seed, step, size))
        step += 1


def task_loss(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Mean cross-entropy of the answers."""
    return network(**batch).loss


@torch.no_grad()
def evaluate(network: nn.Module, split: str = "test", size: int | None = None, batch: int = 100) -> dict[str, Any]:
    """See `bench.tokens.bed.asked.judged`; any word may be the answer."""
    data = test_set(split) if size is None else test_set(split, size)
    given = inputs(data, answered=False)
    scores = []
    for first in range(0, len(data.answers), batch):
        rows = {name: value[first : first + batch] for name, value in given.items()}
        scores.append(network(**rows, logits_to_keep=1).logits[:, -1])
    return judged(torch.cat(scores), data)
