"""Making a prompt's wording better by a metric: a model that sees failures proposes, examples decide.

Source: Agrawal et al. 2025, "GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning", Algorithms 1 and
2 (candidates are kept while they are the best on some example; a child has to beat its parent on a few examples before
it is tried on all); demonstrations as candidates: Khattab et al. 2023, "DSPy", §4."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from intarsia.errors import BadInput
from intarsia.measure.intervals import with_interval
from intarsia.progress import tell
from intarsia.prompting.base import Backend, Sampling
from intarsia.prompting.execute.optimising.examples import Example, Metric, divided, examples_of, metric_of
from intarsia.prompting.execute.optimising.journal import Journal
from intarsia.prompting.execute.optimising.optimised import Attempt, Optimised
from intarsia.prompting.execute.optimising.trying import CallsSpent, Tried, Trier, digest
from intarsia.prompting.execute.optimising.wording import Wording, proposed
from intarsia.prompting.execute.prompt import Prompt, find

PROPOSE = "intarsia:propose"
FEW = 4  # examples that a child is tried on first, and whose failures a proposal sees
ROUNDS = 1000


@dataclass(frozen=True)
class Candidate:
    """texts: its stretches of wording. shots: numbers of examples of train that are its demonstrations; None: those
    that the prompt has itself. scores: of each example of dev."""

    number: int
    texts: tuple[str, ...]
    shots: tuple[int, ...] | None
    prompt: Prompt
    scores: tuple[float, ...] = ()


async def optimise(
    prompt: Prompt, data: Sequence[Mapping[str, Any] | Example], metric: str | Metric, backend: Backend, *,
    calls: int = 500, choices: Sequence[str] | None = None, proposer: Backend | None = None,
    propose: Prompt | None = None, shots: str | None = None, shot_count: int = 4, sampling: Sampling | None = None,
    journal: str | Path | None = None, seed: int = 0, at_once: int = 8,
) -> Optimised:  # fmt: skip
    """Look for better wording, and for demonstrations where the prompt takes some.

    - data: rows with the prompt's inputs and an answer (`examples_of`). They are divided: failures and demonstrations
      come from train, dev decides, test says what it is worth.
    - metric: accuracy, exact, contains, ... (`metric_of`), or a function of the answer and the wanted one (0 to 1).
    - calls: of models, all together; what test needs is set aside. It ends when they are spent.
    - choices: where the answer is one of them: default the prompt's `shape`, where that is a list. The likeliest is
      taken, nothing is generated.
    - proposer: who writes (default: `backend`), asked by the prompt `propose` (default: the package's own,
      `intarsia prompt show intarsia:propose`). Only here is it sent.
    - shots: the prompt's input for demonstrations, a list of rows (default: the one called `shots`, if there is one);
      shot_count: how many.
    - journal: a file that makes a stopped run go on.

    Raises `BadInput` for data that does not fit the prompt, and for fewer calls than base and test need."""
    propose = propose or Prompt.load(find(PROPOSE))
    if shots is None:
        shots = "shots" if "shots" in prompt.inputs else ""
    elif shots not in prompt.inputs:
        raise BadInput(f"{prompt.name}: has no input '{shots}' for demonstrations")
    examples = [one for one in data if isinstance(one, Example)]
    if len(examples) < len(data):
        examples = examples_of(prompt, data, shots)  # type: ignore[arg-type]
    if shots and prompt.inputs[shots].required:
        raise BadInput(
            f"{prompt.name}: give the input '{shots}' a default: where it begins is what it is compared with"
        )
    if choices is None and isinstance(prompt.shape, list):
        choices = prompt.shape
    parts = divided(examples, seed)
    least = len(parts["dev"]) + 2 * len(parts["test"]) + 1
    if calls < least:
        raise BadInput(
            f"{calls} calls are too few: base and test alone need {least} with these {len(examples)} examples"
        )
    settings = (named(metric), choices, shots, shot_count, sampling, seed)
    about = {
        "prompt": prompt.version, "propose": propose.version, "model": backend.fingerprint,
        "proposer": (proposer or backend).fingerprint,
        "data": digest(*(part for one in examples for part in (one.text, one.label))), "settings": digest(*settings),
    }  # fmt: skip
    kept = Journal(Path(journal).expanduser() if journal else None, about)
    trier = Trier(
        backend, metric_of(metric), kept, calls=calls, choices=choices, sampling=sampling, shots=shots, at_once=at_once
    )  # fmt: skip
    search = Search(prompt, parts, trier, proposer or backend, propose, shots, shot_count, seed)
    stopped = await search.run()
    return await search.result(named(metric), stopped)


def named(metric: str | Metric) -> str:
    """What a metric is called."""
    return metric if isinstance(metric, str) else getattr(metric, "__qualname__", type(metric).__qualname__)


class Search:
    """The state of one optimisation."""

    def __init__(
        self, prompt: Prompt, parts: dict[str, list[Example]], trier: Trier, proposer: Backend, propose: Prompt,
        shots: str, shot_count: int, seed: int,
    ):  # fmt: skip
        self.wording, self.parts, self.trier = Wording(prompt), parts, trier
        self.proposer, self.propose, self.shots = proposer, propose, shots
        self.shot_count = min(shot_count, len(parts["train"]))
        self.chance = random.Random(seed)
        self.seed = seed
        self.reserve = 2 * len(parts["test"])
        self.candidates: list[Candidate] = []
        self.history: list[Attempt] = []
        self.refused: dict[str, list[str]] = {}  # by stretch: what was proposed for it and was no better

    async def run(self) -> str:
        """Until the calls are spent; why it ended."""
        base = Candidate(0, self.wording.texts, None, self.wording.prompt)
        await self._take(base, Attempt(0, "base", base.prompt.version))
        idle = 0  # rounds in a row that asked nothing: everything that can be asked was
        try:
            for number in range(1, ROUNDS):
                spent = self.trier.spent
                await self._round(number)
                tell("optimising", self.trier.spent, self.trier.calls, best=round(self._best_mean(), 4))
                idle = idle + 1 if self.trier.spent == spent else 0
                if idle >= 20:
                    return "nothing fails on the examples for training any more"
        except CallsSpent:
            return "the calls are spent"
        return f"{ROUNDS} rounds"

    async def _round(self, number: int) -> None:
        parent = self._parent()
        few = self.chance.sample(self.parts["train"], min(FEW, len(self.parts["train"])))
        before = await self.trier.tried(parent.prompt, few, reserve=self.reserve)
        child, kind, parents = await self._child(number, parent, few, before)
        if child is None:
            if kind:
                self._note(kind, parents, why_not="no use could be made of what was proposed")
            return
        if any((child.texts, child.shots) == (other.texts, other.shots) for other in self.candidates):
            return
        after = await self.trier.tried(child.prompt, few, reserve=self.reserve)
        one, two = _mean(before), _mean(after)
        attempt = Attempt(
            0, kind, child.prompt.version, parents, one, two, text=self._changed(parent, child), calls=self.trier.spent
        )  # fmt: skip
        if two <= one:
            if kind == "wording":
                self.refused.setdefault(str(parent.texts), []).append(attempt.text)
            self._note(kind, parents, attempt, "no better on the first examples")
            return
        await self._take(child, attempt)

    async def _child(
        self, number: int, parent: Candidate, few: Sequence[Example], before: Sequence[Tried]
    ) -> tuple[Candidate | None, str, tuple[int, ...]]:
        """A new candidate, how it was made, and of whom. Which way is drawn."""
        ways = ["wording"] * 2 + (["shots"] if self.shots else [])
        base = self.candidates[0]
        others = [c for c in self.candidates if c.number not in (0, parent.number)] if parent.number else []
        if others:
            ways.append("merge")
        way = self.chance.choice(ways)
        if way == "merge":
            # What the parent left as it was, the other may have changed.
            other = self.chance.choice(others)
            texts = [b if a == c else a for a, b, c in zip(parent.texts, other.texts, base.texts, strict=True)]
            shots = other.shots if parent.shots is None else parent.shots
            return self._made(texts, shots), way, (parent.number, other.number)
        if way == "shots":
            drawn = tuple(sorted(self.chance.sample(range(len(self.parts["train"])), self.shot_count)))
            return self._made(parent.texts, drawn), way, (parent.number,)
        failures = [(one, tried) for one, tried in zip(few, before, strict=True) if tried.score < 1]
        if not failures:
            return None, "", ()
        place = self.chance.choice(self.wording.editable)
        text = await self._proposal(number, parent, place, failures)
        new = (
            None
            if text is None
            else self._made((*parent.texts[:place], text, *parent.texts[place + 1 :]), parent.shots)
        )
        return new, way, (parent.number,)

    async def _proposal(
        self, number: int, parent: Candidate, place: int, failures: Sequence[tuple[Example, Tried]]
    ) -> str | None:
        old = parent.texts[place]
        failed = [{"input": one.text, "wanted": one.label, "answer": tried.answer} for one, tried in failures]
        made = self.propose.render(
            prompt=parent.prompt.body, text=old, failures=failed, score=_mean_of(parent.scores),
            refused=self.refused.get(str(parent.texts), [])[-3:], seed="optimise",
        )  # fmt: skip
        sampling = replace(made.sampling, seed=self.seed * ROUNDS + number)
        key = f"propose/{number}/{made.hash[:16]}"
        reply = await self.trier.generated(self.proposer, made, sampling, key, self.reserve)
        return proposed(reply, old)

    def _made(self, texts: Sequence[str], shots: tuple[int, ...] | None) -> Candidate | None:
        rows = None if shots is None else [dict(self.parts["train"][i].row) for i in shots]
        try:
            prompt = self.wording.with_texts(texts, rows, self.shots)
        except BadInput:  # rows that the input's type does not take, text that the template does not
            return None
        return Candidate(len(self.candidates), tuple(texts), shots, prompt)

    async def _take(self, candidate: Candidate, attempt: Attempt) -> None:
        """Try it on all of dev and keep it."""
        tried = await self.trier.tried(candidate.prompt, self.parts["dev"], reserve=self.reserve)
        scores = tuple(one.score for one in tried)
        self.candidates.append(replace(candidate, scores=scores))
        self._note(attempt.kind, attempt.parents, replace(attempt, dev=_mean_of(scores)))

    def _note(self, kind: str, parents: tuple[int, ...], attempt: Attempt | None = None, why_not: str = "") -> None:
        attempt = attempt or Attempt(0, kind, "", parents)
        self.history.append(replace(attempt, number=len(self.history), why_not=why_not, calls=self.trier.spent))

    def _parent(self) -> Candidate:
        """One of the front, drawn by the number of examples that it is the best on."""
        wins = front(np.array([candidate.scores for candidate in self.candidates]))
        numbers = sorted(wins)
        return self.candidates[self.chance.choices(numbers, [wins[number] for number in numbers])[0]]

    def _changed(self, parent: Candidate, child: Candidate) -> str:
        changed = [new for old, new in zip(parent.texts, child.texts, strict=True) if old != new]
        if changed:
            return changed[0]
        rows = [self.parts["train"][i].row for i in child.shots or ()]
        return json.dumps(rows, ensure_ascii=False, default=str)

    def _best(self) -> Candidate:
        return max(self.candidates, key=lambda candidate: (_mean_of(candidate.scores), -candidate.number))

    def _best_mean(self) -> float:
        return _mean_of(self._best().scores)

    async def result(self, metric: str, stopped: str) -> Optimised:
        """Base and best on test."""
        base, best, test = self.candidates[0], self._best(), self.parts["test"]
        scores = np.array([
            [tried.score for tried in await self.trier.tried(one.prompt, test)] for one in (base, best)
        ])  # fmt: skip
        differences = np.stack([scores[1] - scores[0], np.ones(len(test))], axis=1)
        groups = [one.group for one in test]
        gain = with_interval(
            differences, lambda sums: sums[..., 0] / np.maximum(sums[..., 1], 1), groups, seed=self.seed
        )  # fmt: skip
        tell("optimising", self.trier.spent, self.trier.calls, finished=True)
        wins = front(np.array([candidate.scores for candidate in self.candidates]))
        return Optimised(
            best.prompt, base.prompt, metric, (_mean_of(base.scores), _mean_of(best.scores)),
            (float(scores[0].mean()), float(scores[1].mean())), gain, tuple(self.history), tuple(sorted(wins)),
            self.trier.spent, stopped, {name: len(part) for name, part in self.parts.items()},
        )  # fmt: skip


def front(scores: np.ndarray) -> dict[int, int]:
    """Candidates that are the best on some example, and on how many; without those that others beat everywhere they
    are the best (GEPA, Algorithm 2).

    - scores: [candidate, example]."""
    best = scores >= scores.max(0)[None] - 1e-12
    alive = {number for number in range(len(scores)) if best[number].any()}
    # One whose examples are all won by the rest too, and that is no better on the whole, adds nothing.
    for number in sorted(alive, key=lambda number: (scores[number].mean(), -number)):
        rest = [other for other in alive if other != number]
        if rest and best[rest][:, best[number]].any(0).all():
            alive.discard(number)
    return {number: int(best[number].sum()) for number in sorted(alive)}


def _mean(tried: Sequence[Tried]) -> float:
    return _mean_of([one.score for one in tried])


def _mean_of(scores: Sequence[float]) -> float:
    return float(sum(scores) / len(scores)) if scores else 0.0
