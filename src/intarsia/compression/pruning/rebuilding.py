"""The smaller network, made anew by its own class from its changed config, with the tensors that are left.

So it is what `transformers` makes when it loads the folder: numbers of blocks, heads and layers are consistent
everywhere by construction. What the class cannot build is refused, and so is what it would build otherwise."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from intarsia.errors import BadInput, first_line
from intarsia.sites.probe import dummy_inputs, evaluating

if TYPE_CHECKING:
    from intarsia.models import Model

NUMBERS = ("layer_idx", "layer_id", "layer_index", "layer_number", "layer_num", "block_idx", "training")
Move = Callable[[str, Tensor], tuple[str, Tensor] | None]
"""Name and tensor in the old network -> name and tensor in the new one; None: it goes."""


def text_config(model: Model, who: str) -> Any:
    """The config that the main tower is built from, a part of the network's own."""
    config = model.config.get_text_config()
    if config is not model.sites.main.config:
        raise BadInput(
            f"{who}: the blocks of {type(model.network).__name__} do not follow its config; it cannot shrink"
        )
    return config


def skeleton(
    network: Any, changes: Mapping[str, Any], move: Move, who: str, lay: Callable[[Any], None] | None = None
) -> Any:
    """The new network without numbers (on the meta device), proved to have a place for every tensor that is left.

    - changes: fields of the text config. lay: puts modules in it that no config tells of."""
    kind = type(network)
    asked = ", ".join(f"{key} {value}" for key, value in changes.items() if not isinstance(value, list))
    try:
        config = changed(network.config, changes)
        with torch.device("meta"):
            new = kind(config)
            if lay is not None:
                lay(new)
    except Exception as error:  # every class refuses in a way of its own
        why = first_line(error.__cause__ or error, 160)
        raise BadInput(f"{who}: {kind.__name__} cannot be built with {asked}: {why}") from error
    wanted = new.state_dict()
    given = _moved({name: tensor.to("meta") for name, tensor in network.state_dict().items()}, move)
    for name in sorted(wanted.keys() ^ given.keys()):
        raise BadInput(f"{who}: {kind.__name__} with {asked} is built otherwise (at '{name}'): it cannot shrink so")
    for name, tensor in wanted.items():
        if tensor.shape != given[name].shape:
            raise BadInput(
                f"{who}: {kind.__name__} with {asked} wants '{name}' {list(tensor.shape)}, and "
                f"{list(given[name].shape)} is left: its config does not allow that"
            )
    return new


def filled(network: Any, new: Any, move: Move) -> Any:
    """`new` (a skeleton) with the tensors of `network`; those that stay as they are have their memory in common."""
    new.load_state_dict(_moved(network.state_dict(), move), strict=True, assign=True)
    beside = _moved(dict(network.named_buffers()), move)
    for module_name, module in new.named_modules():
        for leaf, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                module._buffers[leaf] = beside[f"{module_name}.{leaf}" if module_name else leaf]
    new.tie_weights()
    if hasattr(network, "generation_config"):
        new.generation_config = copy.deepcopy(network.generation_config)
    return new.train(network.training)


def prove_blocks(old: Sequence[nn.Module], new: Sequence[nn.Module], who: str) -> None:
    """Raise `BadInput` unless each block, made anew, is of the kind it was: kinds of attention, windows, scales.

    What is saved holds no more than a config's fields, and a short input does not show a window."""
    for index, pair in enumerate(zip(old, new, strict=True)):
        modules = [dict(block.named_modules()) for block in pair]
        for name, module in modules[0].items():
            before, after = _facts(module), _facts(modules[1][name]) if name in modules[1] else {}
            if different := [key for key, value in before.items() if after.get(key) != value]:
                key = different[0]
                raise BadInput(
                    f"{who}: what becomes block {index} depends on its number ({name or 'block'}.{key} is "
                    f"{after.get(key)}, was {before[key]}): other blocks may do"
                )


def prove(wanted: Tensor, new: Any, who: str) -> None:
    """Raise `BadInput` unless a network says to `dummy_inputs` what it should.

    It does not where a head depends on its number, say, or a scale on how many there are."""
    given = said(new)
    coarse = wanted.dtype in (torch.bfloat16, torch.float16)
    gap = (given.float() - wanted.float()).abs().max() / wanted.float().abs().max().clamp(min=1e-6)
    if not bool(gap <= (5e-2 if coarse else 1e-4)):
        raise BadInput(
            f"{who}: {type(new).__name__} computes otherwise when it is smaller (by {float(gap):.2%}): its parts "
            "depend on how many there are"
        )


def said(network: nn.Module) -> Tensor:
    """The network's output on a few made-up inputs."""
    with torch.no_grad(), evaluating(network):
        return main_output(network(**dummy_inputs(network)))


def main_output(output: Any) -> Tensor:
    """Logits, else the first tensor of an output."""
    first = output.get("logits")
    return first if first is not None else next(v for v in output.values() if isinstance(v, Tensor))


def changed(config: Any, changes: Mapping[str, Any]) -> Any:
    """A new config that differs in fields of its text config."""
    given = config.to_dict()
    given.pop("quantization_config", None)
    text = config.get_text_config()
    parts = {key: part for key in config.sub_configs if (part := getattr(config, key, None)) is not None}
    inner = given if text is config else given[next(key for key, part in parts.items() if part is text)]
    inner.update({text.attribute_map.get(key, key): value for key, value in changes.items()})
    new = type(config).from_dict(given)
    new._attn_implementation = config._attn_implementation
    for key, part in parts.items():
        getattr(new, key)._attn_implementation = part._attn_implementation
    return new


def _facts(module: nn.Module) -> dict[str, Any]:
    """What a module knows of itself, but for its number."""
    plain = {k: v for k, v in vars(module).items() if isinstance(v, str | int | float) and not k.startswith("_")}
    return {k: v for k, v in plain.items() if k not in NUMBERS}


def _moved(tensors: Mapping[str, Tensor], move: Move) -> dict[str, Tensor]:
    return dict(pair for name, tensor in tensors.items() if (pair := move(name, tensor)) is not None)
