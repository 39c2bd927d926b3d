"""`generate`: text from a network under edits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.sites.edits import Edit
from intarsia.sites.inputs import Batch, Inputs, prepare
from intarsia.sites.sitemap import of
from intarsia.sites.tape import recording

if TYPE_CHECKING:
    from intarsia.models import Model


@dataclass(frozen=True)
class Generation:
    """What was generated.

    - ids: the new token ids alone, [row, token]; rows that ended early are filled with the padding id.
    - texts: the same as text without special tokens, or None when the model has no tokenizer."""

    ids: Tensor
    texts: list[str] | None


def generate(
    model: Model,
    inputs: Inputs,
    edits: Sequence[Edit] = (),
    *,
    max_new_tokens: int = 32,
    seed: int = 0,
    **settings: Any,
) -> Generation:
    """Generate with edits. Greedy unless `settings` (those of transformers' `generate`) say otherwise.

    Edits apply while the prompt is read (`when="prefill"`): generated tokens see their effect through the cache.
    `when="always"` edits every new token too. Texts are padded on the left. Raises `BadInput` when the network cannot
    generate."""
    network = model.network
    if not hasattr(network, "generate") or not network.can_generate():
        raise BadInput(f"{type(network).__name__} cannot generate: load a causal or encoder-decoder model")
    sites = of(model)
    batch = prepare(model, inputs, side="left")
    kwargs = {k: v for k, v in batch.kwargs.items() if k != "position_ids"}
    if batch.mask is not None:
        if not getattr(network.config, "is_encoder_decoder", False):
            batch = _left(batch)
            kwargs |= {k: batch.kwargs[k] for k in _BY_TOKEN if k in kwargs}
        kwargs["attention_mask"] = batch.mask.long()  # type: ignore[union-attr]
    decoder = kwargs.get("decoder_input_ids")
    if getattr(network.config, "is_encoder_decoder", False):
        prompt = decoder.shape[1] if decoder is not None else 1
    else:
        prompt = kwargs["input_ids"].shape[1] if "input_ids" in kwargs else 0
    tokenizer = model.tokenizer
    if getattr(network.generation_config, "pad_token_id", None) is None and "pad_token_id" not in settings:
        pad = getattr(tokenizer, "pad_token_id", None)
        settings["pad_token_id"] = pad if pad is not None else getattr(tokenizer, "eos_token_id", None) or 0
    settings.setdefault("do_sample", False)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        if settings["do_sample"]:
            torch.manual_seed(seed)
        with torch.no_grad(), recording(sites, batch, edits=list(edits)):
            output = network.generate(**kwargs, max_new_tokens=max_new_tokens, **settings)
    ids = output if isinstance(output, Tensor) else output.sequences
    ids = ids[:, prompt:]
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True) if tokenizer is not None else None
    return Generation(ids, texts)


_BY_TOKEN = ("input_ids", "inputs_embeds", "token_type_ids", "mm_token_type_ids")


def _left(batch: Batch) -> Batch:
    """The batch with its padding on the left, where generation needs it."""
    mask = batch.mask
    assert mask is not None
    order = mask.long().argsort(dim=1, stable=True)  # padding first, tokens in the order they had
    rows = torch.arange(len(order), device=order.device)[:, None]
    moved = {k: v[rows, order] for k, v in batch.kwargs.items() if k in _BY_TOKEN and v is not None}
    return replace(batch, mask=mask[rows, order], kwargs={**batch.kwargs, **moved})
