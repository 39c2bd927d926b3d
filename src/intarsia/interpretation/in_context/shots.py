"""Prompts made of demonstrations, and what may be said after them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from intarsia.data import LabelledText, TextPair, labelled
from intarsia.errors import BadInput
from intarsia.interpretation.continuing import as_choice, check_length, encode, tail_of
from intarsia.interpretation.explained import Choice
from intarsia.interpretation.states import text_of
from intarsia.measure import trie as tries
from intarsia.measure.labels import LabelTask
from intarsia.measure.likelihood import check_causal

if TYPE_CHECKING:
    from intarsia.models import Model


@dataclass(frozen=True)
class Shot:
    """A demonstration: a text, the name of its answer, and earlier turns."""

    text: str
    label: str
    context: tuple[str, ...] = ()


class Shots:
    """How demonstrations and questions are written for one model, and the choices there are.

    - labels: names of the choices, or None where each question has its own target."""

    def __init__(self, model: Model, task: LabelTask | None, separator: str):
        self.model, self.task, self.separator = model, task, separator
        self.labels = list(task.labels) if task is not None else None
        self._choices = label_choices(task, model) if task is not None else None

    def prompt(self, shots: Sequence[Shot], question: Shot) -> str:
        """The whole text the model reads."""
        return self.head(shots) + self.cue(question)

    def head(self, shots: Sequence[Shot]) -> str:
        """The demonstrations alone, up to the question."""
        return "".join(self.cue(shot) + self.answer(shot) + self.separator for shot in shots)

    def cue(self, shot: Shot) -> str:
        """A question without its answer."""
        return self.task.render(shot.text, shot.context) if self.task is not None else shot.text

    def answer(self, shot: Shot) -> str:
        """The words of an answer."""
        if self.task is not None:
            return self.task.verbalisers[shot.label]
        return spaced(shot.text, shot.label)

    def choices(self, question: Shot) -> list[Choice]:
        """What may be said after a question."""
        if self._choices is not None:
            return self._choices
        return [as_choice(question.label, tail_of(self.model, question.text, self.answer(question)))]

    def ids(self, shots: Sequence[Shot], question: Shot) -> list[int]:
        """Token ids of the whole text. Raises `BadInput` where it does not fit."""
        ids = encode(self.model, self.prompt(shots, question))
        room = max(len(choice.tail) for choice in self.choices(question))
        check_length(self.model, len(ids) + room, f"a prompt of {len(shots)} demonstrations and a text")
        return ids


def spaced(before: str, after: str) -> str:
    """`after` with a space in front, unless one of the two brings white space of its own."""
    return after if after[:1].isspace() or before[-1:].isspace() else f" {after}"


def label_choices(task: LabelTask, model: Model) -> list[Choice]:
    """A label task's labels as choices, each scored along its path through the trie of verbalisers."""
    trie = tries.of_task(task, model.tokenizer)
    choices = []
    for i, label in enumerate(task.labels):
        steps = tuple((len(node.path), node.branches, branch) for node, branch in trie.steps(i))
        deepest = max((depth for depth, _, _ in steps), default=0)
        choices.append(Choice(label, trie.sequences[i][:deepest], steps))
    return choices


def shots_of(
    model: Model, train: Sequence[Any], test: Sequence[Any], separator: str, who: str
) -> tuple[Shots, list[Shot], list[Shot], list[str] | None]:
    """The way of writing, the demonstrations, the questions, and the right answers where they are known."""
    check_causal(model)
    if not train or not test:
        raise BadInput(f"{who}: wants demonstrations (train) and texts to try them on (test); one of them is empty")
    if all(isinstance(r, TextPair) for r in (*train, *test)):
        pairs = [Shot(r.prompt, r.target) for r in train]
        return Shots(model, None, separator), pairs, [Shot(r.prompt, r.target) for r in test], [r.target for r in test]
    if not all(isinstance(r, LabelledText) for r in train):
        raise BadInput(f"{who}: wants labelled texts (text + label) or prompt + target pairs as demonstrations")
    if any(isinstance(r, TextPair) for r in test):
        raise BadInput(f"{who}: the demonstrations are labelled texts, so the test must be texts, not pairs")
    train = labelled(train, "train")
    if any(getattr(r, "label", None) for r in test):
        test = labelled(test, "test")
    task = LabelTask.of(model) or LabelTask.from_records(train, prior=False)
    task.index(train, "train")
    known = all(isinstance(r, LabelledText) and r.label for r in test)
    if known:
        task.index(test, "test")
    questions = [Shot(text_of(r), getattr(r, "label", ""), tuple(getattr(r, "context", ()))) for r in test]
    demos = [Shot(r.text, r.label, r.context) for r in train]
    return Shots(model, task, separator), demos, questions, [q.label for q in questions] if known else None


def flipped(shots: Sequence[Shot], which: int, labels: Sequence[str] | None, chance: random.Random) -> Shot | None:
    """The demonstration with a wrong answer: another label, or another demonstration's target. None without any."""
    names = labels if labels is not None else list(dict.fromkeys(s.label for s in shots))
    others = [name for name in names if name != shots[which].label]
    return replace(shots[which], label=chance.choice(others)) if others else None
