"""Modules beside a network's own, to stay until they are taken off: adapters whose output is added to a linear layer's,
and a guest that sees what the network is given before it runs.

What stays is part of the network: a deep copy has it too, it follows the network to a device, and `generate` runs with
it. The layers themselves are not replaced, so names, weights and whatever form they have (quantized, say) stay."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from intarsia.errors import BadInput

NAME = "intarsia_beside"
"""Where a network keeps its guest."""


class Guest(nn.Module):
    """What stands beside a network. A subclass says what it does at the network's doors; here it does nothing.

    Its tensors are no part of the network's state: that is saved as the plain network it is."""

    def __init__(self) -> None:
        super().__init__()
        self.register_state_dict_post_hook(_left_out)

    def enter(self, given: dict[str, Any]) -> dict[str, Any]:
        """Before the network runs (of an encoder-decoder: its encoder): its keyword arguments, as they are or
        others."""
        return given

    def leave(self, output: Any) -> Any:
        """After it ran: its output, as it is or another."""
        return output

    def cross(self, given: dict[str, Any]) -> dict[str, Any]:
        """Before the decoder of an encoder-decoder runs: its keyword arguments."""
        return given

    def generating(self) -> AbstractContextManager[None]:
        """Around the network's `generate`: all that is read inside goes on from the prompts it begins with, whether a
        cache says so or not."""
        return nullcontext()

    def replaced(self, old: nn.Module, new: nn.Module) -> None:
        """One of the network's modules gave way to another (`exchange`)."""

    def save_into(self, folder: Path) -> None:
        """Write into the folder that the network is saved to what makes it again."""


def _left_out(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        del state[key]


class _Before:
    def __init__(self, function: Any, names: tuple[str, ...]):
        self.function, self.names = function, names

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
        given = {**dict(zip(self.names, args, strict=False)), **kwargs}
        new = self.function(given)
        return None if new is given else ((), new)


class _After:
    def __init__(self, function: Any):
        self.function = function

    def __call__(self, module: nn.Module, args: tuple, output: Any) -> Any:
        return self.function(output)


class _Generate:
    """A network's own `generate`, inside what its guest puts around that.

    The network is held weakly: it holds this."""

    def __init__(self, network: nn.Module, guest: Guest):
        self.network, self.guest = weakref.ref(network), guest
        self.__signature__ = inspect.signature(type(network).generate.__get__(network))  # type: ignore[attr-defined]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        network: Any = self.network()
        with self.guest.generating():
            return type(network).generate(network, *args, **kwargs)

    def __reduce__(self) -> tuple:
        return _Generate, (self.network(), self.guest)  # a copy of the network gets one of its own


class _Added:
    def __init__(self, part: nn.Module):
        self.part = part

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor) -> Tensor:
        more = self.part(args[0] if args else next(iter(kwargs.values())))
        return output if more is None else output + more


def put_beside(network: nn.Module, guest: Guest, parts: Mapping[str, nn.Module]) -> None:
    """Put a guest beside a network, in place.

    - parts: full name of a module -> what is added to its output: a module from the same input to a tensor of the
      output's shape, or to None for nothing.

    Raises `BadInput` where one is there already, or a module has no such name."""
    if guest_of(network) is not None:
        raise BadInput("this network has adapters beside it already: merge them, or start from the plain one")
    modules = dict(network.named_modules())
    if unknown := [name for name in parts if name not in modules]:
        raise BadInput(f"{type(network).__name__} has no module '{unknown[0]}'")
    for name, part in parts.items():
        modules[name].register_forward_hook(_Added(part), with_kwargs=True)
    reader, decoder = doors(network)
    reader.register_forward_pre_hook(_Before(guest.enter, _names(reader)), with_kwargs=True)
    reader.register_forward_hook(_After(guest.leave))
    if decoder is not None:
        decoder.register_forward_pre_hook(_Before(guest.cross, _names(decoder)), with_kwargs=True)
    network.add_module(NAME, guest)
    if hasattr(type(network), "generate"):
        network.generate = _Generate(network, guest)  # type: ignore[assignment]


def exchange(network: nn.Module, name: str, new: nn.Module) -> None:
    """Put another module in the place of the one called `name`; what stands beside that stays beside the new one."""
    old = network.get_submodule(name)
    network.set_submodule(name, new)
    for hook in old._forward_hooks.values():
        if isinstance(hook, _Added):
            new.register_forward_hook(hook, with_kwargs=True)
    if (guest := guest_of(network)) is not None:
        guest.replaced(old, new)


def move_beside(old: nn.Module, new: nn.Module) -> None:
    """What stands beside one network, beside another with modules of the same names; from the old one it is taken
    off."""
    guest = guest_of(old)
    if guest is None:
        return
    before = dict(old.named_modules())
    parts = {
        name: hook.part for name, m in before.items() for hook in m._forward_hooks.values() if isinstance(hook, _Added)
    }
    take_off(old)
    put_beside(new, guest, parts)
    for name, module in new.named_modules():
        if name in before and before[name] is not module:
            guest.replaced(before[name], module)


def guest_of(network: nn.Module) -> Guest | None:
    """What stands beside a network, if anything does."""
    return network._modules.get(NAME)  # type: ignore[return-value]


def take_off(network: nn.Module) -> None:
    """Take it off again; the network is what it was."""
    for module in network.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [k for k, hook in hooks.items() if isinstance(hook, _Before | _After | _Added)]:
                del hooks[key]
                module._forward_pre_hooks_with_kwargs.pop(key, None)
                module._forward_hooks_with_kwargs.pop(key, None)
    network._modules.pop(NAME, None)
    if isinstance(network.__dict__.get("generate"), _Generate):
        del network.generate


def doors(network: Any) -> tuple[nn.Module, nn.Module | None]:
    """The module that is given the prompt, and the decoder that reads what it makes of it (None: it decodes itself)."""
    if getattr(network.config, "is_encoder_decoder", False):
        return network.get_encoder(), network.get_decoder()
    return network, None


def _names(module: nn.Module) -> tuple[str, ...]:
    return tuple(inspect.signature(type(module).forward).parameters)[1:]
