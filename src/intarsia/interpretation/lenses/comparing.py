"""The computation behind `interpretation.compare_lenses`: every lens on the same states, summed by text."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from intarsia.errors import BadInput, Note
from intarsia.interpretation import divergence, states
from intarsia.interpretation.lenses import readers
from intarsia.interpretation.lenses.comparison import CompareLensesConfig, LensComparison, MethodCurve
from intarsia.interpretation.lenses.fit import FitLensConfig
from intarsia.interpretation.lenses.maps import LensMaps
from intarsia.interpretation.lenses.reading import compared, there
from intarsia.interpretation.wording import percent
from intarsia.measure.intervals import bootstrap, group_numbers, sum_by_group
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model

NAME = "interpretation.compare_lenses"


def compare(
    model: Model, config: CompareLensesConfig, test: Sequence[Any], train: Sequence[Any] | None, seed: int
) -> LensComparison:
    """See `interpretation.compare_lenses`."""
    states.check_readable(model, NAME)
    if not states.has_head(model):
        raise BadInput(f"{NAME}: {type(model.network).__name__} has no head over a vocabulary to read with")
    methods = list(dict.fromkeys(config.methods))
    if not methods:
        raise BadInput(f"{NAME}: no methods were given: wants at least one, for example logit")
    maps = _maps(model, config)
    if "tuned" in methods and "tuned" not in maps:
        raise BadInput(
            f"{NAME}: tuned needs fitted maps: make them with interpretation.fit_lens (--method tuned), and give their "
            "folder as maps (--maps)"
        )
    chosen = states.choose(test, config.max_texts, seed, NAME)
    fitted = {"affine", "ensemble"} & set(methods) and "affine" not in maps
    if fitted and not train:
        raise BadInput(f"{NAME}: affine and ensemble need texts to fit maps on: give train, or maps, or other methods")
    for method in methods:  # refuse what this model cannot do before any work
        if method in ("identity", "sink", "ensemble"):
            readers.PromptLens(model, "sink" if method == "ensemble" else method)
    used = 0
    if fitted:
        disjoint = _without(train or (), chosen)
        maps["affine"] = _fit(model, config, disjoint, seed)
        used = min(config.max_train, len(disjoint))

    base = {m: readers.reader(model, m, maps.get(m)) for m in methods if m != "ensemble"}
    if "ensemble" in methods:
        for member in ("affine", "sink"):
            base.setdefault(member, readers.reader(model, member, maps.get(member)))
    states_, owners = _positions(model, config, chosen, seed)
    values = _measure(model, base, methods, states_)
    return _finding(model, config, methods, values, owners, chosen, used, seed)


def _maps(model: Model, config: CompareLensesConfig) -> dict[str, LensMaps]:
    maps: dict[str, LensMaps] = {}
    for path in config.maps:
        loaded = LensMaps.load(path).check(model)
        if loaded.method == "future":
            raise BadInput(f"{path}: maps of a future lens read a later position: they cannot be compared here")
        if loaded.method in maps:
            raise BadInput(f"{path}: {loaded.method} maps were given twice: give one folder a method")
        maps[loaded.method] = loaded
    return maps


def _without(train: Sequence[Any], test: Sequence[Any]) -> list[Any]:
    """The training records that share neither text nor group with a test record."""
    texts = {states.text_of(record) for record in test}
    groups = {getattr(record, "group", None) for record in test} - {None}
    kept = [r for r in train if states.text_of(r) not in texts and getattr(r, "group", None) not in groups]
    if len(kept) < len(train):
        warnings.warn(
            f"{len(train) - len(kept)} of {len(train)} texts of train are in test, or their group is: left out",
            Note, stacklevel=4,
        )  # fmt: skip
    if len(kept) < 2:
        raise BadInput(f"{NAME}: {len(kept)} texts of train are not in test: wants at least two, better hundreds")
    return kept


def _fit(model: Model, config: CompareLensesConfig, train: Sequence[Any], seed: int) -> LensMaps:
    from intarsia.interpretation.lenses.fitting import fit

    settings = FitLensConfig(
        method="affine", max_texts=config.max_train, max_tokens=config.max_tokens, batch_size=config.batch_size,
        penalty=config.penalty,
    )  # fmt: skip
    return fit(model, settings, train, seed)


def _positions(
    model: Model, config: CompareLensesConfig, records: Sequence[Any], seed: int
) -> tuple[list[Tensor], np.ndarray]:
    """The states of each layer at the drawn positions [n, width], and the index of the text each belongs to [n]."""
    texts = [states.text_of(record) for record in records]
    layers = list(range(states.layer_count(model)))
    batches = list(states.batches(model, texts, config.max_tokens, config.batch_size))
    counts = [int(there(tokens, 0)[0].sum()) for tokens in batches]
    if not sum(counts):
        raise BadInput(f"{NAME}: every text is a single token: wants texts of two tokens or more")
    drawn = torch.tensor(
        sorted(random.Random(seed).sample(range(sum(counts)), min(config.positions, sum(counts)))), dtype=torch.long
    )
    parts, owners, first = [], [], 0
    for tokens, count in track(list(zip(batches, counts, strict=True)), "reading states"):
        mine = drawn[(drawn >= first) & (drawn < first + count)] - first
        first += count
        if not len(mine):
            continue
        at = there(tokens, 0)[0].nonzero()[:, 0].cpu()[mine]
        stream = states.states(model, tokens, layers, ["resid_post"])["resid_post"]
        parts.append([h[at.to(h.device)] for h in stream])
        owners.append(tokens.row.cpu()[at])
    return [torch.cat([part[i] for part in parts]) for i in layers], torch.cat(owners).numpy()


@torch.no_grad()
def _measure(model: Model, base: dict[str, readers.Reader], methods: list[str], stream: list[Tensor]) -> np.ndarray:
    """Agreement, surprisal, KL and rank [position, method, layer, measure]."""
    layers = list(range(len(stream)))
    size = min(readers.chunk_size(model, len(layers), name) for name in base)
    out = []
    for chunk in track(list(torch.arange(len(stream[0])).split(size)), "comparing lenses"):
        here = [h[chunk] for h in stream]
        final = divergence.log_probabilities(states.logits(model, here[-1]))
        final_p = final.exp()
        values = torch.empty(len(chunk), len(methods), len(layers), 4, dtype=torch.float64)
        reading = {name: lens.over(here, layers) for name, lens in base.items()}
        for layer in layers:
            read = {name: next(rows) for name, rows in reading.items()}
            for i, method in enumerate(methods):
                log_p = readers.combine([read["affine"], read["sink"]]) if method == "ensemble" else read[method]
                agreement, surprisal, kl, _, rank = compared(log_p, final, final_p)[0].cpu()
                values[:, i, layer] = torch.stack([agreement, surprisal, kl, rank], dim=-1)
        out.append(values)
    return torch.cat(out).numpy()


def _finding(
    model: Model, config: CompareLensesConfig, methods: list[str], values: np.ndarray, owners: np.ndarray,
    records: Sequence[Any], used: int, seed: int,
) -> LensComparison:  # fmt: skip
    groups = [getattr(record, "group", None) for record in records]
    numbers = np.unique(group_numbers(groups)[owners], return_inverse=True)[1]
    totals = sum_by_group(np.concatenate([values.reshape(len(values), -1), np.ones((len(values), 1))], 1), numbers)
    shape = values.shape[1:]

    def curves(sums: np.ndarray) -> np.ndarray:
        return sums[:, :-1].reshape(-1, *shape) / sums[:, -1].reshape(-1, 1, 1, 1)

    def statistics(sums: np.ndarray) -> np.ndarray:
        means = curves(sums).mean(2)  # [draw, method, measure]
        return np.concatenate([means, means[..., :1] - means[:, :1, :1]], axis=-1)

    whole = totals.sum(0)[None]
    at, ends = curves(whole)[0], bootstrap(totals, curves, seed=seed)
    means, around = statistics(whole)[0], bootstrap(totals, statistics, seed=seed)

    def triple(i: int, j: int) -> tuple[float, float, float]:
        return float(means[i, j]), float(around[0, i, j]), float(around[1, i, j])

    rows = [
        MethodCurve(
            method=method,
            agreement=at[i, :, 0].tolist(),
            agreement_low=ends[0, i, :, 0].tolist(),
            agreement_high=ends[1, i, :, 0].tolist(),
            surprisal=at[i, :, 1].tolist(),
            kl=at[i, :, 2].tolist(),
            rank=at[i, :, 3].tolist(),
            mean_agreement=triple(i, 0),
            mean_surprisal=triple(i, 1),
            mean_kl=triple(i, 2),
            mean_rank=float(means[i, 3]),
            gain=triple(i, 4) if i else None,
        )
        for i, method in enumerate(methods)
    ]
    finding = LensComparison(
        title=f"Which lens reads {model.identity.source} best",
        technique=NAME,
        layers=list(range(shape[1])),
        methods=rows,
        texts=len(np.unique(owners)),
        positions=len(values),
        train_texts=used,
        provenance={"seed": seed, "settings": config.model_dump(mode="json"), "positions": len(values)},
    )
    return finding.model_copy(update={"summary": summarise(finding)})


def summarise(finding: LensComparison) -> str:
    """Which lens is best, and whether its lead is certain."""
    ordered = sorted(finding.methods, key=lambda m: -m.mean_agreement[0])
    best = ordered[0]
    text = (
        f"Averaged over the layers, the {best.method} lens finds the network's own next token at "
        f"{percent(best.mean_agreement[0])} of the positions"
    )
    if len(ordered) > 1:
        second = ordered[1]
        apart = best.mean_agreement[1] > second.mean_agreement[2]
        text += f", the {second.method} lens at {percent(second.mean_agreement[0])}"
        text += "" if apart else " (their intervals overlap)"
        text += f", and the {ordered[-1].method} lens at {percent(ordered[-1].mean_agreement[0])}" * (len(ordered) > 2)
    untrained = [m for m in ordered if m.method in ("logit", "identity", "sink")]
    if untrained and best.method not in ("logit", "identity", "sink"):
        text += f". Best of those that need no training: {untrained[0].method}"
    return text + f". Measured at {finding.positions:,} positions of {finding.texts} texts."
