"""Pictures and models for the tests that look at merged tokens."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import transformers as tf
from PIL import Image

from intarsia.errors import Note
from intarsia.models import Model, wrap
from tests import tiny as make
from tests.tiny import tokenizer


def pictures(count: int = 6, side: int = 16, seed: int = 0) -> list[Image.Image]:
    """Noise over a colour, so that no two patches are alike."""
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(count)]


def folder(path: Path, count: int = 4, broken: int = 1, kinds: tuple[str, ...] = ()) -> Path:
    """A folder of pictures, some of them broken; with `kinds` in folders of these names in turn."""
    for i, picture in enumerate(pictures(count)):
        place = path / kinds[i % len(kinds)] if kinds else path
        place.mkdir(parents=True, exist_ok=True)
        picture.save(place / f"{i}.png")
    for i in range(broken):
        (path / (kinds[0] if kinds else "") / f"broken{i}.png").write_bytes(b"\x89PNG broken")
    return path


def blip_answers(seed: int = 0) -> Model:
    """A tiny BLIP that answers questions."""
    torch.manual_seed(seed)
    config = tf.BlipConfig(text_config=make._blip_text(), vision_config=make._VISION_TOWER, image_text_hidden_size=16)
    return _wide(tf.BlipForQuestionAnswering(config))


def classifier(seed: int = 0) -> Model:
    """A tiny ViT over three classes."""
    torch.manual_seed(seed)
    plain = {k: v for k, v in make._VISION_TOWER.items() if k != "projection_dim"}
    names = {0: "cat", 1: "dog", 2: "bird"}
    return _wide(tf.ViTForImageClassification(tf.ViTConfig(**plain, id2label=names, label2id={})))


def _wide(network: tf.PreTrainedModel) -> Model:
    for parameter in network.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.15)
    return wrap(network.eval(), tokenizer())


@contextmanager
def no_notes():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)
        yield
