"""How much faster a vision tower of usual size gets: throughput, counted work, and what merging itself takes."""

from __future__ import annotations

from typing import Any

import torch

from bench.common import interleave, ratio
from intarsia.measure import count_macs
from intarsia.models import Model, wrap
from intarsia.tokens import merge

COLUMNS = ("ViT-B/16, 224 pixels", "work", "images/s", "over dense", "of what the work allows")
KEEPS = (0.75, 0.5, 0.34)


def tower(seed: int = 0) -> Model:
    """A CLIP vision tower of ViT-B size with random weights: speed does not depend on what they are."""
    import transformers as tf

    torch.manual_seed(seed)
    config = tf.CLIPVisionConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        image_size=224,
        patch_size=16,
    )
    return wrap(tf.CLIPVisionModel(config).eval())


def run(quick: bool, batch: int = 8) -> tuple[dict[str, float], list[list[str]]]:
    """Figures and rows. All contenders work on the same pictures, in turn, in one process."""
    model = tower()
    pictures = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    models: dict[str, Model] = {"dense": model, "keep 1": merge(model, keep=1.0)}
    for keep in (0.5,) if quick else KEEPS:
        models[f"keep {keep:g}"] = merge(model, keep=keep)
    models["keep 0.5, ToMe's matching"] = merge(model, keep=0.5, matcher="bipartite", importance="none")
    models["keep 0.5, CrossGET's matching"] = merge(model, keep=0.5, matcher="complete")

    def once(one: Model) -> Any:
        with torch.inference_mode():
            return one.network(pixel_values=pictures).pooler_output

    assert torch.equal(once(models["dense"]), once(models["keep 1"]))
    work = {name: count_macs(lambda one=one: once(one)).macs for name, one in models.items()}
    timed = {name: one for name, one in models.items() if name != "keep 1"}
    timings = interleave({n: (lambda one=one: once(one)) for n, one in timed.items()}, rounds=5 if quick else 9)
    rows = []
    for name, timing in timings.items():
        gain, allowed = 1 / ratio(timing, timings["dense"]), work["dense"] / work[name]
        rows.append(
            [
                name,
                f"{work[name] / work['dense']:.3f}",
                f"{batch / timing.median:.1f}",
                f"{gain:.2f}x",
                f"{gain / allowed:.0%}",
            ]
        )
    figures = {
        "throughput_gain_half_flops": 1 / ratio(timings["keep 0.5"], timings["dense"]),
        "half_flops_share": work["keep 0.5"] / work["dense"],
        "throughput_gain_half_flops_tome": 1 / ratio(timings["keep 0.5, ToMe's matching"], timings["dense"]),
    }
    return figures, rows
