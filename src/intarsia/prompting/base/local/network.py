"""`NetworkRunner`: a causal transformers network as a `Runner`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from intarsia.errors import BadInput, first_line
from intarsia.measure.likelihood import accepts
from intarsia.models import Model
from intarsia.prompting.base.local.prefixes import BLOCK, Prefixes
from intarsia.prompting.base.local.proved import is_proved, remember
from intarsia.prompting.base.local.runner import Work
from intarsia.prompting.base.local.slots import GROWTH, Slots
from intarsia.prompting.base.token_tree import TokenTree

FULL, SLIDING = "full_attention", "sliding_attention"
STEP = 4  # slots that are added at a time
PROBE = 6  # tokens of the rows that a network is proved on
NOTHING = TokenTree()


class NetworkRunner:
    """Rows over one transformers network, through its own forward.

    - rows: at once. memory: bytes for keys and values; half of it for rows, half for beginnings that may come again.
    - reference: a network with the same weights, if the model's own was made over (packed, given adapters).
    - adapters: names of LoRA adapters in the network (a PEFT model); rows with different ones run together.
    - kind: of the network, where it tells what the proof depends on (`proved.kind_of`): one proof is enough for all.

    Raises `BadInput` for a network that keeps something else than keys and values, or whose rows cannot stand at
    different places: it is proved on a few tokens."""

    def __init__(
        self, model: Model, *, rows: int, memory: int, adapters: Sequence[str] = (), reference: Any = None,
        kind: str | None = None,
    ):  # fmt: skip
        self.network = model.network
        self.rows, self.adapters = rows, tuple(adapters)
        config = model.network.config.get_text_config()
        self.vocabulary = config.vocab_size
        self.context_length = model.context_length
        self._keys = accepts(self._innermost())
        self._device, self._dtype = model.device, model.dtype
        self._windows = _windows(config, self._innermost())
        self._prefixes = Prefixes(memory // 2)
        self._slots = self._measured()
        self.most = max(1, (memory // 2) // self._slots.bytes_per_token)
        self._order: list[int] = []  # handles by slot
        self._lengths: dict[int, int] = {}  # tokens kept, by handle
        self._adapter: dict[int, str | None] = {}
        self._next = 0
        if not is_proved(kind):
            self._prove(self._innermost() if reference is None else reference)
            remember(kind)

    @property
    def bytes(self) -> int:
        return self._slots.bytes + self._prefixes.bytes

    def open(self, ids: Sequence[int], room: int, adapter: str | None = None) -> tuple[int, int]:
        handle, self._next = self._next, self._next + 1
        slot = len(self._order)
        self._order.append(handle)
        self._adapter[handle] = adapter
        slots = max(slot + 1, min(self.rows, -(-(slot + 1) // STEP) * STEP))
        self._slots.grow(slots, len(ids) + room)
        # The last token is left to run: its logits are what comes next.
        blocks = self._prefixes.find(ids[: len(ids) - 1], adapter)
        for i, block in enumerate(blocks):
            self._slots.put(slot, i * BLOCK, block)
        self._lengths[handle] = known = len(blocks) * BLOCK
        return handle, known

    def keep(self, row: int, ids: Sequence[int]) -> None:
        slot = self._order.index(row)

        def block(start: int, end: int) -> tuple[Any, int]:
            pair = self._slots.block(slot, start, end)
            return pair, pair[0].nbytes + pair[1].nbytes

        self._prefixes.keep(ids[: self._lengths[row]], block, self._adapter[row])

    def close(self, row: int) -> None:
        slot, last = self._order.index(row), len(self._order) - 1
        if slot != last:
            self._slots.copy(last, slot, self._lengths[self._order[last]])
            self._order[slot] = self._order[last]
        self._order.pop()
        del self._lengths[row], self._adapter[row]
        if not self._order and self._slots.positions > 8 * GROWTH:
            self._slots.clear()  # one long prompt does not hold its memory for ever

    def reset(self) -> None:
        self._order.clear()
        self._lengths.clear()
        self._adapter.clear()
        self._slots.clear()

    def run(self, work: Sequence[Work]) -> Tensor:
        logits, at = self._logits(work, [NOTHING] * len(work))
        last = logits[:, -1].float()
        return last if at == list(range(len(work))) else last[at]

    def branch(self, work: Sequence[Work], trees: Sequence[TokenTree]) -> list[Tensor]:
        logits, at = self._logits(work, trees)
        return [logits[row, -1 - len(tree) :].float() for row, tree in zip(at, trees, strict=True)]

    def _logits(self, work: Sequence[Work], trees: Sequence[TokenTree]) -> tuple[Tensor, list[int]]:
        """Logits [row, token, vocabulary] of rows in the order of their slots, and which of them each work is."""
        self._side_by_side([one.row for one in work])
        place = {handle: slot for slot, handle in enumerate(self._order)}
        numbers = sorted(range(len(work)), key=lambda i: place[work[i].row])
        rows = [work[i] for i in numbers]
        for one in rows:
            self._lengths[one.row] = one.start + len(one.ids)
        logits = self._forward(rows, [place[one.row] for one in rows], [trees[i] for i in numbers])
        at = {number: row for row, number in enumerate(numbers)}
        return logits, [at[i] for i in range(len(work))]

    def _side_by_side(self, handles: Sequence[int]) -> None:
        """Bring rows that run together into slots side by side, where the network can read them without a copy."""
        wanted = set(handles)
        if len(handles) < 2 or {*self._order[: len(handles)]} == wanted:
            return
        slots = [slot for slot, handle in enumerate(self._order) if handle in wanted]
        if slots[-1] - slots[0] + 1 == len(slots) or len(handles) * 2 < len(self._order):
            return
        free = [slot for slot in range(len(handles)) if self._order[slot] not in wanted]
        for slot in [s for s in slots if s >= len(handles)]:
            target = free.pop()
            one, other = self._order[slot], self._order[target]
            self._slots.swap(slot, target, max(self._lengths[one], self._lengths[other]))
            self._order[slot], self._order[target] = other, one

    def _forward(self, rows: Sequence[Work], slots: Sequence[int], trees: Sequence[TokenTree]) -> Tensor:
        """Logits [row, token, vocabulary] of as many last tokens as a tree needs; a row's tokens and those of its tree
        end in the same column, and what is before is padding."""
        width = max(len(one.ids) + len(tree) for one, tree in zip(rows, trees, strict=True))
        length = max(one.start + len(one.ids) + len(tree) for one, tree in zip(rows, trees, strict=True))
        trash = self._slots.positions
        ids, at, write, ends = [], [], [], []
        for one, tree in zip(rows, trees, strict=True):
            end, pad = one.start + len(one.ids), [0] * (width - len(one.ids) - len(tree))
            ids.append([*pad, *one.ids, *tree.tokens])
            at.append([*pad, *range(one.start, end), *(end - 1 + depth for depth in tree.depths)])
            write.append([*(trash for _ in pad), *range(one.start, end + len(tree))])
            ends.append(end)
        input_ids, positions, writes = torch.tensor([ids, at, write], device=self._device)
        self._slots.place(slots, writes, length)
        given: dict[str, Any] = dict(
            input_ids=input_ids, position_ids=positions, past_key_values=self._slots, use_cache=True,
            attention_mask=self._masks(positions, length, ends, trees),
        )  # fmt: skip
        if self._keys("logits_to_keep"):
            given["logits_to_keep"] = 1 + max(map(len, trees))
        if self.adapters:
            given["adapter_names"] = [self._adapter[one.row] or "__base__" for one in rows]
        with torch.inference_mode():
            return self.network(**given).logits

    def _masks(self, positions: Tensor, length: int, ends: Sequence[int], trees: Sequence[TokenTree]) -> Any:
        """What is added to attention's scores, [row, 1, token, place]: each token sees itself and what is before; of
        its tree, what is on its own way.

        - ends: where in each row its tree begins: there a token's place is not its position."""
        held = torch.arange(length, device=self._device)[None]
        if any(trees):
            held = held.repeat(len(trees), 1)
            for row, (end, tree) in enumerate(zip(ends, trees, strict=True)):
                held[row, end : end + len(tree)] = positions[row, positions.shape[1] - len(tree) :]
        behind = positions[:, None, :, None] - held[:, None, None, :]
        hidden = behind < 0
        for row, (end, tree) in enumerate(zip(ends, trees, strict=True)):
            if tree:
                hidden[row, 0, -len(tree) :, end : end + len(tree)] = ~_ways(tree).to(self._device)
        masks = {}
        for kind, window in self._windows.items():
            out = hidden if window is None else hidden | (behind >= window)
            zero = torch.zeros(out.shape, dtype=self._dtype, device=self._device)
            masks[kind] = zero.masked_fill_(out, torch.finfo(self._dtype).min)
        return masks if len(masks) > 1 else next(iter(masks.values()))

    def _innermost(self) -> Any:
        """The transformers network itself, below PEFT's."""
        return self.network.get_base_model() if hasattr(self.network, "get_base_model") else self.network

    def _measured(self) -> Slots:
        """An empty cache of the right shape, as a short forward shows it."""
        with torch.inference_mode():
            cache = self._innermost()(
                input_ids=torch.zeros((1, 2), dtype=torch.long, device=self._device), use_cache=True
            ).past_key_values  # fmt: skip
        layers = getattr(cache, "layers", None) or []
        shapes = {(tuple(x.keys.shape), tuple(x.values.shape)) for x in layers if getattr(x, "keys", None) is not None}
        if len(shapes) != 1 or len(shapes.pop()[0]) != 4 or not all(hasattr(x, "keys") for x in layers):
            raise BadInput(f"{type(self._innermost()).__name__} keeps no keys and values of one shape for every layer: "
                           "it cannot answer several requests at once here")  # fmt: skip
        keys, values = layers[0].keys, layers[0].values
        return Slots(len(layers), (keys.shape[1], keys.shape[3]), (values.shape[1], values.shape[3]), keys.dtype,
                     self._device)  # fmt: skip

    def _prove(self, reference: Any) -> None:
        """Rows at different places give what each gives alone in a plain forward."""
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, self.vocabulary, (2, PROBE), generator=generator).tolist()
        try:
            a, b = self.open(ids[0], 2)[0], self.open(ids[1], 1)[0]
            self.run([Work(a, ids[0][:3], 0)])
            ways = TokenTree((ids[0][-1], ids[1][-1], ids[1][0]), (-1, -1, 0))  # one token, and another with one behind
            of_a, of_b = self.branch([Work(a, ids[0][3:-1], 3), Work(b, ids[1][:-1], 0)], [ways, NOTHING])
            logits = [of_a[1], of_a[2], of_a[3], of_b[0]]
            with torch.inference_mode():
                alone = [
                    reference(input_ids=torch.tensor([row], device=self._device)).logits[0, -1].float()
                    for row in (ids[0], [*ids[0][:-1], ids[1][-1]], [*ids[0], ids[1][0]], ids[1][:-1])
                ]
        except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
            raise BadInput(
                f"{type(self._innermost()).__name__} does not run with rows at different places: {first_line(error)}"
            ) from error
        for got, wanted in zip(logits, alone, strict=True):
            far = float((got - wanted).abs().max()) / (float(wanted.abs().max()) + 1e-6)
            if not far < (1e-3 if self._dtype == torch.float32 else 0.1):
                raise BadInput(
                    f"{type(self._innermost()).__name__} gives other numbers with rows at different places "
                    f"(off by {far:.1%}): it cannot answer several requests at once here"
                )
        self.reset()


@lru_cache(256)
def _ways(tree: TokenTree) -> Tensor:
    """[token, token] bool: whether the second is on the first's way from the prompt, or itself."""
    seen = torch.eye(len(tree), dtype=torch.bool)
    for token, parent in enumerate(tree.parents):
        if parent >= 0:
            seen[token] |= seen[parent]
    return seen


def _windows(config: Any, network: Any) -> dict[str, int | None]:
    """By kind of attention in the network: how far back a token sees; None: to the beginning."""
    kinds = sorted(set(getattr(config, "layer_types", None) or ())) or [FULL]
    window = getattr(config, "sliding_window", None)
    if not getattr(config, "layer_types", None):
        return {FULL: window}  # all layers alike, as in Mistral
    if unknown := [kind for kind in kinds if kind not in (FULL, SLIDING)]:
        raise BadInput(
            f"{type(network).__name__} attends by {unknown[0]}, which cannot answer several requests at once"
        )
    return {kind: window if kind == SLIDING else None for kind in kinds}


@contextlib.contextmanager
def threads_of(count: int | None) -> Any:
    """Torch's threads for the calling thread while the block runs; None: as they are."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count:
            torch.set_num_threads(before)
