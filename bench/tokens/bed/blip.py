"""The model whose words look at the picture by cross-attention: a BlipForQuestionAnswering."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BlipConfig, BlipForQuestionAnswering, BlipVisionConfig, BlipVisionModel, CLIPVisionModel

from bench.tokens.bed import words
from bench.tokens.bed.asked import asked, judged, test_set
from bench.tokens.bed.cache import cache_folder, key
from bench.tokens.bed.tower import WIDTH, Localiser, lesson, lesson_loss, recipe, trained_localiser, vision_settings
from bench.tokens.bed.training import fit
from bench.tokens.bed.warm import copying, directions, point

TOWER_STEPS, TOWER_RATE = 100, 6e-4
STEPS, BATCH, EACH, RATE = 500, 32, 4, 1e-3
LAYERS = 3
MORE_STEPS, MORE_RATE = 600, 6e-4
GENTLY = {"vision_model": 0.2, "text_encoder": 0.2}


def build() -> BlipForQuestionAnswering:
    """Random weights. BLIP's own initial range for the vision tower, 1e-10, trains nothing."""
    text = dict(
        vocab_size=len(words.WORDS), hidden_size=WIDTH, encoder_hidden_size=WIDTH, intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS, num_attention_heads=4, max_position_embeddings=16, pad_token_id=words.PAD,
        bos_token_id=words.BOS, eos_token_id=words.EOS, sep_token_id=words.EOS, initializer_range=0.04,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, projection_dim=WIDTH, layer_norm_eps=1e-6,
    )  # fmt: skip
    return BlipForQuestionAnswering(BlipConfig(text_config=text, vision_config=vision_settings()))


@torch.no_grad()
def without_first_norm(tower: CLIPVisionModel, pixels: Tensor) -> BlipVisionModel:
    """A BLIP tower that starts where a CLIP tower is.

    BLIP has no layer norm before its blocks. Centring and gain are folded into the embeddings; the division by each
    row's deviation becomes one by its mean over `pixels`, so the result is near, not equal, and is trained on."""
    made = BlipVisionModel(BlipVisionConfig(**vision_settings()))
    old = tower.state_dict()
    norm, epsilon = tower.pre_layrnorm, tower.pre_layrnorm.eps
    rows = tower.embeddings(pixels)[:, 1:]
    gain = norm.weight / (rows.var(-1, unbiased=False) + epsilon).sqrt().mean()
    positions = tower.embeddings.position_embedding.weight
    kernel = tower.embeddings.patch_embedding.weight
    placed = gain * (positions - positions.mean(-1, keepdim=True))
    first = norm(tower.embeddings.class_embedding + positions[0])
    new = {
        "embeddings.class_embedding": (first - norm.bias - placed[0])[None, None],
        "embeddings.position_embedding": placed[None],
        "embeddings.patch_embedding.weight": gain[:, None, None, None] * (kernel - kernel.mean(0, keepdim=True)),
        "embeddings.patch_embedding.bias": torch.zeros(WIDTH),
    }
    new["embeddings.position_embedding"] = new["embeddings.position_embedding"] + norm.bias
    for name, value in old.items():
        if name.startswith("post_layernorm"):
            new[name] = value
        if not name.startswith("encoder.") or ".k_proj." in name or ".v_proj." in name:
            continue
        if ".q_proj." in name:
            parts = [old[name.replace("q_proj", which)] for which in ("q_proj", "k_proj", "v_proj")]
            new[name.replace("q_proj", "qkv")] = torch.cat(parts)
        else:
            new[name.replace("out_proj", "projection")] = value
    made.load_state_dict(new)
    return made


def trained_blip_tower(say: Callable[[str], None] = print) -> Localiser:
    """The shared tower without its first norm, trained on for a moment."""
    source = trained_localiser(say)
    localiser = Localiser(without_first_norm(source.tower, lesson(0, 0, 64)[0]))  # type: ignore[arg-type]
    localiser.patches.load_state_dict(source.patches.state_dict())
    localiser.cells.load_state_dict(source.cells.state_dict())
    localiser.places.load_state_dict(source.places.state_dict())
    path = cache_folder() / f"{key('blip-tower', dict(tower=recipe(), steps=TOWER_STEPS, rate=TOWER_RATE))}.pt"
    fit(
        localiser, lambda step: lesson_loss(localiser, 2, step, 48), path, steps=TOWER_STEPS, rate=TOWER_RATE,
        warmup=20, say=say,
    )  # fmt: skip
    return localiser


def first_recipe() -> dict[str, object]:
    return dict(
        tower=recipe(), tower_steps=TOWER_STEPS, tower_rate=TOWER_RATE, steps=STEPS, batch=BATCH, each=EACH,
        rate=RATE, layers=LAYERS, gently=GENTLY,
    )  # fmt: skip


def weights_path() -> Path:
    """Where the trained weights are, or will be."""
    settings = dict(first=first_recipe(), steps=MORE_STEPS, rate=MORE_RATE)
    return cache_folder() / f"{key('blip', settings)}.pt"


def train(say: Callable[[str], None] = print) -> BlipForQuestionAnswering:
    """Trained before, or now: in two rounds, the second with a smaller rate."""
    torch.manual_seed(2)
    network = build()
    path, first = weights_path(), cache_folder() / f"{key('blip-first', first_recipe())}.pt"

    def said() -> str:
        return "open questions {accuracy:.3f} of 300".format(**evaluate(network, size=300))

    if not path.exists():
        if not first.exists():
            localiser = trained_blip_tower(say)
            network.vision_model.load_state_dict(localiser.tower.state_dict())
            look(network, localiser)
        fit(
            network, lambda step: many_loss(network, step), first, steps=STEPS, rate=RATE, warmup=20, gently=GENTLY,
            say=say, check=said,
        )  # fmt: skip
    fit(
        network, lambda step: many_loss(network, STEPS + step), path, steps=MORE_STEPS, rate=MORE_RATE, warmup=20,
        gently=GENTLY, say=say, check=said,
    )  # fmt: skip
    return network


def look(network: BlipForQuestionAnswering, localiser: Localiser) -> None:
    """Words that name what the tower shows, cross-attention that finds it, and an answer made of what was found (see
    warm.py)."""
    named = directions(localiser, normed=True)
    point(network.text_encoder.embeddings.word_embeddings, named, 0.3)
    point(network.text_decoder.bert.embeddings.word_embeddings, named, 0.15)
    for layer in network.text_encoder.encoder.layer:
        for linear in (layer.crossattention.self.query, layer.crossattention.self.key):
            copying(linear, 1.5)
    for layer in (*network.text_encoder.encoder.layer, *network.text_decoder.bert.encoder.layer):
        for linear in (layer.crossattention.self.value, layer.crossattention.output.dense):
            copying(linear, 1.0)
    copying(network.text_decoder.cls.predictions.transform.dense, 1.0)


def many_loss(network: BlipForQuestionAnswering, step: int) -> Tensor:
    """The task's loss with several questions about each picture, which is looked at once."""
    data = asked(3, step, BATCH, EACH)
    rows = network.vision_model(pixel_values=data.pixels).last_hidden_state
    batch = _inputs(data.questions, data.answers)
    read = network.text_encoder(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        encoder_hidden_states=rows.repeat_interleave(EACH, dim=0),
    ).last_hidden_state
    output = network.text_decoder(input_ids=batch["labels"], encoder_hidden_states=read, labels=batch["labels"])
    return output.loss


def _inputs(questions: Tensor, answers: Tensor) -> dict[str, Tensor]:
    bos = torch.full((len(questions), 1), words.BOS)
    ids = torch.cat([bos, questions], dim=1)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.cat([bos, answers[:, None]], dim=1),
    }


def batches(seed: int, size: int) -> Iterator[dict[str, Tensor]]:
    """Training batches without end, a question a picture: keyword arguments of the network's forward."""
    step = 0
    while True:
        data = asked(1000 + seed, step, size)
        yield {"pixel_values": data.pixels, **_inputs(data.questions, data.answers)}
        step += 1


def task_loss(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Mean cross-entropy of the answers."""
    return network(**batch).loss


@torch.no_grad()
def evaluate(network: nn.Module, split: str = "test", size: int | None = None, batch: int = 100) -> dict[str, Any]:
    """See `bench.tokens.bed.asked.judged`; any word may be the answer."""
    data = test_set(split) if size is None else test_set(split, size)
    scores = []
    for first in range(0, len(data.answers), batch):
        rows = slice(first, first + batch)
        given = _inputs(data.questions[rows], data.answers[rows])
        output = network.generate(
            pixel_values=data.pixels[rows], input_ids=given["input_ids"], attention_mask=given["attention_mask"],
            max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        scores.append(output.logits[0])
    return judged(torch.cat(scores), data)
