"""What the tests of training merged models share."""

from __future__ import annotations

import torch

from intarsia.sites.recomposing import installed
from intarsia.tokens import merge
from intarsia.tokens.train import TrainConfig
from tests.tiny import inputs, tiny
from tests.tokens_help import blip_answers

KINDS = ["clip", "siglip", "blip", "llava"]


def guided(kind: str, keep: float = 0.6, dtype: torch.dtype = torch.float32):
    """A merged model with cross tokens that are no mere copies."""
    model = merge(blip_answers() if kind == "blip-vqa" else tiny(kind, dtype=dtype), keep=keep, cross=True)
    torch.manual_seed(3)
    with torch.no_grad():
        for owner in installed(model.network).values():
            if getattr(owner.rule, "offsets", None) is not None:
                owner.rule.offsets.normal_(0, 0.3)
    return model


def feed(kind: str, batch: int = 3) -> dict:
    return {**inputs(kind, batch=batch, side=None)}


def config(**settings) -> TrainConfig:
    return TrainConfig(**{"steps": 6, "learning_rate": 1e-3, "offset_rate": 10, "warmup": 0, **settings})


def toy(kind: str, seed: int = 0, **more):
    x = feed(kind, 4)
    if kind in ("blip", "llava"):
        x["labels"] = x["input_ids"].clone()
    return lambda step: {**x, **more}


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.network.state_dict().items()}
