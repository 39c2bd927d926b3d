"""Texts as vectors of an encoder, with or without gradients, each different text once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from intarsia.measure.likelihood import accepts, given, length_batches, right_padded
from intarsia.progress import track

if TYPE_CHECKING:
    from torch import Tensor

    from intarsia.models import Model

TOKENS = 2048  # padded tokens in one forward without gradients
STORE = 1 << 30  # bytes of states of frozen blocks that are kept in memory, at most


def pool(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """[text, width] of states [text, token, width] and mask [text, token]: the mean over the tokens that the mask
    keeps, or the state of the first one (`cls`)."""
    if pooling == "cls":
        return states[:, 0]
    kept = mask[..., None].to(states.dtype)
    return (states * kept).sum(1) / kept.sum(1).clamp(min=1)


class Reader:
    """The different ones among some texts (`texts`), by row number, and the vectors that an encoder makes of them.

    - model: around a network without a head, whose output has `last_hidden_state`.
    - longest: tokens of a text that are read, the tokenizer's own included; fewer where the network takes fewer."""

    def __init__(self, model: Model, texts: Sequence[str], *, pooling: str = "mean", longest: int = 256):
        self.model, self.pooling = model, pooling
        self.texts = list(dict.fromkeys(texts))
        self._place = {text: row for row, text in enumerate(self.texts)}
        self._accepts = accepts(model.network)
        self._pad = getattr(model.tokenizer, "pad_token_id", None) or 0  # any does: padded places are masked
        self.ids = self._encoded(longest)
        self._first = 0
        self._below: list[Tensor] | None = None

    def _encoded(self, longest: int) -> list[list[int]]:
        tokenizer = self.model.tokenizer
        if not self.texts:
            return []
        limit = min(longest, self.model.context_length or longest, tokenizer.model_max_length)  # type: ignore[union-attr]
        given = [text or " " for text in self.texts]
        found = tokenizer(given, truncation=True, max_length=limit, verbose=False)["input_ids"]  # type: ignore[misc]
        return [list(row) or [self._pad] for row in found]

    def rows(self, texts: Sequence[str]) -> list[int]:
        """Where texts stand among the different ones."""
        return [self._place[text] for text in texts]

    def vectors(self, rows: Sequence[int]) -> Tensor:
        """[row, width] float32; with gradients where they are on."""
        import torch

        ids = [self.ids[row] for row in rows]
        batch = {name: value.to(self.model.device) for name, value in right_padded(ids, self._pad).items()}
        if self._below is None:
            more = {"use_cache": False} if self._accepts("use_cache") else {}
            output = self.model.network(**given(batch, self._accepts), **more)
        else:
            from intarsia.sites import resume

            below = [self._below[row].to(self.model.device) for row in rows]
            state = torch.nn.utils.rnn.pad_sequence(below, batch_first=True)
            inputs = given(batch, self._accepts)
            output = resume(self.model, inputs, self._first - 1, state=state, grad=torch.is_grad_enabled())
        return pool(output.last_hidden_state.float(), batch["attention_mask"], self.pooling)

    def all(self) -> Tensor:
        """[different text, width] float32, on the CPU, without gradients."""
        import torch

        out = torch.zeros(len(self.texts), self.model.config.get_text_config().hidden_size)
        with torch.no_grad():
            for rows in track(length_batches([len(row) for row in self.ids], TOKENS), "embedding texts"):
                out[rows] = self.vectors(rows).cpu()
        return out

    def keep_below(self, first: int) -> bool:
        """Run the blocks below block `first` once and for all: what they give is kept, and `vectors` runs only the
        blocks above it. For blocks whose weights, and those of the embeddings, do not change any more.

        Not done (False) where nothing is below, the states would take over 1 GiB, or they cannot be read here."""
        from intarsia.sites import read

        model = self.model
        size = sum(map(len, self.ids)) * model.config.get_text_config().hidden_size * model.dtype.itemsize
        if first < 1 or size > STORE or (site := f"layers.{first - 1}.resid_post") not in model.sites:
            return False
        found: dict[int, Tensor] = {}
        for rows in track(length_batches([len(row) for row in self.ids], TOKENS), "reading the frozen blocks"):
            batch = right_padded([self.ids[row] for row in rows], self._pad)
            states = read(model, given(batch, self._accepts), site)[site]
            for row, state in zip(rows, states, strict=True):
                found[row] = state[: len(self.ids[row])].detach().cpu().clone()
        self._first, self._below = first, [found[row] for row in range(len(self.ids))]
        return True
