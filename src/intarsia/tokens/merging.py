"""`Merging`: the rule for a tower whose tokens are ensembled block after block (vision, or text that is pooled)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from intarsia.sites.recomposing import Flow, Rule, Seen, Step
from intarsia.tokens.importance import attended, guided
from intarsia.tokens.likeness import likeness
from intarsia.tokens.plan import Plan
from intarsia.tokens.reducing import reduced


class Merging(Rule):
    """Takes `plan.removed` rows away, block by block, by matching and ensembling (Shi et al. 2024, §3).

    - offsets: [block, width] what makes a cross token out of its tower's class (or end) row; None without them. Kept
      at zero it is a second copy of that row.
    - aligning: set while the cross tokens are trained: then the text tower has its row too, and `flow.facts["cross"]`
      lists the cross tokens [batch, width] of every block."""

    def __init__(self, plan: Plan):
        super().__init__()
        self.plan = plan
        self.restore, self.last, self.proportional = plan.restore, plan.last, plan.proportional
        self.drops = plan.matcher == "prune"
        self.offsets = nn.Parameter(torch.zeros(len(plan.removed), plan.cross)) if plan.cross else None
        self.aligning = False

    def wants(self, flow: Flow) -> bool:
        return any(self.plan.removed) or self.aligning

    def inputs(self, flow_inputs: dict[str, Any]) -> dict[str, Any]:
        return trimmed(flow_inputs, self.plan.facts) if self.plan.trim else flow_inputs

    # ---- rows that stay themselves, and the guide

    def enter(self, flow: Flow, stream: Tensor) -> Tensor:
        protected = torch.zeros(stream.shape[:2], dtype=torch.bool, device=stream.device)
        if self.plan.kind == "vision":
            prefix = self._prefix(flow, stream.shape[1])
            protected[:, :prefix] = True
            flow.facts["class"] = torch.zeros(len(stream), dtype=torch.long, device=stream.device) if prefix else None
        else:
            end = end_of(flow.inputs["input_ids"], self.plan.facts)
            mask = flow.inputs.get("attention_mask")
            protected[:, 0] = True
            protected |= torch.arange(stream.shape[1], device=stream.device) >= end[:, None]
            if mask is not None:
                protected |= mask == 0
            flow.facts["class"] = end
        flow.facts["protected"] = protected
        if self.offsets is None or not (self.aligning or (self.plan.kind == "vision" and self._guides)):
            return stream
        flow.facts["guide"] = True
        flow.facts["cross"] = []
        # Without a class row (SigLIP) the guide starts as the mean of all rows.
        return flow.append(stream, self._class_row(flow, stream))

    @property
    def _guides(self) -> bool:
        return self.plan.importance == "cross"

    def _prefix(self, flow: Flow, tokens: int) -> int:
        pixels = flow.inputs.get("pixel_values")
        if pixels is None or self.plan.patch is None:
            return tokens - int(tokens**0.5) ** 2
        height, width = self.plan.patch
        return max(tokens - (pixels.shape[-2] // height) * (pixels.shape[-1] // width), 0)

    def _class_row(self, flow: Flow, stream: Tensor) -> Tensor:
        if flow.facts["class"] is None:
            return stream[:, : flow.original].mean(dim=1, keepdim=True)
        row = flow.owner.gather(1, flow.facts["class"][:, None])
        return stream.gather(1, row[..., None].expand(-1, -1, stream.shape[2]))

    def before(self, flow: Flow, index: int, stream: Tensor) -> Tensor:
        if "guide" not in flow.facts:
            return stream
        old = stream[:, -1:] if self.plan.kind == "vision" else self._class_row(flow, stream)
        row = old.detach() + self.offsets[index].to(stream.dtype)  # type: ignore[index]
        flow.facts["cross"].append(row[:, 0])
        return torch.cat([stream[:, :-1], row], dim=1)

    # ---- one block

    def reduces(self, flow: Flow, index: int) -> bool:
        return self.plan.removed[index] > 0

    def blocked(self, flow: Flow) -> Tensor:
        """[batch, row] bool: rows that are neither merged nor merged into."""
        return flow.holding(flow.facts["protected"]) | flow.guests | flow.padded

    def importance(self, flow: Flow, seen: Seen, blocked: Tensor) -> Tensor | None:
        """[batch, row] by the plan's `importance`, or None."""
        match self.plan.importance:
            case "none":
                return None
            case "cross" if "guide" in flow.facts and self.plan.kind == "vision":
                guide = torch.full((len(blocked),), flow.rows - 1, device=blocked.device)
                return guided(seen, guide, ~blocked)
            case "cross" if flow.facts["class"] is not None:
                return guided(seen, flow.owner.gather(1, flow.facts["class"][:, None])[:, 0], ~blocked)
        chosen = flow.facts["class"]
        query = flow.owner.gather(1, chosen[:, None]) if chosen is not None else None
        return attended(seen, query, flow.bias())

    def reduce(self, flow: Flow, index: int, stream: Tensor, seen: Seen) -> Step | None:
        plan = self.plan
        blocked = self.blocked(flow)
        importance = self.importance(flow, seen, blocked)
        metric = metric_of(seen, stream)
        step, pairs = reduced(
            plan,
            stream,
            flow.sizes,
            metric,
            plan.removed[index],
            blocked=blocked,
            importance=importance,
            seed=plan.seed + index,
            later=plan.kind == "text" and plan.facts.get("causal", False),
        )
        if self.watching and pairs is not None:
            flow.facts["score"] = likeness(metric, pairs)
        return step


def metric_of(seen: Seen, stream: Tensor) -> Tensor:
    """[batch, token, width] what tokens are compared by: their keys, the mean over heads (Bolya et al. 2023, §3); the
    stream where keys cannot be seen."""
    return stream.detach() if seen.k is None else seen.k.detach().mean(dim=1)


def end_of(ids: Tensor, facts: dict[str, Any]) -> Tensor:
    """[batch] the place of the token a text tower is pooled at: by `facts["pooled"]` the first end token (`eos`; where
    its id is 2, as old CLIP configs say, the highest id) or the last place (`last`)."""
    if facts.get("pooled") == "last":
        return torch.full((len(ids),), ids.shape[1] - 1, device=ids.device)
    if facts["eos"] == 2:
        return ids.argmax(dim=1)
    return (ids == facts["eos"]).int().argmax(dim=1)


def trimmed(inputs: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """The text tower's keyword arguments without what lies behind the longest text of the batch. In a causal tower that
    is pooled at the end of the text nothing before it can see what comes after: no output changes."""
    ids = inputs.get("input_ids")
    if ids is None:
        return inputs
    length = int(end_of(ids, facts).max()) + 1
    if length >= ids.shape[1]:
        return inputs
    cut = {}
    for name, value in inputs.items():
        aligned = isinstance(value, Tensor) and value.dim() == 2 and value.shape[1] == ids.shape[1]
        cut[name] = value[:, :length] if aligned else value
    return cut
