"""The computation behind `interpretation.plausibility`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.errors import BadInput
from intarsia.interpretation import states
from intarsia.interpretation.evaluation import rationales
from intarsia.interpretation.evaluation.plausibility import Plausibility, PlausibilityConfig, PlausibilityRow
from intarsia.interpretation.evaluation.scoring import mean_of
from intarsia.interpretation.evaluation.texts import Asker, Interval, cut, groups_of, interval, text_seed
from intarsia.interpretation.explained import explain_text
from intarsia.progress import track
from intarsia.report import TokenMap

if TYPE_CHECKING:
    from intarsia.models import Model

MEASURES = ("token_f1", "iou_f1", "auprc", "average_precision")


def look(model: Model, config: PlausibilityConfig, records: Sequence[Any], seed: int) -> Plausibility:
    """Score every text by every method and compare with people; see `interpretation.plausibility`."""
    what = "interpretation.plausibility"
    for number, record in enumerate(records, 1):
        if not getattr(record, "rationale", ()):
            raise BadInput(
                f"{what}: text {number} has no rationale: wants records with a list of [start, end] characters, or of "
                "words of the text, in a column 'rationale'"
            )
    askers = [Asker(m, config.settings) for m in dict.fromkeys(config.methods)]
    chosen = states.choose(records, config.max_texts, seed, what)
    short = [cut(model, record, config.max_tokens) for record in chosen]
    states.tell_cut(sum(a is not b for a, b in zip(chosen, short, strict=True)), len(short), config.max_tokens)
    generator = np.random.default_rng(seed)
    found: dict[str, list[dict[str, float]]] = {ask.method.name: [] for ask in askers}
    floors, groups, maps, marked, right = [], [], [], [], 0
    for number, record in enumerate(track(short, "comparing with people")):
        target = config.target or (record.label if config.explain_label else None)
        explained = explain_text(model, record, target=target, new_tokens=config.new_tokens, removal=config.removal)
        human = rationales.token_mask(explained.text, explained.tokens, record.rationale)
        if not human.any():
            continue  # what people marked was cut off
        right += explained.choices[int(explained.log_probs().argmax())].name == record.label
        groups.append(groups_of([record])[0])
        marked.append(float(human.mean()))
        for ask in askers:
            scores = ask(explained, text_seed(seed, number)).numpy()
            found[ask.method.name].append(agreement(scores, human, config))
            if ask is askers[0] and len(maps) < config.pictures:
                maps.append(_map(explained.tokens, scores, human, ask.method.name))
        random = [agreement(generator.standard_normal(len(human)), human, config) for _ in range(config.floors)]
        floors.append(mean_of(random))
    if not floors:
        raise BadInput(f"{what}: max_tokens {config.max_tokens} cuts off all that people marked: raise it")

    def mean(rows: list[dict[str, float]], name: str) -> Interval:
        return interval([row[name] for row in rows], groups, seed) or (math.nan,) * 3

    rows = []
    for name, mine in [*found.items(), ("random", floors)]:
        pairs = zip(mine, floors, strict=True)
        gain = interval([a["average_precision"] - b["average_precision"] for a, b in pairs], groups, seed)
        figures = {measure: mean(mine, measure) for measure in MEASURES}
        rows.append(PlausibilityRow(method=name, **figures, gain=None if name == "random" else gain))
    rows.sort(key=lambda r: (r.method == "random", -r.average_precision[0]))
    finding = Plausibility(
        title=f"Do explanations of {model.identity.source} agree with people?",
        technique=what,
        rows=rows,
        texts=len(floors),
        right=right,
        marked=float(np.mean(marked)),
        maps=maps,
        provenance={"seed": seed, "settings": config.model_dump(mode="json"), "texts": len(floors)},
    )
    return finding.model_copy(update={"summary": summarise(finding)})


def agreement(scores: np.ndarray, human: np.ndarray, config: PlausibilityConfig) -> dict[str, float]:
    """All figures of one text."""
    count = int(human.sum()) if config.share is None else math.ceil(round(config.share * len(human), 9))
    chosen = rationales.top(scores, count)
    return {
        "token_f1": rationales.token_f1(chosen, human),
        "iou_f1": rationales.iou_f1(chosen, human, config.iou),
        "auprc": rationales.auprc(scores, human),
        "average_precision": rationales.average_precision(scores, human),
    }


def _map(tokens: Sequence[str], scores: np.ndarray, human: np.ndarray, method: str) -> TokenMap:
    shown = []
    for token, mine in zip(tokens, human, strict=True):
        space = token[: len(token) - len(token.lstrip())]
        shown.append(f"{space}‹{token.strip()}›" if mine else token)
    return TokenMap(
        title=f"By {method}; in ‹› what people marked", tokens=shown, values=scores.tolist(), scale="diverging",
        format="+.3f", meaning="score: above 0 speaks for the label",
    )  # fmt: skip


def summarise(finding: Plausibility) -> str:
    """Who agrees most with people, and whether that is more than chance."""
    best, chance = finding.rows[0], finding.row("random")
    text = (
        f"{best.method} agrees most with people: mean average precision {best.average_precision[0]:.2f}, "
        f"where random scores have {chance.average_precision[0]:.2f}"
    )
    sure = best.gain is not None and best.gain[1] > 0
    text += ", more than chance beyond doubt. " if sure else "; that may be chance. "
    text += f"The model gives the record's own label to {finding.right} of {finding.texts} texts. "
    return text + "Agreement says that an explanation convinces, not that it is true of the model."
