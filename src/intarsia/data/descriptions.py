"""What is to be seen in clips, in words: a line for each clip, and the turns of dialogues that the clips belong to."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from intarsia.data.records import Turn
from intarsia.errors import BadInput, Note, writing_to

_NAMED = 5  # clips that a message names


@dataclass(frozen=True)
class View:
    """What is looked at: a clip, or the stretch of it from `start` to `end` seconds."""

    clip: str
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Description(View):
    """What is to be seen in a clip.

    - text: in words; empty where nothing could be seen, `trouble` then says why.
    - sha256: of the file. seconds: how long it is. scenes: how many. times: of the frames it was told from, in seconds.
    - removed: words that were taken out of the text because they name a label."""

    text: str = ""
    sha256: str = ""
    seconds: float = 0.0
    scenes: int = 0
    times: tuple[float, ...] = ()
    removed: int = 0
    trouble: str = ""


def views(records: Iterable[Any]) -> list[View | None]:
    """What each record shows, by its `clip`; None where it names none.

    Where several turns name one file, each shows its own stretch of it: from the second that its field `start` names
    to the one that `end` names. A file of one turn is looked at whole, whatever else its times count from."""
    records = list(records)
    stretches: dict[str, set[tuple[float, float] | None]] = defaultdict(set)
    for record in records:
        if clip := getattr(record, "clip", ""):
            stretches[clip].add(_stretch(record))
    out: list[View | None] = []
    for record in records:
        clip = getattr(record, "clip", "")
        shared = len(stretches[clip]) > 1 if clip else False
        stretch = _stretch(record) if shared else None
        out.append(View(clip, *(stretch or ())) if clip else None)
    return out


def _stretch(record: Any) -> tuple[float, float] | None:
    fields = dict(getattr(record, "fields", ()))
    start, end = (_seconds(fields.get(name, "")) for name in ("start", "end"))
    return None if start is None or end is None or not start < end else (start, end)


def _seconds(text: str) -> float | None:
    """From `6.29` or `00:20:57,256`."""
    if not (found := re.fullmatch(r"\s*(?:(?:(\d+):)?(\d+):)?(\d+(?:[.,]\d+)?)\s*", text)):
        return None
    hours, minutes, seconds = found.groups()
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(seconds.replace(",", "."))


def write_descriptions(path: str | Path, descriptions: Sequence[Description], *, force: bool = False) -> Path:
    """Write a line of JSON for each: `clip`, `text`, `sha256`, `times` and so on. Written whole or not at all.

    A clip that lies in the file's folder, or below it, is named as seen from there: both can be moved together.
    Raises `BadInput` when there is such a file and `force` is not said."""
    path = Path(path).expanduser()
    if path.is_dir():
        raise BadInput(f"{path} is a folder: give the name of a file, such as {path / 'descriptions.jsonl'}")
    if path.exists() and not force:
        raise BadInput(f"{path} is there already: give another name, or force (--force) to replace it")
    folder = path.absolute().parent
    lines = [json.dumps(_row(one, folder), ensure_ascii=False) + "\n" for one in descriptions]
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_text("".join(lines), "utf-8")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return path


def _row(one: Description, folder: Path) -> dict[str, Any]:
    clip = Path(one.clip).absolute()
    named = clip.relative_to(folder).as_posix() if clip.is_relative_to(folder) else str(clip)
    stretch = {} if one.start is None else {"start": one.start, "end": one.end}
    return {
        "clip": named, **stretch, "text": one.text, "times": [round(t, 3) for t in one.times],
        "seconds": round(one.seconds, 3), "scenes": one.scenes, "removed": one.removed, "sha256": one.sha256,
        **({"trouble": one.trouble} if one.trouble else {}),
    }  # fmt: skip


def read_descriptions(path: str | Path) -> list[Description]:
    """The inverse; of other files, lines with `clip` and `text` are enough.

    Raises `BadInput` that names the line for anything else."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise BadInput(f"{path}: no such file; wanted descriptions of clips, as adaptation.describe writes them")
    out = []
    for number, line in enumerate(path.read_text("utf-8").split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BadInput(f"{where}: not valid JSON: {error}") from None
        out.append(_description(row, path.parent, where))
    if not out:
        raise BadInput(f"{path}: no descriptions in it")
    return out


def _description(row: Any, folder: Path, where: str) -> Description:
    if not isinstance(row, dict) or not isinstance(row.get("clip"), str) or not row["clip"]:
        raise BadInput(f"{where}: an object with 'clip', the path of a clip, and 'text' is wanted")
    if not isinstance(row.get("text"), str):
        raise BadInput(f"{where}: 'text' must be what is to be seen in the clip, in words")
    try:
        start, end = (None if row.get(name) is None else float(row[name]) for name in ("start", "end"))
        return Description(
            str(folder / Path(row["clip"]).expanduser()), start, end, row["text"], str(row.get("sha256", "")),
            float(row.get("seconds", 0)), int(row.get("scenes", 0)), tuple(map(float, row.get("times", ()))),
            int(row.get("removed", 0)), str(row.get("trouble", "")),
        )  # fmt: skip
    except (TypeError, ValueError) as error:
        raise BadInput(f"{where}: {error}") from None


def described(turns: Sequence[Turn], descriptions: Sequence[Description] | str | Path) -> list[Turn]:
    """The turns with `about` filled: what is to be seen in their clips. Turns without a description stay as they are.

    - descriptions: or the file they were written to.

    They are joined by the path of the clip (and the stretch of it, where several turns share a file: see `views`);
    where no path fits, by what the file holds. A `Note` says how many turns with a clip have no description and names
    the first. Raises `BadInput` when no turn names a clip, or none that does has a description."""
    from intarsia.models.cache import sha256_of

    if isinstance(descriptions, str | Path):
        descriptions = read_descriptions(descriptions)
    known = [one for one in descriptions if one.text.strip()]
    by_path = {(_place(one.clip), one.start, one.end): one.text for one in known}
    by_content = {(one.sha256, one.start, one.end): one.text for one in known if one.sha256}
    out, missing, named = [], [], 0
    for turn in turns:
        if not getattr(turn, "clip", ""):  # other records have none
            out.append(turn)
            continue
        named += 1
        spans = [*([span] if (span := _stretch(turn)) else []), (None, None)]
        text = next((by_path[key] for span in spans if (key := (_place(turn.clip), *span)) in by_path), None)
        if text is None and by_content and Path(turn.clip).is_file():
            digest = sha256_of(Path(turn.clip))
            text = next((by_content[key] for span in spans if (key := (digest, *span)) in by_content), None)
        if text is None:
            missing.append(turn.clip)
        out.append(turn if text is None else replace(turn, about=text))
    if not named:
        raise BadInput(f"none of {len(turns)} turns names a clip: give turns with a column 'clip'")
    if len(missing) == named:
        first = known[0].clip if known else "none"
        raise BadInput(
            f"none of {named} turns with a clip has a description among {len(known)}; they are joined by the clip's "
            f"path or content. The first turn's: {missing[0]}; the first description's: {first}"
        )
    if missing:
        warnings.warn(
            f"{len(missing)} of {named} turns with a clip have no description: {listed(missing)}", Note, stacklevel=2
        )
    return out


def _place(clip: str) -> str:
    return str(Path(clip).expanduser().resolve())


def listed(clips: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    names = list(dict.fromkeys(clips))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
