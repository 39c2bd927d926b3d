"""`recompose`: put rules for the number of tokens on the towers of a network, to stay until they are taken off.

What stays is part of the network: a deep copy has it too, working on the copy. Threads do not see each other's
forwards. With no rule that reduces, every block is called as it always was, so the outputs are the same to the bit."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MethodType
from typing import Any

from torch import Tensor, nn

from intarsia.errors import BadInput
from intarsia.sites import attention
from intarsia.sites.dense import is_dense
from intarsia.sites.recomposing import crossing, halves
from intarsia.sites.recomposing.halves import Parts
from intarsia.sites.recomposing.recomposed import Recomposed
from intarsia.sites.recomposing.rule import Rule
from intarsia.sites.sitemap import SiteMap, site_map
from intarsia.sites.towers import Tower, image_token

NAME = "intarsia_tokens"
"""Where a network keeps the parameters of its rules: `intarsia_tokens.<tower>...`."""
_MARK = "_intarsia_recomposed"


class _Place:
    """What a wrapped module keeps: whose it is, its number among the blocks (None: it is part of one), and the forward
    it had in its own dictionary before, if any."""

    def __init__(self, owner: Recomposed, index: int | None, before: Any):
        self.owner, self.index, self.before = owner, index, before

    def forward(self, module: nn.Module) -> Any:
        return self.before if self.before is not None else MethodType(type(module).forward, module)


class _Entrance:
    """A hook before a model's forward: its keyword arguments for the rule, and the rule's for the model."""

    def __init__(self, owner: Recomposed, names: tuple[str, ...], trims: bool):
        self.owner, self.names, self.trims = owner, names, trims

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
        if is_dense():
            return None
        given = {**dict(zip(self.names, args, strict=False)), **kwargs}
        new = self.owner.rule.inputs(given) if self.trims else given
        self.owner.given(new)
        return None if new is given else ((), new)


class _Exit:
    """A hook after the vision model: the rows that another tower is going to read."""

    def __init__(self, owner: Recomposed):
        self.owner = owner

    def __call__(self, module: nn.Module, args: tuple, output: Any) -> None:
        if is_dense() or (flow := self.owner.flow) is None:
            return
        flow.given = output[0] if isinstance(output, tuple) else output.last_hidden_state


def _block_forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    place: _Place = module.__dict__[_MARK]
    forward = place.forward(module)
    return forward(*args, **kwargs) if is_dense() else place.owner.run(place.index, forward, args, kwargs)


def _part_forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return halves.part_forward(module, module.__dict__[_MARK].forward(module), args, kwargs)


def _fused_forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    handler = attention.handler_of(module)
    if handler is None:
        return _part_forward(module, *args, **kwargs)

    def forward(hidden_states: Tensor, **_: Any) -> Any:
        dropout = module.dropout.p if module.training else 0.0  # type: ignore[union-attr]
        return crossing.fused_attention(module, hidden_states, handler, dropout)

    return halves.part_forward(module, forward, args, kwargs)


def _crossing_forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    place: _Place = module.__dict__[_MARK]
    states = kwargs.get("encoder_hidden_states")
    if not is_dense() and (mask := crossing.size_mask(place.owner.flows, states)) is not None:
        given = kwargs.get("encoder_attention_mask")
        given = given if given is not None else kwargs.get("attention_mask")
        kwargs = {**kwargs, "encoder_attention_mask": mask if given is None else mask + given}
    return place.forward(module)(*args, **kwargs)


def recompose(network: nn.Module, rules: Mapping[str, Rule]) -> dict[str, Recomposed]:
    """Put a rule on each tower named (`vision`, `text`, ... as in the site map; "" where there is one only).

    Raises `BadInput`: no such tower, a rule is there already, or the engine cannot re-compose the tower's blocks."""
    if installed(network):
        raise BadInput("this network's tokens are merged already: start from the dense model, or take it off first")
    sites = site_map(network)
    for name in rules:
        if name not in sites.towers:
            raise BadInput(f"no tower '{name}' in {type(network).__name__}: it has {', '.join(sites.towers) or 'one'}")
    ready = {name: _prepare(sites, sites.towers[name], rule) for name, rule in rules.items()}
    for name, owner in ready.items():
        _install(network, sites.towers[name], owner)
    vision, text = ready.get("vision"), ready.get(sites.main.name)
    if text is not None and vision is not text and (token := image_token(network.config)) is not None:
        text.vision, text.image_token = vision, token
        entrance = _common(network, sites)
        names = tuple(inspect.signature(type(entrance).forward).parameters)[1:]
        entrance.register_forward_pre_hook(_Entrance(text, names, False), with_kwargs=True)
    holders = nn.ModuleDict(
        {name or "tower": rule for name, rule in rules.items() if any(True for _ in rule.parameters())}
    )
    if len(holders):
        network.add_module(NAME, holders)
    network.__dict__[_MARK + "_all"] = ready
    return ready


def installed(network: nn.Module) -> dict[str, Recomposed]:
    """The towers of a network that are under a rule."""
    found = network.__dict__.get(_MARK + "_all")
    if found is None and hasattr(network, "get_base_model"):  # a PEFT model holds the network
        found = network.get_base_model().__dict__.get(_MARK + "_all")
    return dict(found or {})


def remove(network: nn.Module) -> None:
    """Take all rules off; the network is what it was."""
    for module in network.modules():
        place = module.__dict__.pop(_MARK, None)
        if place is not None:
            del module.__dict__["forward"]
            if place.before is not None:
                module.__dict__["forward"] = place.before
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [k for k, hook in hooks.items() if isinstance(hook, _Entrance | _Exit)]:
                del hooks[key]
                module._forward_pre_hooks_with_kwargs.pop(key, None)
    for owner in network.__dict__.pop(_MARK + "_all", {}).values():
        owner.give_back()
    network._modules.pop(NAME, None)


def _prepare(sites: SiteMap, tower: Tower, rule: Rule) -> Recomposed:
    parts, cores = [], []
    for index, wiring in enumerate(sites.wiring[tower.name]):
        parts.append(Parts.of(wiring, f"{tower.prefix}layers.{index}"))
        tap = wiring.taps.get("k")
        fused = [m for m in wiring.attention if crossing.is_fused(m)]
        cores.append(tap.module if tap is not None else fused[0] if fused else None)
    if cores[0] is None:
        raise BadInput(
            f"the tokens of {type(tower.blocks[0]).__name__} cannot be changed: its attention does not go through "
            "transformers' attention interface, so merged tokens could not be given their weight"
        )
    return Recomposed(tower.name, rule, parts, cores)


def _install(network: nn.Module, tower: Tower, owner: Recomposed) -> None:
    for index, (block, parts) in enumerate(zip(tower.blocks, owner.parts, strict=True)):
        for module in parts.roles:
            _wrap(module, _fused_forward if crossing.is_fused(module) else _part_forward, owner)
        _wrap(block, _block_forward, owner, index)
    names = tuple(inspect.signature(type(tower.root).forward).parameters)[1:]
    tower.root.register_forward_pre_hook(_Entrance(owner, names, True), with_kwargs=True)
    if not owner.rule.restore:
        readers = crossing.crossing_attentions(network)
        if not readers and not owner.rule.drops:
            raise BadInput(
                f"{type(network).__name__} has no cross-attention that could weigh merged rows: restore them instead"
            )
        for module in readers:
            _wrap(module, _crossing_forward, owner)
        tower.root.register_forward_hook(_Exit(owner))


def _wrap(module: nn.Module, forward: Any, owner: Recomposed, index: int | None = None) -> None:
    module.__dict__[_MARK] = _Place(owner, index, module.__dict__.get("forward"))
    module.__dict__["forward"] = MethodType(forward, module)


def _common(network: nn.Module, sites: SiteMap) -> nn.Module:
    """The innermost model that holds both the pictures' tower and the decoder: the one that is given the token ids.
    (PEFT calls the outermost network's forward past its hooks.)"""
    from transformers import PreTrainedModel

    ends = {id(tower.blocks[0]) for tower in (sites.main, sites.towers.get("vision", sites.main))}
    holding = [m for m in network.modules() if isinstance(m, PreTrainedModel) and ends <= set(map(id, m.modules()))]
    return min(holding, key=lambda m: len(list(m.modules())))
