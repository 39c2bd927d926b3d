"""The computation behind `interpretation.demonstrations`."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import averages
from intarsia.interpretation.continuing import choice_log_probs
from intarsia.interpretation.evaluation.correlation import spearman
from intarsia.interpretation.explained import Explained
from intarsia.interpretation.in_context.demonstrations import (
    Condition,
    Demonstration,
    Demonstrations,
    DemonstrationsConfig,
    _short,
)
from intarsia.interpretation.in_context.shots import Shot, Shots, flipped, shots_of
from intarsia.interpretation.wording import percent
from intarsia.progress import track
from intarsia.report import TokenMap

if TYPE_CHECKING:
    from intarsia.models import Model

WHO = "interpretation.demonstrations"


def look(
    model: Model, config: DemonstrationsConfig, train: Sequence[Any], test: Sequence[Any], seed: int
) -> Demonstrations:
    """Read the test texts after every changed prompt; see `interpretation.demonstrations`."""
    train = _some(train, config.max_demonstrations, seed)
    test = _some(test, config.max_texts, seed + 1)
    shots, demos, questions, right = shots_of(model, train, test, config.separator, WHO)
    if config.explain == "right" and right is None:
        raise BadInput(f"{WHO}: explain is 'right', but the test texts have no labels")
    chance = random.Random(seed)
    prompts: dict[tuple[str, int], list[Shot]] = {("all", 0): demos, ("none", 0): []}
    flips = [flipped(demos, j, shots.labels, chance) for j in range(len(demos))]
    for j, demo in enumerate(demos):
        rest = demos[:j] + demos[j + 1 :]
        prompts["removed", j] = rest
        if (wrong := flips[j]) is not None:
            prompts["flipped", j] = [*demos[:j], wrong, *demos[j + 1 :]]
        prompts["neutral", j] = [*demos[:j], replace(demo, text=config.neutral, context=()), *demos[j + 1 :]]
        if j < len(demos) - 1:
            prompts["moved last", j] = [*rest, demo]
    for n, order in enumerate(_orders(len(demos), config.orders, chance)):
        prompts["order", n] = [demos[i] for i in order]
    # The longest prompts first: what does not fit is said before anything runs.
    ids = {key: [shots.ids(some, question) for question in questions] for key, some in prompts.items()}
    choices = [shots.choices(question) for question in questions]
    values: dict[tuple[str, int], np.ndarray] = {}
    for key in track(list(prompts), "reading changed prompts"):
        values[key] = torch.stack(choice_log_probs(model, ids[key], choices)).numpy()

    whole = values["all", 0]
    answers = whole.argmax(1)
    truth = np.array([shots.labels.index(r) for r in right]) if right is not None and shots.labels else None
    followed = answers
    if config.explain == "right" and truth is not None:
        followed = truth
    rows = np.arange(len(questions))
    groups = [getattr(r, "group", None) for r in test]
    base = whole[rows, followed]
    many = shots.labels is not None

    def condition(name: str, found: np.ndarray) -> Condition:
        best = found.argmax(1)
        return Condition(
            name=name,
            log_prob=averages.mean(found[rows, followed], groups, seed=seed),
            accuracy=averages.mean(best == truth, groups, seed=seed) if truth is not None else None,
            same=float((best == answers).mean()) if many else None,
        )

    found = [
        Demonstration(text=d.text, label=d.label, flipped_to=f.label if f else None)
        for d, f in zip(demos, flips, strict=True)
    ]
    for (change, j), value in values.items():
        if change in ("all", "none", "order"):
            continue
        found[j].effect[change] = averages.mean(base - value[rows, followed], groups, seed=seed)
        if many:
            found[j].turned[change] = float((value.argmax(1) != answers).mean())
    conditions = [condition("all demonstrations", whole), condition("none (zero-shot)", values["none", 0])]
    conditions += [condition(f"another order, {n + 1}", v) for (key, n), v in values.items() if key == "order"]

    result = Demonstrations(
        title=f"Which demonstrations matter to {model.identity.source}",
        technique=WHO,
        demonstrations=found,
        conditions=conditions,
        effects=[(base - values["removed", j][rows, followed]).tolist() for j in range(len(demos))],
        tests=[q.text for q in questions],
        followed=config.explain,
        provenance={
            "seed": seed,
            "settings": config.model_dump(),
            "task": shots.task.model_dump() if shots.task else None,
        },
    )
    if config.saliency_texts:
        _add_saliency(result, model, shots, demos, questions, followed, config.saliency_texts)
    return result.model_copy(update={"summary": summarise(result)})


def _some(records: Sequence[Any], most: int, seed: int) -> list[Any]:
    if len(records) <= most:
        return list(records)
    return [records[i] for i in sorted(random.Random(seed).sample(range(len(records)), most))]


def _orders(count: int, most: int, chance: random.Random) -> list[tuple[int, ...]]:
    """Random orders of so many things, all different and none the one there is; fewer where there are no more."""
    first = tuple(range(count))
    wanted = min(most, math.factorial(count) - 1)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < wanted:
        if (order := tuple(chance.sample(first, count))) != first:
            found[order] = None
    return list(found)


def _add_saliency(
    result: Demonstrations, model: Model, shots: Shots, demos: list[Shot], questions: list[Shot],
    followed: np.ndarray, texts: int,
) -> None:  # fmt: skip
    if not model.tokenizer.is_fast:  # type: ignore[union-attr]
        return
    sums = np.zeros(len(demos))
    for n, question in enumerate(track(questions[:texts], "gradients")):
        _, tokens, of_demo, scores = saliency(model, shots, demos, question, int(followed[n]))
        for j in range(len(demos)):
            sums[j] += float(scores[[i for i, owner in enumerate(of_demo) if owner == j]].abs().sum())
        if n == 0:
            result.map = TokenMap(
                title=f"Gradient x embedding over the prompt of '{_short(question.text)}'",
                tokens=tokens, values=scores.tolist(), scale="diverging", format="+.3f",
                meaning=f"gradient x embedding for '{shots.choices(question)[int(followed[n])].name.strip()}'",
            )  # fmt: skip
    for demo, value in zip(result.demonstrations, sums / min(texts, len(questions)), strict=True):
        demo.saliency = float(value)
    if len(demos) > 2:
        rho = spearman([abs(d.effect["removed"][0]) for d in result.demonstrations], sums)
        result.agreement = None if math.isnan(rho) else rho


def saliency(
    model: Model, shots: Shots, demos: Sequence[Shot], question: Shot, choice: int
) -> tuple[str, list[str], list[int | None], Tensor]:
    """The prompt, its tokens as text, the demonstration each belongs to (None: the question's), and gradient x
    embedding [token] of the log probability of a choice."""
    prompt = shots.prompt(demos, question)
    encoded = model.tokenizer(prompt, return_offsets_mapping=True, verbose=False)  # type: ignore[misc]
    ids, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
    ends = [len(shots.head(demos[: j + 1])) for j in range(len(demos))]
    of_demo = [next((j for j, end in enumerate(ends) if b <= end), None) if b > a else None for a, b in offsets]
    explained = Explained(model, ids, range(len(ids)), shots.choices(question), choice, text=prompt)
    embeddings = explained.embeddings().detach().requires_grad_()
    explained.value_at(embeddings[None]).sum().backward()
    scores = (embeddings.grad * embeddings.detach()).sum(-1).double().cpu()  # type: ignore[operator]
    return prompt, explained.tokens, of_demo, scores


def summarise(found: Demonstrations) -> str:
    """Which demonstration matters most, what the labels do, and whether gradients agree."""
    place, top = found.ranked()[0]
    value, low, high = top.effect["removed"]
    text = (
        f"Demonstration {place} ('{_short(top.text)}') matters most: without it the answer's log probability "
        f"{'falls' if value >= 0 else 'rises'} by {abs(value):.2f} nats ({low:+.2f} to {high:+.2f})"
    )
    text += "." if low > 0 or high < 0 else ", which these texts cannot tell from 0."
    both = [
        (abs(d.effect["flipped"][0]), abs(d.effect["removed"][0]))
        for d in found.demonstrations
        if "flipped" in d.effect
    ]
    if both:
        flip, gone = (float(np.mean(v)) for v in zip(*both, strict=True))
        text += f" A wrong label changes the answer by {flip:.2f} nats on average, removal by {gone:.2f}."
    orders = [c.same for c in found.conditions if c.name.startswith("another order") and c.same is not None]
    if orders:
        text += f" In another order {percent(float(np.mean(orders)))} of the answers stay the same."
    if found.agreement is not None:
        verdict = "agree" if found.agreement > 0.6 else "hardly agree" if found.agreement > 0.2 else "do not agree"
        text += f" Gradients and removal {verdict} on the ranking (rho {found.agreement:+.2f})."
    return text
