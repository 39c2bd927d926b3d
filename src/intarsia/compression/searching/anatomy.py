"""What a network's bytes are: its matrices by role, its vocabulary, and the rest that stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from intarsia.compression.linears import linears, tables_and_heads
from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.models import Model


@dataclass(frozen=True)
class Matrix:
    """A linear layer of the blocks, [rows, width]. block: its number; None outside of the main tower."""

    name: str
    block: int | None
    role: str
    rows: int
    width: int

    @property
    def weights(self) -> int:
        """How many."""
        return self.rows * self.width


@dataclass(frozen=True)
class Anatomy:
    """Parameters by role.

    - matrices: the body. rows, width: of the vocabulary's table; tables: how many there are (1 where embedding and head
      share it, or there is no head). vectors: (name, numbers) of everything of one dimension; others: (name, numbers)
      of what else stays as it is (position tables, convolutions, experts in one tensor).
    - blocks, context, head: of the network; head is the size of an attention head. table_bits: of a weight of the
      vocabulary in the file, 8 or 4."""

    matrices: tuple[Matrix, ...]
    rows: int
    width: int
    tables: int
    vectors: tuple[tuple[str, int], ...]
    others: tuple[tuple[str, int], ...]
    blocks: int
    context: int
    head: int
    table_bits: int = 8

    @property
    def body(self) -> int:
        """Weights of the matrices."""
        return sum(m.weights for m in self.matrices)

    @property
    def vocabulary(self) -> int:
        """Weights of the embedding and the head, a shared table once."""
        return self.rows * self.width * self.tables

    @property
    def norms(self) -> int:
        """Numbers in gains and biases."""
        return sum(count for _, count in self.vectors)

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.body + self.vocabulary + self.norms + sum(count for _, count in self.others)

    def with_rows(self, rows: int) -> Anatomy:
        """With a vocabulary of so many tokens."""
        return replace(self, rows=rows)

    @property
    def table(self) -> Matrix:
        """The vocabulary's table as a matrix."""
        return Matrix("vocabulary", None, "head", self.rows, self.width)

    def without_blocks(self, gone: Sequence[int]) -> Anatomy:
        """Without these blocks; names stay those of the network as it was."""
        stems = {f".{number}." for number in gone}
        return replace(
            self,
            matrices=tuple(m for m in self.matrices if m.block not in gone),
            vectors=tuple(v for v in self.vectors if not any(stem in v[0] for stem in stems)),
            blocks=self.blocks - len(gone),
        )

    def changed(self, change: Callable[[Matrix], Matrix]) -> Anatomy:
        """With other shapes."""
        return replace(self, matrices=tuple(map(change, self.matrices)))


def anatomy(model: Model) -> Anatomy:
    """Of a causal language model with plain weights.

    Raises `BadInput` for a network without a table of its vocabulary, or whose table no linear layer reads."""
    network: Any = model.network
    table, head = network.get_input_embeddings(), network.get_output_embeddings()
    if not isinstance(getattr(table, "weight", None), nn.Parameter):
        raise BadInput(f"{type(network).__name__} has no plain input embedding")
    shared = head is None or head.weight is table.weight
    matrices = tuple(Matrix(m.name, m.block, m.role, *m.shape) for m in linears(model))
    edges = {id(module.weight) for some in tables_and_heads(network) for module in some if module is not None}
    known = edges | {id(m.module.weight) for m in linears(model)}
    vectors, others = [], []
    for name, parameter in network.named_parameters():
        if id(parameter) not in known:
            (vectors if parameter.dim() <= 1 else others).append((name, parameter.numel()))
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", 1) or 1
    return Anatomy(
        matrices, *table.weight.shape, 1 if shared else 2, tuple(vectors), tuple(others), len(model.sites.blocks),
        model.context_length or 0, getattr(config, "head_dim", None) or config.hidden_size // heads,
    )  # fmt: skip
