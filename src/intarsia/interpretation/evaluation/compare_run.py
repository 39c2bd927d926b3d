"""The computation behind `interpretation.compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput, did_you_mean
from intarsia.interpretation.evaluation.compare import CompareConfig, Comparison, Rank
from intarsia.interpretation.evaluation.scoring import Scale, figures, floor, limits_of, normalised, widened
from intarsia.interpretation.evaluation.texts import Asker, Interval, groups_of, interval, prepare, text_seed
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.interpretation.explained import Explained
    from intarsia.models import Model


def look(model: Model, config: CompareConfig, records: Sequence[Any], seed: int) -> Comparison:
    """Score every text by every method; see `interpretation.compare`."""
    methods = list(dict.fromkeys(m for m in config.methods if m != "random"))  # random is the floor anyway
    if not methods:
        raise BadInput("interpretation.compare: 'random' alone leaves nothing to compare: name methods")
    if stray := next((k for k in config.settings if k.partition(".")[0] not in methods or "." not in k), None):
        raise BadInput(
            f"interpretation.compare: settings: '{stray}' must be METHOD.SETTING of a method that is compared"
            f"{did_you_mean(stray.partition('.')[0], methods)}"
        )
    askers = [Asker(m, config.settings) for m in methods]
    scale = Scale(tuple(config.fractions), config.beam, full=False, floors=config.floors, seed=seed)
    chosen, texts = prepare(model, records, config, seed, "interpretation.compare")
    groups = groups_of(chosen)
    found, floors = collect(texts, askers, scale, seed)
    finding = rank(askers, found, floors, groups, scale, seed)
    finding = finding.model_copy(
        update={
            "title": f"Attribution methods on {model.identity.source}",
            "technique": "interpretation.compare",
            "provenance": {"seed": seed, "settings": config.model_dump(mode="json"), "texts": len(texts)},
        }
    )
    return finding.model_copy(update={"summary": summarise(finding)})


Rows = list[dict[str, float]]


def collect(
    texts: Sequence[Explained], askers: Sequence[Asker], scale: Scale, seed: int
) -> tuple[dict[str, Rows], Rows]:
    """Figures of every text by method, and those of chance."""
    found: dict[str, Rows] = {ask.method.name: [] for ask in askers}
    floors: Rows = []
    for number, explained in enumerate(track(texts, "comparing methods")):
        own = text_seed(seed, number)
        scale = replace(scale, seed=own)
        limits = limits_of(explained, scale)
        chance = floor(explained, scale)
        rows = {ask.method.name: figures(explained, ask(explained, own, count=True), scale) for ask in askers}
        limits = widened(limits, [chance, *rows.values()])
        floors.append(normalised(chance, limits))
        for name, row in rows.items():
            found[name].append(normalised(row, limits))
    return found, floors


def rank(
    askers: Sequence[Asker], found: dict[str, Rows], floors: Rows, groups: Sequence[str | None], scale: Scale, seed: int
) -> Comparison:
    """Methods from the most to the least faithful, from their figures text by text."""
    chance = [quality(row, scale) for row in floors]
    by_text = {m: [quality(row, scale) for row in rows] for m, rows in found.items()}

    def less(a: list[float], b: list[float]) -> Interval:
        return _known(interval([x - y for x, y in zip(a, b, strict=True)], groups, seed))

    ranks = [
        Rank(
            method=ask.method.name,
            quality=_known(interval(by_text[ask.method.name], groups, seed)),
            gain=less(by_text[ask.method.name], chance),
            comprehensiveness=_mean(found[ask.method.name], "comprehensiveness", groups, seed),
            sufficiency=_mean(found[ask.method.name], "sufficiency", groups, seed),
            forwards=ask.forwards / max(ask.asked, 1),
            backwards=ask.backwards / max(ask.asked, 1),
        )
        for ask in askers
    ]
    ranks.sort(key=lambda r: (-r.quality[0], r.cost, r.method))
    best = ranks[0]
    ranks = [
        r if r is best else r.model_copy(update={"behind": less(by_text[r.method], by_text[best.method])})
        for r in ranks
    ]
    return Comparison(
        ranks=ranks,
        floor=_known(interval(chance, groups, seed)),
        normalised=bool(scale.beam),
        recommended=recommend(ranks),
        texts=len(floors),
        seconds={ask.method.name: ask.seconds / max(ask.asked, 1) for ask in askers},
    )


def quality(row: dict[str, float], scale: Scale) -> float:
    """What methods are ranked by; see `Rank`."""
    return row["normalised"] if scale.beam else row["comprehensiveness"] - row["sufficiency"]


def recommend(ranks: Sequence[Rank]) -> str | None:
    """The cheapest method that is above random, not beaten by the best beyond doubt, and keeps nine tenths of its gain
    over random (few texts put little beyond doubt); None when none is above."""
    most = 0.9 * max((r.gain[0] for r in ranks), default=0.0)
    equal = [r for r in ranks if r.above and r.gain[0] >= most and (r.behind is None or r.behind[2] >= 0)]
    return min(equal, key=lambda r: (r.cost, -r.quality[0])).method if equal else None


def summarise(finding: Comparison) -> str:
    """Which method to use, and how sure that is."""
    above, total = finding.above, len(finding.ranks)
    text = f"{len(above)} of {total} methods are better than random orders beyond doubt, on {finding.texts} texts."
    if finding.recommended is None:
        return text + " None can be recommended: give more or longer texts, or look for a surer model."
    best, chosen = finding.ranks[0], finding.rank(finding.recommended)
    text = f"Use {chosen.method}: " + (
        "it is the most faithful. "
        if chosen is best
        else f"the most faithful, {best.method}, is not better beyond doubt and costs {_times(best, chosen)}. "
    ) + text  # fmt: skip
    if worse := [r.method for r in finding.ranks if r.gain[2] < 0]:
        text += f" Worse than random: {', '.join(worse)}."
    return text


def _times(best: Rank, chosen: Rank) -> str:
    return f"{best.cost / max(chosen.cost, 1):.1f} times as much" if best.cost > chosen.cost else "no more"


def _mean(rows: list[dict[str, float]], name: str, groups: Sequence[str | None], seed: int) -> Interval:
    return _known(interval([row[name] for row in rows], groups, seed))


def _known(value: Interval | None) -> Interval:
    if value is None:
        raise BadInput(
            "interpretation.compare: no text can be scored: each has so few tokens, or so sure an answer, that no "
            "order of its tokens differs from another; give longer texts, or set beam to 0"
        )
    return value
