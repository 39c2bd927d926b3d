"""The computation behind `interpretation.lens`. Never more than a chunk of positions of one layer is held as logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import divergence, states
from intarsia.interpretation.lenses.lens import Lens, LensConfig, LensLayer, LensPicture
from intarsia.interpretation.wording import percent
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model

CHUNK = 128  # positions whose logits are held at a time
MEASURES = ("agreement", "surprisal", "kl", "entropy", "rank", "next_rank", "next_agreement")


def look(model: Model, config: LensConfig, records: Sequence[Any], seed: int) -> Lens:
    """Read the texts and sum the measures over positions; see `interpretation.lens`."""
    states.check_readable(model, "interpretation.lens")
    if not states.has_head(model):
        raise BadInput(
            f"interpretation.lens: {type(model.network).__name__} has no head over a vocabulary: load the model with "
            "its language-model head (AutoModelForCausalLM or AutoModelForMaskedLM)"
        )
    chosen = states.choose(records, config.max_texts, seed, "interpretation.lens")
    texts = [states.text_of(record) for record in chosen]
    layers = states.spaced(states.layer_count(model), config.stride)
    causal = states.is_causal(model)
    name = states.Vocabulary(model)

    sums = torch.zeros(len(layers), len(MEASURES), dtype=torch.float64)
    settled = torch.zeros(len(layers), dtype=torch.float64)
    positions = nexts = 0
    pictures: list[LensPicture] = []
    parts = list(states.batches(model, texts, config.max_tokens, config.batch_size))
    for tokens in track(parts, "reading through the lens"):
        stream = states.states(model, tokens, layers, ["resid_post"])["resid_post"]
        following = tokens.following() if causal else torch.full_like(tokens.flat, -1)
        counted = tokens.position > 0
        tops, probabilities = [], []
        for chunk in torch.arange(len(tokens.flat)).split(CHUNK):
            values, top, probability = _through_lens(
                model, [h[chunk] for h in stream], following[chunk].to(stream[0].device)
            )
            keep, known = counted[chunk].cpu(), (following[chunk] >= 0).cpu()
            sums[:, :5] += values[:, :5, keep].sum(-1)
            sums[:, 5:] += values[:, 5:, keep & known].sum(-1)
            agrees = (top == top[-1]).flip(0).cumprod(0).flip(0)  # from this layer to the last
            settled += agrees[:, keep].sum(-1)
            positions += int(keep.sum())
            nexts += int((keep & known).sum())
            tops.append(top)
            probabilities.append(probability)
        for row in range(tokens.first, min(tokens.first + len(tokens.ids), config.pictures)):
            mine = (tokens.row == row).nonzero()[: config.picture_tokens, 0].cpu()
            top, probability = torch.cat(tops, 1)[:, mine], torch.cat(probabilities, 1)[:, mine]
            pictures.append(
                LensPicture(
                    tokens=[name(int(i)) for i in tokens.flat[mine.to(tokens.flat.device)]],
                    top=[[name(int(i)) for i in line] for line in top],
                    probability=[[float(p) for p in line] for line in probability],
                )
            )
    if not positions:
        raise BadInput("interpretation.lens: every text is a single token: wants texts of two tokens or more")
    sums[:, :5] /= positions
    sums[:, 5:] /= max(nexts, 1)
    rows = []
    for layer, line in zip(layers, sums.tolist(), strict=True):
        measures = dict(zip(MEASURES, line, strict=True))
        if not nexts:
            measures["next_rank"] = measures["next_agreement"] = None
        rows.append(LensLayer(layer=layer, **measures))
    finding = Lens(
        title=f"What each layer of {model.identity.source} would predict",
        technique="interpretation.lens",
        layers=rows,
        settled=(settled / positions).tolist(),
        texts=len(texts),
        positions=positions,
        pictures=pictures,
        provenance={"seed": seed, "settings": config.model_dump(), "texts": len(texts), "positions": positions},
    )
    return finding.model_copy(update={"summary": summarise(finding)})


@torch.no_grad()
def _through_lens(model: Model, hidden: list[Tensor], following: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Measures [layer, measure, position], top tokens and their probabilities [layer, position], on the CPU."""
    final = divergence.log_probabilities(states.logits(model, hidden[-1]))
    final_p, final_top = final.exp(), final.argmax(-1)
    next_ids = following.clamp_min(0)
    lines, tops, probabilities = [], [], []
    for h in hidden:
        log_p = final if h is hidden[-1] else divergence.log_probabilities(states.logits(model, h))
        p = final_p if h is hidden[-1] else log_p.exp()
        probability, top = p.max(-1)
        rank = divergence.rank(log_p, next_ids)
        line = [
            (top == final_top).double(),
            -final.gather(-1, top[:, None])[:, 0].double(),
            divergence.kl_terms(final_p, final, log_p),
            divergence.entropy(p, log_p),
            divergence.rank(log_p, final_top).double(),
            rank.double(),
            (rank == 1).double(),
        ]
        lines.append(torch.stack(line))
        tops.append(top)
        probabilities.append(probability)
    return torch.stack(lines).cpu(), torch.stack(tops).cpu(), torch.stack(probabilities).float().cpu()


def summarise(finding: Lens) -> str:
    """Two sentences on when the prediction is made."""
    last = finding.layers[-1].layer
    half = finding.half_settled
    text = f"Half of the predictions no longer change after layer {half} (the last is layer {last})."
    if half == last:
        text = f"More than half of the predictions are made only in the last layer ({last})."
    middle = finding.layers[len(finding.layers) // 2]
    text += f" In the middle, at layer {middle.layer}, {percent(middle.agreement)} of the top tokens are final."
    if (right := finding.layers[-1].next_agreement) is not None:
        text += f" The network itself is right about {percent(right)} of the next tokens."
    return text + f" Measured at {finding.positions:,} positions of {finding.texts} texts."
