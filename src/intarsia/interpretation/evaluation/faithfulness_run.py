"""The computation behind `interpretation.faithfulness`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from intarsia.interpretation.evaluation import removal, stability, variants
from intarsia.interpretation.evaluation.effects import NOTHING
from intarsia.interpretation.evaluation.faithfulness import Faithfulness, FaithfulnessConfig, Score
from intarsia.interpretation.evaluation.measures import MEASURES
from intarsia.interpretation.evaluation.scoring import NAN, Scale, figures, floor, limits_of, normalised, widened
from intarsia.interpretation.evaluation.simulation import simulatability
from intarsia.interpretation.evaluation.texts import Asker, groups_of, interval, prepare, text_seed
from intarsia.interpretation.wording import percent
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.interpretation.explained import Explained
    from intarsia.models import Model


def look(model: Model, config: FaithfulnessConfig, records: Sequence[Any], seed: int) -> Faithfulness:
    """Score every text and average; see `interpretation.faithfulness`."""
    ask = Asker(config.method, config.settings)
    scale = Scale(
        tuple(config.fractions), config.beam, points=config.points, draws=config.draws, floors=config.floors, seed=seed
    )
    chosen, texts = prepare(model, records, config, seed, "interpretation.faithfulness")
    noisy = [variants.with_noise(model, config.noise, seed + i) for i in range(config.noise_draws)]
    groups = groups_of(chosen)

    rows: list[dict[str, float]] = []
    floors: list[dict[str, float]] = []
    curves: list[Tensor] = []
    reads: list[list[str]] = []
    for number, explained in enumerate(track(texts, f"judging {config.method}")):
        own = text_seed(seed, number)
        scale = replace(scale, seed=own)
        scored = ask.scored(explained, own, count=True)
        limits = limits_of(explained, scale)
        row, chance = figures(explained, scored.values, scale), floor(explained, scale)
        limits = widened(limits, [row, chance])
        row, chance = normalised(row, limits), normalised(chance, limits)
        if scored.total is not None and abs(scored.total) >= NOTHING:  # its own promise, for its own baseline
            row["completeness_error"] = scored.gap
        row["max_sensitivity"] = stability.max_sensitivity(ask, explained, noisy, own) if noisy else NAN
        row["seed_stability"] = (
            stability.seed_stability(ask, explained, range(own, own + config.seeds)) if config.seeds > 1 else NAN
        )
        chance |= {"max_sensitivity": NAN, "seed_stability": NAN}
        rows.append(row)
        floors.append(chance)
        curves.append(_curves(explained, scored.values, scale))
        reads.append(_first(explained, scored.values, config.simulator_tokens))
    if (simulated := _simulated(texts, reads, config, seed)) is not None:
        for row, chance, (mine, random) in zip(rows, floors, simulated, strict=True):
            row["simulatability"], chance["simulatability"] = mine, random

    scores = [_score(name, rows, floors, groups, seed) for name in rows[0]]
    mean = torch.stack(curves).mean(0)
    finding = Faithfulness(
        title=f"How faithful {config.method} is to {model.identity.source}",
        technique="interpretation.faithfulness",
        method=config.method,
        scores=[s for s in scores if s.value is not None],
        fractions=list(config.fractions),
        dropped=mean[0].tolist(),
        dropped_random=mean[1].tolist(),
        kept=mean[2].tolist(),
        kept_random=mean[3].tolist(),
        texts=len(texts),
        forwards=ask.forwards / len(texts),
        backwards=ask.backwards / len(texts),
        seconds=ask.seconds / len(texts),
        provenance={"seed": seed, "settings": config.model_dump(mode="json"), "texts": len(texts)},
    )
    return finding.model_copy(update={"summary": summarise(finding)})


TITLES = {
    "max_sensitivity": ("max-sensitivity", "lower", "how far the scores move when embeddings move a little", ".2f"),
    "seed_stability": ("seed stability", "higher", "Spearman's rho of the scores between seeds; 1: no chance", ".2f"),
    "simulatability": (
        "simulatability", "higher", "how often naive Bayes names the model's choice from the top tokens alone", ".1%"
    ),
}  # fmt: skip


def _score(
    name: str, rows: list[dict[str, float]], floors: list[dict[str, float]], groups: Sequence[str | None], seed: int
) -> Score:
    if name in MEASURES:
        m = MEASURES[name]
        title, better, words, form = m.title, m.better, m.help, m.format
    else:
        title, better, words, form = TITLES[name]
    mine, chance = [row[name] for row in rows], [row[name] for row in floors]
    return Score(
        name=name, title=title, better=better, help=words, format=form,
        value=interval(mine, groups, seed),
        floor=interval(chance, groups, seed),
        gain=interval([a - b for a, b in zip(mine, chance, strict=True)], groups, seed),
    )  # fmt: skip


def _curves(explained: Explained, scores: Tensor, scale: Scale) -> Tensor:
    """[4, fraction]: comprehensiveness and sufficiency by share of tokens: mine, random, mine, random."""
    generator = torch.Generator().manual_seed(scale.seed)
    count = len(explained.features)
    drawn = [torch.randn(count, generator=generator, dtype=torch.float64) for _ in range(scale.floors)]
    out = []
    for measure in (removal.comprehensiveness, removal.sufficiency):
        out.append(measure(explained, removal.order(scores), scale.fractions))
        out.append(torch.stack([measure(explained, removal.order(s), scale.fractions) for s in drawn]).mean(0))
    return torch.stack(out)


def _first(explained: Explained, scores: Tensor, count: int) -> list[str]:
    return [explained.tokens[int(i)] for i in removal.order(scores)[:count]]


def _simulated(
    texts: Sequence[Explained], reads: list[list[str]], config: FaithfulnessConfig, seed: int
) -> list[tuple[float, float]] | None:
    """For each text, whether the simulator is right with the method's tokens, and how often with random ones; None
    where the model says the same of all texts, or there are too few to learn from."""
    said = [e.name for e in texts]
    if len(set(said)) < 2 or len(said) < 10:
        return None
    generator = np.random.default_rng(seed)
    random = [
        simulatability([generator.permutation(e.tokens)[: config.simulator_tokens].tolist() for e in texts], said)
        for _ in range(config.floors)
    ]
    mine = simulatability(reads, said)
    return [(float(a), float(b)) for a, b in zip(mine, np.mean(random, axis=0), strict=True)]


def summarise(finding: Faithfulness) -> str:
    """What the table comes to, in words."""
    better = [s.above for s in finding.scores if s.above is not None]
    comp, suff = finding.score("comprehensiveness"), finding.score("sufficiency")
    if not comp.value or not comp.floor or not suff.value or not suff.floor or not comp.gain:
        return "There is nothing to say."
    text = (
        f"Without {finding.method}'s top tokens the probability of the choice falls by {_points(comp.value[0])} on "
        f"average, and by {_points(comp.floor[0])} without random ones; with nothing else it falls by "
        f"{_points(suff.value[0])} ({_points(suff.floor[0])}). "
    )
    if comp.above and suff.above:
        text += "Both are better than chance beyond doubt."
    elif comp.above or suff.above:
        text += f"Only {'the first' if comp.above else 'the second'} is better than chance beyond doubt."
    else:
        text += "Neither is better than chance beyond doubt: do not rely on this explanation."
    if (row := next((s for s in finding.scores if s.name == "normalised"), None)) and row.value:
        text += f" Between the worst order of tokens that was found and the best it reaches {percent(row.value[0])}."
    return text + f" {sum(better)} of {len(better)} measures beat random scores, on {finding.texts} texts."


def _points(value: float) -> str:
    return f"{100 * value:.1f} points" if not math.isnan(value) else "an unknown amount"
