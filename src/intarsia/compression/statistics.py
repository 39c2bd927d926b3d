"""What linear layers are given: one pass over a text, and every method that looks at activations has what it needs.

For inputs x_t of a layer, over all real tokens t: n tokens, H = sum_t x_t x_t^T / n [in, in], the mean and the largest
|x| of every input. Layers that read the same tensor (queries, keys and values; gate and up) share one.

Source: H is the Hessian of the squared error of a layer's output, up to a factor (Frantar et al. 2023, GPTQ, eq. 1)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.compression.linears import Linear
from intarsia.errors import BadInput, Note
from intarsia.progress import track
from intarsia.sites import Batch, batch_of, watching

if TYPE_CHECKING:
    from intarsia.models import Model

WINDOW, TOKENS = 512, 4096
HEARD = 2048  # tokens for a backward pass, which takes three times as long as a forward
ROWS = 2048  # tokens in one forward
Run = tuple[Tensor | None, Callable[[], Any]]
"""[row, token] the real tokens of a batch (None: all are), and what runs the network, or a part of it, on the batch."""


@dataclass
class LayerStats:
    """Of one input.

    - moment: [in, in] float32, H. mean: [in] of |x|. largest: [in] of |x|. count: tokens. dropped: rows that were not
      finite and count nothing."""

    moment: Tensor
    mean: Tensor
    largest: Tensor
    count: int = 0
    dropped: int = 0


@dataclass
class _Sum:
    moment: Tensor
    total: Tensor
    largest: Tensor
    count: int = 0
    dropped: int = 0

    def add(self, rows: Tensor) -> None:
        rows = rows.float()
        if not bool(torch.isfinite(rows).all()):
            fine = torch.isfinite(rows).all(-1)
            self.dropped += int((~fine).sum())
            rows = rows[fine]
        self.moment.addmm_(rows.T, rows)
        size = rows.abs()
        self.total += size.sum(0)
        if len(rows):
            self.largest = torch.maximum(self.largest, size.amax(0))
        self.count += len(rows)

    def stats(self) -> LayerStats:
        n = max(self.count, 1)
        return LayerStats(self.moment / n, self.total / n, self.largest, self.count, self.dropped)


@dataclass
class Collector:
    """Sums over what layers are given. `seen` is told of each call (see `sites.watching`).

    - mask: [row, token] the real tokens of the batch that runs; None: all are. owner: layer -> the one whose sums it
      shares."""

    mask: Tensor | None = None
    sums: dict[str, _Sum] = field(default_factory=dict)
    owner: dict[str, str] = field(default_factory=dict)
    _last: tuple[Tensor, str] | None = None

    def seen(self, name: str, given: Tensor, gave: Tensor) -> None:
        """A layer ran. Layers that read one tensor run one after the other, and it is counted once."""
        if self._last is not None and self._last[0] is given:
            if self.owner.setdefault(name, self._last[1]) == self._last[1]:
                return
        elif self.owner.setdefault(name, name) == name:
            self._last = given, name
        where = self.owner[name]
        rows = real_rows(given, self.mask)
        if where not in self.sums:
            width = rows.shape[-1]
            zeros = rows.new_zeros(width, dtype=torch.float32)
            self.sums[where] = _Sum(rows.new_zeros(width, width, dtype=torch.float32), zeros, zeros.clone())
        self.sums[where].add(rows)

    def next(self, mask: Tensor | None) -> None:
        """Another batch begins."""
        self.mask = mask
        self._last = None

    def stats(self) -> dict[str, LayerStats]:
        """By the name of the layer; layers with one input share one object."""
        made = {name: total.stats() for name, total in self.sums.items()}
        return {name: made[where] for name, where in self.owner.items() if where in made}


def real_rows(given: Tensor, mask: Tensor | None) -> Tensor:
    """What a layer is given, [..., in], as rows [tokens, in]; without padding where `mask` is over its tokens."""
    if mask is not None and given.shape[:-1] == mask.shape:
        return given[mask]
    return given.reshape(-1, given.shape[-1])


@torch.no_grad()
def collect(model: Model, layers: Sequence[Linear], windows: Sequence[Sequence[int]]) -> dict[str, LayerStats]:
    """Statistics of the inputs of layers, by name, over windows of token ids. Layers that never ran are missing.

    Warns where a layer has more inputs than there are tokens."""
    return collect_over(model, layers, text_runs(model, windows))


def text_runs(model: Model, windows: Sequence[Sequence[int]]) -> list[Run]:
    """The network over windows of token ids, as runs."""
    more = uncached(model)
    return [(b.mask, partial(model.network, **b.kwargs, **more)) for b in batches(model, windows)]


@torch.no_grad()
def collect_over(model: Model, layers: Sequence[Linear], runs: Sequence[Run]) -> dict[str, LayerStats]:
    """As `collect`, over whatever runs the network, or a part of it."""
    collector = Collector()
    with watching(model, {layer.name: layer.module for layer in layers}, collector.seen):
        for mask, run in track(list(runs), "reading calibration text"):
            collector.next(mask)
            run()
    found = collector.stats()
    told(found)
    return found


def output_error(change: Tensor, moment: Tensor) -> float:
    """tr(D H D^T): the mean squared change of a layer's outputs, summed over them, when its weight changes by D."""
    return float(((change @ moment) * change).sum())


def relative_error(change: Tensor, weight: Tensor, moment: Tensor) -> float:
    """|D x|^2 / |W x|^2 over the inputs whose second moment is given; 0 where the layer gave nothing."""
    whole = output_error(weight, moment)
    return output_error(change, moment) / whole if whole > 0 else 0.0


def told(found: dict[str, LayerStats]) -> None:
    """Warn of too little text and of rows that were left out."""
    short = {name: s for name, s in found.items() if s.count < len(s.mean)}
    if short:
        name, worst = min(short.items(), key=lambda pair: pair[1].count / len(pair[1].mean))
        warnings.warn(
            f"calibration: {len(short)} layers have more inputs than tokens ({name}: {len(worst.mean)} for "
            f"{worst.count}): give more text", Note, stacklevel=4,
        )  # fmt: skip
    if dropped := max((s.dropped for s in found.values()), default=0):
        warnings.warn(f"calibration: {dropped} tokens gave values that are not finite and are left out", Note, 4)


def batches(model: Model, windows: Sequence[Sequence[int]]) -> list[Batch]:
    """Windows of token ids in batches. The decoder of an encoder-decoder reads each window's second half."""
    from intarsia.measure.likelihood import length_batches

    numbers = length_batches([len(w) for w in windows], ROWS)
    if not getattr(model.config, "is_encoder_decoder", False):
        return [batch_of(model, [list(windows[i]) for i in some]) for some in numbers]
    halves = [(list(w[: (len(w) + 1) // 2]), list(w[(len(w) + 1) // 2 :]) or list(w)) for w in windows]
    out = []
    for i in (i for some in numbers for i in some):  # one by one: two lengths each, and no padding to tell apart
        read, written = (torch.tensor([half], device=model.device) for half in halves[i])
        out.append(batch_of(model, {"input_ids": read, "decoder_input_ids": written}))
    return out


def some_windows(windows: Sequence[Sequence[int]], tokens: int = HEARD) -> list[Sequence[int]]:
    """The first windows, of so many tokens together."""
    out: list[Sequence[int]] = []
    count = 0
    for window in windows:
        if out and count >= tokens:
            break
        out.append(window)
        count += len(window)
    return out


def uncached(model: Model) -> dict[str, bool]:
    """`use_cache=False` for networks that know of it."""
    from intarsia.measure.likelihood import accepts

    return {"use_cache": False} if accepts(model.network)("use_cache") else {}


def windows_of(model: Model, texts: Sequence[str], tokens: int = TOKENS, window: int = WINDOW) -> list[list[int]]:
    """Token ids of texts, one after the other with an empty line between, in windows of one length, `tokens` in all at
    most. What does not fill a window is left out, but for a text shorter than one.

    Raises `BadInput` without a tokenizer and for no text."""
    if model.tokenizer is None:
        raise BadInput("calibration needs text: this model has no tokenizer (wrap(network, tokenizer))")
    window = min(window, model.context_length or window)
    ids: list[int] = []
    for text in texts:
        ids += model.tokenizer(f"{text}\n\n" if len(texts) > 1 else text, verbose=False)["input_ids"]
        if len(ids) >= tokens:
            break
    if len(ids) < 2:
        raise BadInput("calibration: the texts have no tokens; give text as the model will read it")
    ids = ids[:tokens]
    found = [ids[start : start + window] for start in range(0, len(ids) - window + 1, window)]
    return found or [ids]
