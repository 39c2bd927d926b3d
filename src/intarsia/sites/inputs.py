"""What a network is fed: texts, token ids or ready keyword arguments, made into one batch with its masks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.models import Model

Inputs = str | Sequence[str] | Sequence[Sequence[int]] | Tensor | Mapping[str, Any]


@dataclass(frozen=True)
class Batch:
    """Keyword arguments for the network, and the masks that say which tokens are real.

    - kwargs: what the network's forward is called with.
    - mask: [batch, token] bool over `input_ids`, or None when there is no text.
    - decoder_mask: the same over `decoder_input_ids` in encoder-decoders."""

    kwargs: dict[str, Any]
    mask: Tensor | None
    decoder_mask: Tensor | None = None

    @property
    def size(self) -> int:
        """The number of rows."""
        text = next((self.kwargs[k] for k in ("input_ids", "inputs_embeds") if k in self.kwargs), None)
        return next(v.shape[0] for v in (text, *self.kwargs.values()) if isinstance(v, Tensor))

    def mask_for(self, tower: str, tokens: int) -> Tensor:
        """[batch, token] bool: the real tokens of a tower's stream, by its name (vision towers have no padding)."""
        mask = self.decoder_mask if tower == "decoder" else self.mask
        if mask is None or mask.shape[1] != tokens or tower in ("vision", "audio", "qformer"):
            device = next(v.device for v in self.kwargs.values() if isinstance(v, Tensor))
            return torch.ones(self.size, tokens, dtype=torch.bool, device=device)
        return mask

    def rows(self, index: Any) -> Batch:
        """Some rows of the batch: a slice or a list of row numbers."""
        size = self.size
        pick = {k: v[index] if isinstance(v, Tensor) and v.shape[:1] == (size,) else v for k, v in self.kwargs.items()}
        cut = [m[index] if m is not None else None for m in (self.mask, self.decoder_mask)]
        return replace(self, kwargs=pick, mask=cut[0], decoder_mask=cut[1])


def prepare(model: Model, inputs: Inputs, side: str = "right") -> Batch:
    """A `Batch` from texts, lists of token ids, an id tensor [batch, token], or the network's keyword arguments.

    - side: where texts of different length are padded.

    Raises `BadInput` for an empty batch, a missing tokenizer, ids outside the vocabulary, a text longer than the
    network's context (ids may be longer: a network with rotary positions takes them, at its own risk)."""
    if isinstance(inputs, Batch):
        return inputs
    if isinstance(inputs, Mapping):
        kwargs = {k: v.to(model.device) if isinstance(v, Tensor) else v for k, v in inputs.items()}
    elif isinstance(inputs, Tensor):
        ids = inputs if inputs.dim() == 2 else inputs[None]
        kwargs = {"input_ids": ids.to(model.device)}
    else:
        rows = [inputs] if isinstance(inputs, str) else list(inputs)
        if not rows:
            raise BadInput("the batch is empty: give at least one text")
        if isinstance(rows[0], int):
            rows = [rows]
        if isinstance(rows[0], str):
            encoded = model.encode(rows, side=side)
            _check_length(model, encoded["input_ids"], encoded.get("attention_mask"))
            kwargs = {k: encoded[k] for k in ("input_ids", "attention_mask") if k in encoded}
        else:
            kwargs = _pad_ids(model, rows, side)
    if not any(isinstance(v, Tensor) for v in kwargs.values()):
        raise BadInput(f"no tensor among the inputs ({', '.join(kwargs) or 'none given'})")
    return _complete(model, kwargs)


def _check_length(model: Model, ids: Tensor, mask: Tensor | None) -> None:
    limit = model.context_length
    if not limit or ids.shape[1] <= limit:
        return
    lengths = mask.sum(1) if mask is not None else torch.full((len(ids),), ids.shape[1])
    row = int(lengths.argmax())
    raise BadInput(
        f"text {row + 1} of {len(ids)} has {int(lengths[row])} tokens, and the network's context is {limit}: "
        f"shorten it, or cut it with model.encode(texts, max_length={limit})"
    )


def _pad_ids(model: Model, rows: Sequence[Sequence[int]], side: str) -> dict[str, Tensor]:
    width = max(len(row) for row in rows)
    if width == 0:
        raise BadInput("a row of token ids is empty")
    fill = getattr(model.tokenizer, "pad_token_id", None) or 0
    ids = torch.full((len(rows), width), fill)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        where = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[i, where] = torch.as_tensor(list(row))
        mask[i, where] = 1
    return {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}


def _complete(model: Model, kwargs: dict[str, Any]) -> Batch:
    network = model.network
    ids = kwargs.get("input_ids")
    if ids is not None and ids.shape[1] == 0:
        raise BadInput("a text has no tokens")
    if ids is not None and (vocabulary := getattr(network.config.get_text_config(), "vocab_size", None)):
        lowest, highest = map(int, torch.stack(torch.aminmax(ids)).tolist())  # one transfer from the device
        if highest >= max(vocabulary, _embeddings(network)) or lowest < 0:
            raise BadInput(f"token id {lowest if lowest < 0 else highest} is outside the vocabulary of {vocabulary}")
    mask = kwargs.get("attention_mask")
    decoder_mask = None
    if getattr(network.config, "is_encoder_decoder", False):
        if "decoder_input_ids" not in kwargs and ids is not None:
            start = network.config.decoder_start_token_id
            start = start if start is not None else network.config.pad_token_id
            kwargs["decoder_input_ids"] = torch.full((ids.shape[0], 1), start, device=ids.device)
        given, decoder_ids = kwargs.get("decoder_attention_mask"), kwargs.get("decoder_input_ids")
        if given is None and decoder_ids is not None:
            given = torch.ones_like(decoder_ids)
        decoder_mask = given.bool() if given is not None else None
    embeds = kwargs.get("inputs_embeds")
    if mask is None and (ids is not None or embeds is not None):
        mask = torch.ones_like(ids) if ids is not None else embeds.new_ones(embeds.shape[:2], dtype=torch.long)
    elif (
        mask is not None
        and "position_ids" not in kwargs
        and bool((mask[:, 0] == 0).any())
        and takes(network, "position_ids")
    ):
        # With padding on the left the first real token still has position 0.
        kwargs["position_ids"] = (mask.long().cumsum(-1) - 1).clamp(min=0)
    return Batch(kwargs, mask.bool() if mask is not None else None, decoder_mask)


def _embeddings(network: torch.nn.Module) -> int:
    try:
        return network.get_input_embeddings().weight.shape[0]  # may be larger than the config says
    except (NotImplementedError, AttributeError):
        return 0


def takes(network: torch.nn.Module, name: str) -> bool:
    """Whether the network's forward has a parameter of this name."""
    inner = network.get_base_model() if hasattr(network, "get_base_model") else network
    if "forward" in inner.__dict__:
        return name in inspect.signature(inner.forward).parameters  # exchanged on this very module
    return name in _parameters(type(inner))


@cache
def _parameters(kind: type[torch.nn.Module]) -> frozenset[str]:
    return frozenset(inspect.signature(kind.forward).parameters) - {"self"}
