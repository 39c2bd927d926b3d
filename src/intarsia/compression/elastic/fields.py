"""`Fields`: what the config of a smaller network says, and whether its class takes it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from intarsia.compression.elastic.choices import Choice
from intarsia.compression.pruning.dropping import fewer
from intarsia.compression.pruning.parts import Attention, width_key
from intarsia.compression.pruning.rebuilding import changed, text_config
from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.models import Model


def plain_config(model: Model, who: str) -> Any:
    """The config. Raises `BadInput` for networks with more than a text tower."""
    config = text_config(model, who)
    if config is not model.config:
        raise BadInput(f"{who}: {type(model.network).__name__} has more than a text tower; a language model is wanted")
    return config


class Fields:
    """- full: (blocks, neurons, heads, width). part: the attention of a block. who: asks."""

    def __init__(self, model: Model, part: Attention, full: tuple[int, int, int, int], who: str):
        self.model, self.part, self.full = model, part, full
        self.config = plain_config(model, who)
        self.key = width_key(self.config, who)
        # Remembered here, not in the class, which would keep every network that was ever searched.
        self.allows = lru_cache(maxsize=10_000)(self._allows)
        self.probe = lru_cache(maxsize=4)(self._probe)

    def changes(self, choice: Choice) -> dict[str, Any]:
        """Fields of the config that differ from the full network's."""
        count, neurons, heads, width = self.full
        out: dict[str, Any] = {}
        if len(choice.blocks) < count:
            out |= fewer(self.config, choice.blocks, count)
        if max(choice.neurons) < neurons:
            out[self.key] = max(choice.neurons)
        if choice.heads < heads:
            out["num_attention_heads"] = choice.heads * self.part.shared
            if hasattr(self.config, "num_key_value_heads"):
                out["num_key_value_heads"] = choice.heads
        if choice.width < width:
            out["hidden_size"] = choice.width
        if "hidden_size" in out or "num_attention_heads" in out:
            out["head_dim"] = self.part.width  # else it would follow from these two
        return out

    def near_width(self, width: int, heads: Sequence[int] = ()) -> int:
        """The nearest width that the config takes with each of these numbers of heads (default: all there are)."""
        heads = heads or (self.full[2],)
        for far in range(self.full[3]):
            for some in (width - far, width + far):
                if 1 <= some <= self.full[3] and all(self.allows(h, some) for h in heads):
                    return some
        return self.full[3]

    def _allows(self, heads: int, width: int) -> bool:
        """Whether the config takes these together: Llama's wants a width that its query heads divide."""
        fields = self.changes(Choice((0,), (self.full[1],), heads, width))
        fields = {key: value for key, value in fields.items() if key in ("hidden_size", "head_dim") or "heads" in key}
        try:
            changed(self.model.network.config, fields)
        except Exception:  # every config refuses in a way of its own
            return False
        return 1 <= width <= self.full[3]

    def _probe(self, width: int) -> Any:
        """A network of one block and eight words of that width, for what its class derives from the width."""
        fields = fewer(self.config, [0], self.full[0]) | {
            "vocab_size": 8, "pad_token_id": None, self.key: 8, "hidden_size": width, "head_dim": self.part.width,
            "num_attention_heads": 1, "num_key_value_heads": 1,
        }  # fmt: skip
        network: Any = self.model.network
        state = torch.get_rng_state()
        try:
            made = type(network)(changed(network.config, fields)).to(network.dtype)
        finally:
            torch.set_rng_state(state)
        return made.to(network.device)
