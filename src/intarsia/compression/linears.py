"""The linear layers of a network, by block and role: what quantization, pruning and factorization work on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

if TYPE_CHECKING:
    from intarsia.models import Model

# The last part of a module's name, in the networks there are; within attention and within the MLP.
ROLES = {
    "q": r"q_proj|query|q|q_lin",
    "k": r"k_proj|key|k|k_lin",
    "v": r"v_proj|value|v|v_lin",
    "qkv": r"qkv_proj|c_attn|query_key_value|qkv|Wqkv",
    "o": r"o_proj|out_proj|out_lin|o|dense",
    "gate": r"gate_proj|wi_0|w1",
    "up": r"up_proj|c_fc|fc1|wi|wi_1|w3|dense_h_to_4h|lin1",
    "gate_up": r"gate_up_proj",
    "down": r"down_proj|fc2|wo|w2|dense_4h_to_h|lin2",
}
EXPERTS = "a three-dimensional tensor of experts"
ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)


@dataclass(frozen=True)
class Linear:
    """One linear layer, y = W x + b.

    - name, module: `nn.Linear` or GPT-2's `Conv1D` (which keeps W transposed). block: number in the main tower; None
      outside of it. role: q, k, v, qkv, o, gate, up, gate_up, down, head, or other."""

    name: str
    module: nn.Module
    block: int | None
    role: str

    @property
    def weight(self) -> Tensor:
        """W [out, in], a view of the network's own."""
        return matrix(self.module).detach()

    def set(self, weight: Tensor) -> None:
        """Put W [out, in] in place, rounded to the precision of the network."""
        with torch.no_grad():
            self.weight.copy_(weight)

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        out, width = self.weight.shape
        return out, width


def linears(model: Model, skip: Sequence[str] = (), *, head: bool = False) -> list[Linear]:
    """The linear layers of a network in its own order, without those whose name `skip` matches (patterns like
    `*.down_proj`); the output `head` only where it is asked for.

    Exactly `nn.Linear` and `Conv1D`: a subclass may do anything with its weight."""
    network = model.network
    _, heads = tables_and_heads(network)
    inside = {module: i for i, block in enumerate(model.sites.blocks) for module in block.modules()}
    found = []
    for name, module in network.named_modules():
        if type(module) not in (nn.Linear, Conv1D) or any(fnmatchcase(name, pattern) for pattern in skip):
            continue
        if module in heads:
            if head:
                found.append(Linear(name, module, None, "head"))
            continue
        found.append(Linear(name, module, inside.get(module), role_of(name)))
    return found


def heads(model: Model) -> list[Linear]:
    """The output heads of a network."""
    return [layer for layer in linears(model, head=True) if layer.role == "head"]


def role_of(name: str) -> str:
    """What a layer does, by its name: the vocabulary of `ROLES`, or `other`."""
    path, _, leaf = name.rpartition(".")
    attention = bool(ATTENTION.search(path))
    if leaf in ("c_proj", "dense"):
        inner = path.rpartition(".")[2]
        if inner == "intermediate":
            return "up"
        return "o" if attention else "down"
    for role, pattern in ROLES.items():
        if re.fullmatch(pattern, leaf) and (role in ("gate", "up", "gate_up", "down")) != attention:
            return role
    return "other"


def matrix(module: Any) -> Tensor:
    """The weight of a linear layer as [out, in], or of a table as [rows, width]."""
    return module.weight.T if isinstance(module, Conv1D) else module.weight


def tables_and_heads(network: nn.Module) -> tuple[set[nn.Module], set[nn.Module]]:
    """The input embeddings and the output heads of every tower."""
    found: tuple[set[nn.Module], set[nn.Module]] = (set(), set())
    for module in network.modules():
        if isinstance(module, PreTrainedModel):
            for which, get in enumerate((module.get_input_embeddings, module.get_output_embeddings)):
                try:
                    found[which].add(get())
                except (NotImplementedError, AttributeError):
                    continue  # a tower without any
    return found


def expert_tensors(network: nn.Module) -> list[str]:
    """Names of the three-dimensional parameters that hold the experts of a mixture: no linear layers of their own."""
    return [name for name, parameter in network.named_parameters() if parameter.dim() == 3 and "expert" in name]
