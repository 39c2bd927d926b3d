"""`Recomposed`: one tower of a network under a rule for the number of its tokens, block after block."""

from __future__ import annotations

import contextlib
import copy
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from intarsia.errors import BadInput
from intarsia.sites import attention
from intarsia.sites.probe import first_tensor
from intarsia.sites.recomposing import halves
from intarsia.sites.recomposing.flow import Flow, Held
from intarsia.sites.recomposing.halves import Parts
from intarsia.sites.recomposing.rule import Rule, Seen


class _Local(threading.local):
    """What one thread is in the middle of."""

    def __init__(self) -> None:
        self.flow: Flow | None = None
        self.held: Held | None = None
        self.inputs: dict[str, Any] = {}
        self.finished: deque[Flow] = deque(maxlen=8)


class Recomposed:
    """One tower under one rule. `flow` is this thread's last forward through it."""

    def __init__(self, tower: str, rule: Rule, parts: list[Parts], cores: list[nn.Module | None]):
        """`cores`: by block, the module whose attention can be looked into and given a bias; None: there is none."""
        self.tower, self.rule, self.parts, self.cores = tower, rule, parts, cores
        self.last = len(parts) - 1 if rule.last is None else rule.last % len(parts)
        self.configs: list[Any] = list({id(c.config): c.config for c in cores if hasattr(c, "config")}.values())
        self.vision: Recomposed | None = None
        self.image_token: int | None = None
        self._local = _Local()
        self._held: weakref.WeakKeyDictionary[Any, Held] = weakref.WeakKeyDictionary()

    def __deepcopy__(self, memo: dict) -> Recomposed:
        new = object.__new__(type(self))
        memo[id(self)] = new
        for name, value in self.__dict__.items():
            fresh = {"_local": _Local, "_held": weakref.WeakKeyDictionary}.get(name)
            new.__dict__[name] = fresh() if fresh else copy.deepcopy(value, memo)
        return new

    @property
    def flow(self) -> Flow | None:
        """The tower's last finished forward in this thread, or None."""
        return self._local.finished[-1] if self._local.finished else None

    @property
    def flows(self) -> list[Flow]:
        """The last few finished forwards in this thread, the newest first."""
        return list(reversed(self._local.finished))

    def given(self, inputs: dict[str, Any]) -> None:
        """Note what the model around the tower was called with; for the next forward only."""
        # (models within models are given the outer one's arguments, too, some of them emptied)
        self._local.inputs = {**self._local.inputs, **{k: v for k, v in inputs.items() if v is not None}}

    def give_back(self) -> None:
        """Undo what was changed in the configs."""
        for config in self.configs:
            base = config._attn_implementation_internal or ""
            if base.startswith(attention.PREFIX):
                config._attn_implementation_internal = base.removeprefix(attention.PREFIX)

    # ---- one forward

    def run(self, index: int, forward: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Block `index`, for as many tokens as there are now."""
        local = self._local
        if index == 0:
            self._start(first_tensor(args, kwargs), kwargs)
        if local.held is not None:
            return self._decode(local.held, index, forward, args, kwargs)
        flow = local.flow
        if flow is None:
            return forward(*args, **kwargs)
        if getattr(self.parts[index].block, "gradient_checkpointing", False) and self.parts[index].block.training:
            raise BadInput("merged tokens cannot be trained with gradient checkpointing: switch it off")
        stream = first_tensor(args, kwargs)
        assert stream is not None
        if index > self.last:
            return self._past_the_end(index, stream)
        old = stream
        if index == 0:
            stream = self.rule.enter(flow, stream)
        stream = self.rule.before(flow, index, stream)
        args, kwargs = flow.aligned(old, args, kwargs)
        args, kwargs = self.parts[index].output.put_input(stream, args, kwargs)
        self._remember(flow, index, kwargs)
        seen = Seen()

        def turn(middle: Tensor) -> Tensor:
            step = self.rule.reduce(flow, index, middle, seen)
            if step is None:
                return middle
            flow.apply(step, index, flow.facts.pop("score", None))
            return step.rows

        reduces = self.rule.reduces(flow, index)
        with self._looking(index, flow, seen, reduces):
            if reduces:
                output = halves.run(self.parts[index], forward, args, kwargs, turn)
            else:
                output = forward(*args, **kwargs)
        if index == self.last:
            output = self._finish(flow, index, output, args, kwargs)
        return output

    def _start(self, stream: Tensor | None, kwargs: dict[str, Any]) -> None:
        local = self._local
        local.flow = local.held = None
        inputs, local.inputs = local.inputs, {}
        if stream is None or stream.dim() != 3:
            return
        cache = kwargs.get("past_key_values")
        held = self._held.get(cache) if cache is not None else None
        if held is not None and cache.get_seq_length() >= held.original:
            local.held = held
            return
        for config in self.configs:  # a user may have chosen another implementation since
            base = config._attn_implementation_internal or "eager"
            if not base.startswith(attention.PREFIX):
                config._attn_implementation_internal = attention.ensure_registered(base)
        flow = Flow.of(self.tower, stream, inputs=inputs, proportional=self.rule.proportional)
        if self.image_token is not None and not self._place_pictures(flow, stream):
            return
        if self.rule.wants(flow):
            local.flow = flow
        else:
            local.finished.append(flow)  # so that who reads the tower does not take the forward before for this one

    def _place_pictures(self, flow: Flow, stream: Tensor) -> bool:
        """Say where the pictures lie in a decoder's prompt; False when there are none."""
        ids = flow.inputs.get("input_ids")
        if ids is None or ids.shape != stream.shape[:2]:
            return False
        flow.inputs["image_mask"] = mask = ids == self.image_token
        if not bool(mask.any()):
            return False
        flow.vision = self.vision.flow if self.vision is not None else None
        return True

    def _remember(self, flow: Flow, index: int, kwargs: dict[str, Any]) -> None:
        """Note which rows of the prompt the cache is going to hold for this block."""
        cache = kwargs.get("past_key_values")
        if cache is None or not flow.traces or not hasattr(cache, "layers"):
            return
        layers = cache.layers
        if getattr(cache, "is_compileable", False) or any(getattr(layer, "is_sliding", False) for layer in layers):
            raise BadInput("merged tokens need a cache that grows (DynamicCache): no static or sliding-window cache")
        held = self._held.setdefault(cache, Held(flow.original))
        held.layers[index] = (flow.position, flow.sizes)

    def _decode(self, held: Held, index: int, forward: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Tokens after a prompt whose rows got fewer."""
        core = self.cores[index]
        if index not in held.layers or core is None:
            return forward(*args, **kwargs)

        def shown(value: Any) -> Any:
            return held.columns(index, value) if isinstance(value, Tensor) and value.dim() == 4 else value

        args, kwargs = tuple(map(shown, args)), {name: shown(value) for name, value in kwargs.items()}

        def handler(call: attention.AttentionCall) -> None:
            call.bias = held.bias(index, call.k.shape[2])

        with attention.handling({core: handler}):
            return forward(*args, **kwargs)

    @contextlib.contextmanager
    def _looking(self, index: int, flow: Flow, seen: Seen, reduces: bool) -> Iterator[None]:
        core = self.cores[index]
        bias = flow.bias()
        if core is None or not (reduces or bias is not None):
            yield
            return

        def handler(call: attention.AttentionCall) -> None:
            seen.q, seen.k, seen.scaling, seen.mask = call.q, call.k, call.scaling, call.additive_mask()
            call.bias = bias

        with attention.handling({core: handler}):
            yield

    def _finish(self, flow: Flow, index: int, output: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        tap = self.parts[index].output
        rows = tap.raw(args, kwargs, output)
        new = flow.restored(rows) if self.rule.restore else rows[:, : rows.shape[1] - int(flow.guests[0].sum())]
        if not self.rule.restore and new.shape[1] != rows.shape[1]:
            flow.sizes, flow.position = flow.sizes[:, : new.shape[1]], flow.position[:, : new.shape[1]]
        self._local.finished.append(flow)
        return tap.put_output(new, output) if new is not rows else output

    def _past_the_end(self, index: int, stream: Tensor) -> Any:
        tuples = self.parts[index].tuple_output
        return (stream, *[None] * (tuples - 1)) if tuples else stream
