"""Records in tokens, as the technique that learns from them sees them: which tokens are given, and which are learnt."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from intarsia.data import Chat, Dataset, LabelledText, TaskPair, Text, TextPair, Turn, labelled
from intarsia.errors import BadInput, Note
from intarsia.measure.survey_finding import MarkedRecord

if TYPE_CHECKING:
    from rich.text import Text as Drawn

    from intarsia.models import Model

Row = tuple[int, list[int], list[bool]]
"""A record's number, its token ids, and whether each bears the loss."""

STYLE = "bold black on green"


def marked(model: Model, data: Dataset, split: str, most: int) -> tuple[list[MarkedRecord], str]:
    """The first `most` records of a split as tokens; none, and the reason, where no technique would learn from them."""
    views: list[tuple[type, str, Callable[..., Iterator[Row]]]] = [
        (Turn, "adaptation.dialogue", _turns),
        (LabelledText, "adaptation.label", _labels),
        (TaskPair, "adaptation.continual", _tasks),
        (TextPair, "adaptation.instruct", _answers),
        (Chat, "adaptation.instruct", _answers),
        (Text, "perplexity", _texts),
    ]
    records = data[split]
    view = next((view for view in views if isinstance(records[0], view[0])), None)
    if view is None:
        return [], f"{type(records[0]).__name__} records are not learnt from as text"
    try:
        rows = list(view[2](model, data, split, most))
    except BadInput as error:
        return [], f"{view[1]}: {error}"
    decode = model.tokenizer.decode  # type: ignore[union-attr]
    return [
        MarkedRecord(
            split=split, record=number, by=view[1], ids=ids, tokens=[decode([i]) for i in ids], learnt=learnt
        )
        for number, ids, learnt in rows
    ], ""  # fmt: skip


def drawn(record: MarkedRecord, colour: bool) -> Drawn:
    """The tokens as one text; what is learnt is coloured, or stands between ⟦ and ⟧ where there is no colour."""
    from rich.text import Text as Drawn

    from intarsia.report.format import show_token

    out = Drawn(overflow="fold")
    inside = False
    for token, learnt in zip(record.tokens, record.learnt, strict=True):
        if not colour and learnt != inside:
            out.append("⟦" if learnt else "⟧")
        inside = learnt
        out.append(show_token(token), style=STYLE if learnt and colour else "")
        out.append("" if colour and learnt else "\n" * token.count("\n"))
    if inside and not colour:
        out.append("⟧")
    return out


def _turns(model: Model, data: Dataset, split: str, most: int) -> Iterator[Row]:
    """Rows that hold the first turns; of a turn's tokens the last bears the loss: its label is read from the state
    there."""
    from intarsia.adaptation.dialogue.scripts import Writer, Writing
    from intarsia.adaptation.dialogue.technique import DialogueConfig
    from intarsia.measure.likelihood import check_causal

    check_causal(model)
    shown = {turn.group for turn in data[split][:most]}
    numbers = [i for i, turn in enumerate(data[split]) if i < most or turn.group in shown]
    turns = [data[split][i] for i in numbers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)  # the table says how many are too long
        scripts = Writer(model.tokenizer, Writing.of(DialogueConfig(), model)).write(turns)
    for script in scripts:
        if numbers[script.turns[0]] < most:
            read = {at for at, turn in zip(script.reads, script.turns, strict=True) if turns[turn].label}
            yield numbers[script.turns[0]] + 1, list(script.ids), [at in read for at in range(len(script.ids))]


def _labels(model: Model, data: Dataset, split: str, most: int) -> Iterator[Row]:
    from intarsia.adaptation.label import LabelConfig
    from intarsia.adaptation.label_tuning import choose_task
    from intarsia.measure import trie as tries
    from intarsia.measure.likelihood import check_causal
    from intarsia.measure.prompts import encode_prompts

    check_causal(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)  # the table says how many have no label
        records = labelled(data[split], split)
        # Labels are learnt from train, whatever split is looked at.
        known = labelled(data["train"], "train") if "train" in data else records
    task = choose_task(model, LabelConfig(), known, data.facts.get("label_task"))
    trie = tries.of_task(task, model.tokenizer)
    prompts = encode_prompts(model, task, records[:most], room=trie.depth + 1).ids
    numbers = [i for i, record in enumerate(data[split], 1) if record.label]
    for number, prompt, y in zip(numbers, prompts, task.index(records[:most], split), strict=False):
        # Of a label's words only the tokens are learnt at which labels part; behind the last of them nothing is read.
        partings = {len(node.path) for node, _ in trie.steps(y)}
        words = trie.sequences[y][: max(partings) + 1]
        yield number, [*prompt, *words], [False] * len(prompt) + [at in partings for at in range(len(words))]


def _answers(model: Model, data: Dataset, split: str, most: int) -> Iterator[Row]:
    from intarsia.adaptation.conversations import IGNORED
    from intarsia.adaptation.instruction_tuning import prepare
    from intarsia.measure.likelihood import check_causal

    check_causal(model)
    for number, record in enumerate(data[split][:most], 1):
        for row in prepare(model, [record], None)[0]:
            yield number, list(row.ids), [label != IGNORED for label in row.labels]


def _tasks(model: Model, data: Dataset, split: str, most: int) -> Iterator[Row]:
    from intarsia.adaptation.continual import ContinualConfig
    from intarsia.adaptation.continual.rows import Writer

    config = ContinualConfig()
    writer = Writer(model, config.template, config.max_tokens, config.max_answer)
    for number, row in enumerate(writer.rows(data[split][:most]), 1):
        yield number, [*row.prompt, *row.answer], [False] * len(row.prompt) + [True] * len(row.answer)


def _texts(model: Model, data: Dataset, split: str, most: int) -> Iterator[Row]:
    for number, record in enumerate(data[split][:most], 1):
        ids = list(model.tokenizer(record.text, verbose=False)["input_ids"])  # type: ignore[misc]
        yield number, ids, [at > 0 for at in range(len(ids))]  # nothing is before the first
