"""`Prompts`: soft prompts of all tasks, put before what a network reads.

Mixed (Zhao et al. 2024): P = sum_i weight_i P_i, one prompt for each row. Joined (Wang et al. 2022, L2P; Razdaibiedina
et al. 2023, progressive prompts): those with a weight, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from intarsia.adaptation.continual.blocks.mixture import Mixture
from intarsia.errors import BadInput


class Prompts(nn.Module):
    """- rows: [block, length, width]; joined: whether prompts stand one after the other, or are added up by weight.
    - hidden: with more than 0, a prompt that is trained is P + MLP(P), of so many hidden units (Razdaibiedina et al.
      2023); what is kept of it is that sum."""

    def __init__(self, width: int, length: int, mixture: Mixture, *, joined: bool, device: torch.device):
        super().__init__()
        self.length, self.mixture, self.joined, self.hidden = length, mixture, joined, 0
        self.register_buffer("rows", torch.zeros(0, length, width, device=device), persistent=False)
        self.new: nn.Parameter | None = None
        self.mlp: nn.Sequential | None = None
        self.opened: list[int] = []

    def add(self, row: Tensor) -> None:
        """One more prompt [length, width], frozen."""
        self.rows = torch.cat([self.rows, row[None].to(self.rows)])

    def open(self, blocks: Sequence[int]) -> list[nn.Parameter]:
        """Make some of them trainable."""
        self.opened = list(blocks)
        self.new = nn.Parameter(self.rows[self.opened].clone())
        if not self.hidden:
            return [self.new]
        width = self.rows.shape[2]
        last = nn.Linear(self.hidden, width)
        for parameter in last.parameters():  # so that a prompt begins as it was drawn, or where it was left
            nn.init.zeros_(parameter)
        self.mlp = nn.Sequential(nn.Linear(width, self.hidden), nn.ReLU(), last).to(self.rows)
        return [self.new, *self.mlp.parameters()]

    def trained(self) -> Tensor:
        """[opened block, length, width] as they are now."""
        assert self.new is not None
        return self.new if self.mlp is None else self.new + self.mlp(self.new)

    def close(self) -> None:
        """Freeze them as they are now."""
        if self.new is not None:
            self.rows[self.opened] = self.trained().detach()
        self.new, self.mlp, self.opened = None, None, []

    def drop(self, block: int) -> None:
        """Take one out."""
        self.rows = torch.cat([self.rows[:block], self.rows[block + 1 :]])

    def all(self) -> Tensor:
        """[block, length, width], those that are trained as they are now."""
        if self.new is None:
            return self.rows
        return self.rows.index_copy(0, torch.tensor(self.opened, device=self.rows.device), self.trained())

    def forward(self, batch: int) -> tuple[Tensor, Tensor] | None:
        """What is put before each of so many rows, [row, position, width], and which of it is real, [row, position]."""
        weights = self.mixture.of(batch, 0)
        rows = self.all()
        if weights is None or not len(rows) or not bool((weights != 0).any()):
            return None
        if not self.joined:
            found = torch.einsum("rb,bld->rld", weights.to(rows), rows)
            return found, torch.ones(found.shape[:2], dtype=torch.long, device=found.device)
        used = [line.nonzero().flatten().tolist() for line in weights]
        most = max(map(len, used))
        found = rows.new_zeros(batch, most, *rows.shape[1:])
        mask = torch.zeros(batch, most, self.length, dtype=torch.long, device=rows.device)
        picked = []
        for i, blocks in enumerate(used):  # fewer prompts: padding before them
            mask[i, most - len(blocks) :] = 1
            picked.append(torch.cat([found[i, : most - len(blocks)], rows[blocks]]))
        return torch.stack(picked).flatten(1, 2), mask.flatten(1, 2)


class Door:
    """How a prompt gets into a network, and out of what it gives."""

    def __init__(self, prompts: Prompts, embedding: nn.Module, *, encoder: bool):
        self.prompts, self.embedding, self.encoder = prompts, embedding, encoder
        self.added = 0
        self.plain = 0
        self.mask: Tensor | None = None

    def enter(self, given: dict[str, Any], *, decoding: bool) -> dict[str, Any]:
        """The arguments with the prompt before the tokens; while decoding, with its place in the cache told."""
        if decoding:
            return self._decoding(given)
        embedded = given.get("inputs_embeds")
        if embedded is None:
            embedded = self.embedding(given["input_ids"])
        batch, tokens = embedded.shape[:2]
        found = self.prompts(batch)
        self.added, self.plain, self.mask = 0, tokens, None
        if found is None:
            return given
        rows, real = found
        self.added, self.mask = rows.shape[1], real
        mask = given.get("attention_mask")
        if mask is not None and (isinstance(mask, dict) or mask.dim() != 2):
            raise BadInput("soft prompts need a mask [row, token]: leave out cache_implementation")
        mask = torch.ones(batch, tokens, dtype=torch.long, device=rows.device) if mask is None else mask
        new = {k: v for k, v in given.items() if k not in ("input_ids", "inputs_embeds", "position_ids")}
        new["inputs_embeds"] = torch.cat([rows.to(embedded), embedded], 1)
        new["attention_mask"] = torch.cat([real.to(mask), mask], 1)
        if not self.encoder:
            new["position_ids"] = (new["attention_mask"].long().cumsum(1) - 1).clamp(min=0)
        keep = given.get("logits_to_keep")
        if isinstance(keep, Tensor):
            new["logits_to_keep"] = keep + self.added
        if given.get("labels") is not None:
            nothing = given["labels"].new_full((batch, self.added), -100)
            new["labels"] = torch.cat([nothing, given["labels"]], 1)
        return new

    def _decoding(self, given: dict[str, Any]) -> dict[str, Any]:
        if not self.added or self.mask is None:
            return given
        new = dict(given)
        mask = given.get("attention_mask")
        real = self.mask.sum(1, keepdim=True)
        if mask is not None and mask.dim() == 2:
            new["attention_mask"] = torch.cat([self.mask.to(mask), mask], 1)
        if given.get("position_ids") is not None:
            new["position_ids"] = given["position_ids"] + real.to(given["position_ids"])
        return new

    def leave(self, output: Any) -> Any:
        """The output for the tokens that were given, as far as it has one for each."""
        logits = getattr(output, "logits", None)
        if self.encoder or not self.added or logits is None or logits.shape[1] != self.added + self.plain:
            return output
        output.logits = logits[:, self.added :]
        return output

    def cross(self, given: dict[str, Any]) -> dict[str, Any]:
        """A decoder's arguments: it reads the prompt's states, too."""
        mask, states = given.get("encoder_attention_mask"), given.get("encoder_hidden_states")
        if mask is None or states is None or self.mask is None or states.shape[1] == mask.shape[1]:
            return given
        own = self.mask.to(mask)
        if len(own) != len(mask):  # beams
            own = own.repeat_interleave(len(mask) // len(own), 0)
        return {**given, "encoder_attention_mask": torch.cat([own, mask], 1)}
