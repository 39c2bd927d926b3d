"""A network with fewer rows in its embedding and head, and new numbers where its settings name tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from intarsia.compression.quantization.modules import has_codes
from intarsia.errors import BadInput
from intarsia.models import Model
from intarsia.sites import guest_of

FORBIDDEN = ("suppress_tokens", "begin_suppress_tokens")
# Settings of a generation that name tokens in shapes of their own.
LISTS = ("bad_words_ids", "force_words_ids", "forced_decoder_ids", "sequence_bias", "constraints")


def check(model: Model) -> None:
    """`BadInput` for a network whose vocabulary is more than one embedding and one head."""
    network: Any = model.network
    if has_codes(network):
        raise BadInput("the model is quantized; trim the vocabulary of the original, then quantize")
    if guest_of(network) is not None:
        raise BadInput("an adapter stands beside this network; merge it first, or trim before it is learned")
    if model.processor is not None:
        raise BadInput("the model has a processor, which puts tokens of its own into texts; text models can be trimmed")
    table, head = network.get_input_embeddings(), network.get_output_embeddings()
    if not isinstance(table, nn.Embedding) or not isinstance(head, nn.Linear | None):
        raise BadInput(f"the vocabulary lies in a {type(table).__name__} and a {type(head).__name__}: unknown kinds")
    rows = table.num_embeddings
    own = {id(t) for m in (table, head) if m is not None for t in m.parameters()}
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if id(tensor) not in own and tensor.dim() and rows in (tensor.shape[0], tensor.shape[-1]):
            raise BadInput(f"{name} {list(tensor.shape)} seems to have a place for each of the {rows} tokens as well")
    if named := [key for key in LISTS if getattr(getattr(network, "generation_config", None), key, None)]:
        raise BadInput(f"generation_config.{named[0]} names tokens; clear it, and set it again by the new ids")


def named_ids(network: Any) -> set[int]:
    """The tokens that the settings of a network and of its generation name; not those they forbid."""
    found = set()
    for _, key, value in _named(network):
        if key in FORBIDDEN:
            continue
        found |= {value} if isinstance(value, int) else {i for i in value if isinstance(i, int)}
    return found


def slice_network(network: Any, kept: Sequence[int], ids: Mapping[int, int]) -> None:
    """Leave only the rows `kept` of embedding and head, in this order, and renumber the settings. In place."""
    table, head = network.get_input_embeddings(), network.get_output_embeddings()
    rows = {id(t): t for m in (table, head) if m is not None for t in m.parameters()}
    with torch.no_grad():
        for tensor in rows.values():
            index = torch.tensor(kept, device=tensor.device)
            tensor[: len(kept)] = tensor[index]
    if table.padding_idx is not None:
        table.padding_idx = ids.get(table.padding_idx)
    network.resize_token_embeddings(len(kept), mean_resizing=False)
    for settings, key, value in list(_named(network)):
        new = ids.get(value) if isinstance(value, int) else [ids[i] for i in value if i in ids] or None
        setattr(settings, key, new)


def _named(network: Any) -> Iterator[tuple[Any, str, Any]]:
    """(settings, key, id or ids) of everything that names tokens."""
    whole = network.config
    seen = []
    for settings in (whole, whole.get_text_config(), getattr(network, "generation_config", None)):
        if settings is None or any(settings is other for other in seen):
            continue
        seen.append(settings)
        for key, value in vars(settings).items():
            names = key.endswith(("_token_id", "_token_ids")) or key in FORBIDDEN
            if names and isinstance(value, int | list):
                yield settings, key, value
