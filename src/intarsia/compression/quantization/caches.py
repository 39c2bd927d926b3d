"""The keys and values that a language model keeps of what it has read, on grids of whole numbers: half or a quarter of
the memory of long texts.

Each token's key and value of each head is rounded for itself, so that what is kept is only ever appended to: nothing is
rounded twice. 8 bits: one scale for a head's numbers; 4 bits: scale and zero for 32 of them.

Source: KV cache quantization as surveyed beside weights; per token: Sheng et al. 2023, FlexGen, arXiv 2303.06865,
§4.3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from intarsia.compression.quantization.grids import Grid, from_grid, legal_group, pack, round_to, unpack
from intarsia.errors import BadInput
from intarsia.measure.likelihood import check_causal

if TYPE_CHECKING:
    from intarsia.models import Model

GROUP = 32


def quantized_cache(model: Model, bits: Literal[8, 4] = 8) -> Cache:
    """An empty cache for a model, to give to its network: `model.network.generate(..., past_key_values=cache)`.

    8 bits keep about half of the bytes of a bfloat16 cache, a quarter of float32's; 4 bits half of that. In PyTorch the
    gain is memory, not time: each step turns all that is kept back into floats. Raises `BadInput` for models without a
    cache of full attention (sliding windows, states of recurrences, encoder-decoders)."""
    check_causal(model)
    config: Any = model.config.get_text_config(decoder=True)
    cache = DynamicCache(config=config)
    kinds = {type(layer).__name__ for layer in cache.layers} - {DynamicLayer.__name__}
    if kinds or not cache.layers:
        told = ", ".join(sorted(kinds)) or "none"
        raise BadInput(f"{type(model.network).__name__} keeps {told}: keys and values of full attention are wanted")
    cache.layers = [CodedLayer(bits) for _ in cache.layers]
    return cache


def bytes_of(cache: Cache) -> int:
    """Bytes of all that a cache keeps."""
    kept = (value for layer in cache.layers for value in vars(layer).values() if isinstance(value, Tensor))
    return sum(value.numel() * value.element_size() for value in kept)


class CodedLayer(DynamicLayer):
    """One layer's. keys, values: codes [batch, head, token, bytes]; with `_scales` and `_zeros` of both beside them,
    [batch, head, token, groups]."""

    PARTS = tuple(f"{what}{part}" for what in ("keys", "values") for part in ("", "_scales", "_zeros"))

    def __init__(self, bits: int):
        super().__init__()
        self.bits = bits
        self.keys_scales = self.keys_zeros = self.values_scales = self.values_zeros = None
        self.widths: dict[str, int] = {}

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Learn sizes and precision; nothing is kept yet."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.widths = {"keys": key_states.shape[-1], "values": value_states.shape[-1]}
        for what, states in (("keys", key_states), ("values", value_states)):
            self._put(what, states[:, :, :0])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keep new keys and values [batch, head, token, width], and give all of them back, rounded."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        out = []
        for what, states in (("keys", key_states), ("values", value_states)):
            for part, new in self._coded(states, self._grid(what)).items():
                old = getattr(self, what + part)
                setattr(self, what + part, torch.cat((old, new), -2) if new is not None else None)
            out.append(self._states(what))
        return out[0], out[1]

    def _grid(self, what: str) -> Grid:
        if self.bits == 8:
            return Grid(8, None, True)
        return Grid(self.bits, legal_group(self.widths[what], GROUP), False)

    def _put(self, what: str, states: Tensor) -> None:
        for part, new in self._coded(states, self._grid(what)).items():
            setattr(self, what + part, new)

    @staticmethod
    def _coded(states: Tensor, grid: Grid) -> dict[str, Tensor | None]:
        rows = states.shape[:-1]
        count = rows.numel()
        if count == 0:
            groups, width = grid.groups(states.shape[-1]), states.shape[-1]
            codes, scales = states.new_zeros(0, width, dtype=torch.uint8), states.new_zeros(0, groups)
            zeros = None if grid.symmetric else states.new_zeros(0, groups, dtype=torch.uint8)
        else:
            codes, scales, zeros = round_to(states.reshape(count, -1), grid)
        parts = {
            "": pack(codes, grid.bits), "_scales": scales.to(grid.scale_dtype),
            "_zeros": None if zeros is None else pack(zeros, grid.bits),
        }  # fmt: skip
        return {name: None if part is None else part.view(*rows, part.shape[-1]) for name, part in parts.items()}

    def _states(self, what: str) -> Tensor:
        """All that is kept, [batch, head, token, width], in the precision that it came in."""
        codes, scales, zeros = (getattr(self, what + part) for part in ("", "_scales", "_zeros"))
        grid, width = self._grid(what), self.widths[what]
        rows = codes.shape[:-1]
        flat = unpack(codes.flatten(0, -2), grid.bits, width)
        middle = None if zeros is None else unpack(zeros.flatten(0, -2), grid.bits, grid.groups(width))
        return from_grid(flat, scales.flatten(0, -2), middle, grid, self.dtype).view(*rows, width)

    # -- what generation does to caches: all parts have batch first and tokens next to last ---------------------------

    def _each(self, change: Any) -> None:
        for part in self.PARTS:
            if (value := getattr(self, part)) is not None:
                setattr(self, part, change(value))

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens; their number is given below zero."""
        if tokens_to_remove > 0:
            raise ValueError("crop wants a number below zero: how many tokens to forget")
        if tokens_to_remove and self.is_initialized:
            self._each(lambda value: value[..., :tokens_to_remove, :])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each text so many times."""
        if self.get_seq_length():
            self._each(lambda value: value.repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """These texts alone."""
        if self.get_seq_length():
            self._each(lambda value: value[indices])

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """These texts, in this order, for beam search."""
        if self.get_seq_length():
            self._each(lambda value: value.index_select(0, beam_idx.to(value.device)))

    def reset(self) -> None:
        """As new."""
        super().reset()
        self.keys_scales = self.keys_zeros = self.values_scales = self.values_zeros = None
