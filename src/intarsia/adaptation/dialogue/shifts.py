"""How hard a dialogue is: how often labels change within it.

Source: the curriculum of PRC-Emo (and of Yang et al. 2022, "Hybrid Curriculum Learning for Emotion Recognition in
Conversation", §4.1): a dialogue's difficulty is (shifts + speakers) / (utterances + speakers), where a shift is a
change of label between two turns of one speaker, or between neighbouring turns of two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from intarsia.adaptation.dialogue.scripts import by_dialogue

if TYPE_CHECKING:
    from intarsia.adaptation.dialogue.scripts import Script
    from intarsia.data import Turn


def difficulty(turns: Sequence[Turn]) -> float:
    """Of one dialogue, in order; every change of label weighs 1."""
    last: dict[str, str] = {}
    before: Turn | None = None
    shifts = 0
    for turn in turns:
        if turn.label:
            shifts += last.get(turn.speaker, turn.label) != turn.label
            other = before is not None and before.speaker != turn.speaker
            shifts += bool(other and before is not None and before.label and before.label != turn.label)
            last[turn.speaker] = turn.label
        before = turn
    speakers = len({turn.speaker for turn in turns})
    return (shifts + speakers) / (len(turns) + speakers)


def easier_half(scripts: Sequence[Script], turns: Sequence[Turn]) -> list[int]:
    """Numbers of the scripts whose dialogues are the easier half."""
    hard: dict[int, float] = {}
    for numbers in by_dialogue(turns):
        value = difficulty([turns[i] for i in numbers])
        hard.update(dict.fromkeys(numbers, value))
    order = sorted(range(len(scripts)), key=lambda i: (hard[scripts[i].turns[0]], i))
    return sorted(order[: len(order) // 2])
