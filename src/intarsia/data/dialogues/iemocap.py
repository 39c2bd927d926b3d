"""IEMOCAP as its licence holders have it: five sessions of two speakers, transcripts beside evaluations.

Source: Busso et al. 2008, "IEMOCAP: Interactive emotional dyadic motion capture database". The texts lie in
`SessionN/dialog/transcriptions`, the emotions in `SessionN/dialog/EmoEvaluation`, the videos in
`SessionN/dialog/avi/DivX`. The corpus is not ours to hand on; this reads a copy that is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from intarsia.data.dialogues.turns import mended
from intarsia.data.records import Turn
from intarsia.errors import BadInput

Classes = Literal["six", "all"]
EMOTIONS = {
    "neu": "neutral", "hap": "happy", "sad": "sad", "ang": "angry", "exc": "excited", "fru": "frustrated",
    "fea": "fear", "sur": "surprise", "dis": "disgust", "oth": "other",
}  # fmt: skip
"""Codes and their words; `xxx`, on which nobody agreed, is no emotion."""
SIX = ("neutral", "happy", "sad", "angry", "excited", "frustrated")
"""The classes that papers report on."""
TEST_SESSION = "5"

_EVALUATED = re.compile(r"\[\s*([\d.]+)\s*-\s*([\d.]+)\s*\]\s+(\w+)\s+(\w{3})\s+\[([^\]]*)\]")
_SAID = re.compile(r"(\w+_([FM])\w+)\s+\[\s*([\d.]+)\s*-\s*([\d.]+)\s*\]\s*:(.*)")


def sessions_of(folder: Path) -> dict[str, Path]:
    """The `dialog` folder of each session by its number; none where the folder is not of this form."""
    if not folder.is_dir():
        return {}
    found = {}
    for entry in sorted(folder.iterdir()):
        if (name := re.fullmatch(r"session(\d+)", entry.name.lower())) and (entry / "dialog/transcriptions").is_dir():
            found[name[1]] = entry / "dialog"
    return found


def read_iemocap(folder: str | Path, classes: Classes = "six") -> list[Turn]:
    """All turns, session after session, each dialogue in the order of time.

    - folder: the one that holds `Session1` to `Session5`.
    - classes: `six` (neutral, happy, sad, angry, excited, frustrated) leaves turns with another emotion unlabelled, so
      that they are context only; `all` labels also fear, surprise, disgust and other.

    The column `emotion` keeps every turn's emotion, whatever `classes` says. A clip is the video of the whole dialogue,
    where it is there; `start` and `end` are the turn's seconds in it. Raises `BadInput` for a folder of another form,
    a session without evaluations or an unknown code."""
    folder = Path(folder)
    if classes not in ("six", "all"):
        raise BadInput(f"classes must be six or all, given: {classes!r}")
    if not (sessions := sessions_of(folder)):
        raise BadInput(f"{folder}: no IEMOCAP corpus; wanted Session1/dialog/transcriptions and so on in it")
    return [turn for number, session in sessions.items() for turn in _session(number, session, classes)]


def splits_of(turns: list[Turn]) -> dict[str, list[Turn]]:
    """By speakers, as papers do it: session 5 is `test`, the others are `train`."""
    splits: dict[str, list[Turn]] = {"train": [], "test": []}
    for turn in turns:
        splits["test" if dict(turn.fields)["session"] == TEST_SESSION else "train"].append(turn)
    return {name: part for name, part in splits.items() if part}


def _session(number: str, session: Path, classes: Classes) -> Iterator[Turn]:
    if not (session / "EmoEvaluation").is_dir():
        raise BadInput(f"{session}: no folder 'EmoEvaluation' in it, which holds the emotions")
    if not (transcripts := _texts(session / "transcriptions")):
        raise BadInput(f"{session / 'transcriptions'}: no transcripts (*.txt) in it")
    for transcript in transcripts:
        emotions = _emotions(session / "EmoEvaluation" / transcript.name)
        clip = session / "avi" / "DivX" / f"{transcript.stem}.avi"
        said = sorted(_said(transcript), key=lambda line: (line[2], line[3], line[0]))
        for place, (name, speaker, start, end, text) in enumerate(said):
            emotion, strength = emotions.get(name, ("", ()))
            fields = [("session", number), ("utterance", name), ("emotion", emotion)]
            fields += [("start", f"{start:.4f}"), ("end", f"{end:.4f}")]
            fields += list(zip(("valence", "activation", "dominance"), strength, strict=False))
            yield Turn(
                text, emotion if classes == "all" or emotion in SIX else "", transcript.stem, speaker=speaker,
                number=place, clip=str(clip) if clip.is_file() else "", fields=tuple(fields),
            )  # fmt: skip


def _said(path: Path) -> Iterator[tuple[str, str, float, float, str]]:
    """(utterance, speaker, start, end, text) of the lines with a time; the others are remarks."""
    for line in _lines(path):
        if (found := _SAID.match(line)) and (text := mended(found[5]).strip()):
            yield found[1], found[2], float(found[3]), float(found[4]), text


def _emotions(path: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Emotion and (valence, activation, dominance) of each utterance."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file; it holds the emotions of a transcript that is there")
    found = {}
    for number, line in enumerate(_lines(path), 1):
        if match := _EVALUATED.match(line):
            _, _, name, code, strength = match.groups()
            if code not in (*EMOTIONS, "xxx"):
                raise BadInput(f"{path}: line {number}: unknown emotion '{code}'; known: {', '.join(EMOTIONS)}, xxx")
            found[name] = EMOTIONS.get(code, ""), tuple(part.strip() for part in strength.split(","))
    return found


def _texts(folder: Path) -> list[Path]:
    # The archive holds `._Ses01F_impro01.txt` and such, left by the system it was packed on.
    return sorted(path for path in folder.glob("*.txt") if not path.name.startswith("."))


def _lines(path: Path) -> list[str]:
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", "replace")  # as the transcripts were written
    return text.replace("\r\n", "\n").split("\n")  # not splitlines(): U+0085 is an ellipsis gone wrong
