"""Texts as a label task's prompts: template around the text, label behind it, and the cue where the label is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput
from intarsia.interpretation.states import tell_cut, text_of
from intarsia.measure.labels import LabelTask

if TYPE_CHECKING:
    from intarsia.models import Model


@dataclass(frozen=True)
class Prompt:
    """A text to compare, the token position of its cue (the token that predicts the label; None without one), and the
    group it belongs to."""

    text: str
    cue: int | None = None
    group: str | None = None
    cut: bool = False


def prompts(
    records: Sequence[Any], before: Model, after: Model, wanted: bool | None, max_tokens: int
) -> tuple[list[Prompt], bool]:
    """The records as what the models read, and whether they became prompts.

    `wanted` None: as prompts where a task travels with either model and every record has a label. The text inside a
    prompt is cut to `max_tokens` tokens, the template never. Raises `BadInput` when prompts are wanted and there is no
    task."""
    task = LabelTask.of(after) or LabelTask.of(before)
    if wanted and task is None:
        raise BadInput(
            "interpretation.diff: as_prompts is set, but neither model carries a label task: tune one with "
            "adaptation.label, or leave as_prompts out"
        )
    if wanted is None:
        wanted = all(hasattr(record, "label") for record in records)
    if not wanted or task is None:
        return [Prompt(text_of(record), group=getattr(record, "group", None)) for record in records], False
    made = [_prompt(record, task, after, max_tokens) for record in records]
    tell_cut(sum(prompt.cut for prompt in made), len(made), max_tokens)
    return made, True


def _prompt(record: Any, task: LabelTask, model: Model, max_tokens: int) -> Prompt:
    tokenizer = model.tokenizer
    assert tokenizer is not None  # checked with the models
    text = text_of(record)
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    cut = len(ids) > max_tokens
    if cut:
        text = tokenizer.decode(ids[:max_tokens], clean_up_tokenization_spaces=False)
    prompt = task.render(text, getattr(record, "context", ()))
    read = tokenizer(prompt, verbose=False)["input_ids"]
    words = task.verbalisers.get(getattr(record, "label", ""), "")
    whole = tokenizer(prompt + words, verbose=False)["input_ids"]
    if whole[: len(read)] != read:
        # The label melts into the prompt's last token, or the tokenizer closes every text with a special token.
        words = ""
    return Prompt(prompt + words, len(read) - 1, getattr(record, "group", None), cut)
