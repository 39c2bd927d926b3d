"""States of the network at the turns: what linear models read, and what the tuned network's rows of labels read.

Two places of the frozen part are read. `behind`: the state at the cue, two thirds up (or where the adapters begin),
which has gathered the turn and all before it. `within`: the mean over the turn's own tokens, half as high, where words
are still themselves. Their errors differ, which is what a mix lives on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from intarsia.measure.likelihood import accepts, given, left_padded, length_batches
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.adaptation.dialogue.scripts import Script
    from intarsia.adaptation.dialogue.tagging import Head
    from intarsia.adaptation.trunk import Trunk
    from intarsia.models import Model

TOKENS = 1536  # padded tokens in one forward


@dataclass(frozen=True)
class Depths:
    """Numbers of the blocks that a state enters: `behind` and `within`."""

    behind: int
    within: int

    @staticmethod
    def of(blocks: int, frozen: int) -> Depths:
        """Of a network with so many blocks, of which so many will not be changed."""
        behind = max(1, min(frozen, round(2 * blocks / 3)))
        return Depths(behind, max(1, behind // 2))


@dataclass(frozen=True)
class AtTurns:
    """- behind, within: [turn, width] float16. scores: [turn, label] log probabilities of a head, if one was given."""

    behind: np.ndarray
    within: np.ndarray
    scores: np.ndarray | None = None


def frozen(model: Model, scripts: Sequence[Script], turns: int, depths: Depths, trunk: Trunk | None) -> AtTurns:
    """Read both places of `turns` turns with no block run above them (or above the trunk, whose states are stored on
    the way)."""
    from intarsia.sites import read

    places = {depth: f"layers.{depth - 1}.resid_post" for depth in (depths.behind, depths.within)}
    if trunk is not None:
        places[trunk.first] = f"layers.{trunk.first - 1}.resid_post"
    out = _Collected(model, turns)
    for ids, some, inputs in _batches(model, scripts, "reading the frozen part"):
        with torch.no_grad():
            acts = read(model, inputs, list(dict.fromkeys(places.values())))
        out.add(some, acts[places[depths.behind]], acts[places[depths.within]])
        if trunk is not None:
            for row, state in zip(ids, acts[places[trunk.first]].float().cpu().numpy(), strict=True):
                trunk.put(row, state[-len(row) :])
    return AtTurns(out.behind, out.within)


def whole(model: Model, scripts: Sequence[Script], turns: int, depths: Depths | None, head: Head | None) -> AtTurns:
    """The same with the whole network run, and the scores of a head on its last states; rows of turns that no script
    reads are no numbers."""
    out = _Collected(model, turns)
    scores = None if head is None else np.full((turns, len(head.bias)), np.nan)
    for _, some, inputs in _batches(model, scripts, "labelling turns"):
        with torch.inference_mode():
            states = model.network(**inputs, logits_to_keep=1, use_cache=False, output_hidden_states=True).hidden_states
        if depths is not None:
            out.add(some, states[depths.behind], states[depths.within])
        if head is not None and scores is not None:
            for i, script in enumerate(some):
                start = states[-1].shape[1] - len(script.ids)
                found = head.scores(states[-1][i, [start + read for read in script.reads]])
                scores[list(script.turns)] = found.double().log_softmax(-1).cpu().numpy()
    return AtTurns(out.behind, out.within, scores)


def _batches(model: Model, scripts: Sequence[Script], task: str) -> Any:
    """(ids, scripts, inputs) of batches of rows, their ends aligned."""
    for rows in track(length_batches([len(s.ids) for s in scripts], TOKENS), task):
        some = [scripts[row] for row in rows]
        ids = [s.ids for s in some]
        yield ids, some, inputs_of(model, ids)


def inputs_of(model: Model, ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """What the network takes for rows of tokens, their ends aligned."""
    batch = left_padded(ids, model.tokenizer.pad_token_id or 0)
    return given({name: value.to(model.device) for name, value in batch.items()}, accepts(model.network))


class _Collected:
    """States of turns, as they come."""

    def __init__(self, model: Model, turns: int):
        width = model.config.get_text_config().hidden_size
        self.behind, self.within = (np.zeros((turns, width), np.float16) for _ in range(2))

    def add(self, scripts: Sequence[Script], behind: Tensor, within: Tensor) -> None:
        for i, script in enumerate(scripts):
            start = behind.shape[1] - len(script.ids)
            at = behind[i, [start + read for read in script.reads]]
            # A turn without tokens of its own is read at its cue.
            spans = [(start + a, start + max(b, a + 1)) for a, b in script.spans]
            means = torch.stack([within[i, a:b].float().mean(0) for a, b in spans])
            # Half precision holds them (linear models read them), and large values are held back rather than lost.
            self.behind[list(script.turns)] = at.float().clamp(-6e4, 6e4).half().cpu().numpy()
            self.within[list(script.turns)] = means.clamp(-6e4, 6e4).half().cpu().numpy()
