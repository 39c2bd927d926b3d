"""The computation behind `interpretation.chain_of_thought`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from intarsia.data import TextPair
from intarsia.errors import BadInput
from intarsia.interpretation import averages
from intarsia.interpretation.continuing import (
    as_choice,
    asked,
    check_length,
    choice_log_probs,
    encode,
    tail_of,
    token_count,
    token_log_probs,
)
from intarsia.interpretation.in_context.chain import Chain, ChainOfThought, ChainOfThoughtConfig, Changed
from intarsia.interpretation.in_context.shots import spaced
from intarsia.interpretation.in_context.steps import filled, mistaken, split_steps
from intarsia.interpretation.states import choose, text_of
from intarsia.interpretation.wording import percent
from intarsia.interpretation.writing import write
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model

WHO = "interpretation.chain_of_thought"


@dataclass
class Case:
    """A question as it is asked, its chain, and the right answer where it is known."""

    question: str
    prompt: str
    chain: str
    right: str | None
    written: bool
    group: str | None = None


class Answers:
    """Scores of one question's answer after any chain.

    The answer is what the model says after the whole chain: one of the choices, or its own greedy words."""

    def __init__(self, model: Model, config: ChainOfThoughtConfig, case: Case):
        self.model, self.config, self.case = model, config, case
        whole = self.text(case.chain)
        self.choices: list[Any] | None = None
        if config.choices:
            self.choices = [as_choice(c, tail_of(model, whole, spaced(whole, c))) for c in config.choices]
            self.best = int(choice_log_probs(model, [encode(model, whole)], [self.choices])[0].argmax())
            self.answer = config.choices[self.best]
        else:
            written = write(model, encode(model, whole), max_new_tokens=config.answer_tokens, stop=("\n",))[0]
            self.tail, self.answer = written.ids, written.text
            if not self.tail:
                raise BadInput(
                    f"{WHO}: the model answers '{case.question[:40]}' with nothing: give choices, or another cue"
                )

    def text(self, chain: str) -> str:
        """Question, chain and cue."""
        return f"{self.case.prompt}{self.config.lead if chain else ''}{chain}{self.config.cue}"

    def score(self, chains: Sequence[str]) -> list[tuple[float, bool]]:
        """(log probability of the answer, whether it is the one given) after each chain."""
        return self.score_texts([self.text(chain) for chain in chains])

    def score_texts(self, texts: Sequence[str]) -> list[tuple[float, bool]]:
        """The same after whole texts."""
        prompts = [encode(self.model, text) for text in texts]
        if self.choices is not None:
            found = choice_log_probs(self.model, prompts, [self.choices] * len(prompts))
            return [(float(v.log_softmax(-1)[self.best]), int(v.argmax()) == self.best) for v in found]
        measured = token_log_probs(self.model, prompts, [self.tail] * len(prompts))
        return [(float(log_p.sum()), bool(top.all())) for log_p, _, top in measured]


def look(
    model: Model, config: ChainOfThoughtConfig, test: Sequence[Any], paraphrases: Sequence[Any] | None, seed: int
) -> ChainOfThought:
    """Change the chains and score the answers; see `interpretation.chain_of_thought`."""
    if len(config.choices) == 1:
        raise BadInput(f"{WHO}: choices has one entry only: wants two or more, or none")
    records = [r if not isinstance(r, TextPair) else _Question(r) for r in test]
    chosen = choose(records, config.max_texts, seed, WHO)
    given = _given(paraphrases)
    cases = [_case(model, config, record) for record in track(chosen, "chains of thought")]
    all_steps = [split_steps(case.chain, config.max_steps) for case in cases]
    chance = random.Random(seed)
    chains = []
    for i, (case, steps) in enumerate(zip(track(cases, "changing the chains"), all_steps, strict=True)):
        others = [step for j, other in enumerate(all_steps) if j != i for step in other]
        chains.append(_examine(model, config, case, steps, others, given.get(case.question), chance))
    groups = [case.group for case in cases]
    found = ChainOfThought(
        title=f"Does the chain of thought carry the answer of {model.identity.source}?",
        technique=WHO,
        chains=chains,
        area=averages.mean([c.area for c in chains], groups, seed=seed),
        maps=config.maps,
        provenance={"seed": seed, "settings": config.model_dump(), "texts": len(chains)},
    )
    tests: dict[str, list[list[Changed]]] = {
        "no chain": [[Changed(fall=c.early[-1] - c.early[0], same=c.same[0])] for c in chains],
        "filler": [[c.filler] for c in chains],
        "mistake": [c.mistakes for c in chains],
        "paraphrase": [[c.paraphrase] if c.paraphrase else [] for c in chains],
    }
    for name, results in tests.items():
        kept = [(group, r) for group, r in zip(groups, results, strict=True) if r]
        if kept:
            own = [group for group, _ in kept]
            found.changed[name] = averages.mean([sum(not c.same for c in r) / len(r) for _, r in kept], own, seed=seed)
            found.fall[name] = averages.mean([sum(c.fall for c in r) / len(r) for _, r in kept], own, seed=seed)
    judged = [c for c in chains if c.right is not None]
    if judged:
        found.accuracy = averages.mean([bool(c.right) for c in judged], seed=seed)
        found.accuracy_without = averages.mean([bool(c.right_without) for c in judged], seed=seed)
    return found.model_copy(update={"summary": summarise(found)})


class _Question:
    """A pair, read by its question."""

    def __init__(self, pair: TextPair):
        self.text, self.target, self.group = pair.prompt, pair.target, pair.group


def _given(paraphrases: Sequence[Any] | None) -> dict[str, str]:
    if paraphrases and not all(isinstance(p, TextPair) for p in paraphrases):
        raise BadInput(f"{WHO}: paraphrases wants pairs: a question (prompt) and its chain in other words (target)")
    return {p.prompt: p.target for p in paraphrases or ()}


def _case(model: Model, config: ChainOfThoughtConfig, record: Any) -> Case:
    question, target = text_of(record), getattr(record, "target", None)
    prompt = asked(model, question, config.chat)
    chain, mark, right = (target or "").partition(config.mark)
    known: str | None = right.strip() if mark else (target or "").strip() or None
    if mark:
        if not chain.strip():
            raise BadInput(f"{WHO}: the target of '{question[:40]}' has no chain before '{config.mark}'")
        written = False
        chain = chain.strip()
    else:
        ids = encode(model, prompt + config.lead)
        written = True
        chain = write(model, ids, max_new_tokens=config.max_new_tokens)[0].text.strip()
        if not chain:
            raise BadInput(f"{WHO}: the model writes no chain for '{question[:40]}': give one, or another lead")
    return Case(question, prompt, chain, known, written, getattr(record, "group", None))


def _examine(
    model: Model, config: ChainOfThoughtConfig, case: Case, steps: list[str], others: list[str],
    paraphrase: str | None, chance: random.Random,
) -> Chain:  # fmt: skip
    answers = Answers(model, config, case)
    filler = filled(config.filler, token_count(model, config.filler), token_count(model, case.chain))
    places = sorted(chance.sample(range(len(steps)), min(config.mistakes, len(steps))))
    spoiled = []
    for place in places:
        wrong = mistaken(steps[place], others, chance)
        head = "".join(steps[:place]) + wrong
        rest = "".join(steps[place + 1 :])
        if config.regenerate and rest.strip():
            rest = _go_on(model, config, case, head, rest)
        spoiled.append((place, wrong, head + rest))
    if paraphrase is None and config.paraphrase:
        paraphrase = _reworded(model, config, case.chain) or None
    early = ["".join(steps[:k]).rstrip() for k in range(len(steps))] + [case.chain]
    without = ["".join(steps[:k] + steps[k + 1 :]).rstrip() for k in range(len(steps))]
    more = [filler, *(chain for _, _, chain in spoiled), *([paraphrase] if paraphrase else [])]
    scores = answers.score([*early, *without, *more])
    full = scores[len(steps)][0]

    def changed(index: int, text: str = "", step: int | None = None) -> Changed:
        return Changed(fall=full - scores[index][0], same=scores[index][1], text=text, step=step)

    n = len(steps)
    first_mistake = 2 * n + 2
    chain = Chain(
        question=case.question, steps=steps, answer=answers.answer, written=case.written,
        early=[score for score, _ in scores[: n + 1]], same=[same for _, same in scores[: n + 1]],
        without=[changed(n + 1 + k, steps[k], k) for k in range(n)],
        filler=changed(2 * n + 1, filler),
        mistakes=[changed(first_mistake + i, wrong, place) for i, (place, wrong, _) in enumerate(spoiled)],
        paraphrase=changed(len(scores) - 1, paraphrase) if paraphrase else None,
    )  # fmt: skip
    if case.right is not None:
        chain.right = _is_right(answers.answer, case.right)
        chain.right_without = chain.right if chain.same[0] else _is_right(_answer(answers, ""), case.right)
    return chain


def _answer(answers: Answers, chain: str) -> str:
    """What is answered after a chain."""
    ids = encode(answers.model, answers.text(chain))
    if answers.choices is not None:
        best = int(torch.argmax(choice_log_probs(answers.model, [ids], [answers.choices])[0]))
        return answers.config.choices[best]
    return write(answers.model, ids, max_new_tokens=answers.config.answer_tokens, stop=("\n",))[0].text


def _is_right(answer: str, right: str) -> bool:
    plain = [" ".join(text.casefold().split()).strip(" .!,") for text in (answer, right)]
    return plain[0] == plain[1] or plain[0].split()[:1] == [plain[1]]


def _go_on(model: Model, config: ChainOfThoughtConfig, case: Case, head: str, rest: str) -> str:
    """What the model writes after a spoiled step, as long as what stood there."""
    ids = encode(model, case.prompt + config.lead + head)
    room = token_count(model, rest)
    check_length(model, len(ids) + room + config.answer_tokens, "a chain with a mistake")
    return write(model, ids, max_new_tokens=room)[0].text.rstrip()


def _reworded(model: Model, config: ChainOfThoughtConfig, chain: str) -> str:
    """The chain as the model says it in other words; empty where that does not fit its context."""
    text = f"Say the same in other words.\n{chain}\n"
    prompt = asked(model, text, config.chat)
    ids = encode(model, prompt if config.chat else prompt + "In other words:")
    length = round(1.5 * token_count(model, chain)) + 4
    if model.context_length and len(ids) + length > model.context_length:
        return ""
    return write(model, ids, max_new_tokens=length, stop=() if config.chat else ("\n\n",))[0].text.strip()


def summarise(found: ChainOfThought) -> str:
    """What the chain does for the answer, in words."""
    none = found.changed["no chain"]
    text = (
        f"Without any of its chain the model gives the same answer to {percent(1 - none[0])} of {len(found.chains)} "
        f"questions; cut anywhere before its end, the answer is another one in {percent(found.area[0])} of the cases "
        f"({percent(found.area[1])} to {percent(found.area[2])}). "
    )
    parts = [f"filler in place of the chain changes {percent(found.changed['filler'][0])}"]
    if "mistake" in found.changed:
        parts.append(f"a mistake {percent(found.changed['mistake'][0])}")
    if "paraphrase" in found.changed:
        parts.append(f"other words {percent(found.changed['paraphrase'][0])}")
    listed = ", ".join(parts)
    text += listed[0].upper() + listed[1:] + " of the answers."
    if found.accuracy is not None and found.accuracy_without is not None:
        text += f" {percent(found.accuracy[0])} are right with the chain, {percent(found.accuracy_without[0])} without."
    return text
