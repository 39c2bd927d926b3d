"""The cells of a sweep as they run together: what they have in common runs once, at the prompt and at every new token.

Cells are sorted by target layer. A block below a cell's patch has seen nothing of the patch: of the prompt, nor of the
tokens generated since, except through which tokens these are. So at block j one row is run for each cell patched below
it, and for the others one row for each distinct text they have said so far: for the prompt, a single one."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from intarsia.sites.targets import Pair, Step, TargetRun

Contamination = Literal["keep", "drop", "trajectory"]


class Cells:
    """Patched copies of one target prompt, fed token by token.

    - state: [row, width], the last token's stream after the last block; row: [cell], the row of each cell in it.
    - patch: [cell, width]; levels: the block after which each cell is patched, ascending.
    - drop: new tokens do not see the patched token in the blocks up to the patch.
    - go_on: whether anything is to be said after `begin`; keys and values are kept only then."""

    def __init__(
        self, run: TargetRun, patch: Tensor, levels: list[int], position: int, drop: bool = False, go_on: bool = True
    ):
        self.run, self.drop, self.go_on, self.steps = run, drop, go_on, 0
        self.patch, self.offset = patch, position - run.start
        self.levels = torch.tensor(levels, device=patch.device)
        self.said = torch.zeros(len(levels), dtype=torch.long, device=patch.device)  # which text each cell has said
        depth = len(run.tower.blocks)
        self.own: list[Pair | None] = [None] * depth  # per block: keys and values from the patched token on, by row
        self.row_of: list[Tensor] = [self.said] * depth  # per block: the row of each cell

    def begin(self) -> None:
        """Run the prompt from the patched token on."""
        self._advance(self.run.tokens, torch.arange(len(self.levels), device=self.levels.device))

    def say(self, tokens: Tensor, stay: Tensor) -> None:
        """Feed each of the cells that stay its token.

        - tokens: [cell]; stay: indices, ascending, of the cells that go on. The others leave for good."""
        said = torch.stack([self.said[stay], tokens[stay]], dim=1)
        texts, self.said = torch.unique(said, dim=0, return_inverse=True)
        self.levels = self.levels[stay]
        self._advance(texts[:, 1:], stay)

    def follow(self, paths: Tensor) -> None:
        """After `begin`: give the patched token other keys and values in the blocks up to the patch: those that block
        j makes of `paths[:, j]` [cell, block, width]. From here on every cell has rows of its own."""
        step, count, paths = self.run.patched(), len(self.levels), paths.to(self.patch)
        everyone = torch.arange(count, device=self.levels.device)
        for index in range(len(self.own)):
            above = int((self.levels < index).sum())
            keys, values = (t[self.row_of[index]] for t in self.own[index])  # type: ignore[union-attr]
            if above < count:
                made = self.run.keys(step, index, paths[above:, index, None])
                keys[above:, :, :1], values[above:, :, :1] = made
            self.own[index], self.row_of[index] = (keys, values), everyone
        self.said = everyone

    def _advance(self, texts: Tensor, came: Tensor) -> None:
        """Run all blocks on new tokens [text, token]; `came` says which cell each was at the step before."""
        run, first = self.run, self.steps == 0
        step = run.step(self.steps, texts)
        stream, row_of = step.stream, self.said
        added: list[Pair] = []
        for index in range(len(run.tower.blocks) + 1):
            above = int((self.levels < index).sum())  # so many cells have been patched by now
            cell_of, rows = self._rows(above)
            stream, row_of = stream[row_of[cell_of]], rows
            if first:
                here = int((self.levels < index - 1).sum())
                stream[here:above, self.offset] = self.patch[here:above]
            if index == len(run.tower.blocks):
                break
            before, self.row_of[index] = self.row_of[index][came[cell_of]], rows
            stream, new = self._block(step, index, stream, cell_of, before, above)
            if new is not None:
                added.append(new)
        if added:
            run.advance(self.steps, added)
        self.steps += 1
        self.state, self.row = stream[:, -1], row_of

    def _rows(self, above: int) -> tuple[Tensor, Tensor]:
        """Rows of a block above whose input `above` cells have been patched: a cell that each row stands for [row], and
        the row of each cell [cell]."""
        count, device = len(self.levels), self.levels.device
        cells = torch.arange(count, device=device)
        texts, text_of = torch.unique(self.said[above:], return_inverse=True)
        stands = torch.empty_like(texts).scatter_(0, text_of, cells[above:])
        return torch.cat([cells[:above], stands]), torch.cat([cells[:above], above + text_of])

    def _block(
        self, step: Step, index: int, stream: Tensor, cell_of: Tensor, before: Tensor, above: int
    ) -> tuple[Tensor, Pair | None]:
        """One block on all its rows; takes over their keys and values. `before` is each row's row at the last step."""
        texts = self.said[cell_of]
        own = self.own[index]
        if own is not None:
            own = tuple(t if _same(before, len(t)) else t[before] for t in own)  # type: ignore[assignment]
        if self.drop and own is not None and 0 < above < len(stream):
            parts = [slice(0, above), slice(above, None)]
        else:
            parts = [slice(0, None)]
        outputs, news = [], []
        for part in parts:
            hidden = self.drop and (part.start or 0) >= above
            some = (own[0][part], own[1][part]) if own is not None else None
            output, new = self.run.block(step, index, stream[part], texts[part], some, drop=hidden)
            outputs.append(output)
            news.append(new)
        output = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
        if news[0] is None or not self.go_on:
            return output, None
        new = tuple(torch.cat(ts) if len(ts) > 1 else ts[0] for ts in zip(*news, strict=True))  # type: ignore[arg-type]
        self.own[index] = new if own is None else tuple(torch.cat(p, dim=2) for p in zip(own, new, strict=True))  # type: ignore[assignment]
        return output, new


def _same(rows: Tensor, count: int) -> bool:
    """Whether picking these rows changes nothing."""
    return len(rows) == count and bool(torch.equal(rows, torch.arange(count, device=rows.device)))
