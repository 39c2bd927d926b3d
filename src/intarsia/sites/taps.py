"""Taps: how one site is reached - which module, at its input or its output, and how the raw value becomes
[batch, token, ...] and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn

from intarsia.sites.probe import first_output, first_tensor

Kind = Literal["in", "out", "attention", "network"]
Layout = Literal["stream", "split", "flat", "bhtd", "bhqk"]


@dataclass(frozen=True)
class Tap:
    """A way to read and write one site.

    - kind: at the module's input, its output, inside its attention function, or in the network's output.
    - item: index into a tuple output, or the attribute of the attention call or network output.
    - layout: `stream` [batch, token, width] as it is; `split` the last axis into `heads`; `flat` [batch*token, ...];
      `bhtd` and `bhqk` as attention has them. What `view` gives is always [batch, token, ...].
    - scale: what the block multiplies the raw value by before it adds it to the stream.
    - writable: False where writing has no effect on what follows."""

    module: nn.Module
    kind: Kind
    item: int | str = 0
    layout: Layout = "stream"
    heads: int = 1
    scale: float = 1.0
    writable: bool = True

    def raw(self, args: tuple, kwargs: dict, output: Any) -> Tensor:
        """The tensor as the module has it."""
        if self.kind == "in":
            tensor = first_tensor(args, kwargs)
        elif isinstance(output, (tuple, list)):
            tensor = output[self.item]  # type: ignore[index]
        else:
            tensor = first_output(output)
        assert tensor is not None
        return tensor

    def view(self, raw: Tensor, batch: int) -> Tensor:
        """[batch, token, ...] of a raw tensor; a view of it where that is possible."""
        match self.layout:
            case "split":
                shaped = raw.unflatten(-1, (self.heads, -1))
            case "flat":
                shaped = raw.unflatten(0, (batch, -1)) if raw.dim() == 2 else raw
            case "bhtd" | "bhqk":
                shaped = raw.transpose(1, 2)
            case _:
                shaped = raw
        return shaped if self.scale == 1.0 else shaped * self.scale

    def unview(self, new: Tensor, raw: Tensor, batch: int) -> Tensor:
        """The raw form of `new`. With a scale, what did not change stays bit for bit what it was."""
        if self.scale != 1.0:
            # x * s / s is not x to the last bit, so only the difference goes through the division
            old = self.view(raw, batch)
            new = replace(self, scale=1.0).view(raw, batch) + (new - old) / self.scale
        match self.layout:
            case "split":
                return new.flatten(-2)
            case "flat":
                return new.flatten(0, 1) if raw.dim() == 2 else new
            case "bhtd" | "bhqk":
                return new.transpose(1, 2)
            case _:
                return new

    def put_input(self, new: Tensor, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Arguments with the hidden state exchanged."""
        old = first_tensor(args, kwargs)
        if args and args[0] is old:
            return (new, *args[1:]), kwargs
        if any(a is old for a in args):
            return tuple(new if a is old else a for a in args), kwargs
        return args, {k: new if v is old else v for k, v in kwargs.items()}

    def put_output(self, new: Tensor, output: Any) -> Any:
        """The module's output with the hidden state exchanged, in the type it had."""
        if isinstance(output, (tuple, list)):
            parts = list(output)
            parts[self.item] = new  # type: ignore[index]
            return type(output)(parts)
        return new
