"""Inside, gradient x input is layer-wise relevance propagation: nonlinear parts let pass only the line they are here.

Forwards stay what they are, to the last bit; only gradients change:
- a norm counts as its scaling at this input (the statistics are constants),
- an activation f counts as the line through the origin and this point, slope f(x) / x,
- each branch of a gated product gets half,
- attention scores are constants, or get their share (AttnLRP's rule for products: a half for each factor)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from intarsia.errors import BadInput
from intarsia.sites.edits import Apply, Edit
from intarsia.sites.sitemap import of

if TYPE_CHECKING:
    from intarsia.models import Model

SMALL = 1e-6


@contextlib.contextmanager
def linearized(model: Model, attention: Literal["frozen", "shared"] = "frozen") -> Iterator[list[Edit]]:
    """Gradients inside follow the rules of relevance propagation in the main tower; yields the edits to run with.

    Raises `BadInput` for a network whose norms, activations or neurons are not of a known form."""
    sites = of(model)
    tower = sites.main
    state: dict[nn.Module, Tensor] = {}
    edits: list[Edit] = []
    for site, share in _shares(attention).items():
        edits.append(Apply(f"{tower.prefix}layers.*.{site}", function=_scaled(share)))
    handles: list[Any] = []
    sites.lock.acquire()
    try:
        for module in _norms(sites.network):
            handles.append(module.register_forward_hook(_frozen_norm, with_kwargs=True))
        for index, block in enumerate(tower.blocks):
            name = f"{tower.prefix}layers.{index}.mlp_act"
            if not (found := [m for m in block.modules() if _is_activation(m)]) or name not in sites:
                why = "a mixture of experts" if name not in sites else "no activation module"
                raise BadInput(f"relevance propagation: block {index} of {type(sites.network).__name__} has {why}")
            for module in found:
                handles.append(module.register_forward_hook(_line(state), with_kwargs=True))
            edits.append(Apply(name, function=_halved_if_gated(state, found[-1])))
        yield edits
    finally:
        for handle in handles:
            handle.remove()
        sites.lock.release()


def _shares(attention: str) -> dict[str, float]:
    """What part of the gradient passes: products q.k and pattern.v give a half to each factor."""
    return {"q": 0.0, "k": 0.0} if attention == "frozen" else {"q": 0.25, "k": 0.25, "v": 0.5}


def _passing(value: Tensor, gradient_of: Tensor) -> Tensor:
    """`value`, with the gradient of `gradient_of`."""
    return value.detach() + (gradient_of - gradient_of.detach())


def _scaled(share: float) -> Any:
    return lambda tensor: _passing(tensor, tensor * share)


def _line(state: dict[nn.Module, Tensor]) -> Any:
    def hook(module: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> Tensor:
        x = args[0] if args else next(iter(kwargs.values()))
        near = x.abs() < SMALL  # there every smooth activation with f(0) = 0 is nearly its tangent
        slope = torch.where(near, 0.5, output / torch.where(near, 1.0, x)).detach()
        state[module] = output.detach()
        return _passing(output, x * slope)

    return hook


def _halved_if_gated(state: dict[nn.Module, Tensor], activation: nn.Module) -> Any:
    def function(neurons: Tensor) -> Tensor:
        alone = state.get(activation)
        if alone is None:
            raise BadInput("relevance propagation: the activation between the MLP's maps did not run as a module")
        plain = alone.numel() == neurons.numel() and torch.equal(alone.reshape(neurons.shape), neurons)
        return neurons if plain else _passing(neurons, neurons * 0.5)

    return function


def _is_activation(module: nn.Module) -> bool:
    from transformers.activations import ACT2CLS

    known = tuple(kind[0] if isinstance(kind, tuple) else kind for kind in ACT2CLS.values())
    return isinstance(module, tuple(k for k in known if isinstance(k, type)))


def _norms(network: nn.Module) -> list[nn.Module]:
    return [m for m in network.modules() if "norm" in type(m).__name__.lower() and not list(m.children())]


def _frozen_norm(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
    x = args[0] if args else kwargs.get("hidden_states", kwargs.get("input"))
    if not isinstance(x, Tensor) or not isinstance(output, Tensor) or not output.requires_grad:
        return None
    return _passing(output, _as_scaling(module, x, output))


def _as_scaling(module: nn.Module, x: Tensor, output: Tensor) -> Tensor:
    """The norm's output as a linear function of its input, statistics taken as constants.

    What the norm is - whether it centres, and whether its weight counts from 0 or 1 - is tried, and proved on what it
    gave."""
    eps = next((float(v) for name in ("variance_epsilon", "eps", "epsilon") if (v := getattr(module, name, None))), 0.0)
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    given = output.detach().to(wide.dtype)
    tolerance = 3e-2 if output.dtype in (torch.bfloat16, torch.float16) else 1e-3
    for centre in (False, True):
        centred = wide - wide.mean(-1, keepdim=True) if centre else wide
        scale = torch.rsqrt(centred.detach().pow(2).mean(-1, keepdim=True) + eps)
        for gain in [1.0] if weight is None else [weight.detach().to(wide.dtype), 1 + weight.detach().to(wide.dtype)]:
            linear = centred * (scale * gain)
            guess = linear.detach() + (0.0 if bias is None else bias.detach().to(wide.dtype))
            if (guess - given).abs().max() <= tolerance * given.abs().max():
                return linear.to(output.dtype)
    raise BadInput(f"relevance propagation: the norm {type(module).__name__} is of no known form")
