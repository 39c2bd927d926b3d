"""`Model`: a plain transformers network with its tokenizer or processor and its identity."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput

if TYPE_CHECKING:
    import torch
    from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

    from intarsia.models.saved import Saved
    from intarsia.report import Finding
    from intarsia.sites import SiteMap


@dataclass(frozen=True)
class Identity:
    """Where a model comes from.

    - source: what was asked for: a known name, hub id, path, or `memory`.
    - origin: where it was found: `hub:...`, `wheel:...`, `folder:...`, `gguf:...`, `memory`.
    - revision: hub commit, wheel version, or None.
    - sha256: of the weight file as it was found (several files: of their digests in name order), or None in memory.
    - changes: the techniques applied since, in order, each with its settings."""

    source: str
    origin: str = "memory"
    revision: str | None = None
    sha256: str | None = None
    changes: tuple[dict[str, Any], ...] = ()


@dataclass
class Model:
    """A transformers network (`network`), what turns text or pictures into its inputs, and its identity.

    There is no wrapper forward: `model.network` is the Hugging Face object and all it can do still works.

    - extras: JSON-able facts that must travel with the weights (a label task's prompt and verbalisers, say), by the
      name of the technique that wrote them. Saved as `intarsia.json` beside the weights.
    - parts: tensors that must travel with the weights and are none of the network's (a classifier that reads its
      states, say), by the name of the technique that made them. Saved as `parts/<name>.safetensors` beside the weights.
    - exports: folders holding the same model for another engine, by engine name (`onnx-genai`).
    - finding: what the change that made this model found out about it, where it looked (a comparison with the model it
      was made from, say). Shown when the change ends; not saved with the weights."""

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None = None
    processor: ProcessorMixin | None = None
    identity: Identity = field(default_factory=lambda: Identity("memory"))
    extras: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, Saved] = field(default_factory=dict)
    exports: dict[str, Path] = field(default_factory=dict)
    finding: Finding | None = field(default=None, compare=False)

    @property
    def config(self) -> Any:
        """The network's Hugging Face config."""
        return self.network.config

    @property
    def device(self) -> torch.device:
        """Where the weights are (the first parameter's device)."""
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first floating parameter."""
        return next(p.dtype for p in self.network.parameters() if p.dtype.is_floating_point)

    @property
    def sites(self) -> SiteMap:
        """The site map: every place that can be read or edited. Prints as a tree."""
        from intarsia.sites import site_map

        return site_map(self.network)

    @property
    def context_length(self) -> int | None:
        """The most tokens the network takes, or None when it does not say."""
        config = (
            self.network.config.get_text_config() if hasattr(self.network.config, "get_text_config") else self.config
        )
        for key in ("max_position_embeddings", "n_positions", "max_seq_len"):
            if isinstance(value := getattr(config, key, None), int):
                return value
        return None

    def encode(
        self, texts: Sequence[str], *, side: str = "right", max_length: int | None = None, special: bool = True
    ) -> BatchEncoding:
        """Token ids and mask of a batch, [batch, token], padded on `side`, on the network's device.

        Raises `BadInput` when the model has no tokenizer. Longer texts are cut at `max_length` when it is given."""
        if self.tokenizer is None:
            raise BadInput("this model has no tokenizer: give token ids, or wrap(network, tokenizer)")
        if self.tokenizer.pad_token_id is None:
            # Any id does: padded places are masked everywhere.
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.unk_token
        batch = self.tokenizer(
            list(texts),
            return_tensors="pt",
            padding=True,
            padding_side=side,
            truncation=max_length is not None,
            max_length=max_length,
            add_special_tokens=special,
            verbose=False,  # whoever feeds a network says what does not fit
        )
        return batch.to(self.device)

    def with_network(self, network: PreTrainedModel, **change: Any) -> Model:
        """This model with another network; `change` is appended to the identity's history when given."""
        identity = self.identity
        if change:
            identity = replace(identity, changes=(*identity.changes, change))
        extras = copy.deepcopy(self.extras)
        return replace(
            self, network=network, identity=identity, extras=extras, parts=dict(self.parts), exports={}, finding=None
        )

    def copy(self) -> Model:
        """A deep copy of the weights; the tokenizer and processor are shared. Changes work on copies."""
        return self.with_network(copy.deepcopy(self.network))

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write a plain Hugging Face folder that `transformers` loads without Intarsia (`intarsia.models.saving`)."""
        from intarsia.models.saving import save

        return save(self, path, force=force)

    def __repr__(self) -> str:
        count = sum(p.numel() for p in self.network.parameters())
        kind = type(self.network).__name__
        return f"Model({self.identity.source!r}, {kind}, {count:,} parameters, {self.dtype}, {self.device})"


def wrap(
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    processor: ProcessorMixin | None = None,
    name: str = "memory",
) -> Model:
    """A `Model` around a transformers network already in memory."""
    if tokenizer is None and processor is not None:
        tokenizer = getattr(processor, "tokenizer", None)
    return Model(network, tokenizer, processor, Identity(name))
