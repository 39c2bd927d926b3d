"""References: texts that a machine writes on the same topic.

Source: Dou et al. 2024, arXiv 2401.08046: a teacher gives the assignment to a language model and keeps what it answers
as the picture of machine text on this topic. The prompts here are ours; the paper's were not to be had."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from intarsia.detection.writing.seeds import mixed_seed
from intarsia.errors import BadInput, IntarsiaError

if TYPE_CHECKING:
    from intarsia.data import Document
    from intarsia.detection.writing.writer import Writer

PROMPTS = {
    "plain": "{task}\n\nWrite about {words} words.",
    "essay": (
        "Write an essay on the topic below. State a position, support it with reasons and examples, and come to a "
        "conclusion. The essay should have about {words} words and no headings.\n\nTopic: {task}"
    ),
    "abstract": (
        "Below is the title or the subject of a paper. Write the abstract that could stand under it, in one paragraph "
        "of about {words} words: background, method, findings and what they mean.\n\n{task}"
    ),
    "continue": (
        "The lines below begin a text. Go on writing where they stop, in the same manner, for about {words} words, "
        "without repeating them.\n\n{task}"
    ),
    "outline": (
        "Think of an outline of four points for a text on the subject below, then write the text that follows it, "
        "about {words} words of running prose. Give the text alone, not the outline.\n\nSubject: {task}"
    ),
    "student": (
        "I am a student and have to hand in a short text tomorrow. This is what I was given:\n\n{task}\n\nPlease write "
        "it for me in about {words} words, in the first person where that fits."
    ),
}
"""The prompts by name; `{task}` and `{words}` are filled in."""

TRIES = 3
LEAST = 20  # words
TOKENS_A_WORD = 2  # what is asked for must not end in the middle of a sentence
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


def make_references(
    task: str, writer: Writer, *, k: int = 3, prompts: Sequence[str] | None = None, words: int = 200, seed: int = 0
) -> list[Document]:
    """`k` texts that a machine writes for a task.

    - task: what the texts under judgement answer: an assignment, a title, first lines.
    - prompts: how the machine is asked, each with `{task}` in it (and `{words}`, if it likes); default: `PROMPTS`.
      Reference after reference takes the next one, from the seed-th on, so that one kind of prompt is not all there is.
    - words: about how many each has. seed: of the draws.

    An answer of less than 20 words is drawn again, twice at most. The references are labelled `machine`; their group is
    made of the task, so that equal tasks share it. Raises `BadInput` for an empty task or settings that make no sense,
    `IntarsiaError` where the writer does not answer."""
    from intarsia.data import Document

    named = _named(prompts)
    if not task.strip():
        raise BadInput("there is no task to write references for: give the assignment, a title or first lines")
    if k < 1:
        raise BadInput(f"k is {k}: ask for at least one reference")
    if words < LEAST:
        raise BadInput(f"references of {words} words say nothing: ask for at least {LEAST}")
    chosen = [named[(seed + i) % len(named)] for i in range(k)]
    texts = [""] * k
    for number in range(TRIES):
        short = [i for i in range(k) if word_count(texts[i]) < LEAST]
        if not short:
            break
        asked = [chosen[i][1].replace("{words}", str(words)).replace("{task}", task.strip()) for i in short]
        drawn = writer.write(asked, most_tokens=TOKENS_A_WORD * words, seed=mixed_seed(seed, "references", number))
        for i, text in zip(short, drawn, strict=True):
            texts[i] = text.strip()
    for (name, _), text in zip(chosen, texts, strict=True):
        if word_count(text) < LEAST:
            raise IntarsiaError(
                f"{writer.name} wrote {word_count(text)} words for the prompt '{name}' at the last of {TRIES} tries, "
                f"fewer than {LEAST}: give another writer, or other prompts"
            )
    group = hashlib.blake2b(task.strip().encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return [
        Document(text, "machine", group=group, task=task, generator=writer.name, prompt=name)
        for (name, _), text in zip(chosen, texts, strict=True)
    ]


def word_count(text: str) -> int:
    """Words of a text; where a script writes no spaces (Chinese, Japanese), every character is one."""
    return len(_WORD.findall(text))


def _named(prompts: Sequence[str] | None) -> list[tuple[str, str]]:
    if prompts is None:
        return list(PROMPTS.items())
    if isinstance(prompts, str) or not prompts:
        raise BadInput("prompts is no list of prompts: give at least one, each with {task} in it")
    for prompt in prompts:
        if "{task}" not in prompt:
            raise BadInput(f"the prompt {prompt[:60]!r} lacks {{task}}, where the task goes")
    return [(f"prompt {number}", prompt) for number, prompt in enumerate(prompts, 1)]
