"""What a model makes of the subjects, in a form in which two models can be held against one another."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from intarsia.models import Model
from intarsia.models.seeing import answer, embed_pictures, embed_texts, question_batches, question_inputs
from intarsia.progress import track
from intarsia.tokens.subjects import Subjects, own_text


@dataclass(frozen=True)
class Asking:
    """How models are run: pictures or questions in one forward pass, the length of an answer, the prompt around it."""

    batch_size: int = 16
    new_tokens: int = 8
    template: str = ""


@dataclass
class Outcome:
    """One model's results, a row a picture (a question, for networks that answer).

    - vectors: [row, width] unit embeddings; logs: [row, choice] log-probabilities (over candidate texts, classes or
      the first token of the answer); said: its first choice in words; right: whether that is known to be right.
    - rank: of the right text among all candidates (1 is best), and of the right picture for each caption."""

    vectors: Tensor | None = None
    logs: Tensor | None = None
    said: list[str] = field(default_factory=list)
    right: list[bool] | None = None
    rank: list[int] | None = None
    back: list[int] | None = None


def outcome(model: Model, found: Subjects, asking: Asking, task: str = "looking") -> Outcome:
    """Run a model on all subjects."""
    with torch.inference_mode():
        return _RUN[found.kind](model, found, asking, task)


def _vectors(model: Model, found: Subjects, asking: Asking, task: str) -> Tensor:
    starts = range(0, len(found), asking.batch_size)
    rows = [
        embed_pictures(model, found.values[i : i + asking.batch_size]) for i in track(starts, task, total=len(starts))
    ]
    return normalize(torch.cat(rows).float(), dim=-1).cpu()


def _encode(model: Model, found: Subjects, asking: Asking, task: str) -> Outcome:
    return Outcome(vectors=_vectors(model, found, asking, task))


def _match(model: Model, found: Subjects, asking: Asking, task: str) -> Outcome:
    vectors = _vectors(model, found, asking, task)
    if not found.texts:
        return Outcome(vectors=vectors)
    size = 4 * asking.batch_size
    texts = [embed_texts(model, found.texts[i : i + size]) for i in range(0, len(found.texts), size)]
    said = normalize(torch.cat(texts).float(), dim=-1).cpu()
    scores = vectors @ said.T
    scale = getattr(model.network, "logit_scale", None)
    logs = (scores * (float(scale.exp()) if scale is not None else 100.0)).log_softmax(-1)
    best = scores.argmax(1).tolist()
    out = Outcome(vectors, logs, [found.texts[i] for i in best])
    own = own_text(found)
    if own is None:
        return out
    out.right = [a == b for a, b in zip(best, own, strict=True)]
    target = torch.tensor(own)
    out.rank = ((scores > scores.gather(1, target[:, None])).sum(1) + 1).tolist()
    if found.captions is not None:
        # Pictures with the same caption are all right for it: the best of them counts.
        ways = scores.T[target]
        same = target[:, None] == target[None]
        reached = ways.masked_fill(~same, -torch.inf).amax(1, keepdim=True)
        out.back = (((ways > reached) & ~same).sum(1) + 1).tolist()
    return out


def _classify(model: Model, found: Subjects, asking: Asking, task: str) -> Outcome:
    network: Any = model.network
    rows = []
    starts = range(0, len(found), asking.batch_size)
    for i in track(starts, task, total=len(starts)):
        rows.append(network(pixel_values=found.values[i : i + asking.batch_size]).logits.float())
    logs = torch.cat(rows).log_softmax(-1).cpu()
    names = {int(i): str(name) for i, name in (model.config.id2label or {}).items()}
    said = [names.get(i, str(i)) for i in logs.argmax(1).tolist()]
    right = None
    if found.labels is not None and set(map(same_words, found.labels)) <= set(map(same_words, names.values())):
        right = [same_words(a) == same_words(b) for a, b in zip(said, found.labels, strict=True)]
    return Outcome(logs=logs, said=said, right=right)


def _answer(model: Model, found: Subjects, asking: Asking, task: str) -> Outcome:
    questions = [one.question for one in found.asked]
    said, logs = [""] * len(questions), [torch.empty(0)] * len(questions)
    for rows in track(question_batches(model, questions, asking.batch_size, asking.template), task):
        values = found.values[[found.asked[i].picture for i in rows]]
        given = question_inputs(model, values, [questions[i] for i in rows], asking.template)
        answers = answer(model, given, asking.new_tokens)
        for place, i in enumerate(rows):
            said[i], logs[i] = answers.texts[place], answers.first[place].cpu()
    right = None
    if all(one.answer for one in found.asked):
        right = [same_words(a) == same_words(one.answer) for a, one in zip(said, found.asked, strict=True)]
    return Outcome(logs=torch.stack(logs), said=said, right=right)


_RUN: dict[str, Callable[[Model, Subjects, Asking, str], Outcome]] = {
    "dual": _match,
    "class": _classify,
    "encoder": _encode,
    "answer": _answer,
}


def one_batch(model: Model, found: Subjects, asking: Asking) -> tuple[Callable[[], Any], int]:
    """A call that does what a user waits for on one batch, and how many pictures (questions) are in it: embedding,
    classifying, or reading picture and question and writing the first token. Inputs are ready; it is made to be timed
    and counted."""
    if found.kind == "answer":
        questions = [one.question for one in found.asked]
        rows = question_batches(model, questions, asking.batch_size, asking.template)[0]
        values = found.values[[found.asked[i].picture for i in rows]]
        given = question_inputs(model, values, [questions[i] for i in rows], asking.template)
        return (lambda: answer(model, given, 1)), len(rows)
    values = found.values[: asking.batch_size]
    network: Any = model.network
    if found.kind == "class":
        return (lambda: network(pixel_values=values)), len(values)
    return (lambda: embed_pictures(model, values)), len(values)


# ---- two outcomes held against one another


def cosines(one: Outcome, other: Outcome) -> list[float] | None:
    """Cosine of the two models' embeddings of each picture, or None where there are none."""
    if one.vectors is None or other.vectors is None:
        return None
    return (one.vectors.double() * other.vectors.double()).sum(1).tolist()


def divergences(reference: Outcome, other: Outcome) -> list[float] | None:
    """KL in nats from the reference's distribution to the other's, a row each."""
    if reference.logs is None or other.logs is None:
        return None
    p, q = reference.logs.double(), other.logs.double()
    return (p.exp() * (p - q)).nan_to_num(0.0).sum(1).clamp(min=0).tolist()


def agreements(one: Outcome, other: Outcome) -> list[bool] | None:
    """Whether both say the same."""
    if not one.said or not other.said:
        return None
    return [same_words(a) == same_words(b) for a, b in zip(one.said, other.said, strict=True)]


def same_words(text: str) -> str:
    """A text as it is compared: lower case, without articles, punctuation and needless space (as VQA scores do); as it
    stands where nothing else is in it."""
    words = re.sub(r"[^\w\s]", " ", text.casefold()).split()
    return " ".join(word for word in words if word not in ("a", "an", "the")) or text.strip()


def mean(values: list[Any] | None) -> float | None:
    """The mean, or None of nothing."""
    return sum(map(float, values)) / len(values) if values else None
