"""What a merged model is trained for: its task, and to stay near the dense model.

A task is a function of a network and a batch (keyword arguments of its forward) that gives an `Outcome`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from intarsia.errors import BadInput
from intarsia.models import wrap
from intarsia.models.seeing import embed_pictures

LARGEST_SCALE = 4.6052
"""Of a logit scale, as a logarithm: 100 (Radford et al. 2021, §2.5)."""


@dataclass(frozen=True)
class Outcome:
    """A task's loss (scalar), and what a dense model can teach by: `pooled` features [row, width] each, `scores`
    [row, choice] (logits of words or classes)."""

    loss: Tensor
    pooled: tuple[Tensor, ...] = ()
    scores: Tensor | None = None


Task = Callable[[Any, Mapping[str, Any]], Outcome | Tensor]


def contrastive(images: Tensor, texts: Tensor, scale: Tensor | float, same: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE of `images` and `texts` [row, width] within the batch; row i of one belongs to row i of other.

    - scale: logarithm of what cosines are multiplied with; held within 0 and `LARGEST_SCALE`.
    - same: [row, row] bool, pairs that are right as well (captions of one picture): the target is spread equally over
      them. None: only the diagonal.

    Shi et al. 2024, §4.1; Radford et al. 2021, figure 3."""
    scores = _cosines(images, texts) * torch.as_tensor(scale, device=images.device).clamp(0, LARGEST_SCALE).exp()
    target = torch.eye(len(images), device=images.device) if same is None else same.to(scores.dtype)
    parts = [
        -((t / t.sum(1, keepdim=True)) * F.log_softmax(s, dim=1)).sum(1).mean()
        for s, t in ((scores, target), (scores.T, target.T))
    ]
    return (parts[0] + parts[1]) / 2


def sigmoid_pairs(
    images: Tensor, texts: Tensor, scale: Tensor | float, bias: Tensor | float, same: Tensor | None = None
) -> Tensor:
    """Every pair of the batch judged by itself, summed over texts and averaged over pictures: SigLIP's own loss (Zhai
    et al. 2023, §3.2). Arguments as in `contrastive`; `bias` is added to the scores."""
    scale = torch.as_tensor(scale, device=images.device).clamp(max=LARGEST_SCALE).exp()
    scores = _cosines(images, texts) * scale + bias
    right = torch.eye(len(images), device=images.device).bool() if same is None else same
    return -F.logsigmoid(torch.where(right, scores, -scores)).sum(1).mean()


def _cosines(images: Tensor, texts: Tensor) -> Tensor:
    return F.normalize(images.float(), dim=-1) @ F.normalize(texts.float(), dim=-1).T


def pairing(network: Any, batch: Mapping[str, Any]) -> Outcome:
    """The task of a dual encoder: pictures and the texts that belong to them. SigLIP's own loss where the network has
    its bias, else InfoNCE. `batch` may hold `same` [row, row] beside the network's arguments."""
    images = embed_pictures(wrap(network), batch["pixel_values"])
    given = {name: batch[name] for name in ("input_ids", "attention_mask") if batch.get(name) is not None}
    if hasattr(network, "text_proj"):
        texts = network.text_proj(network.text_encoder(**given).last_hidden_state[:, 0])
    else:
        texts = network.get_text_features(**given)
        texts = texts if isinstance(texts, Tensor) else texts.pooler_output
    same, scale = batch.get("same"), getattr(network, "logit_scale", None)
    if (bias := getattr(network, "logit_bias", None)) is not None and scale is not None:
        return Outcome(sigmoid_pairs(images, texts, scale, bias, same), (images, texts))
    # (BLIP for retrieval keeps its temperature outside the network; 0.07 is what its training starts from)
    fixed = torch.tensor(1 / 0.07).log().to(images.device)
    return Outcome(contrastive(images, texts, scale if scale is not None else fixed, same), (images, texts))


def answering(network: Any, batch: Mapping[str, Any]) -> Outcome:
    """The task of a network that writes words, or names classes: its own loss over `labels` (words: -100 where none
    is wanted)."""
    if hasattr(network, "text_encoder") and hasattr(network, "text_decoder"):
        return _answering_behind_question(network, batch)
    output = network(**batch)
    if getattr(output, "loss", None) is None:
        raise BadInput(f"{type(network).__name__} gave no loss: the batch must hold labels")
    logits = output.logits
    if logits.dim() == 2:
        return Outcome(output.loss, scores=logits)
    wanted = batch["labels"][:, 1:] != -100
    return Outcome(output.loss, scores=logits[:, -wanted.shape[1] - 1 : -1][wanted])


def _answering_behind_question(network: Any, batch: Mapping[str, Any]) -> Outcome:
    """BLIP for questions: as its own forward does it, which keeps the decoder's scores to itself."""
    rows = network.vision_model(pixel_values=batch["pixel_values"]).last_hidden_state
    read = network.text_encoder(
        input_ids=batch["input_ids"], attention_mask=batch.get("attention_mask"), encoder_hidden_states=rows
    ).last_hidden_state
    labels = batch["labels"]
    pad = network.config.text_config.pad_token_id or 0
    output = network.text_decoder(
        input_ids=labels.masked_fill(labels < 0, pad), encoder_hidden_states=read, labels=labels, reduction="mean"
    )
    return Outcome(output.loss, scores=output.logits[:, :-1][labels[:, 1:] != -100])


def distillation(student: Outcome, teacher: Outcome) -> Tensor:
    """How far a network is from the one that teaches it: 1 - cosine of each pooled feature, the mean over rows, and
    KL(teacher | student) of the scores, the mean over rows; both added where a task has both."""
    parts = [
        (1 - F.cosine_similarity(s.float(), t.detach().float(), dim=-1)).mean()
        for s, t in zip(student.pooled, teacher.pooled, strict=True)
    ]
    if student.scores is not None and teacher.scores is not None:
        log_s, log_t = (x.float().log_softmax(-1) for x in (student.scores, teacher.scores.detach()))
        parts.append((log_t.exp() * (log_t - log_s)).sum(-1).mean())
    if not parts:
        raise BadInput("this task gives nothing to distil by: return an Outcome with pooled features or scores")
    return torch.stack(parts).sum()
