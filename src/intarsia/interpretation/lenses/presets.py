"""The lenses as what the survey says they are: the patch operator with a preset mapping f and target (T, i*, l*).

The operator (Ghandeharioun et al. 2024, section 3) runs a target prompt T, overwrites the output of block l* at
position i* with f(h), h being the state of layer l, and reads the next token there. `PRESETS` is the table of their
section 3.1; `operate` is the operator on given states. `readers` holds the shorter direct formulas of those lenses that
have one; the tests show that both are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import states
from intarsia.progress import listening
from intarsia.sites import sweep

if TYPE_CHECKING:
    from intarsia.models import Model

CELLS = 480  # rows that run through the blocks at once

SINK = "<sink>"
"""A target of two tokens: the one that texts begin with, which serves attention as its sink, and any other."""


@dataclass(frozen=True)
class Preset:
    """One row of the table.

    - target: the prompt T; `SINK` stands for the two tokens of the sink lens.
    - position: i*, the token that is overwritten.
    - layer: l*, `last` (the last block) or `same` (l itself).
    - mapping: f, `identity` or the fitted maps of that name."""

    target: str
    position: int
    layer: Literal["last", "same"]
    mapping: Literal["identity", "affine", "tuned", "future"]
    source: str


PRESETS: dict[str, Preset] = {
    # Patched into the last block, only the norm and the head follow: the target prompt cannot matter.
    "logit": Preset(SINK, 1, "last", "identity", "nostalgebraist 2020"),
    "affine": Preset(SINK, 1, "last", "affine", "Din et al. 2023, section 3.1"),
    "tuned": Preset(SINK, 1, "last", "tuned", "Belrose et al. 2023, section 2"),
    "future": Preset(SINK, 1, "last", "future", "Pal et al. 2023, section 3.1"),
    "future prompt": Preset(
        "Hello! Could you please tell me more about ", -1, "same", "identity", "Pal et al. 2023, section 3.2"
    ),
    "identity": Preset(
        "cat -> cat\n1135 -> 1135\nhello -> hello\n?", -1, "same", "identity",
        "Ghandeharioun et al. 2024 (Patchscopes), section 4.1",
    ),
    "sink": Preset(SINK, 1, "same", "identity", "one-token target behind the attention sink (Xiao et al. 2024)"),
}  # fmt: skip


def target_ids(model: Model, preset: Preset) -> Tensor:
    """Token ids [1, token] of the preset's target prompt.

    Raises `BadInput` where a prompt in words is wanted and the model has no tokenizer."""
    if preset.target == SINK:
        first = sink_token(model)
        return torch.tensor([[first, first]], device=model.device)
    if model.tokenizer is None:
        raise BadInput("this lens reads behind a prompt in words, and the model has no tokenizer: use the sink lens")
    return model.encode([preset.target])["input_ids"]


def sink_token(model: Model) -> int:
    """The token a text begins with: the tokenizer's (or the config's) beginning of text, else its end of text."""
    for holder in (model.tokenizer, model.config, getattr(model.network, "generation_config", None)):
        for name in ("bos_token_id", "eos_token_id"):
            found = getattr(holder, name, None)
            if found is not None:
                return int(found[0] if isinstance(found, list | tuple) else found)
    return 0


def operate(
    model: Model,
    preset: Preset,
    stream: Sequence[Tensor],
    layers: Sequence[int],
    mapping: Callable[[Tensor, int], Tensor] | None = None,
) -> Tensor:
    """Logits [n, layer, vocabulary] that the patch operator gives for states.

    - stream: for each of `layers` the states [n, width] of its `resid_post`.
    - mapping: f(states [n, width], layer), for presets whose f is fitted.

    Raises `BadInput` for a network that is not a causal language model, or a fitted mapping that is missing."""
    if preset.mapping != "identity" and mapping is None:
        raise BadInput(f"this lens needs fitted maps ({preset.mapping}): fit them with interpretation.fit_lens")
    if not can_operate(model):
        raise BadInput(
            f"{type(model.network).__name__} is no causal language model: only the logit lens and fitted maps can read "
            "its layers"
        )
    depth = states.layer_count(model)
    given = torch.zeros(len(stream[0]), 1 + depth, stream[0].shape[-1], dtype=stream[0].dtype, device=stream[0].device)
    for hidden, layer in zip(stream, layers, strict=True):
        given[:, 1 + layer] = hidden.to(given)
    ids = target_ids(model, preset)
    with listening(None):  # the caller shows its own progress
        swept = sweep(
            model,
            ids,
            ids,
            target_at=preset.position,
            states=given,
            cells=[(layer, layer if preset.layer == "same" else depth - 1) for layer in layers],
            mapping=None if mapping is None else lambda hidden, layer, _: mapping(hidden, layer),
            keep_logits=True,
            chunk=CELLS,
        )
    return swept.logits  # type: ignore[return-value]


def can_operate(model: Model) -> bool:
    """Whether states can be patched into a target prompt of this network: a decoder that works on its text alone."""
    decoder = states.is_causal(model) and not getattr(model.config, "is_encoder_decoder", False)
    return decoder and states.has_head(model) and not any("cross_out" in name for name in model.sites.taps)
