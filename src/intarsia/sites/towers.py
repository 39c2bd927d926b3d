"""Towers: the stacks of blocks inside a network, found from the network itself.

A tower is one list of transformer blocks (`nn.ModuleList` whose members are transformers' `GradientCheckpointingLayer`;
where a network has none, a list of modules of one class that looks like blocks). A network with one tower names
its sites `layers.N...`; composite networks prefix the tower's name: `vision.`, `text.`, `encoder.`, `decoder.`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import nn

from intarsia.errors import BadInput

_NAMES = (
    ("vision", r"visi|visual|image|vit"),
    ("qformer", r"q_?former"),
    ("audio", r"audio|speech"),
    ("text", r"text|language|llm"),
    ("encoder", r"encoder"),
    ("decoder", r"decoder"),
)


@dataclass(frozen=True)
class Tower:
    """One stack of blocks.

    - name: `""` in a network with a single tower, else `text`, `vision`, `encoder`, ...
    - path: of the block list inside the network (`model.layers`).
    - blocks: the modules, in order.
    - root: the innermost `PreTrainedModel` that holds the list; can be run on its own.
    - head_root: the innermost `PreTrainedModel` that holds it and has an output embedding, or None."""

    name: str
    path: str
    blocks: tuple[nn.Module, ...]
    root: nn.Module
    head_root: nn.Module | None
    config: Any

    @property
    def prefix(self) -> str:
        return f"{self.name}." if self.name else ""

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        for key in ("hidden_size", "d_model", "n_embd", "dim"):
            if isinstance(value := getattr(self.config, key, None), int):
                return value
        raise BadInput(f"cannot tell the width of the residual stream of {type(self.root).__name__} from its config")


def find_towers(network: nn.Module) -> list[Tower]:
    """The towers of `network`, in module order.

    Raises `BadInput` saying what was looked for when there is none."""
    lists = _block_lists(network)
    if not lists:
        raise BadInput(
            f"no stack of blocks found in {type(network).__name__}: looked for a ModuleList of transformers' "
            "GradientCheckpointingLayer, then for one of modules of one class that hold an attention or mixer module"
        )
    names = _tower_names([path for path, _ in lists])
    return [_tower(network, name, path, blocks) for name, (path, blocks) in zip(names, lists, strict=True)]


def _block_lists(network: nn.Module) -> list[tuple[str, tuple[nn.Module, ...]]]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    named = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.ModuleList) and len(m)]
    found = [(n, tuple(m)) for n, m in named if all(isinstance(b, GradientCheckpointingLayer) for b in m)]
    alike = [(n, tuple(m)) for n, m in named if len({type(b) for b in m}) == 1 and _blocklike(m[0])]
    found = found or [(n, m) for n, m in alike if len(m) > 1] or alike
    paths = [n for n, _ in found]
    return [(n, b) for n, b in found if not any(n != p and n.startswith(p + ".") for p in paths)]


def _blocklike(module: nn.Module) -> bool:
    names = {type(m).__name__ for m in module.modules()}
    return any(re.search(r"Attention|Attn|Mixer|SSM|Mamba", name) for name in names)


def _tower_names(paths: list[str]) -> list[str]:
    if len(paths) == 1:
        return [""]
    names = []
    for path in paths:
        hit = next((name for name, pattern in _NAMES if re.search(pattern, path, re.IGNORECASE)), None)
        names.append(hit or path.replace(".", "_"))
    for i, name in enumerate(names):
        if names.count(name) > 1:
            names[i] = paths[i].replace(".", "_")
    return names


def _tower(network: nn.Module, name: str, path: str, blocks: tuple[nn.Module, ...]) -> Tower:
    from transformers import PreTrainedModel

    parts = path.split(".")
    chain = [network]
    for part in parts[:-1]:
        chain.append(getattr(chain[-1], part) if not part.isdigit() else chain[-1][int(part)])  # type: ignore[index]
    hosts = [m for m in reversed(chain) if isinstance(m, PreTrainedModel)]
    if not hosts:
        raise BadInput(f"{type(network).__name__} is no transformers model: wrap a PreTrainedModel")
    head = next((m for m in hosts if _has_head(m)), None)
    return Tower(name, path, blocks, hosts[0], head, hosts[0].config)


def image_token(config: Any) -> int | None:
    """The id that stands for a picture's rows in a prompt, by a network's config, or None."""
    for name in ("image_token_id", "image_token_index"):
        if isinstance(token := getattr(config, name, None), int):
            return token
    return None


def _has_head(module: nn.Module) -> bool:
    try:
        return module.get_output_embeddings() is not None  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return False
