"""A model with skills at work: answers, a task less, folded."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from intarsia.adaptation.continual.answer import Answer, AnswerConfig, Answers
from intarsia.adaptation.continual.bundle import TECHNIQUE, merged
from intarsia.adaptation.continual.reading import Reader, by_row
from intarsia.adaptation.continual.routing.attention import Attention
from intarsia.adaptation.continual.routing.router import Same
from intarsia.adaptation.continual.rows import Row, Writer
from intarsia.adaptation.continual.skills import Skills, skills_of
from intarsia.errors import BadInput, did_you_mean
from intarsia.measure import provenance

if TYPE_CHECKING:
    from intarsia.data import Text
    from intarsia.models import Model


def needed(model: Model) -> tuple[Skills, dict[str, Any]]:
    """The skills of a model and what it says of them. Raises `BadInput` where there are none."""
    skills, note = skills_of(model.network), model.extras.get(TECHNIQUE)
    if skills is None or note is None:
        raise BadInput(f"{model.identity.source} has no skills: make some with `intarsia adaptation continual`")
    return skills, note


def answers(model: Model, config: AnswerConfig, texts: Sequence[Text | str]) -> Answers:
    """See `intarsia.adaptation.continual.answer.answer`."""
    skills, note = needed(model)
    plain = [text if isinstance(text, str) else text.text for text in texts]
    if not plain:
        raise BadInput("there are no texts to answer")
    if config.task is not None:
        _known(note, config.task)
    instruction = config.instruction or (note["tasks"][config.task].get("instruction", "") if config.task else "")
    writer = Writer(model, note["template"], note["max_tokens"], config.max_new_tokens)
    rows = [Row("", tuple(writer.prompt(instruction, text)[0]), (writer.end,), ()) for text in plain]
    reader = Reader(model, skills, None)
    reader.prepare(rows)
    if config.task is not None and config.task in skills.names:
        row = skills.row(skills.index(config.task))[None].to(model.device)
        weights = row.expand(len(rows), *row.shape[1:])
    else:
        with torch.no_grad():
            weights = skills.weigh(reader.pooled(rows))
    written = reader.written(rows, by_row(rows, weights), config.max_new_tokens)
    found = []
    for i, (text, said) in enumerate(zip(plain, written, strict=True)):
        mean = [] if weights is None else weights[i].reshape(-1, weights.shape[-1]).mean(0).tolist()
        used = dict(zip(skills.names, (round(value, 4) for value in mean), strict=False))
        found.append(Answer(text=text, answer=said, weights=used if len(skills.names) > 1 else {}))
    return Answers(
        title="Answers", technique="adaptation.answer", answers=found, summary=f"{len(found)} answered.",
        provenance=provenance(settings=config.model_dump(mode="json")),
    )  # fmt: skip


def without(model: Model, tasks: Sequence[str]) -> Model:
    """See `intarsia.adaptation.continual.forget.forget`."""
    skills, note = needed(model)
    if not tasks:
        raise BadInput("which tasks? Give at least one of --tasks")
    for name in tasks:
        _known(note, name)
        if name not in skills.names:
            raise BadInput(
                f"the method {note['method']} keeps all tasks in one block: '{name}' cannot be taken out of it"
            )
    new = model.copy()
    left = skills_of(new.network)
    assert left is not None
    for name in dict.fromkeys(tasks):
        _forget_state(left, left.index(name))
        left.drop(name)
    out = model.with_network(new.network, technique="adaptation.forget", tasks=list(tasks))
    known = {name: value for name, value in note["tasks"].items() if name not in tasks}
    out.extras[TECHNIQUE] = {**copy.deepcopy(note), "tasks": known, "matrix": []}
    return out


def _forget_state(skills: Skills, index: int) -> None:
    """What SAPT reflects on: the task's own, and its block in the others' targets."""
    count = len(skills.names)
    kept = dict(skills.kept)
    if not isinstance(skills.router, Attention):
        return
    out = {}
    for i in range(count):
        if i == index or f"target.{i}" not in kept:
            continue
        target = kept[f"target.{i}"]
        if i > index:
            target = torch.cat([target[..., :index], target[..., index + 1 :]], -1)
            target = target / target.sum(-1, keepdim=True).clamp(min=1e-6)
        out[f"target.{i - (i > index)}"], out[f"pseudo.{i - (i > index)}"] = target, kept[f"pseudo.{i}"]
    skills.kept = out


def folded(model: Model, task: str | None) -> Model:
    """See `intarsia.adaptation.continual.merge.merge`."""
    skills, note = needed(model)
    if skills.prompts is not None:
        raise BadInput("soft prompts stand before the input: they cannot be folded into weights")
    new = model.copy()
    own = skills_of(new.network)
    assert own is not None
    merged(own, new.network, _fixed(own, note, task))
    out = model.with_network(new.network, technique="adaptation.merge", task=task)
    out.extras.pop(TECHNIQUE, None)
    return out


def _fixed(skills: Skills, note: dict[str, Any], task: str | None) -> torch.Tensor:
    """[block], or [layer, block]: the weights to fold at."""
    if task is not None:
        _known(note, task)
    if isinstance(skills.router, Same):
        return torch.ones(len(skills.names))
    if task is not None:
        return skills.row(skills.index(task))
    raise BadInput(
        "which blocks are used depends on the prompt: folded, they would be wrong for all tasks but one. "
        f"Give --task, one of: {', '.join(skills.names)}"
    )


def _known(note: dict[str, Any], name: str) -> None:
    if name not in note["tasks"]:
        there = ", ".join(note["tasks"])
        raise BadInput(f"no task '{name}'{did_you_mean(name, note['tasks'])}; there are: {there}")
