"""The computation behind `interpretation.self_explanation`."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput
from intarsia.interpretation import states
from intarsia.interpretation.attribution.methods import attribute_one, find_method
from intarsia.interpretation.explained import Explained, explain_text, neutral_token
from intarsia.interpretation.wording import percent
from intarsia.interpretation.words.dialogue import Dialogue
from intarsia.interpretation.words.self_explanation import Said, SelfExplanation, SelfExplanationConfig
from intarsia.measure.intervals import with_interval
from intarsia.measure.likelihood import left_padded
from intarsia.progress import track
from intarsia.sites import generate

if TYPE_CHECKING:
    from intarsia.models import Model

# Common words that go before most nouns and verbs; most should change nothing.
INSERTS = (
    "old", "new", "small", "big", "strange", "quiet", "bright", "dark", "sudden", "careful", "cheap", "rare", "warm",
    "cold", "honest", "famous", "green", "heavy", "simple", "final", "really", "probably", "finally", "slowly",
    "perfectly", "hardly", "completely", "partly", "sadly", "happily", "surprisingly", "apparently",
)  # fmt: skip


def look(model: Model, config: SelfExplanationConfig, records: Sequence[Any], seed: int) -> SelfExplanation:
    """Ask about every text and test the reasons; see `interpretation.self_explanation`."""
    find_method(config.method)
    dialogue = Dialogue(model, config.question, config.labels, config.ask)
    chosen = states.choose(records, config.max_texts, seed, "interpretation.self_explanation")
    generator = random.Random(seed)
    found = []
    for record in track(chosen, "asking for reasons"):
        found.append(_one(model, config, dialogue, states.text_of(record), generator, seed))
    groups = [getattr(record, "group", None) for record in chosen]
    finding = SelfExplanation(
        title=f"What {model.identity.source} says about its reasons",
        technique="interpretation.self_explanation",
        texts=found,
        when=config.when,
        rebuilt=_mean([float(t.rebuilt == t.answer) for t in found], groups, seed),
        named=_mean([t.named for t in found], groups, seed),
        named_gain=_mean([t.named - t.named_by_chance for t in found], groups, seed),
        provenance={"seed": seed, "settings": config.model_dump(mode="json"), "texts": len(found)},
    )
    return finding.model_copy(update={"summary": summarise(finding, len(dialogue.task.labels))})


def _one(
    model: Model, config: SelfExplanationConfig, dialogue: Dialogue, text: str, generator: random.Random, seed: int
) -> Said:
    explained = explain_text(model, text, task=dialogue.task)
    _check_room(model, dialogue, text, config)
    names = dialogue.task.labels
    plain = names[int(explained.log_probs().argmax())]
    reason, answer, probability = _reasons(model, config, dialogue, explained, [text])[0]
    # The reason stands where the text stood.
    rebuilt = names[int(explained.log_probs_of([dialogue.answering(reason or " ")])[0].argmax())]
    explained.choice = names.index(answer)
    scores = attribute_one(explained, config.method, seed)
    by_word = [(float(scores[word].sum()), _word(explained, word)) for word in explained.words]
    important = [w for _, w in sorted(by_word, key=lambda pair: -pair[0])][: config.top]
    said = Said(
        text=text,
        answer=answer,
        probability=probability,
        reason=reason,
        rebuilt=rebuilt,
        important=important,
        named=_share_named(important, reason),
        named_by_chance=_share_named([w for _, w in by_word], reason),
        plain=plain if config.when == "before" else None,
    )
    changed = [insert(text, generator) for _ in range(config.inserts)]
    if not changed:
        return said
    answers = _reasons(model, config, dialogue, explained, [new for new, _ in changed], only_flips_from=answer)
    flips = [(word, result) for (_, word), result in zip(changed, answers, strict=True) if result[1] != answer]
    silent = [(word, result) for word, result in flips if not mentions(result[0], word)]
    example = ""
    if silent:
        word, result = silent[0]
        example = f"With '{word}' put in, '{answer}' becomes '{result[1]}', and the reason is: {result[0].strip()!r}."
    return said.model_copy(
        update={"inserts": len(changed), "flips": len(flips), "silent": len(silent), "example": example}
    )


def _reasons(
    model: Model,
    config: SelfExplanationConfig,
    dialogue: Dialogue,
    explained: Explained,
    texts: list[str],
    only_flips_from: str | None = None,
) -> list[tuple[str, str, float]]:
    """Reason, answer and its probability for each text. Reasons given after the answer are only asked for where the
    answer differs from `only_flips_from`."""
    names = dialogue.task.labels
    if config.when == "before":
        prompts = [dialogue.before(text) for text in texts]
        reasons = write(model, prompts, config.max_new_tokens)
        following = [dialogue.then(p, r) for p, r in zip(prompts, reasons, strict=True)]
        values = explained.log_probs_of(following)
        return [
            (r, names[int(v.argmax())], float(v.max().exp())) for r, v in zip(reasons, values, strict=True)
        ]  # fmt: skip
    values = explained.log_probs_of([dialogue.answering(text) for text in texts])
    answers = [names[int(v.argmax())] for v in values]
    wanted = [i for i, answer in enumerate(answers) if answer != only_flips_from]
    written = write(model, [dialogue.after(texts[i], answers[i]) for i in wanted], config.max_new_tokens)
    reasons = dict(zip(wanted, written, strict=True))
    return [(reasons.get(i, ""), answers[i], float(values[i].max().exp())) for i in range(len(texts))]


def write(model: Model, prompts: list[list[int]], count: int) -> list[str]:
    """What the model greedily writes after each prompt, up to the end of its turn."""
    if not prompts:
        return []
    batch = left_padded(prompts, neutral_token(model))
    inputs = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
    return [text.strip() for text in generate(model, inputs, max_new_tokens=count).texts or []]


def insert(text: str, generator: random.Random) -> tuple[str, str]:
    """The text with one word of `INSERTS` before one of its words, and that word."""
    starts = [m.start() for m in re.finditer(r"\S+", text)]
    word, at = generator.choice(INSERTS), generator.choice(starts)
    return f"{text[:at]}{word} {text[at:]}", word


def mentions(reason: str, word: str) -> bool:
    """Whether a word stands in a reason, in any case and with any punctuation around it."""
    bare = re.sub(r"^\W+|\W+$", "", word).casefold()
    return bool(bare) and re.search(rf"(?<!\w){re.escape(bare)}(?!\w)", reason.casefold()) is not None


def _share_named(words: Sequence[str], reason: str) -> float:
    return sum(mentions(reason, word) for word in words) / len(words) if words else 0.0


def _word(explained: Explained, word: Sequence[int]) -> str:
    return "".join(explained.tokens[i] for i in word).strip()


def _check_room(model: Model, dialogue: Dialogue, text: str, config: SelfExplanationConfig) -> None:
    longest = max(len(dialogue.after(text, name)) for name in dialogue.task.labels)
    wanted = longest + config.max_new_tokens + 16  # an inserted word, and the answer that follows a reason
    if (limit := model.context_length) and wanted > limit:
        raise BadInput(
            f"interpretation.self_explanation: a text with its question and reason takes up to {wanted} tokens, and "
            f"the network's context is {limit}: shorten the text, or lower max_new_tokens"
        )


def _mean(values: list[float], groups: list[str | None], seed: int) -> tuple[float, float, float]:
    import numpy as np

    if len(values) == 1:
        return values[0], values[0], values[0]
    totals = np.stack([np.array(values), np.ones(len(values))], axis=1)
    return with_interval(totals, lambda s: s[..., 0] / s[..., 1].clip(1), groups, seed=seed)


def summarise(finding: SelfExplanation, labels: int) -> str:
    """What the three tests say, in words."""
    count, inserts = len(finding.texts), sum(t.inserts for t in finding.texts)
    text = ""
    if finding.flips:
        text += (
            f"{finding.silent} of {finding.flips} reasons given after an inserted word flipped the answer do not "
            "mention that word: these are not the reasons. "
        )
    elif inserts:
        text += f"None of {inserts} inserted words flipped an answer, so that test says nothing. "
    text += (
        f"From the reason alone the answer comes back in {percent(finding.rebuilt[0])} of {count} texts "
        f"(guessing: {percent(1 / labels)}). Reasons name {percent(finding.named[0])} of the words that attribution "
        f"finds important, and {percent(finding.named[0] - finding.named_gain[0])} of all words"
    )
    text += "." if finding.named_gain[1] > 0 else ": no clear preference."
    if finding.when == "before" and (other := sum(t.plain != t.answer for t in finding.texts)):
        text += f" Giving a reason first changed {other} of {count} answers."
    return text
