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
from bench.tokens.bed.tower import GRID, HEADS, WIDTH, Localiser, lesson, recipe, trained_localiser, vision_settings
from bench.tokens.bed.training import fit
from bench.tokens.bed.warm import copying, directions, point

STEPS, BATCH, EACH, RATE = 500, 32, 6, 1.2e-3
LAYERS = 4
IGNORED = -100
GENTLY = {
    "model.vision_tower": 0.2, "model.multi_modal_projector": 0.2, "model.language_model.embed_tokens": 0.2,
    "model.language_model.layers.0.self_attn": 0.2,
}  # fmt: skip


def build() -> LlavaForConditionalGeneration:
    """Random weights. The picture's rows are those after the tower's last block, without the class row."""
    text = LlamaConfig(
        vocab_size=len(words.WORDS), hidden_size=WIDTH, intermediate_size=3 * WIDTH, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=256, pad_token_id=words.PAD,
        bos_token_id=words.BOS, eos_token_id=words.EOS, initializer_range=0.03,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision_settings()), text_config=text, image_token_index=words.IMAGE,
        image_seq_length=GRID**2, vision_feature_layer=-1,
    )  # fmt: skip
    return LlavaForConditionalGeneration(config)


def weights_path() -> Path:
    """Where the trained weights are, or will be."""
    settings = dict(tower=recipe(), steps=STEPS, batch=BATCH, each=EACH, rate=RATE, layers=LAYERS, gently=GENTLY)
    return cache_folder() / f"{key('llava', settings)}.pt"


def train(say: Callable[[str], None] = print) -> LlavaForConditionalGeneration:
    """Trained before, or now. Several questions about a picture are turns of one conversation."""
    torch.manual_seed(3)
    network = build()
    path = weights_path()
    if not path.exists():
        localiser = trained_localiser(say)
        network.model.vision_tower.load_state_dict(localiser.tower.state_dict())
        look(network, localiser, lesson(0, 0, 64)[0])
    fit(
        network, lambda step: task_loss(network, inputs(asked(4, step, BATCH, EACH), EACH)), path, steps=STEPS,
        rate=RATE, warmup=20, gently=GENTLY, say=say,
        check=lambda: "open questions {accuracy:.3f} of 300".format(**evaluate(network, size=300)),
    )  # fmt: skip
    return network


@torch.no_grad()
def look(network: LlavaForConditionalGeneration, localiser: Localiser, pixels: Tensor) -> None:
    """Words that name what the tower shows, and a first block that finds it (see warm.py).

    - The projector gives out the tower's rows, less their mean over `pixels`: a GELU far to the right is straight.
    - All words and all patches are told apart by one direction, which the queries of the first block turn round, so
      that a word looks at patches and not at itself.
    - Those queries and keys use only the channels that rotary positions turn slowly: they compare contents."""
    decoder, projector = network.model.language_model, network.model.multi_modal_projector
    rows = localiser.tower(pixel_values=pixels).last_hidden_state[:, 1:]
    mean = rows.mean((0, 1))
    scale, shift, size = 0.6 / (rows - mean).square().mean().sqrt(), 3.0, 0.3
    half = WIDTH // HEADS // 2
    slow = (torch.arange(WIDTH) % half) >= 6
    apart = nn.functional.normalize(torch.where(slow, 1.0 - 2 * (torch.arange(WIDTH) % 2), 0.0), dim=0)
    mark = 0.2 * WIDTH**0.5 * apart
    projector.linear_1.weight.copy_(scale * torch.eye(WIDTH))
    projector.linear_1.bias.copy_(shift - scale * mean)
    projector.linear_2.weight.copy_(size / 0.6 * torch.eye(WIDTH))
    projector.linear_2.bias.copy_(mark - size / 0.6 * shift)
    named = directions(localiser, normed=False)
    # The other words are as large, or the mark below would drown them.
    decoder.embed_tokens.weight.mul_(size / network.config.text_config.initializer_range)
    point(decoder.embed_tokens, named, size)
    decoder.embed_tokens.weight.sub_(mark)
    point(network.lm_head, named, 0.15)
    first, *others = (layer.self_attn for layer in decoder.layers)
    for linear, turned in ((first.q_proj, 2.0), (first.k_proj, 0.0)):
        linear.weight.mul_(torch.where(slow, 0.3, 0.1)[:, None])
        linear.weight.add_(2.0 * slow[:, None] * (torch.eye(WIDTH) - turned * torch.outer(apart, apart)))
    for linear in (first.v_proj, first.o_proj):
        copying(linear, 1.0)
    for attention in others:
        for linear in (attention.v_proj, attention.o_proj):
            copying(linear, 0.7, noise=1.0)


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
