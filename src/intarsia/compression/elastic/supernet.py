"""One language model that holds many: fewer blocks, neurons, key-value heads, directions of the stream, all on the same
weights.

Neurons and heads are sorted and the stream turned beforehand (`sorting`, `rotating`), so a smaller network is the
beginning of every tensor of its blocks (`forms`). Its form is made by the class of the network from a changed config
(`fields`), and it runs on views of the shared weights, so what is trained or searched is exactly what `slice` gives.

Source: Cai et al. 2020 (Once-for-All), arXiv 1908.09791, §3; for pretrained language models: Cai et al. 2024
(Flextron), arXiv 2406.10260, §2."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import functional_call

from intarsia.compression.elastic import sizes
from intarsia.compression.elastic.choices import Choice
from intarsia.compression.elastic.fields import Fields, plain_config
from intarsia.compression.elastic.forms import Form
from intarsia.compression.elastic.rotating import turned
from intarsia.compression.elastic.sorting import blocks_of, sort_parts
from intarsia.compression.elastic.uneven import lay_shapes, mark_shapes
from intarsia.compression.pruning.rebuilding import Move, filled, prove, prove_blocks, said, skeleton
from intarsia.compression.statistics import LayerStats, collect
from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.models import Model

SHELLS = 64  # forms of networks that are kept at hand


class Supernet:
    """- base: the network that was given. plain: sorted. narrow: sorted, and turned so that its width can shrink; None
    where that was not asked for. full: (blocks, neurons, heads, width). who: asks.
    - stats: of the inputs of every o and down, as sorted. energy: [width] the share of the stream that each direction
      holds; moments: of what its readers read, turned (`rotating.Turned`).
    - fields: what configs of smaller networks say. one: whether the turned weights serve also at full width, which a
      training wants; else the plain ones do, whose embedding and head may be one tensor."""

    def __init__(self, model: Model, windows: Sequence[Sequence[int]], *, narrower: bool = False, who: str):
        self.base, self.who = model, who
        plain_config(model, who)
        sorted_ = model.copy()
        blocks = blocks_of(sorted_, who)
        self.stats: dict[str, LayerStats] = collect(sorted_, [layer for b in blocks for layer in b.last], windows)
        sort_parts(sorted_, blocks, self.stats, who)
        self.plain = Form(sorted_, blocks)
        first = blocks[0]
        self.full = (len(blocks), first.mlp.size, first.attention.size, self.plain.width)
        self.fields = Fields(model, first.attention, self.full, who)
        self.narrow: Form | None = None
        self.energy: Tensor | None = None
        self.moments: dict[str, Tensor] = {}
        self.one = False
        self._shells: OrderedDict[Choice, Any] = OrderedDict()
        # Remembered here, not in the class, which would keep every network that was ever searched.
        self._prove_depth = lru_cache(maxsize=1000)(self._prove_blocks)
        self.sizes: dict[tuple[int | bool, ...], int] = {}
        if narrower:
            found = turned(sorted_, windows, who)
            self.narrow = Form.of_stream(found.model, found.stream, who)
            self.energy, self.moments = found.energy, found.moments
            self._prove_width()

    def unite(self) -> None:
        """From now on the turned weights serve at full width, too (`one`)."""
        self.one = self.narrow is not None
        self._shells.clear()

    # ---- choices ------------------------------------------------------------------------------------------------

    @property
    def largest(self) -> Choice:
        """The full network."""
        count, neurons, heads, width = self.full
        return Choice(tuple(range(count)), (neurons,) * count, heads, width)

    def choice(
        self, *, blocks: Iterable[int] | None = None, neurons: int | Sequence[int] | None = None,
        heads: int | None = None, width: int | None = None,
    ) -> Choice:  # fmt: skip
        """A choice; what is not given is the full network's. Raises `BadInput` for what there is not."""
        count, most, groups, wide = self.full
        kept = tuple(range(count)) if blocks is None else tuple(sorted(blocks))
        each = (
            (most if neurons is None else neurons,) * len(kept) if not isinstance(neurons, Sequence) else tuple(neurons)
        )
        made = Choice(kept, each, heads or groups, width or wide)  # type: ignore[arg-type]
        self.check(made)
        return made

    def check(self, choice: Choice) -> None:
        """Raise `BadInput` for a choice that is none."""
        count, neurons, heads, width = self.full
        if (
            not choice.blocks
            or len(set(choice.blocks)) < len(choice.blocks)
            or not set(choice.blocks) <= set(range(count))
        ):
            raise BadInput(f"{self.who}: blocks {choice.blocks}: one or more of 0 to {count - 1} are wanted, each once")
        if len(choice.neurons) != len(choice.blocks) or not all(1 <= n <= neurons for n in choice.neurons):
            raise BadInput(f"{self.who}: neurons {choice.neurons}: for each block 1 to {neurons} are wanted")
        if not 1 <= choice.heads <= heads:
            raise BadInput(f"{self.who}: {choice.heads} key-value heads: 1 to {heads} are wanted")
        if not 1 <= choice.width <= width:
            raise BadInput(f"{self.who}: width {choice.width}: 1 to {width} is wanted")
        if choice.width < width and self.narrow is None:
            raise BadInput(
                f"{self.who}: width {choice.width}: the stream of this supernet is not sorted (narrower=True)"
            )

    # ---- what a choice costs, by arithmetic -----------------------------------------------------------------------

    def parameters(self, choice: Choice) -> int:
        """How many a network has, shared ones once."""
        return sizes.parameters(self, choice)

    def body(self, choice: Choice) -> int:
        """The same without embedding and head."""
        return sizes.body(self, choice)

    # ---- networks -------------------------------------------------------------------------------------------------

    def form(self, choice: Choice) -> Form:
        """The full network that a choice is cut from."""
        if choice.width == self.full[3] and not self.one:
            return self.plain
        self.check(choice)
        assert self.narrow is not None
        return self.narrow

    def move(self, choice: Choice) -> Move:
        """What becomes of each tensor: views where that is possible."""
        return self.form(choice).move(choice, self._like(choice))

    def shell(self, choice: Choice) -> Any:
        """A network of the form of a choice, without numbers; kept at hand."""
        if choice in self._shells:
            self._shells.move_to_end(choice)
            return self._shells[choice]
        made, _ = self._empty(choice, self.move(choice))
        self._prove_depth(choice.blocks)
        self.form(choice).lay_buffers(made, self._like(choice))
        self._shells[choice] = made
        while len(self._shells) > SHELLS:
            self._shells.popitem(last=False)
        return made

    def logits(
        self, choice: Choice, ids: Tensor, mask: Tensor | None = None, weights: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """[row, token, vocabulary] of one of the networks on the shared weights, with gradients.

        - weights: in place of those of the full network, by name."""
        form, shell = self.form(choice), self.shell(choice)
        move = self.move(choice)
        done: dict[int, Tensor] = {}
        tensors: dict[str, Tensor] = {}
        for name, tensor in form.model.network.named_parameters(remove_duplicate=False):
            pair = move(name, (weights or {}).get(name, tensor))
            if pair is not None:
                tensors[pair[0]] = done.setdefault(id(tensor), pair[1])  # what is tied stays one tensor
        given = {"input_ids": ids} | ({"attention_mask": mask} if mask is not None else {})
        return functional_call(shell, tensors, kwargs=given | {"use_cache": False}, tie_weights=False).logits

    def slice(self, choice: Choice) -> Model:
        """One of the networks by itself, with its own weights: a plain Hugging Face network (where blocks differ in
        neurons, one that loads once `intarsia.compression` is imported)."""
        self.check(choice)
        form = self.form(choice)
        cut, seen = self.move(choice), {}

        def move(name: str, tensor: Tensor) -> tuple[str, Tensor] | None:
            pair = cut(name, tensor)
            if pair is None or tensor.is_meta:
                return pair
            key = tensor.data_ptr(), tensor.shape
            return pair[0], seen.setdefault(key, pair[1].detach().clone().contiguous())

        empty, shapes = self._empty(choice, move)
        new = filled(form.model.network, empty, move)
        form.lay_buffers(new, self._like(choice))
        self._prove_depth(choice.blocks)
        if shapes:
            mark_shapes(new, shapes)
        new.requires_grad_(True)
        return self.base.with_network(new)

    def _like(self, choice: Choice) -> Any:
        """A network of the choice's width, where that is not the full one's."""
        return self.fields.probe(choice.width) if choice.width < self.full[3] else None

    def _empty(self, choice: Choice, move: Move) -> tuple[Any, dict[str, list[int]]]:
        """A network without numbers; the shapes of layers that its config does not tell."""
        form = self.form(choice)
        shapes = form.shapes(choice, move)
        lay = (lambda network: lay_shapes(network, shapes)) if shapes else None
        return skeleton(form.model.network, self.fields.changes(choice), move, self.who, lay), shapes

    def _prove_blocks(self, blocks: tuple[int, ...]) -> None:
        """Raise `BadInput` where the class makes something else of a block that gets another number."""
        if len(blocks) == self.full[0]:
            return
        choice, plain = self.choice(blocks=blocks), self.plain.model
        made = skeleton(plain.network, self.fields.changes(choice), self.move(choice), self.who)
        new = list(made.get_submodule(plain.sites.main.path))
        prove_blocks([plain.sites.blocks[i] for i in blocks], new, self.who)

    def _prove_width(self) -> None:
        """Raise `BadInput` unless a narrower network says what the full one says whose minor directions are silent."""
        assert self.narrow is not None
        width = self.fields.near_width(self.full[3] * 3 // 4)
        silent = self.narrow.model.copy()
        with torch.no_grad():
            for name, tensor in silent.network.named_parameters():
                if name in self.narrow.longer:
                    dim = self.narrow.longer[name]
                    tensor.narrow(dim, width, self.full[3] - width).zero_()
        prove(said(silent.network), self.slice(self.choice(width=width)).network, self.who)
