"""The dual encoder: a CLIPModel that finds a scene by its caption."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from bench.tokens.bed import words
from bench.tokens.bed.asked import TEST_SEEDS
from bench.tokens.bed.cache import cache_folder, key
from bench.tokens.bed.concepts import NAMES
from bench.tokens.bed.drawings import drawings
from bench.tokens.bed.questions import caption
from bench.tokens.bed.scenes import draw, normalised, picture
from bench.tokens.bed.tower import WIDTH, recipe, trained_tower, vision_settings
from bench.tokens.bed.training import fit

STEPS, BATCH, RATE = 320, 64, 8e-4
SHARPNESS = 10.0
TEST_SIZE = 1000


def build() -> CLIPModel:
    """Two towers with random weights."""
    text = dict(
        vocab_size=len(words.WORDS), hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=words.CAPTION, projection_dim=WIDTH, pad_token_id=words.PAD,
        bos_token_id=words.BOS, eos_token_id=words.EOS,
    )  # fmt: skip
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision_settings(), projection_dim=WIDTH))


class Taught(nn.Module):
    """The network with a head that reads, from a picture's embedding and from a caption's alike, which concepts are
    there. It brings the two spaces together much sooner than the contrast within a batch alone."""

    def __init__(self) -> None:
        super().__init__()
        self.network = build()
        self.present = nn.Linear(WIDTH, len(NAMES))

    def forward(self, batch: dict[str, Tensor], share: float) -> Tensor:
        """The task's loss, and `share` of the head's."""
        output = self.network(**batch)
        loss = contrast(output.logits_per_image)
        if share:
            known = torch.tensor([words.IDS[name] for name in NAMES])
            there = (batch["input_ids"][:, :, None] == known).any(1).float()
            for embedding in (output.image_embeds, output.text_embeds):
                scores = self.present(SHARPNESS * embedding)
                loss = loss + share * nn.functional.binary_cross_entropy_with_logits(scores, there)
        return loss


def train(say: Callable[[str], None] = print) -> CLIPModel:
    """Trained before, or now. The head's loss fades out over the first two thirds."""
    torch.manual_seed(1)
    taught = Taught()
    path = weights_path()
    if not path.exists():
        taught.network.vision_model.load_state_dict(trained_tower(say).state_dict())
    fit(
        taught, lambda step: taught(captioned(1, step, BATCH), 5 * max(0.0, 1 - 1.5 * step / STEPS)), path,
        steps=STEPS, rate=RATE, say=say,
        check=lambda: "R@1 {image_to_text:.3f} {text_to_image:.3f} of 300".format(
            **evaluate(taught.network, size=300)
        ),
    )  # fmt: skip
    return taught.network


def captioned(seed: int, step: int, size: int, split: str = "train") -> dict[str, Tensor]:
    """Pictures and captions: `pixel_values`, `input_ids` [size, 20] right-padded, `attention_mask`."""
    rng = np.random.default_rng((seed, step))
    art = drawings()
    scenes = [draw(rng, art, split) for _ in range(size)]
    pixels = normalised([picture(scene, art, split) for scene in scenes])
    ids = torch.full((size, words.CAPTION), words.PAD)
    for row, scene in enumerate(scenes):
        said = [words.BOS, *words.ids(caption(scene, rng)), words.EOS]
        ids[row, : len(said)] = torch.tensor(said)
    return {
        "pixel_values": torch.from_numpy(pixels), "input_ids": ids, "attention_mask": (ids != words.PAD).long()
    }  # fmt: skip


def batches(seed: int, size: int) -> Iterator[dict[str, Tensor]]:
    """Training batches without end: keyword arguments of the network's forward."""
    step = 0
    while True:
        yield captioned(1000 + seed, step, size)
        step += 1


def task_loss(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Symmetric InfoNCE within the batch."""
    return contrast(network(**batch).logits_per_image)


def contrast(scores: Tensor) -> Tensor:
    """Cross-entropy of [n, n] scores whose diagonal is right, by rows and by columns, averaged."""
    target = torch.arange(len(scores), device=scores.device)
    return (nn.functional.cross_entropy(scores, target) + nn.functional.cross_entropy(scores.T, target)) / 2


@functools.lru_cache(maxsize=4)
def test_set(split: str = "test", size: int = TEST_SIZE) -> dict[str, Tensor]:
    """The same at every call."""
    return captioned(TEST_SEEDS[split], 1, size, split)


@torch.no_grad()
def evaluate(network: nn.Module, split: str = "test", size: int | None = None, batch: int = 100) -> dict[str, Any]:
    """Retrieval among all pictures of the test set: R@1 both ways, their mean (`accuracy`) with its standard error,
    R@5; `right` [2 n] (image to text, then text to image); `embedding` [2 n, width] (pictures, then texts)."""
    count = size or TEST_SIZE
    data = test_set(split, count)
    images, texts = [], []
    for first in range(0, count, batch):
        rows = slice(first, min(first + batch, count))
        output = network(**{name: value[rows] for name, value in data.items()})
        images.append(output.image_embeds)
        texts.append(output.text_embeds)
    image, text = torch.cat(images).float(), torch.cat(texts).float()
    scores = image @ text.T
    target = torch.arange(count)
    right = torch.cat([scores.argmax(1) == target, scores.argmax(0) == target])
    top = torch.cat([(s.topk(5, dim=1).indices == target[:, None]).any(1) for s in (scores, scores.T)])
    share = right.double().mean().item()
    return {
        "accuracy": share,
        # The two directions are not independent: counted as one sample a picture.
        "standard_error": (share * (1 - share) / count) ** 0.5,
        "image_to_text": right[:count].double().mean().item(),
        "text_to_image": right[count:].double().mean().item(),
        "recall_5": top.double().mean().item(),
        "right": right,
        "embedding": torch.cat([image, text]),
    }


def weights_path() -> Path:
    """Where the trained weights are, or will be."""
    settings = dict(tower=recipe(), steps=STEPS, batch=BATCH, rate=RATE, layers=3, taught="concepts")
    return cache_folder() / f"{key('dual', settings)}.pt"
