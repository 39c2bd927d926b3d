"""One language model that holds many: fewer blocks, neurons, key-value heads, directions of the stream, all on the same
weights.

Neurons and heads are sorted and the stream turned beforehand (`sorting`, `rotating`), so a smaller network is the
beginning of every tensor of its blocks. Its form is made by the class of the network from a changed config, and it
runs on views of the shared weights, so what is trained or searched is exactly what `slice` gives.

Source: Cai et al. 2020 (Once-for-All), arXiv 1908.09791, §3; for pretrained language models: Cai et al. 2024
(Flextron), arXiv 2406.10260, §2."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import functional_call

from intarsia.compression.elastic import sizes
from intarsia.compression.elastic.choices import Choice, Space
from intarsia.compression.elastic.rotating import Stream, lengths, turned
from intarsia.compression.elastic.sorting import Block, blocks_of, sort_parts
from intarsia.compression.elastic.uneven import lay_shapes, mark_shapes
from intarsia.compression.pruning.dropping import fewer
from intarsia.compression.pruning.parts import width_key
from intarsia.compression.pruning.rebuilding import changed, filled, prove, prove_blocks, said, skeleton, text_config
from intarsia.compression.statistics import LayerStats, collect
from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.models import Model

SHELLS = 64  # forms of networks that are kept at hand


@dataclass
class Form:
    """A full network and how its tensors shrink. axes: tensor -> its dimension along the stream, those whose values the
    stream's length scales in `longer`, the embedding `table` among them; gains: the norms'. Empty: its width stays."""

    model: Model
    blocks: list[Block]
    longer: Mapping[str, int] = field(default_factory=dict)
    other: Mapping[str, int] = field(default_factory=dict)
    gains: Mapping[str, float] = field(default_factory=dict)
    table: str = ""


class Supernet:
    """- base: the network that was given. plain: sorted. narrow: sorted, and turned so that its width can shrink; None
    where that was not asked for. full: (blocks, neurons, heads, width). who: asks.
    - stats: of the inputs of every o and down, as sorted. energy: [width] the share of the stream that each direction
      holds; moments: of what its readers read, turned (`rotating.Turned`).
    - one: whether the turned weights serve also at full width, which a training wants; else the plain ones do, whose
      embedding and head may be one tensor."""

    def __init__(self, model: Model, windows: Sequence[Sequence[int]], *, narrower: bool = False, who: str):
        self.base, self.who = model, who
        config = text_config(model, who)
        if config is not model.config:
            raise BadInput(
                f"{who}: {type(model.network).__name__} has more than a text tower; a language model is wanted"
            )
        self.config = config
        sorted_ = model.copy()
        blocks = blocks_of(sorted_, who)
        self.key = width_key(config, who)
        self.stats: dict[str, LayerStats] = collect(sorted_, [layer for b in blocks for layer in b.last], windows)
        sort_parts(sorted_, blocks, self.stats, who)
        self.plain = Form(sorted_, blocks)
        first = blocks[0]
        self.full = (
            len(blocks),
            first.mlp.size,
            first.attention.size,
            int(model.network.get_input_embeddings().weight.shape[1]),
        )
        self.narrow: Form | None = None
        self.energy: Tensor | None = None
        self.moments: dict[str, Tensor] = {}
        self.one = False
        self._shells: OrderedDict[Choice, Any] = OrderedDict()
        # Remembered here, not in the class, which would keep every network that was ever searched.
        self.allows = lru_cache(maxsize=10_000)(self._allows)
        self._probe = lru_cache(maxsize=4)(self._probe_of)
        self._prove_depth = lru_cache(maxsize=1000)(self._prove_blocks)
        self.sizes: dict[tuple[int | bool, ...], int] = {}
        if narrower:
            found = turned(sorted_, windows, who)
            self.narrow = _form(found.model, found.stream, who)
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

    def _allows(self, heads: int, width: int) -> bool:
        """Whether the config takes these together: Llama's wants a width that its query heads divide."""
        fields = self.changes(Choice((0,), (self.full[1],), heads, width))
        fields = {key: value for key, value in fields.items() if key in ("hidden_size", "head_dim") or "heads" in key}
        try:
            changed(self.base.network.config, fields)
        except Exception:  # every config refuses in a way of its own
            return False
        return 1 <= width <= self.full[3]

    def near_width(self, width: int, heads: Sequence[int] = ()) -> int:
        """The nearest width that the config takes with each of these numbers of heads (default: all there are)."""
        heads = heads or (self.full[2],)
        for far in range(self.full[3]):
            for some in (width - far, width + far):
                if 1 <= some <= self.full[3] and all(self.allows(h, some) for h in heads):
                    return some
        return self.full[3]

    def drawn(self, space: Space, chance: random.Random) -> Choice:
        """One by chance."""
        count = self.full[0]
        kept = sorted(chance.sample(range(count), chance.randint(space.fewest, count)))
        one = chance.choice(space.neurons)
        each = tuple(chance.choice(space.neurons) if space.uneven else one for _ in kept)
        return Choice(tuple(kept), each, chance.choice(space.heads), chance.choice(space.widths))

    def smallest(self, space: Space, order: Sequence[int] = ()) -> Choice:
        """The least of everything. order: of blocks, the first to go first; by default the middle ones go."""
        count = self.full[0]
        order = order or sorted(range(count), key=lambda i: abs(i - count / 2))
        kept = tuple(sorted(set(range(count)) - set(order[: count - space.fewest])))
        return Choice(kept, (space.neurons[0],) * len(kept), space.heads[0], space.widths[0])

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

    def changes(self, choice: Choice) -> dict[str, Any]:
        """Fields of the config."""
        count, neurons, heads, width = self.full
        part = self.plain.blocks[0].attention
        out: dict[str, Any] = {}
        if len(choice.blocks) < count:
            out |= fewer(self.config, choice.blocks, count)
        if max(choice.neurons) < neurons:
            out[self.key] = max(choice.neurons)
        if choice.heads < heads:
            out["num_attention_heads"] = choice.heads * part.shared
            if hasattr(self.config, "num_key_value_heads"):
                out["num_key_value_heads"] = choice.heads
        if choice.width < width:
            out["hidden_size"] = choice.width
        if "hidden_size" in out or "num_attention_heads" in out:
            out["head_dim"] = part.width  # else it would follow from these two
        return out

    def move(self, choice: Choice) -> Any:
        """What becomes of each tensor (`rebuilding.Move`): views where that is possible."""
        form = self.form(choice)
        stem = f"{form.model.sites.main.path}."
        place = {str(old): str(new) for new, old in enumerate(choice.blocks)}
        cuts: dict[str, tuple[int, Tensor]] = {}
        for number, neurons in zip(choice.blocks, choice.neurons, strict=True):
            part = form.blocks[number]
            if neurons < part.mlp.size:
                cuts |= part.mlp.cuts(torch.arange(neurons))
            if choice.heads < part.attention.size:
                cuts |= part.attention.cuts(torch.arange(choice.heads))
        full = self.full[3]
        longer, gain = lengths(choice.width, full)

        def move(name: str, tensor: Tensor) -> tuple[str, Tensor] | None:
            new = name
            if name.startswith(stem):
                number, _, rest = name.removeprefix(stem).partition(".")
                if number not in place:
                    return None
                new = f"{stem}{place[number]}.{rest}"
            if name in cuts:
                tensor = _taken(tensor, *cuts[name])
            if choice.width < full:
                if name in form.longer:
                    tensor = tensor.narrow(form.longer[name], 0, choice.width) * (longer * self._scale(choice, name))
                elif name in form.gains:
                    shift = form.gains[name]
                    tensor = (tensor.narrow(0, 0, choice.width) + shift) * gain - shift
                elif name in form.other:
                    tensor = tensor.narrow(form.other[name], 0, choice.width)
            return new, tensor

        return move

    def shell(self, choice: Choice) -> Any:
        """A network of the form of a choice, without numbers; kept at hand."""
        if choice in self._shells:
            self._shells.move_to_end(choice)
            return self._shells[choice]
        form = self.form(choice)
        shapes = {} if choice.uniform else self._shapes(choice)
        lay = (lambda network: lay_shapes(network, shapes)) if shapes else None
        made = skeleton(form.model.network, self.changes(choice), self.move(choice), self.who, lay)
        self._prove_depth(choice.blocks)
        self._buffers(form, made, choice)
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
        shapes = {} if choice.uniform else self._shapes(choice)
        lay = (lambda network: lay_shapes(network, shapes)) if shapes else None
        cut, seen = self.move(choice), {}

        def move(name: str, tensor: Tensor) -> tuple[str, Tensor] | None:
            pair = cut(name, tensor)
            if pair is None or tensor.is_meta:
                return pair
            key = tensor.data_ptr(), tensor.shape
            return pair[0], seen.setdefault(key, pair[1].detach().clone().contiguous())

        empty = skeleton(form.model.network, self.changes(choice), move, self.who, lay)
        new = filled(form.model.network, empty, move)
        self._buffers(form, new, choice)
        self._prove_depth(choice.blocks)
        if shapes:
            mark_shapes(new, shapes)
        new.requires_grad_(True)
        return self.base.with_network(new)

    def _shapes(self, choice: Choice) -> dict[str, list[int]]:
        """[out, in] of the layers of the MLPs of blocks that are narrower than the widest, by their new names."""
        form = self.form(choice)
        move = self.move(choice)
        shapes: dict[str, list[int]] = {}
        for number, neurons in zip(choice.blocks, choice.neurons, strict=True):
            if neurons == max(choice.neurons):
                continue
            part = form.blocks[number].mlp
            for layer in (*part.into, part.down):
                weight: Any = layer.module.weight
                name, tensor = move(f"{layer.name}.weight", weight.to("meta"))
                shapes[name.removesuffix(".weight")] = list(tensor.shape)
        return shapes

    def _buffers(self, form: Form, new: Any, choice: Choice) -> None:
        """Buffers that are not saved, with the values that transformers will give them: some follow from the width."""
        mine = dict(form.model.network.named_buffers())
        small = dict(self._probe(choice.width).named_buffers()) if choice.width < self.full[3] else {}
        for path, module in new.named_modules():
            for leaf, buffer in module._buffers.items():
                if buffer is None:
                    continue
                name = f"{path}.{leaf}" if path else leaf
                if name in small and small[name].shape == buffer.shape:
                    module._buffers[leaf] = small[name].clone()
                elif buffer.is_meta and name in mine:
                    module._buffers[leaf] = mine[name]

    def _probe_of(self, width: int) -> Any:
        """A network of one block and eight words of that width, for what its class derives from the width."""
        part = self.plain.blocks[0].attention
        fields = fewer(self.config, [0], self.full[0]) | {
            "vocab_size": 8, "pad_token_id": None, self.key: 8, "hidden_size": width, "head_dim": part.width,
            "num_attention_heads": 1, "num_key_value_heads": 1,
        }  # fmt: skip
        network: Any = self.plain.model.network
        state = torch.get_rng_state()
        try:
            made = type(network)(changed(network.config, fields)).to(network.dtype)
        finally:
            torch.set_rng_state(state)
        return made.to(network.device)

    def _scale(self, choice: Choice, name: str) -> float:
        """What the embedding's rows are multiplied by to make up for a factor that follows from the width (Gemma)."""
        assert self.narrow is not None
        if name != self.narrow.table:
            return 1.0
        table = self.narrow.model.network.get_input_embeddings()
        return _factor(table) / _factor(self._probe(choice.width).get_input_embeddings())

    def _prove_blocks(self, blocks: tuple[int, ...]) -> None:
        """Raise `BadInput` where the class makes something else of a block that gets another number."""
        if len(blocks) == self.full[0]:
            return
        choice, plain = self.choice(blocks=blocks), self.plain.model
        made = skeleton(plain.network, self.changes(choice), self.move(choice), self.who)
        new = list(made.get_submodule(plain.sites.main.path))
        prove_blocks([plain.sites.blocks[i] for i in blocks], new, self.who)

    def _prove_width(self) -> None:
        """Raise `BadInput` unless a narrower network says what the full one says whose minor directions are silent."""
        assert self.narrow is not None
        width = self.near_width(self.full[3] * 3 // 4)
        silent = self.narrow.model.copy()
        with torch.no_grad():
            for name, tensor in silent.network.named_parameters():
                if name in self.narrow.longer:
                    dim = self.narrow.longer[name]
                    tensor.narrow(dim, width, self.full[3] - width).zero_()
        prove(said(silent.network), self.slice(self.choice(width=width)).network, self.who)


def _form(model: Model, stream: Stream, who: str) -> Form:
    longer, other = stream.axes(model.network)
    table = next(name for name, module in model.network.named_modules() if module is stream.table)
    return Form(model, blocks_of(model, who), longer, other, stream.gains(model.network), f"{table}.weight")


def _taken(tensor: Tensor, dimension: int, numbers: Tensor) -> Tensor:
    """A view where the numbers are the first ones."""
    count = len(numbers)
    if count and int(numbers[-1]) == count - 1:
        return tensor.narrow(dimension, 0, count)
    return tensor.index_select(dimension, numbers.to(tensor.device))


@torch.no_grad()
def _factor(table: Any) -> float:
    """What an embedding multiplies its rows by."""
    row = int(table.weight.abs().sum(-1).argmax())
    given = table(torch.tensor([row], device=table.weight.device))[0].double()
    return float((given * table.weight[row].double()).sum() / table.weight[row].double().square().sum())
