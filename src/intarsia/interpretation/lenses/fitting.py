"""The computation behind `interpretation.fit_lens`: states are read batch by batch, only their sums are kept."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import divergence, states
from intarsia.interpretation.fitted import facts_of
from intarsia.interpretation.lenses.fit import FitLens, FitLensConfig, FittedLayer
from intarsia.interpretation.lenses.maps import LensMaps
from intarsia.interpretation.lenses.readers import LogitLens
from intarsia.interpretation.lenses.reading import there
from intarsia.interpretation.ridge import Ridge
from intarsia.interpretation.wording import percent
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model

MEASURED = 512  # held-out positions that the fit is measured on, at most
CHUNK = 128  # positions whose logits are held at a time


def fit(model: Model, config: FitLensConfig, records: Sequence[Any], seed: int) -> LensMaps:
    """See `interpretation.fit_lens`."""
    what = "interpretation.fit_lens"
    states.check_readable(model, what)
    if not states.has_head(model):
        raise BadInput(f"{what}: {type(model.network).__name__} has no head over a vocabulary to read with")
    if config.checkpoint is not None and config.method != "tuned":
        raise BadInput(f"{what}: only method tuned keeps a checkpoint: leave it out for {config.method}")
    texts = [states.text_of(r) for r in states.choose(records, config.max_texts, seed, what)]
    if len(texts) < 2:
        raise BadInput(f"{what}: one text was given: wants at least two, one of them to measure the fit on")
    texts = random.Random(seed).sample(texts, len(texts))
    held = max(1, round(config.held_out * len(texts)))
    fitted, held_out = texts[held:], texts[:held]
    ahead = config.ahead if config.method == "future" else 0
    losses: list[float] = []
    if config.method == "tuned":
        from intarsia.interpretation.lenses.tuning import tune

        matrix, bias, losses, positions = tune(model, fitted, config, seed)
    else:
        sums = accumulate(model, fitted, config, ahead)
        positions = sums[0].rows
        matrix, bias = solve(sums, config.penalty, keep_last=not ahead)
    maps = LensMaps(config.method, matrix, bias, facts_of(model), ahead)
    maps.finding = measure(model, maps, held_out, config, losses)
    maps.finding.provenance = {"seed": seed, "settings": config.model_dump(mode="json"), "texts": len(texts)}
    maps.finding.positions = positions
    return maps


def pairs(
    model: Model, texts: Sequence[str], max_tokens: int, batch_size: int, ahead: int
) -> Iterator[tuple[list[Tensor], Tensor]]:
    """Batch by batch, of all positions but the first of each text that have one `ahead` positions later: the states of
    every layer [n, width], and the final state (before the norm) [n, width] there."""
    layers = list(range(states.layer_count(model)))
    for tokens in states.batches(model, texts, max_tokens, batch_size):
        stream = states.states(model, tokens, layers, ["resid_post"])["resid_post"]
        counted, later = there(tokens, ahead)
        yield [h[counted.to(h.device)] for h in stream], stream[-1][later[counted].to(stream[-1].device)]


def accumulate(model: Model, texts: Sequence[str], config: FitLensConfig, ahead: int) -> list[Ridge]:
    """For each layer the sums of the regression of final states on its states."""
    sums = [Ridge() for _ in range(states.layer_count(model))]
    count = math.ceil(len(texts) / config.batch_size)
    for stream, final in track(
        pairs(model, texts, config.max_tokens, config.batch_size, ahead), "reading states", total=count
    ):
        for sum_, hidden in zip(sums, stream, strict=True):
            sum_.add(hidden, final)
    if sums[0].rows < 2:
        raise BadInput(
            f"interpretation.fit_lens: the texts have {sums[0].rows} positions to fit on: wants longer or more texts"
        )
    return sums


def solve(sums: Sequence[Ridge], penalty: float, keep_last: bool) -> tuple[Tensor, Tensor]:
    """Maps [layer, width, width] and biases [layer, width], float32; with `keep_last` the last layer's is the
    identity."""
    matrices, biases = [], []
    for i, sum_ in enumerate(track(sums, "solving")):
        if keep_last and i == len(sums) - 1:
            matrices.append(torch.eye(sum_.width))
            biases.append(torch.zeros(sum_.width))
            continue
        matrix, bias = sum_.solve(penalty)
        matrices.append(matrix.float().cpu())
        biases.append(bias.float().cpu())
    return torch.stack(matrices), torch.stack(biases)


@torch.no_grad()
def measure(
    model: Model, maps: LensMaps, texts: Sequence[str], config: FitLensConfig, losses: Sequence[float]
) -> FitLens:
    """KL and agreement of every layer on texts, with and without the maps."""
    layers = list(range(len(maps.matrix)))
    plain, fitted = LogitLens(model), LogitLens(model, maps)
    sums = torch.zeros(len(layers), 4, dtype=torch.float64)
    positions = 0
    for stream, final in pairs(model, texts, config.max_tokens, 1, maps.ahead):
        if positions >= MEASURED:
            break
        for chunk in torch.arange(len(final)).split(CHUNK):
            log_p = divergence.log_probabilities(states.logits(model, final[chunk]))
            p, top = log_p.exp(), log_p.argmax(-1)
            for i in layers:
                for j, lens in enumerate((plain, fitted)):
                    log_q = lens(stream[i][chunk], i)
                    sums[i, j] += divergence.kl_terms(p, log_p, log_q).sum().cpu()
                    sums[i, 2 + j] += (log_q.argmax(-1) == top).sum().cpu()
        positions += len(final)
    if not positions:
        raise BadInput("interpretation.fit_lens: the held-out texts are too short to measure on: wants longer texts")
    rows = [
        FittedLayer(layer=i, kl_before=a, kl=b, agreement_before=c, agreement=d)
        for i, (a, b, c, d) in zip(layers, (sums / positions).tolist(), strict=True)
    ]
    finding = FitLens(
        title=f"Lens maps ({maps.method}) for {model.identity.source}",
        technique="interpretation.fit_lens",
        method=maps.method,
        ahead=maps.ahead,
        layers=rows,
        held_out_positions=positions,
        losses=list(losses),
    )
    return finding.model_copy(update={"summary": summarise(finding)})


def summarise(finding: FitLens) -> str:
    """What the maps gain, in a sentence or two."""
    count = len(finding.layers)
    before, after = (sum(getattr(r, n) for r in finding.layers) / count for n in ("kl_before", "kl"))
    shares = [sum(getattr(r, n) for r in finding.layers) / count for n in ("agreement_before", "agreement")]
    where = f"the prediction {finding.ahead} positions later" if finding.ahead else "the final prediction"
    text = (
        f"Through the fitted maps {percent(shares[1])} of the layers' top tokens are {where} "
        f"({percent(shares[0])} without), and the mean KL is {after:.2f} nats ({before:.2f} without)."
    )
    if after > before:
        text += " The maps are worse than none: give more text, or a larger penalty."
    return text + f" Measured at {finding.held_out_positions:,} positions of held-out texts."
