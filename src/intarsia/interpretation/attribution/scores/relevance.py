"""Layer-wise relevance propagation: gradient x input where the engine lets gradients pass by the rules of relevance."""

from __future__ import annotations

import torch

from intarsia.interpretation.attribution.gradients import LrpConfig
from intarsia.interpretation.attribution.registry import Scored
from intarsia.interpretation.explained import Explained
from intarsia.sites import linearized


def lrp(explained: Explained, settings: LrpConfig, seed: int = 0) -> Scored:
    """Relevance of each token's embedding.

    What is handed down is the sum over logits of (d log p / d logit) x logit: the choice's logit above the mean logit
    under the model's own distribution. All tokens of the prompt get a share of it; those of the text are the scores."""
    embed = f"{explained.model.sites.main.prefix}embed"
    with linearized(explained.model, settings.attention) as edits:
        value, acts = explained.value_with([embed], edits)
        slope, at_logits = torch.autograd.grad(value, [acts[embed], acts["logits"]])
    relevance = (slope.double() * acts[embed].detach().double()).sum(-1)[0].cpu()
    total = float((at_logits.double() * acts["logits"].detach().double()).sum())
    own = relevance[explained.features]
    facts = {"share of the text's own tokens": float(own.sum() / relevance.sum())} if relevance.sum() else {}
    return Scored(own, total=total, added=float(relevance.sum()), facts=facts)
