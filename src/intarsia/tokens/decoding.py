"""`PictureRows`: the rule for a language model that reads pictures among its tokens (LLaVA and its like).

Text is never touched. Rows that are left keep their positions, and the cache holds what each block really read."""

from __future__ import annotations

import torch
from torch import Tensor

from intarsia.sites.recomposing import Flow, Rule, Seen, Step
from intarsia.tokens.grouping import after, regroup, together
from intarsia.tokens.importance import attended
from intarsia.tokens.merging import metric_of
from intarsia.tokens.plan import Plan
from intarsia.tokens.reducing import reduced


class PictureRows(Rule):
    """In block 0 the vision tower's merged rows become one row each (`plan.follow`); in other blocks the share
    `plan.shares` of each prompt's picture rows is merged or dropped, by what the text behind the pictures looks at."""

    def __init__(self, plan: Plan):
        super().__init__()
        self.plan = plan
        self.proportional = plan.proportional

    def _follows(self, flow: Flow) -> bool:
        return self.plan.follow and flow.vision is not None and bool(flow.vision.traces)

    def wants(self, flow: Flow) -> bool:
        return self._follows(flow) or any(self.plan.shares)

    def reduces(self, flow: Flow, index: int) -> bool:
        return (index == 0 and self._follows(flow)) or self.plan.shares[index] > 0

    def reduce(self, flow: Flow, index: int, stream: Tensor, seen: Seen) -> Step | None:
        done, sizes = None, flow.sizes
        if index == 0 and self._follows(flow):
            target = vision_groups(flow, flow.inputs["image_mask"])
            if target is not None:
                done = regroup(stream, sizes, target)
        if self.plan.shares[index] == 0:
            return done
        pictures = flow.holding(flow.inputs["image_mask"])
        importance = self.importance(flow, seen) if self.plan.importance != "none" else None
        counts = (pictures.sum(1) * self.plan.shares[index]).round().long()
        metric = metric_of(seen, stream)
        steps = []
        # Prompts may hold pictures of other sizes, or more of them: those that lose as many rows go together.
        for count in counts.unique().tolist():
            where = (counts == count).nonzero()[:, 0]
            chosen = importance[where] if importance is not None else None
            steps.append(
                (where, self._take(stream[where], sizes[where], pictures[where], metric[where], chosen, count))
            )
        return steps[0][1] if len(steps) == 1 else together(steps)

    def _take(
        self,
        stream: Tensor,
        sizes: Tensor,
        pictures: Tensor,
        metric: Tensor,
        importance: Tensor | None,
        count: int,
    ) -> Step:
        """`count` picture rows fewer in each prompt."""
        place = torch.arange(stream.shape[1], device=stream.device).expand(stream.shape[:2])
        done = Step(stream, place, place)
        while count > 0:  # a matching takes at most half of the rows: more than that in several rounds
            step, pairs = reduced(
                self.plan,
                done.rows,
                sizes,
                metric,
                count,
                blocked=~pictures,
                importance=importance,
                seed=self.plan.seed + count,
            )
            if pairs is None or pairs.source.shape[1] == 0:
                return step if pairs is None else done
            count -= pairs.source.shape[1]
            done = after(done, step)
            kept = step.keep.clamp(min=0)
            pictures = pictures.gather(1, kept) & (step.keep >= 0)
            metric = metric.gather(1, kept[..., None].expand(-1, -1, metric.shape[2]))
            importance = importance.gather(1, kept) if importance is not None else None
            sizes = step.sizes(sizes)
        return done

    def importance(self, flow: Flow, seen: Seen) -> Tensor | None:
        """[batch, row]: by `attention` what the prompt's last token looks at (Chen et al. 2024, FastV); by `question`
        the mean over all tokens of the text that come after the pictures."""
        mask = flow.inputs["image_mask"]
        real = flow.inputs.get("attention_mask")
        real = torch.ones_like(mask) if real is None or real.dim() != 2 else real[:, : mask.shape[1]].bool()
        place = torch.arange(mask.shape[1], device=mask.device)
        last = (place * real).amax(1)
        if self.plan.importance == "question":
            asked = real & (place > (place * mask).amax(1, keepdim=True))
            asked |= place == last[:, None]
        else:
            asked = place == last[:, None]
        queries = flow.owner.masked_fill(~asked, -1)
        most = int(asked.sum(1).max())
        return attended(seen, torch.sort(queries, dim=1, descending=True).values[:, :most], flow.bias())


def vision_groups(flow: Flow, mask: Tensor) -> Tensor | None:
    """[batch, token] the place of the row that each token joins: a picture's token the one its merged row is at, any
    other itself, a dropped one -1. None when the vision tower's rows are not the decoder's tokens, one for one."""
    vision = flow.vision
    assert vision is not None
    batch, column = mask.nonzero(as_tuple=True)
    pictures = len(vision.owner)
    each, odd = divmod(len(column), pictures)
    prefix = vision.original - each
    if odd or prefix < 0:
        return None
    if prefix not in (0, vision.original - int(vision.original**0.5) ** 2) and prefix > 8:
        return None  # (a connector that makes fewer rows: pixel shuffle, resampler)
    owner = vision.owner[:, prefix:]
    home = vision.position.gather(1, owner.clamp(min=0)) - prefix  # the group's own token, within its picture
    first = torch.arange(pictures, device=mask.device)[:, None] * each
    target = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape).clone()
    joined = column[(home.clamp(min=0) + first).flatten()]
    target[batch, column] = joined.masked_fill((owner < 0).flatten() | (home < 0).flatten(), -1)
    return target
