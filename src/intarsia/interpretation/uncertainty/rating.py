"""The computation behind `interpretation.hallucination`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.data import TextPair
from intarsia.errors import BadInput, MissingExtra
from intarsia.interpretation import averages, states
from intarsia.interpretation.uncertainty.answering import answer
from intarsia.interpretation.uncertainty.errors import Hallucination, HallucinationConfig, Judged, Rated
from intarsia.interpretation.uncertainty.inside import look_inside, probe, tell_no_probe
from intarsia.interpretation.uncertainty.judging import aurc, auroc, expected_error, interval, risk_coverage
from intarsia.interpretation.uncertainty.meaning import meaning, plain
from intarsia.interpretation.uncertainty.names import SIGNALS
from intarsia.interpretation.wording import percent

if TYPE_CHECKING:
    from intarsia.models import Model

WHO = "interpretation.hallucination"


def look(
    model: Model, config: HallucinationConfig, test: Sequence[Any], encoder: Model | None, nli: Model | None, seed: int
) -> Hallucination:
    """Answer, judge and rate; see `interpretation.hallucination`."""
    if not test or not all(isinstance(r, TextPair) for r in test):
        raise BadInput(f"{WHO}: wants questions with their right answers: prompt + target pairs")
    if bad := next((r for r in test if not any(map(plain, r.target.split(config.alternatives)))), None):
        raise BadInput(f"{WHO}: the target of '{bad.prompt[:40]}' has no words")
    states.check_readable(model, WHO)
    depth = states.layer_count(model)
    if config.probe_layer is not None and not 0 <= config.probe_layer < depth:
        raise BadInput(f"{WHO}: probe_layer {config.probe_layer} does not exist (0 to {depth - 1})")
    if config.probe:
        _check_sklearn()
    records = list(test)
    if len(records) > config.max_texts:
        records = [records[i] for i in sorted(random.Random(seed).sample(range(len(records)), config.max_texts))]
    judge = meaning(encoder, nli, config.least_cosine)
    answered = answer(model, config, [r.prompt for r in records], judge, seed)
    right = np.array([is_right(a.said.answer, r.target, config) for a, r in zip(answered, records, strict=True)])
    groups = [r.group for r in records]

    ranked = config.probe_layer if config.probe_layer is not None else (2 * depth) // 3
    layers = sorted({ranked, *np.linspace(0, depth - 1, min(depth, config.probe_layers)).round().astype(int).tolist()})
    contrasts, hidden = look_inside(model, [a.ids for a in answered], [a.greedy.ids for a in answered], layers)
    for a, value in zip(answered, contrasts, strict=True):
        a.said.signals["contrast"] = value
    curve: dict[int, float] = {}
    if config.probe:
        scores = probe(hidden, right, groups, folds=config.folds, strength=config.strength, seed=seed)
        if scores is None:
            tell_no_probe(right, config.folds)
        else:
            curve = {layer: auroc(-row, ~right) for layer, row in zip(layers, scores, strict=True)}
            for a, value in zip(answered, scores[layers.index(ranked)], strict=True):
                a.said.signals["probe"] = float(value)
    found = Hallucination(
        title=f"Which signals tell that {model.identity.source} is wrong",
        technique=WHO,
        answers=[
            Judged(prompt=r.prompt, target=r.target, answer=a.said.answer, right=bool(ok), signals=a.said.signals)
            for a, r, ok in zip(answered, records, right, strict=True)
        ],
        rated=rate([a.said.signals for a in answered], right, groups, config.draws, seed),
        error_rate=averages.mean(~right, groups, seed=seed, draws=config.draws),
        best_aurc=aurc(~right, ~right),
        probe_curve=curve,
        probe_layer=ranked if curve else None,
        judge=judge.name,
        provenance={"seed": seed, "settings": config.model_dump(), "texts": len(records), "judge": judge.name},
    )
    return found.model_copy(update={"summary": summarise(found)})


def is_right(given: str, target: str, config: HallucinationConfig) -> bool:
    """Whether an answer holds one of the right ones, in plain words."""
    words = plain(given)
    for one in filter(None, map(plain, target.split(config.alternatives))):
        if config.match == "equals" and words == one:
            return True
        if config.match == "begins" and f"{words} ".startswith(f"{one} "):
            return True
        if config.match == "contains" and f" {one} " in f" {words} ":
            return True
    return False


def rate(
    signals: Sequence[dict[str, float]], right: np.ndarray, groups: Sequence[str | None], draws: int, seed: int
) -> list[Rated]:
    """Every signal that all answers have, the best AUROC first."""
    found = []
    for name, signal in SIGNALS.items():
        if not all(name in own for own in signals):
            continue
        values = np.array([own[name] for own in signals])
        unsure = signal.unsure * values
        found.append(
            Rated(
                name=name,
                auroc=interval(auroc, unsure, ~right, groups, draws=draws, seed=seed) if _both(right) else None,
                aurc=interval(aurc, unsure, ~right, groups, draws=draws, seed=seed),
                ece=expected_error(values, right) if signal.probability else None,
                risk=risk_coverage(unsure, ~right).tolist(),
            )
        )
    return sorted(found, key=lambda r: -r.auroc[0] if r.auroc else 0.0)


def _both(right: np.ndarray) -> bool:
    return bool(right.any() and not right.all())


def _check_sklearn() -> None:
    import importlib.util

    if importlib.util.find_spec("sklearn") is None:
        raise MissingExtra("the truth probe", "quality")


def summarise(found: Hallucination) -> str:
    """How often it is wrong, and what tells best."""
    n, error = len(found.answers), found.error_rate
    text = f"{percent(error[0])} of {n} answers are wrong ({percent(error[1])} to {percent(error[2])}). "
    best = found.rated[0]
    if best.auroc is None:
        return text + "With one kind of answer only, no signal can be rated: take easier or harder questions."
    verdict = "" if best.auroc[1] > 0.5 else ", not clearly above chance"
    text += (
        f"{SIGNALS[best.name].title.capitalize() if best.name != 'p_true' else 'P(True)'} tells them best: AUROC "
        f"{best.auroc[0]:.2f} ({best.auroc[1]:.2f} to {best.auroc[2]:.2f}; 0.5 is chance){verdict}. "
    )
    half = found.rated[0].risk[max(0, round(n / 2) - 1)]
    text += f"Of the surer half by it, {percent(half)} are wrong."
    calibrated = min((r for r in found.rated if r.ece is not None), key=lambda r: r.ece or 0, default=None)
    if calibrated is not None:
        text += f" Best calibrated: {SIGNALS[calibrated.name].title}, off by {calibrated.ece:.2f} on average."
    return text
