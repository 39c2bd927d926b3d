"""Answers of a model with all their signals: the computation behind `interpretation.uncertainty`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.interpretation.continuing import as_choice, asked, check_length, choice_log_probs, encode, tail_of
from intarsia.interpretation.states import Vocabulary, choose, text_of
from intarsia.interpretation.uncertainty import signals as formulas
from intarsia.interpretation.uncertainty.asking import Meaning, Said, Uncertainty, UncertaintyConfig
from intarsia.interpretation.uncertainty.meaning import Words, clusters, meaning
from intarsia.interpretation.writing import Written, write
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model

WHO = "interpretation.uncertainty"


@dataclass
class Answered:
    """A prompt as token ids, its greedy answer, the drawn ones, and what follows from them."""

    prompt: str
    ids: list[int]
    greedy: Written
    drawn: list[Written]
    said: Said


def look(
    model: Model, config: UncertaintyConfig, texts: Sequence[Any], encoder: Model | None, nli: Model | None, seed: int
) -> Uncertainty:
    """Answer every prompt and measure the signals; see `interpretation.uncertainty`."""
    judge = meaning(encoder, nli, config.least_cosine)
    chosen = [text_of(record) for record in choose(texts, config.max_texts, seed, WHO)]
    answered = answer(model, config, chosen, judge, seed)
    found = Uncertainty(
        title=f"How sure {model.identity.source} is of its answers",
        technique=WHO,
        said=[a.said for a in answered],
        judge=judge.name,
        samples=config.samples,
        provenance={"seed": seed, "settings": config.model_dump(), "texts": len(chosen), "judge": judge.name},
    )
    return found.model_copy(update={"summary": summarise(found)})


def answer(model: Model, config: UncertaintyConfig, prompts: Sequence[str], judge: Words, seed: int) -> list[Answered]:
    """The greedy answer and `samples` drawn ones for each prompt, with all signals of this module."""
    questions = [config.template.replace("{text}", prompt) for prompt in prompts]
    ids = [encode(model, asked(model, question, config.chat)) for question in questions]
    for row in ids:
        check_length(model, len(row) + config.max_new_tokens, "a prompt with its answer")
    stop = ("\n",) if config.first_line else ()
    name = Vocabulary(model)
    found = []
    for i, (prompt, row) in enumerate(zip(prompts, track(ids, "drawing answers"), strict=True)):
        greedy, *drawn = write(
            model, row, samples=config.samples, max_new_tokens=config.max_new_tokens, temperature=config.temperature,
            top_p=config.top_p, stop=stop, seed=seed + i,
        )  # fmt: skip
        said = Said(
            prompt=prompt, answer=greedy.text.strip(), tokens=[name(t) for t in greedy.ids],
            entropies=greedy.entropies, signals=_of_greedy(greedy), meanings=[],
        )  # fmt: skip
        _add_samples(model, said, greedy, drawn, judge)
        found.append(Answered(prompt, row, greedy, drawn, said))
    for one, value in zip(found, p_true(model, config, found), strict=True):
        one.said.signals["p_true"] = value
    return found


def _of_greedy(greedy: Written) -> dict[str, float]:
    total = float(np.sum(greedy.log_probs))
    return {
        "entropy": float(np.mean(greedy.entropies)),
        "max_entropy": float(np.max(greedy.entropies)),
        "log_prob": total,
        "mean_prob": float(np.exp(total / len(greedy.log_probs))),
    }


def _add_samples(model: Model, said: Said, greedy: Written, drawn: list[Written], judge: Words) -> None:
    texts = [greedy.text.strip(), *(w.text.strip() for w in drawn)]
    of = clusters(judge, said.prompt, texts)
    own, mean_log_probs = of[1:], [float(np.mean(w.log_probs)) for w in drawn]
    # Numbered anew: the greedy answer may stand alone in its cluster.
    order = {c: i for i, c in enumerate(dict.fromkeys(own))}
    numbers = [order[c] for c in own]
    shares = formulas.cluster_shares(numbers)
    firsts = {numbers[i]: texts[i + 1] for i in reversed(range(len(numbers)))}
    said.meanings = [
        Meaning(text=firsts[c], share=float(shares[c])) for c in sorted(firsts, key=lambda c: (-shares[c], c))
    ]
    sars = [formulas.token_sar(w.log_probs, relevance(model, said.prompt, w, judge)) for w in (greedy, *drawn)]
    pairs = [(a, b) for a in texts[1:] for b in texts[1:]]
    similar = judge.similarity(pairs).reshape(len(drawn), len(drawn))
    said.signals |= {
        "token_sar": sars[0],
        "consistency": float(np.mean([c == of[0] for c in own])),
        "predictive_entropy": formulas.predictive_entropy(mean_log_probs),
        "semantic_entropy": formulas.semantic_entropy(mean_log_probs, numbers),
        "cluster_entropy": formulas.cluster_entropy(numbers),
        "sar": formulas.sar(sars[1:], similar),
    }


def relevance(model: Model, prompt: str, written: Written, judge: Words) -> np.ndarray:
    """[token]: 1 - similarity of prompt and answer with the same without that token (Duan et al. 2023, equation 3)."""
    decode = model.tokenizer.decode  # type: ignore[union-attr]
    whole = f"{prompt} {decode(written.ids).strip()}"
    without = [f"{prompt} {decode(written.ids[:i] + written.ids[i + 1 :]).strip()}" for i in range(len(written.ids))]
    return 1 - judge.similarity([(whole, other) for other in without])


def p_true(model: Model, config: UncertaintyConfig, answered: Sequence[Answered]) -> list[float]:
    """What the model gives the letter of "True" against that of "False" when it is shown its greedy answer."""
    texts = [
        asked(model, config.truth.replace("{question}", a.prompt).replace("{answer}", a.said.answer), config.chat)
        for a in answered
    ]
    choices = [[as_choice(letter, tail_of(model, text, letter)) for letter in "AB"] for text in texts]
    found = choice_log_probs(model, [encode(model, text) for text in texts], choices)
    return [float(values.softmax(0)[0]) for values in found]


def summarise(found: Uncertainty) -> str:
    """The surest and the least sure answer, and what the signals rest on."""
    ranked = found.ranked()
    last, first = ranked[0], ranked[-1]
    alone = sum(len(s.meanings) == 1 for s in found.said)
    text = (
        f"To {alone} of {len(found.said)} prompts all {found.samples} drawn answers mean the same. Least sure: "
        f"'{last.prompt.strip()[-40:]}' ({len(last.meanings)} meanings, semantic entropy "
        f"{last.signals['semantic_entropy']:.2f} nats)"
    )
    if len(ranked) > 1:
        text += (
            f"; surest: '{first.prompt.strip()[-40:]}', answered '{first.answer}' "
            f"({first.signals['semantic_entropy']:.2f} nats)"
        )
    return text + f". Answers count as the same when {found.judge}. Sure does not mean right."
