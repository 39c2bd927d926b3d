"""Inside attention: queries, keys, values, scores and patterns, through transformers' own attention interface.

A hook sees modules; what happens between a query and a key happens in a function. transformers looks that function
up by the name in the config, so for the length of one call the engine puts a name of its own there. Its function
records or edits and then hands over to the implementation that was there before, with the masks made for that one:
reading changes nothing, bit for bit."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from intarsia.sites.towers import Tower

PREFIX = "intarsia_"
Handler = Callable[["AttentionCall"], None]
_handlers: ContextVar[dict[nn.Module, Handler] | None] = ContextVar("intarsia_attention", default=None)
_witness: ContextVar[dict[nn.Module, int] | None] = ContextVar("intarsia_attention_witness", default=None)


class AttentionCall:
    """One call of the attention function: q, k, v after position encoding, as [batch, head, token, width].

    A handler may assign `q`, `k`, `v`, `scores` or `pattern`; what follows from them is then computed anew. It may also
    set `bias`, [batch, key] numbers added to every score of a key (-inf: nobody reads it), which any kernel can do."""

    def __init__(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, kwargs: dict[str, Any]):
        self.module, self.q, self.k, self.v, self.mask, self.kwargs = module, q, k, v, mask, kwargs
        self._scores: Tensor | None = None
        self._pattern: Tensor | None = None
        self.edited_scores = self.edited_pattern = False
        self.bias: Tensor | None = None

    @property
    def scaling(self) -> float:
        given = self.kwargs.get("scaling")
        return float(given) if given is not None else self.q.shape[-1] ** -0.5

    def _repeat(self, states: Tensor) -> Tensor:
        groups = self.q.shape[1] // states.shape[1]
        return states if groups == 1 else states.repeat_interleave(groups, dim=1)

    def additive_mask(self) -> Tensor | None:
        """The mask as numbers to add to the scores, whatever form the kernel takes it in."""
        mask, queries, keys = self.mask, self.q.shape[2], self.k.shape[2]
        lowest = torch.finfo(self.q.dtype).min
        if mask is None:
            causal = self.kwargs.get("is_causal")
            causal = getattr(self.module, "is_causal", False) if causal is None else causal
            if not causal or queries == 1:
                return None
            allowed = torch.ones(queries, keys, dtype=torch.bool, device=self.q.device).tril(keys - queries)
            return torch.zeros(1, 1, queries, keys, dtype=self.q.dtype, device=self.q.device).masked_fill(
                ~allowed, lowest
            )
        if mask.dtype is torch.bool:
            return torch.zeros(mask.shape, dtype=self.q.dtype, device=mask.device).masked_fill(~mask, lowest)
        return mask

    @property
    def scores(self) -> Tensor:
        """Scaled scores before mask and softmax, [batch, head, query, key] (soft cap and position bias included)."""
        if self._scores is None:
            scores = torch.matmul(self.q, self._repeat(self.k).transpose(2, 3)) * self.scaling
            if (cap := self.kwargs.get("softcap")) is not None:
                scores = torch.tanh(scores / cap) * cap
            if (bias := self.kwargs.get("position_bias")) is not None:
                scores = scores + bias
            self._scores = scores
        return self._scores

    @scores.setter
    def scores(self, value: Tensor) -> None:
        self._scores, self._pattern, self.edited_scores = value, None, True

    @property
    def pattern(self) -> Tensor:
        """Attention probabilities, [batch, head, query, key]."""
        if self._pattern is None:
            if not self.edited_scores and (eager := _eager_of(self.module)) is not None:
                kwargs = {k: v for k, v in self.kwargs.items() if k != "dropout"}
                self._pattern = eager(self.module, self.q, self.k, self.v, self.additive_mask(), **kwargs)[1]
            if self._pattern is None:
                scores, mask = self.scores, self.additive_mask()
                scores = scores if mask is None else scores + mask
                self._pattern = torch.softmax(scores, dim=-1, dtype=torch.float32).to(self.q.dtype)
        return self._pattern

    @pattern.setter
    def pattern(self, value: Tensor) -> None:
        self._pattern, self.edited_pattern = value, True

    def mix(self) -> Tensor:
        """The heads' outputs from the (edited) pattern, [batch, token, head, width]."""
        return torch.matmul(self.pattern, self._repeat(self.v)).transpose(1, 2).contiguous()


def _eager_of(module: nn.Module) -> Callable[..., Any] | None:
    return getattr(sys.modules.get(type(module).__module__), "eager_attention_forward", None)


def _make(base: str) -> Callable[..., Any]:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any):
        original = ALL_ATTENTION_FUNCTIONS.get_interface(base, _eager_of(module))
        if (witness := _witness.get()) is not None:
            witness[module] = query.shape[1]
        if (handler := handler_of(module)) is None:
            return original(module, query, key, value, attention_mask, **kwargs)
        call = AttentionCall(module, query, key, value, attention_mask, kwargs)
        handler(call)
        if call.edited_scores or call.edited_pattern:
            return call.mix(), call.pattern
        if call.bias is not None:
            return biased(call, original, channel=base.startswith(("flash", "kernels")))
        return original(module, call.q, call.k, call.v, attention_mask, **kwargs)

    return attention


def biased(call: AttentionCall, original: Callable[..., Any], channel: bool = False) -> Any:
    """`original` with `call.bias` added to the scores.

    - channel: for kernels that take no bias: one more channel that is constant in the queries and holds the bias in
      the keys, so that their product is the bias. Widths are filled up to a multiple of 8 with zeros."""
    assert call.bias is not None
    if not channel:
        bias = call.bias[:, None, None, :].to(call.q.dtype)
        mask = call.additive_mask()
        return original(call.module, call.q, call.k, call.v, bias if mask is None else mask + bias, **call.kwargs)
    width = call.v.shape[-1]
    extra = 8 - width % 8
    kwargs = {**call.kwargs, "scaling": call.scaling}
    # A kernel in half precision cannot hold -inf times a number: what is this low is nothing after the softmax.
    bias = call.bias.clamp(min=-1e4).to(call.k.dtype)[:, None, :, None].expand(*call.k.shape[:3], 1)
    q = torch.nn.functional.pad(call.q, (0, extra))
    q[..., width] = 1.0 / call.scaling
    k = torch.cat([call.k, bias, call.k.new_zeros(*call.k.shape[:3], extra - 1)], dim=-1)
    output, pattern = original(call.module, q, k, torch.nn.functional.pad(call.v, (0, extra)), call.mask, **kwargs)
    return output[..., :width], pattern


def ensure_registered(base: str) -> str:
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    name = PREFIX + base
    if name not in ALL_ATTENTION_FUNCTIONS:
        AttentionInterface.register(name, _make(base))
        if base in ALL_MASK_ATTENTION_FUNCTIONS:
            AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[base])
    return name


@contextlib.contextmanager
def _rerouted(modules: list[nn.Module]) -> Iterator[None]:
    """Put the engine's name into the configs these modules read, and what was there back afterwards."""
    changed: list[tuple[Any, str | None]] = []
    try:
        for config in {id(m.config): m.config for m in modules if hasattr(m, "config")}.values():
            base = config._attn_implementation_internal
            if (base or "eager").startswith(PREFIX):
                continue
            changed.append((config, base))
            config._attn_implementation_internal = ensure_registered(base or "eager")
        yield
    finally:
        for config, base in changed:
            config._attn_implementation_internal = base


@contextlib.contextmanager
def handling(handlers: dict[nn.Module, Handler]) -> Iterator[None]:
    """As `intercepting`, for modules whose configs name the engine's interface already."""
    token = _handlers.set({**(_handlers.get() or {}), **handlers})
    try:
        yield
    finally:
        _handlers.reset(token)


def handler_of(module: nn.Module) -> Handler | None:
    """Who wants to see this module's attention now."""
    return (_handlers.get() or {}).get(module)


@contextlib.contextmanager
def intercepting(handlers: dict[nn.Module, Handler]) -> Iterator[None]:
    """Inside the block each of these attention modules shows its calls to its handler."""
    if not handlers:
        yield
        return
    with handling(handlers), _rerouted(list(handlers)):
        yield


@contextlib.contextmanager
def witnessing(towers: list[Tower]) -> Iterator[dict[nn.Module, int]]:
    """Collect the modules whose attention really goes through the interface, with their number of query heads."""
    seen: dict[nn.Module, int] = {}
    modules = [m for t in towers for b in t.blocks for m in b.modules() if hasattr(m, "config")]
    token = _witness.set(seen)
    try:
        with _rerouted(modules):
            yield seen
    finally:
        _witness.reset(token)
