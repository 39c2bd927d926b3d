"""EmoryNLP's own file form: episodes of scenes of utterances, as rows like those of a table.

Source: Zahiri and Choi 2018, "Emotion Detection on TV Show Transcripts with Sequence-based Convolutional Neural
Networks"; the files `emotion-detection-trn.json`, `-dev.json` and `-tst.json`."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

from intarsia.data.columns import type_name
from intarsia.data.dialogues.turns import scene_name
from intarsia.errors import BadInput, Note

_NAME = re.compile(r"s(\d+)_e(\d+)_c(\d+)_u(\d+)")


def holds_episodes(value: Any) -> bool:
    """Whether a JSON file is of this form."""
    return isinstance(value, dict) and isinstance(value.get("episodes"), list)


def rows_of(value: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each utterance as (its place, its row): scene, turn, speaker, text, emotion, season, episode, scene_id.

    An utterance without words (a note of what is seen) is no turn: it leaves a gap, and a `Note` counts them. Raises
    `BadInput` for a level that is missing or a name that is not like `s01_e02_c03_u004`."""
    silent = 0
    for i, episode in enumerate(value["episodes"], 1):
        for j, scene in enumerate(_list(episode, "scenes", f"{path}: episode {i}"), 1):
            for k, said in enumerate(_list(scene, "utterances", f"{path}: episode {i}: scene {j}"), 1):
                at = f"{path}: episode {i}: scene {j}: utterance {k}"
                if not isinstance(said, dict):
                    raise BadInput(f"{at}: must be an object, is {type_name(said)}")
                name = said.get("utterance_id")
                if not isinstance(name, str) or not (found := _NAME.fullmatch(name.strip())):
                    raise BadInput(f"{at}: 'utterance_id' must be like s01_e02_c03_u004, is {name!r}")
                text = said.get("transcript")
                if isinstance(text, str) and not text.strip():
                    silent += 1
                    continue
                season, number, place, turn = (int(part) for part in found.groups())
                row = {
                    "scene": scene_name(season, number, place),
                    "turn": turn,
                    "speaker": said.get("speakers"),
                    "text": text,
                    "emotion": said.get("emotion"),
                    "season": season,
                    "episode": number,
                    "scene_id": place,
                }
                yield f"{path}: {name}", row
    if silent:
        warnings.warn(f"{path}: {silent:,} utterances without words were left out", Note, stacklevel=4)


def _list(value: Any, key: str, at: str) -> list[Any]:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, list):
        raise BadInput(f"{at}: must be an object with a list '{key}'")
    return found
