"""From texts to the states and next-token distributions of a model, batch by batch: what lens and diff read."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.errors import BadInput, Note
from intarsia.sites import read, unembed

if TYPE_CHECKING:
    from intarsia.models import Model
    from intarsia.sites import SiteMap

KINDS = ("resid_post", "attn_out", "mlp_out")


@dataclass
class Tokens:
    """A batch of texts as token ids, [batch, token], padded on the right. `first` is the index of its first text."""

    ids: Tensor
    mask: Tensor
    first: int

    @property
    def row(self) -> Tensor:
        """Index of the text each valid token belongs to, [valid]."""
        return self.mask.nonzero()[:, 0] + self.first

    @property
    def position(self) -> Tensor:
        """Position of each valid token in its text, [valid]."""
        return self.mask.nonzero()[:, 1]

    @property
    def flat(self) -> Tensor:
        """Ids of the valid tokens, [valid]."""
        return self.ids[self.mask]

    def following(self) -> Tensor:
        """Id of the token that comes next in the text after each valid token, -1 at a text's end, [valid]."""
        after = torch.full_like(self.ids, -1)
        after[:, :-1] = torch.where(self.mask[:, 1:], self.ids[:, 1:], -1)
        return after[self.mask]


def choose(records: Sequence[Any], most: int, seed: int, what: str) -> list[Any]:
    """At most `most` of the records (texts, or anything with `.text`), drawn by `seed`, in their own order."""
    kept = [r for r in records if text_of(r).strip()]
    if not kept:
        raise BadInput(f"{what}: no text was given: wants at least one that is not empty")
    if len(kept) > most:
        kept = [kept[i] for i in sorted(random.Random(seed).sample(range(len(kept)), most))]
    return kept


def text_of(record: Any) -> str:
    """The text of a record (`Text`, `LabelledText`, a plain string)."""
    return record if isinstance(record, str) else record.text


def batches(model: Model, texts: Sequence[str], max_tokens: int | None, size: int) -> Iterator[Tokens]:
    """The texts as padded batches of `size`, in order, each text cut at `max_tokens` (and at the model's context).

    A note says how many texts were cut."""
    limit = min((n for n in (max_tokens, model.context_length) if n), default=None)
    cut = 0
    for first in range(0, len(texts), size):
        batch = model.encode(texts[first : first + size], max_length=limit)
        cut += sum(bool(encoding.overflowing) for encoding in batch.encodings or ())
        yield Tokens(batch["input_ids"], batch["attention_mask"].bool(), first)
    tell_cut(cut, len(texts), limit)


def tell_cut(cut: int, texts: int, limit: int | None) -> None:
    """Note that `cut` of the texts were longer than what is read of them."""
    if cut:
        warnings.warn(f"{cut} of {texts} texts are read only up to {limit} tokens", Note, stacklevel=3)


def is_causal(model: Model) -> bool:
    """Whether position t predicts token t + 1 (a decoder), rather than token t itself (a masked language model)."""
    return bool(model.network.can_generate())


def has_head(model: Model) -> bool:
    """Whether the network gives a distribution over its vocabulary."""
    return model.network.get_output_embeddings() is not None


def check_readable(model: Model, what: str) -> None:
    """Raise `BadInput` for a network that does not map one sequence of tokens through one stack of blocks."""
    if getattr(model.config, "is_encoder_decoder", False):
        raise BadInput(
            f"{what}: {type(model.network).__name__} is an encoder-decoder: wants a decoder (causal language model) or "
            "an encoder; give its encoder alone, wrap(network.get_encoder(), tokenizer)"
        )


def layer_count(model: Model) -> int:
    """Number of blocks of the text tower."""
    return len(model.sites.blocks)


def spaced(count: int, stride: int) -> list[int]:
    """Every `stride`-th layer, counted back from the last one, which is always among them."""
    return sorted(range(count - 1, -1, -stride))


def kinds_of(model: Model) -> list[str]:
    """Which of `KINDS` can be read in every block of this network."""
    sites = model.sites
    return [kind for kind in KINDS if all(site_name(sites, i, kind) in sites for i in range(len(sites.blocks)))]


def site_name(sites: SiteMap, layer: int, kind: str) -> str:
    """Full name of a site of the tower that carries the text."""
    return f"{sites.main.prefix}layers.{layer}.{kind}"


def states(model: Model, tokens: Tokens, layers: Sequence[int], kinds: Sequence[str]) -> dict[str, list[Tensor]]:
    """Activations of the valid tokens of a batch: kind -> one [valid, width] tensor for each of `layers`."""
    sites = model.sites
    at = {kind: [site_name(sites, layer, kind) for layer in layers] for kind in kinds}
    inputs = {"input_ids": tokens.ids.to(model.device), "attention_mask": tokens.mask.long().to(model.device)}
    acts = read(model, inputs, [name for names in at.values() for name in names])
    return {kind: [acts[name][tokens.mask.to(acts[name].device)] for name in names] for kind, names in at.items()}


@torch.no_grad()
def logits(model: Model, hidden: Tensor) -> Tensor:
    """The network's own final norm and head on [position, width] states -> [position, vocabulary]."""
    # The last block's output may live on another device than the head when a network is spread.
    return unembed(model, hidden.unsqueeze(0)).squeeze(0)


class Vocabulary:
    """Token ids as a person reads them."""

    def __init__(self, model: Model):
        self._tokenizer = model.tokenizer
        self._known: dict[int, str] = {}

    def __call__(self, token: int) -> str:
        if token not in self._known:
            text = self._tokenizer.decode([token]) if token < len(self._tokenizer) else ""
            self._known[token] = text or f"[{token}]"
        return self._known[token]
