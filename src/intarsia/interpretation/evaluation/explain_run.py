"""The computation behind `interpretation.explain`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput
from intarsia.interpretation.evaluation import removal, stability
from intarsia.interpretation.evaluation.explain import ExplainConfig, ExplainedText, Explanation
from intarsia.interpretation.evaluation.scoring import Scale, figures, floor, limits_of, normalised, widened
from intarsia.interpretation.evaluation.texts import Asker, groups_of, interval, prepare, text_seed
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model


def look(model: Model, config: ExplainConfig, records: Sequence[Any] | None, seed: int) -> Explanation:
    """Score every text and test the scores; see `interpretation.explain`."""
    if (config.prompt is None) == (not records):
        given = "both" if records else "neither"
        raise BadInput(f"interpretation.explain: give either a prompt or texts ({given} given)")
    ask = Asker(config.method, config.settings)
    scale = Scale(tuple(config.fractions), config.beam, full=False, floors=config.floors, seed=seed)
    chosen, texts = prepare(model, records or [config.prompt], config, seed, "interpretation.explain")
    found, random = [], []
    for number, explained in enumerate(track(texts, f"explaining by {config.method}")):
        own = text_seed(seed, number)
        scale = replace(scale, seed=own)
        scores = [ask(explained, own + i) for i in range(config.seeds)]
        limits = limits_of(explained, scale)
        row, chance = figures(explained, scores[0], scale), floor(explained, scale)
        limits = widened(limits, [row, chance])
        row, chance = normalised(row, limits), normalised(chance, limits)
        random.append(chance)
        found.append(
            ExplainedText(
                tokens=explained.tokens,
                scores=scores[0].tolist(),
                choice=explained.name,
                probability=float(removal.probability(explained)),
                label=getattr(chosen[number], "label", ""),
                comprehensiveness=row["comprehensiveness"],
                comprehensiveness_random=chance["comprehensiveness"],
                sufficiency=row["sufficiency"],
                sufficiency_random=chance["sufficiency"],
                normalised=_known(row.get("normalised", math.nan)),
                stability=_known(stability.agreement(scores)) if config.seeds > 1 else None,
            )
        )
    groups = groups_of(chosen)

    def mean(name: str, less: str = "") -> tuple[float, float, float]:
        values = [getattr(t, name) - (getattr(t, less) if less else 0) for t in found]
        return interval(values, groups, seed) or (0, 0, 0)

    steady = [t.stability for t in found if t.stability is not None]
    finding = Explanation(
        title=f"Why {model.identity.source} says so",
        technique="interpretation.explain",
        method=config.method,
        texts=found,
        comprehensiveness=mean("comprehensiveness"),
        comprehensiveness_gain=mean("comprehensiveness", "comprehensiveness_random"),
        sufficiency=mean("sufficiency"),
        sufficiency_gain=mean("sufficiency", "sufficiency_random"),
        stability=sum(steady) / len(steady) if steady else None,
        provenance={"seed": seed, "settings": config.model_dump(mode="json"), "texts": len(texts)},
    )
    return finding.model_copy(update={"summary": summarise(finding)})


def summarise(finding: Explanation) -> str:
    """What the scores are worth, in words."""
    comp, gain = finding.comprehensiveness, finding.comprehensiveness_gain
    kept, lost = finding.sufficiency, finding.sufficiency_gain
    one = finding.texts[0]
    if len(finding.texts) == 1:
        names = sorted(zip(one.scores, one.tokens, strict=True), key=lambda pair: -pair[0])[:3]
        top = ", ".join(f"'{token.strip() or '␣'}'" for _, token in names)
        text = f"The model says '{one.choice.strip()}' ({one.probability:.0%}), most of all for {top}. "
    else:
        text = f"{len(finding.texts)} texts by {finding.method}. "
    text += (
        f"Without the top tokens the probability falls by {comp[0]:.3f} on average ({comp[0] - gain[0]:.3f} without "
        f"random ones), with them alone by {kept[0]:.3f} ({kept[0] - lost[0]:.3f}). "
    )
    if len(finding.texts) == 1:
        text += {
            2: "Better than chance on both; one text proves little.",
            1: "Better than chance on one of the two.",
        }.get((gain[0] > 0) + (lost[0] < 0), "No better than chance: do not rely on these scores.")
    elif gain[1] > 0 and lost[2] < 0:
        text += "Both are better than chance beyond doubt."
    else:
        text += "Not both are better than chance beyond doubt: be careful with these scores."
    if finding.stability is not None and finding.stability < 0.9:
        text += f" Other seeds give other scores (rank correlation {finding.stability:.2f}): take more samples."
    return text


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
