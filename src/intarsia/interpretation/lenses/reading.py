"""The computation behind `interpretation.lens`. Never more than a chunk of positions of one layer is held as logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import divergence, states
from intarsia.interpretation.lenses import presets, readers
from intarsia.interpretation.lenses.lens import WORDS, Lens, LensConfig, LensLayer, LensPicture
from intarsia.interpretation.lenses.maps import LensMaps
from intarsia.interpretation.wording import percent
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model

MEASURES = ("agreement", "surprisal", "kl", "entropy", "rank", "next_rank", "next_agreement")


def look(model: Model, config: LensConfig, records: Sequence[Any], seed: int) -> Lens:
    """Read the texts and sum the measures over positions; see `interpretation.lens`."""
    states.check_readable(model, "interpretation.lens")
    if not states.has_head(model):
        raise BadInput(
            f"interpretation.lens: {type(model.network).__name__} has no head over a vocabulary: load the model with "
            "its language-model head (AutoModelForCausalLM or AutoModelForMaskedLM)"
        )
    method = config.method
    if method == "auto":
        method = "sink" if presets.can_operate(model) else "logit"
    maps = LensMaps.load(config.lens) if config.lens is not None else None
    lens = readers.reader(model, method, maps)
    chosen = states.choose(records, config.max_texts, seed, "interpretation.lens")
    texts = [states.text_of(record) for record in chosen]
    layers = states.spaced(states.layer_count(model), config.stride)
    causal = states.is_causal(model)
    name = states.Vocabulary(model)
    size = readers.chunk_size(model, len(layers), method)

    sums = torch.zeros(len(layers), len(MEASURES), dtype=torch.float64)
    settled = torch.zeros(len(layers), dtype=torch.float64)
    positions = nexts = 0
    pictures: list[LensPicture] = []
    facts: dict[str, float | str] = {}
    parts = list(states.batches(model, texts, config.max_tokens, config.batch_size))
    for tokens in track(parts, "reading through the lens", facts=facts):
        stream = states.states(model, tokens, layers, ["resid_post"])["resid_post"]
        following = tokens.following() if causal else torch.full_like(tokens.flat, -1)
        counted, later = there(tokens, lens.ahead)
        tops, probabilities = [], []
        for chunk in torch.arange(len(tokens.flat)).split(size):
            facts["position"] = f"{int(chunk[0])} of {len(tokens.flat)}"
            final = divergence.log_probabilities(states.logits(model, stream[-1][later[chunk]]))
            next_ids = following[later[chunk]].to(final.device)
            read = lens.over([h[chunk] for h in stream], layers)
            values, top, probability = _compared(read, final, next_ids.clamp_min(0))
            keep, known = counted[chunk].cpu(), (next_ids >= 0).cpu()
            sums[:, :5] += values[:, :5, keep].sum(-1)
            sums[:, 5:] += values[:, 5:, keep & known].sum(-1)
            agrees = (top == final.argmax(-1).cpu()).flip(0).cumprod(0).flip(0)  # from this layer to the last
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
        method=method,
        ahead=lens.ahead,
        layers=rows,
        settled=(settled / positions).tolist(),
        texts=len(texts),
        positions=positions,
        pictures=pictures,
        provenance={
            "seed": seed,
            "settings": config.model_dump(mode="json"),
            "texts": len(texts),
            "positions": positions,
        },
    )
    return finding.model_copy(update={"summary": summarise(finding)})


def there(tokens: states.Tokens, ahead: int) -> tuple[Tensor, Tensor]:
    """For each valid token of a batch: whether it counts, and where the prediction stands that its reading is compared
    with: `ahead` positions later in its text. First positions do not count, nor those whose text ends before."""
    index = torch.arange(len(tokens.flat), device=tokens.flat.device)
    later = (index + ahead).clamp(max=len(index) - 1)
    inside = (index + ahead < len(index)) & (tokens.row[later] == tokens.row)
    return (tokens.position > 0) & inside, later


def compared(log_p: Tensor, final: Tensor, final_p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`MEASURES[:5]` [measure, position] of a layer's log-probabilities against the network's own, its top tokens and
    their log-probabilities."""
    final_top = final.argmax(-1)
    best, top = log_p.max(-1)
    line = [
        (top == final_top).double(),
        -final.gather(-1, top[:, None])[:, 0].double(),
        divergence.kl_terms(final_p, final, log_p),
        divergence.entropy(log_p.exp(), log_p),
        divergence.rank(log_p, final_top).double(),
    ]
    return torch.stack(line), top, best


@torch.no_grad()
def _compared(read: Iterator[Tensor], final: Tensor, next_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Measures [layer, measure, position], top tokens and their probabilities [layer, position], on the CPU."""
    final_p = final.exp()
    lines, tops, probabilities = [], [], []
    for log_p in read:
        line, top, best = compared(log_p, final, final_p)
        rank = divergence.rank(log_p, next_ids)
        lines.append(torch.cat([line, torch.stack([rank.double(), (rank == 1).double()])]))
        tops.append(top)
        probabilities.append(best.exp())
    return torch.stack(lines).cpu(), torch.stack(tops).cpu(), torch.stack(probabilities).float().cpu()


def summarise(finding: Lens) -> str:
    """A few sentences on when the prediction is made, and by which lens that was seen."""
    last = finding.layers[-1].layer
    half = finding.half_settled
    by = f" Read by {WORDS[finding.method]}."
    if finding.ahead:
        best = max(finding.layers, key=lambda row: row.agreement)
        return (
            f"Layer {best.layer} tells most about the prediction {finding.ahead} positions later: "
            f"{percent(best.agreement)} of its top tokens are the network's own there.{by} "
            f"Measured at {finding.positions:,} positions of {finding.texts} texts."
        )
    text = f"Half of the predictions no longer change after layer {half} (the last is layer {last})."
    if half == last:
        text = f"More than half of the predictions are made only in the last layer ({last})."
    middle = finding.layers[len(finding.layers) // 2]
    text += f" In the middle, at layer {middle.layer}, {percent(middle.agreement)} of the top tokens are final."
    if (right := finding.layers[-1].next_agreement) is not None:
        text += f" The network itself is right about {percent(right)} of the next tokens."
    return text + f"{by} Measured at {finding.positions:,} positions of {finding.texts} texts."
