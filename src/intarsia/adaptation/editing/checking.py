"""What is checked before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from intarsia.adaptation.editing import wording
from intarsia.adaptation.editing.places import Place, check_linear, places
from intarsia.data import FactEdit
from intarsia.errors import BadInput
from intarsia.measure.likelihood import check_causal

if TYPE_CHECKING:
    from intarsia.adaptation.editing.technique import EditConfig
    from intarsia.models import Model

WHO = "adaptation.edit"


def check(model: Model, config: EditConfig, edits: Sequence[FactEdit]) -> list[Place]:
    """The layers that may be edited: those the settings name, or all that can be.

    Raises `BadInput` for a network that is not causal, one whose MLPs cannot be edited, and edits that are none."""
    check_causal(model)
    if model.tokenizer is None or not model.tokenizer.is_fast:
        raise BadInput(f"{WHO} needs a fast tokenizer: its tokens must know their characters")
    if config.method == "rome" and len(config.layers) > 1:
        raise BadInput(f"{WHO}: rome edits one layer, {len(config.layers)} were given; memit edits several")
    if len(set(config.layers)) < len(config.layers):
        raise BadInput(f"{WHO}: layers: one stands twice ({', '.join(map(str, config.layers))})")
    check_edits(model, edits)
    able = places(model, config.layers)
    prompt = wording.row(model, edits[0].prompt)
    kept = check_linear(model, able, prompt.ids)
    if len(kept) < (len(able) if config.layers else 1):
        odd = next(place for place in able if place not in kept)
        raise BadInput(
            f"{WHO}: layer {odd.layer} cannot be edited: what its MLP adds to the stream is not what its down "
            "projection gives (a norm comes after it)"
        )
    return kept


def check_edits(model: Model, edits: Sequence[FactEdit]) -> None:
    """Raise `BadInput` for the first edit that is none, with its number."""
    if not edits:
        raise BadInput(f"{WHO}: there are no edits: give prompts with subject and target")
    asked: dict[str, int] = {}
    for number, edit in enumerate(edits, 1):
        where = f"{WHO}: edit {number}"
        if not isinstance(edit, FactEdit):
            raise BadInput(f"{where} is a {type(edit).__name__}; wanted: prompt, subject and target")
        for name in ("prompt", "subject", "target"):
            if not getattr(edit, name).strip():
                raise BadInput(f"{where}: '{name}' is empty")
        if edit.subject not in edit.prompt:
            raise BadInput(
                f"{where}: the prompt '{edit.prompt}' does not hold its subject '{edit.subject}': write it in, or "
                "{subject} in its place"
            )
        if edit.old.strip() and edit.old.strip() == edit.target.strip():
            raise BadInput(f"{where}: target and old are the same: '{edit.target.strip()}'")
        if edit.neighbour_targets and len(edit.neighbour_targets) != len(edit.neighbours):
            raise BadInput(
                f"{where}: {len(edit.neighbours)} neighbours and {len(edit.neighbour_targets)} answers to them: give "
                "one each, or none"
            )
        others = (*edit.paraphrases, *edit.neighbours, *edit.neighbour_targets, *sum(edit.consequences, ()))
        if not all(text.strip() for text in others):
            raise BadInput(f"{where}: one of its paraphrases, neighbours or consequences is empty")
        if (first := asked.setdefault(edit.prompt.strip(), number)) != number:
            other = "" if edits[first - 1].target.strip() == edit.target.strip() else " and wants another answer"
            raise BadInput(f"{where} asks the same as edit {first}{other}: remove one")
        # Every text is written out once, so that one that is too long is told before the work.
        wording.row(model, edit.prompt, edit.subject, edit.target)
        for prompt in (*edit.paraphrases, *edit.neighbours):
            wording.row(model, prompt, target=edit.target)
        for prompt, answer in edit.consequences:
            wording.row(model, prompt, target=answer)
