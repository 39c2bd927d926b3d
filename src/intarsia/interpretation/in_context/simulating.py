"""The computation behind `interpretation.simulatability`."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from intarsia.data import TextPair
from intarsia.errors import BadInput
from intarsia.interpretation import averages
from intarsia.interpretation.continuing import as_choice, choice_log_probs, encode, tail_of
from intarsia.interpretation.in_context.shots import spaced
from intarsia.interpretation.in_context.simulation import READERS, Simulatability, SimulatabilityConfig, Simulated
from intarsia.interpretation.wording import percent
from intarsia.interpretation.writing import write
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model

WHO = "interpretation.simulatability"


def look(
    model: Model, config: SimulatabilityConfig, simulator: Model, test: Sequence[Any], seed: int
) -> Simulatability:
    """Answer, explain, and let the simulator guess; see `interpretation.simulatability`."""
    if not test or not all(isinstance(r, TextPair) for r in test):
        raise BadInput(f"{WHO}: wants pairs: a question (prompt) and a changed one (target)")
    records = list(test)
    if len(records) > config.max_texts:
        records = [records[i] for i in sorted(random.Random(seed).sample(range(len(records)), config.max_texts))]
    texts = [r.prompt for r in records], [r.target for r in records]
    answers, changed = (
        [config.choices[int(v.argmax())] for v in chosen(model, config, [t + config.cue for t in part])]
        for part in texts
    )
    heads = [q + config.cue + spaced(config.cue, a) for q, a in zip(texts[0], answers, strict=True)]
    explanations = [
        write(model, encode(model, head + config.lead), max_new_tokens=config.max_new_tokens, stop=("\n",))[0].text
        for head in track(heads, "explaining")
    ]
    # Another question's explanation: the next one in a circle of different questions.
    others = [_other(i, texts[0], explanations) for i in range(len(records))]
    ends = [f"\n\n{q}{config.cue}" for q in texts[1]]
    shown = {
        "explained": [h + config.lead + e + end for h, e, end in zip(heads, explanations, ends, strict=True)],
        "other's explanation": [h + config.lead + e + end for h, e, end in zip(heads, others, ends, strict=True)],
        "answer only": [h + end for h, end in zip(heads, ends, strict=True)],
    }
    guesses = {reader: chosen(simulator, config, prompts) for reader, prompts in shown.items()}
    groups = [r.group or r.prompt for r in records]
    found = Simulatability(
        title=f"Do explanations of {model.identity.source} let one tell its answers?",
        technique=WHO,
        pairs=[
            Simulated(
                question=q, changed=c, answer=answers[i], changed_answer=changed[i],
                explanation=explanations[i].strip(),
                guesses={r: (config.choices[int(v[i].argmax())], float(v[i].max().exp())) for r, v in guesses.items()},
            )
            for i, (q, c) in enumerate(zip(*texts, strict=True))
        ],
        always=max(Counter(changed).values()) / len(changed),
        provenance={
            "seed": seed, "settings": config.model_dump(), "texts": len(records), "simulator": simulator.identity.source
        },
    )  # fmt: skip
    right = {r: np.array([p.guesses[r][0] == p.changed_answer for p in found.pairs], dtype=float) for r in READERS}
    for reader in READERS:
        sure = np.array([p.guesses[reader][1] >= config.sure for p in found.pairs])
        kept = [g for g, s in zip(groups, sure, strict=True) if s]
        found.accuracy[reader] = averages.mean(right[reader], groups, seed=seed)
        found.sure[reader] = averages.mean(sure, groups, seed=seed)
        found.precision[reader] = averages.mean(right[reader][sure], kept, seed=seed) if kept else None
    found.gain = averages.mean(right["explained"] - right["answer only"], groups, seed=seed)
    found.generality = generality([p.changed for p in found.pairs if p.guesses["explained"][1] >= config.sure])
    return found.model_copy(update={"summary": summarise(found)})


def chosen(model: Model, config: SimulatabilityConfig, prompts: Sequence[str]) -> list[Tensor]:
    """For each prompt [choice]: log probabilities of the choices, over the choices."""
    choices = [[as_choice(c, tail_of(model, p, spaced(p, c))) for c in config.choices] for p in prompts]
    return [v.log_softmax(0) for v in choice_log_probs(model, [encode(model, p) for p in prompts], choices)]


def generality(texts: Sequence[str]) -> float | None:
    """1 - mean Jaccard overlap of the words of all pairs of texts; None for fewer than two texts."""
    sets = [set(text.casefold().split()) for text in texts]
    overlaps = [len(a & b) / len(a | b) for a, b in itertools.combinations(sets, 2)]
    return 1 - float(np.mean(overlaps)) if overlaps else None


def _other(i: int, questions: Sequence[str], explanations: Sequence[str]) -> str:
    """The explanation of the next different question; a lone question keeps its own."""
    order = [(i + step) % len(questions) for step in range(1, len(questions))]
    return explanations[next((j for j in order if questions[j] != questions[i]), i)]


def summarise(found: Simulatability) -> str:
    """Whether the explanation helps the reader."""
    with_, without = found.accuracy["explained"], found.accuracy["answer only"]
    gain, low, high = found.gain
    verdict = "helps" if low > 0 else "misleads" if high < 0 else "neither clearly helps nor misleads"
    text = (
        f"With the explanation the reader is right about {percent(with_[0])} of {len(found.pairs)} changed questions, "
        f"with the answer only about {percent(without[0])}: it {verdict} ({100 * gain:+.0f} points, "
        f"{100 * low:+.0f} to {100 * high:+.0f})."
    )
    if (precision := found.precision["explained"]) is not None:
        text += (
            f" It is sure of {percent(found.sure['explained'][0])} and right about {percent(precision[0])} of these."
        )
    return text + f" Always the same answer would be right in {percent(found.always)}."
