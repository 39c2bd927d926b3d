"""A block run in two halves, with the stream between attention and MLP in hand.

A hook cannot do it: a block keeps its residual in a local variable, so the number of rows cannot change inside one
call. Instead the block's own forward runs twice, each time in part. The first run ends where the MLP half begins
(what comes next would read the middle of the stream). The second starts from the new rows with attention stubbed: it
adds nothing, so the stream before the block and in its middle are the same (after a norm, the norm's place gives the
new rows), and the block's own code does the rest.
Nothing of a block is written down here; dropout, scales, sandwich norms and tuples are what the block does."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from intarsia.errors import BadInput
from intarsia.sites.probe import first_output, first_tensor
from intarsia.sites.taps import Tap
from intarsia.sites.wiring import BlockWiring

Role = Literal["attention", "added", "normed", "middle-in", "middle-out"]


@dataclass
class Parts:
    """The modules of one block that its halves need.

    - form: the block's form (`pre-norm`, `post-norm` or `parallel`).
    - roles: what each of these modules does: holds attention (`attention`), gives what is added to the stream
      (`added`), norms the stream for attention (`normed`), is the first to read the middle of the stream
      (`middle-in`) or the one that gives it (`middle-out`: a norm, or the attention that ends with that norm).
    - taps: how the value that is added lies in the output of each `added` and `attention` module.
    - output: how the stream lies in the block's output; tuple_output: of how many things, when it is a tuple."""

    block: nn.Module
    form: str
    output: Tap
    tuple_output: int = 0
    roles: dict[nn.Module, Role] = field(default_factory=dict)
    taps: dict[nn.Module, Tap] = field(default_factory=dict)

    @classmethod
    def of(cls, wiring: BlockWiring, name: str) -> Parts:
        """From a block's wiring. Raises `BadInput` where it is not known."""
        output = wiring.taps.get("resid_post")
        if output is None or wiring.form == "unknown":
            reason = next(iter(wiring.missing.values()), "its wiring is unknown")
            raise BadInput(f"the tokens of {name} cannot be changed: {reason}")
        parts = cls(output.module, wiring.form, output, wiring.tuple_output)
        if wiring.form == "parallel":
            return parts
        middle = wiring.taps.get("resid_mid")
        if middle is None:
            raise BadInput(f"the tokens of {name} cannot be changed: {wiring.missing.get('resid_mid', 'no middle')}")
        if middle.layout != "stream":
            raise BadInput(f"the tokens of {name} cannot be changed: its MLP works on tokens without their batch")
        for module in wiring.attention:
            parts.roles[module] = "attention"
        giver = next((m for m in wiring.attention if any(middle.module is part for part in m.modules())), middle.module)
        parts.roles[giver] = "middle-in" if middle.kind == "in" else "middle-out"
        if wiring.form == "pre-norm":
            if (normed := wiring.taps.get("attn_in")) is not None and normed.module is not middle.module:
                parts.roles[normed.module] = "normed"
            for site in wiring.mid_via:
                tap = wiring.taps[site]
                parts.roles.setdefault(tap.module, "added")
                parts.taps[tap.module] = tap
        return parts


class _Reached(Exception):
    """The middle of the stream, thrown out of the first half."""

    def __init__(self, middle: Tensor):
        self.middle = middle


@dataclass
class _Half:
    parts: Parts
    outputs: dict[nn.Module, Any] = field(default_factory=dict)
    rows: Tensor | None = None
    """The new rows, once the second half has begun."""


_half: ContextVar[_Half | None] = ContextVar("intarsia_half", default=None)


def run(
    parts: Parts, forward: Callable[..., Any], args: tuple, kwargs: dict[str, Any], turn: Callable[[Tensor], Tensor]
) -> Any:
    """The block's output when `turn` maps the middle of its stream to other rows; `forward` is its own forward."""
    if parts.form == "parallel":
        output = forward(*args, **kwargs)
        return parts.output.put_output(turn(parts.output.raw(args, kwargs, output)), output)
    half = _Half(parts)
    token = _half.set(half)
    try:
        try:
            output = forward(*args, **kwargs)
        except _Reached as reached:
            middle = reached.middle
        else:  # cross-attention that the middle hangs on was not given anything: the block has no such middle now
            return parts.output.put_output(turn(parts.output.raw(args, kwargs, output)), output)
        rows = turn(middle)
        half.rows = rows
        args, kwargs = parts.output.put_input(rows, args, kwargs)
        return forward(*args, **kwargs)
    finally:
        _half.reset(token)


def part_forward(module: nn.Module, forward: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    """What a module of `Parts.roles` does: its own forward, unless one of the halves is running."""
    half = _half.get()
    role = half.parts.roles.get(module) if half is not None else None
    if half is None or role is None:
        return forward(*args, **kwargs)
    if half.rows is None:
        if role == "middle-in":
            middle = first_tensor(args, kwargs)
            assert middle is not None
            raise _Reached(middle)
        output = half.outputs[module] = forward(*args, **kwargs)
        if role == "middle-out":
            middle = first_output(output)
            assert middle is not None
            raise _Reached(middle)
        return output
    match role:
        case "normed":
            return first_tensor(args, kwargs)
        case "middle-out":
            return Tap(module, "out").put_output(half.rows, half.outputs[module])
        case "attention" | "added":
            tap = half.parts.taps.get(module, Tap(module, "out"))
            return tap.put_output(torch.zeros_like(half.rows), half.outputs[module])
    return forward(*args, **kwargs)
