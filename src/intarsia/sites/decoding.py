"""Greedy tokens from running cells, each until it has ended, and what a sweep gathers of all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.sites.cells import Cells
from intarsia.sites.resuming import unembed

if TYPE_CHECKING:
    from intarsia.models import Model

Stop = Callable[[str, int], bool]
HEAD_ROWS = 64  # rows whose logits over the whole vocabulary are there at a time


class Gathered:
    """What the cells of a sweep gave, by place.

    - top: [place]; logits: [place, vocabulary] when kept; ids: [place, token] when tokens were asked for, filled with
      the padding token after each row's end; lengths: [place], tokens until that end."""

    def __init__(self, model: Model, places: int, new_tokens: int, keep_logits: bool):
        self.model, self.keep_logits = model, keep_logits
        settings = model.network.generation_config
        stop = settings.eos_token_id if settings is not None else None
        self.ends = torch.tensor([stop] if isinstance(stop, int) else list(stop or []), device=model.device)
        pad = getattr(model.tokenizer, "pad_token_id", None) or 0
        self.top = torch.zeros(places, dtype=torch.long, device=model.device)
        self.logits: Tensor | None = None
        self.ids = self.top.new_full((places, new_tokens), pad) if new_tokens else None
        self.lengths = torch.zeros_like(self.top)

    def decode(self, cells: Cells, places: Sequence[int], sources: Sequence[int], stop: Stop | None) -> None:
        """Take the first token of cells that have begun from `cells.state`, and go on until all have ended.

        - places, sources: where each cell's results go, and the number of its source prompt."""
        live = torch.tensor(places, device=self.top.device)
        source_of = dict(zip(places, sources, strict=True))
        self.top[live] = tokens = self._best(cells, live if self.keep_logits else None)
        if self.ids is None:
            return
        for step in range(self.ids.shape[1]):
            self.ids[live, step] = tokens
            self.lengths[live] = step + 1
            if step + 1 == self.ids.shape[1]:
                break
            stay = self._going_on(live, step + 1, source_of, stop)
            if not len(stay):
                break
            live = live[stay]
            cells.say(tokens, stay)
            tokens = self._best(cells)

    def _best(self, cells: Cells, places: Tensor | None = None) -> Tensor:
        """The most likely token of each cell; logits are kept at `places` when given."""
        best = []
        for state in cells.state.split(HEAD_ROWS):
            logits = unembed(self.model, state)
            best.append(logits.argmax(-1))
            if places is None:
                continue
            if self.logits is None:
                self.logits = logits.new_empty(len(self.top), logits.shape[-1])
            first = HEAD_ROWS * (len(best) - 1)
            here = ((cells.row >= first) & (cells.row < first + len(state))).nonzero().flatten()
            self.logits[places[here]] = logits[cells.row[here] - first]
        return torch.cat(best)[cells.row]

    def _going_on(self, live: Tensor, count: int, source_of: dict[int, int], stop: Stop | None) -> Tensor:
        """Indices into `live` of the cells that have not ended with their first `count` tokens."""
        assert self.ids is not None
        ended = torch.isin(self.ids[live, count - 1], self.ends)
        if stop is not None:
            texts = self._said(live)
            said = [stop(text, source_of[place]) for text, place in zip(texts, live.tolist(), strict=True)]
            ended |= torch.tensor(said, dtype=torch.bool, device=ended.device)
        return (~ended).nonzero().flatten()

    def _said(self, places: Tensor) -> list[str]:
        assert self.ids is not None and self.model.tokenizer is not None
        rows = zip(self.ids[places].tolist(), self.lengths[places].tolist(), strict=True)
        return [self.model.tokenizer.decode(row[:n], skip_special_tokens=True) for row, n in rows]  # type: ignore[misc]

    def texts(self) -> list[str] | None:
        """What was generated, by place, as text; None without a tokenizer."""
        if self.ids is None or self.model.tokenizer is None:
            return None
        return self._said(torch.arange(len(self.top), device=self.top.device))
