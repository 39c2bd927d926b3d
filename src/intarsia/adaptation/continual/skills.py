"""`Skills`: all blocks of a network, and what decides which of them a prompt gets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from intarsia.adaptation.continual.blocks.mixture import Mixture
from intarsia.adaptation.continual.blocks.prompts import Door, Prompts
from intarsia.adaptation.continual.blocks.stack import Stack, Taken
from intarsia.adaptation.continual.routing.features import device_of, pool, real_tokens
from intarsia.adaptation.continual.routing.router import Router
from intarsia.errors import BadInput, did_you_mean
from intarsia.sites import Guest, guest_of, put_beside, take_off

AUTO = ({"q_proj", "v_proj"}, {"q", "v"}, {"query", "value"}, {"c_attn"}, {"query_key_value"}, {"qkv_proj"})
"""What the layers of queries and values are called, by architecture; where they are one with the keys, that one."""


class Skills(Guest):
    """Blocks beside a network.

    - names: of the blocks. router: weighs them, from the prompt alone, whenever the network begins to read one; while
      it decodes from a cache, and to the end of a `generate`, the prompt's weights stay.

    Weights can be set by hand: `with skills.given(weights)`, `with skills.using("agnews")`."""

    def __init__(self, embedding: nn.Module):
        super().__init__()
        self.names: list[str] = []
        self.mixture = Mixture()
        self.stacks = nn.ModuleList()
        self.prompts: Prompts | None = None
        self.door: Door | None = None
        self.router: Router | None = None
        self.kept: dict[str, Tensor] = {}
        """What the method that made them needs to go on."""
        self.memory: Any = None
        """Examples that it keeps, as JSON has them."""
        self.transposed = False
        """Whether the layers keep their weights as [input, output] (GPT-2)."""
        self._fixed = False
        self._generating, self._weighed = False, False
        # Not a child: it is the network's.
        self.__dict__["embedding"] = embedding

    @property
    def first(self) -> int:
        """The lowest block of the network that is adapted."""
        return min((_layer(stack.name)[1] for stack in self.stacks), default=0)

    # ---- blocks

    def index(self, name: str) -> int:
        """A block's number. Raises `BadInput` with near names."""
        if name not in self.names:
            raise BadInput(f"no task '{name}'{did_you_mean(name, self.names)}; there are: {', '.join(self.names)}")
        return self.names.index(name)

    def add(self, name: str, rank: int, scale: float, like: int | None = None) -> int:
        """One more block, frozen: fresh, or a copy of block `like`. Its number."""
        for stack in self.stacks:
            down, up = stack.fresh(rank) if like is None else stack.block(like)
            stack.add(down, up, scale if like is None else stack.scales[like])
        if self.prompts is not None:
            table = self.embedding.weight.detach()
            drawn = table[
                torch.randint(len(table), (self.prompts.length,))
            ]  # rows of the vocabulary (Lester et al. 2021)
            self.prompts.add(drawn if like is None else self.prompts.rows[like])
        self.names.append(name)
        return len(self.names) - 1

    def open(self, *blocks: int) -> list[nn.Parameter]:
        """Make a block trainable (of prompts: several); what is trained."""
        if self.prompts is not None:
            return self.prompts.open(blocks)
        return [parameter for stack in self.stacks for parameter in stack.open(*blocks)]

    def close(self) -> None:
        """All blocks frozen."""
        for part in (*self.stacks, *([] if self.prompts is None else [self.prompts])):
            part.close()

    def take_out(self) -> tuple[str, list[Taken]]:
        """The newest low-rank block, which is open, out of its place for a while."""
        return self.names.pop(), [stack.take_out() for stack in self.stacks]

    def put_back(self, taken: tuple[str, list[Taken]]) -> None:
        """The inverse."""
        name, parts = taken
        self.names.append(name)
        for stack, part in zip(self.stacks, parts, strict=True):
            stack.put_back(part)

    def drop(self, name: str) -> None:
        """Take a block out, and what the router knows of it."""
        index = self.index(name)
        for part in (*self.stacks, *([] if self.prompts is None else [self.prompts])):
            part.drop(index)
        if self.router is not None:
            self.router.forget(index)
        del self.names[index]

    def tensors(self) -> dict[str, Tensor]:
        """All blocks, by name of layer."""
        out = {}
        for stack in self.stacks:
            for i in range(len(self.names)):
                out[f"{i}.{stack.name}.A"], out[f"{i}.{stack.name}.B"] = (t.contiguous() for t in stack.block(i))
        if self.prompts is not None:
            out["prompts"] = self.prompts.all().detach()
        return out

    def load(self, names: Sequence[str], tensors: dict[str, Tensor], scales: Sequence[float]) -> None:
        """The inverse, of empty skills."""
        assert not self.names
        for i, (name, scale) in enumerate(zip(names, scales, strict=True)):
            for stack in self.stacks:
                stack.add(tensors[f"{i}.{stack.name}.A"], tensors[f"{i}.{stack.name}.B"], scale)
            if self.prompts is not None:
                self.prompts.add(tensors["prompts"][i])
            self.names.append(name)

    # ---- weights

    @contextmanager
    def given(self, weights: Tensor | None) -> Iterator[None]:
        """Inside, these weights [row, block] hold, whatever the prompts are. None: no block takes part."""
        before = self._fixed, self.mixture.weights, self.mixture.columns
        self.mixture.set(weights)
        self._fixed = True
        try:
            yield
        finally:
            self._fixed, self.mixture.weights, self.mixture.columns = before

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Inside, every prompt is answered as one of this task's: with its row of weights where it has one, else with
        its block alone; of prompts that stand one after the other, with those before it."""
        index = self.index(name)
        with self.given(self.row(index)[None].to(device_of(self.embedding))):
            yield

    def row(self, index: int) -> Tensor:
        """[block], or [layer, block]: the weights that prompts of task `index` get: those of the router's rows, the
        mean that SAPT keeps, else the block's alone."""
        if self.router is not None and (row := self.router.row(index)) is not None:
            return row
        row = torch.zeros(len(self.names))
        if (target := self.kept.get(f"target.{index}")) is not None:
            return torch.cat([target, target.new_zeros(*target.shape[:-1], len(row) - target.shape[-1])], -1)
        row[0 if self.prompts is not None and self.prompts.joined else index : index + 1] = 1
        return row

    def weigh(self, pooled: Tensor) -> Tensor | None:
        """What the router gives; None while there are no blocks."""
        if self.router is None or not self.names:
            return None
        return self.router(pooled)

    # ---- the network's doors

    @contextmanager
    def generating(self) -> Iterator[None]:
        before = self._generating, self._weighed
        self._generating, self._weighed = True, False
        try:
            yield
        finally:
            self._generating, self._weighed = before

    def replaced(self, old: nn.Module, new: nn.Module) -> None:
        if old is self.embedding:
            self.__dict__["embedding"] = new
            if self.door is not None:
                self.door.embedding = new

    def save_into(self, folder: Path) -> None:
        from intarsia.adaptation.continual.bundle import write

        write(self, folder)

    def enter(self, given: dict[str, Any]) -> dict[str, Any]:
        decoding = _decoding(given)
        if not (self._fixed or decoding or self._weighed):
            self._weighed = self._generating  # without a cache, `generate` reads the prompt again for every token
            ids, embedded = given.get("input_ids"), given.get("inputs_embeds")
            if embedded is None and ids is not None:
                embedded = self.embedding(ids)
            if embedded is not None:
                mask = real_tokens(given.get("attention_mask"), *embedded.shape[:2], embedded.device)
                with torch.no_grad():
                    self.mixture.set(self.weigh(pool(embedded, mask)))
        return given if self.door is None else self.door.enter(given, decoding=decoding)

    def leave(self, output: Any) -> Any:
        return output if self.door is None else self.door.leave(output)

    def cross(self, given: dict[str, Any]) -> dict[str, Any]:
        return given if self.door is None else self.door.cross(given)


def _decoding(given: dict[str, Any]) -> bool:
    """Whether what is read goes on from a cache: the prompt was weighed when that was filled."""
    cache = given.get("past_key_values")
    return cache is not None and cache.get_seq_length() > 0


def attach_prompts(network: Any, length: int, *, joined: bool) -> Skills:
    """Skills without blocks, which are soft prompts of so many positions, in place."""
    embedding = network.get_input_embeddings()
    skills = Skills(embedding)
    weight = embedding.weight
    skills.prompts = Prompts(weight.shape[1], length, skills.mixture, joined=joined, device=weight.device)
    encoder = bool(getattr(network.config, "is_encoder_decoder", False))
    skills.door = Door(skills.prompts, embedding, encoder=encoder)
    put_beside(network, skills, {})
    return skills


def attach(network: Any, layers: Sequence[str]) -> Skills:
    """Skills without blocks beside these linear layers of a network, in place."""
    skills = Skills(network.get_input_embeddings())
    modules = dict(network.named_modules())
    numbers = sorted({_layer(name) for name in layers})
    for name in layers:
        inputs, outputs = _sizes(modules[name])
        device = device_of(modules[name])
        skills.stacks.append(Stack(name, numbers.index(_layer(name)), inputs, outputs, skills.mixture, device))
    skills.transposed = not isinstance(modules[layers[0]], nn.Linear) and hasattr(modules[layers[0]], "nf")
    put_beside(network, skills, {stack.name: stack for stack in skills.stacks})
    return skills


def skills_of(network: Any) -> Skills | None:
    """The skills of a network, if it has any."""
    guest = guest_of(network)
    return guest if isinstance(guest, Skills) else None


def detach(network: Any) -> None:
    """The plain network again, in place."""
    take_off(network)


def layer_names(network: Any, targets: Sequence[str], first: int) -> list[str]:
    """Full names of the linear layers to adapt, from block `first` on; `auto`: queries and values."""
    from intarsia.training.lora import linear_names

    if list(targets) == ["auto"]:
        kinds = {name.rpartition(".")[2] for name in linear_names(network, ["all"], 0)}
        found = next((names for names in AUTO if names <= kinds), None)
        if found is None:
            raise BadInput(f"targets: which layers make queries and values? Name them: {', '.join(sorted(kinds))}")
        targets = sorted(found)
    return linear_names(network, targets, first)


def _layer(name: str) -> tuple[str, int]:
    """The tower and number of the block a layer is in."""
    found = re.search(r"^(.*?)\.(\d+)\.", name)
    return (found[1], int(found[2])) if found else (name, 0)


def _sizes(module: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a linear layer, also of GPT-2's transposed and of a quantized one."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, Conv1D):
        return module.weight.shape[0], module.nf
    return module.in_features, module.out_features  # type: ignore[return-value]
