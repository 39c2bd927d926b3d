"""From what a recipe or a command line names to a `Dataset`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from intarsia.data import streams
from intarsia.data.clips import holds_clips
from intarsia.data.columns import UnknownForm
from intarsia.data.descriptions import described
from intarsia.data.dialogues import iemocap, relabelled
from intarsia.data.pictures import holds_pictures
from intarsia.data.readers import FORMATS, read
from intarsia.data.records import Dataset
from intarsia.errors import BadInput, did_you_mean

_KINDS = {"Text": "text", "FactEdit": "edits", "ImageText": "images", "ImageQuestion": "images"}
_ALIASES = {"val": "dev", "valid": "dev", "validation": "dev", "eval": "dev", "trn": "train", "tst": "test"}
_ORDER = ("train", "dev", "test")


def _python_docs() -> Dataset:
    from intarsia.data.python_docs import python_docs

    return python_docs()


KNOWN: dict[str, Callable[[], Dataset]] = {"python-docs": _python_docs}
"""Data sets that need no file, by name."""


def load_data(spec: str | Path | Mapping[str, Any], base: str | Path = Path()) -> Dataset:
    """A data set from its name, a path or a mapping; relative paths start at `base`.

    - a known name (`python-docs`);
    - a file: one split, called after the file when it is a usual name (`train`, `dev`, `test`, `text`), else `text`
      for plain texts, `edits` for edits of facts and `train` for all others;
    - a picture, or a folder of pictures: the split `images`; a folder of video clips: the split `clips`; a folder of
      several tasks: the split `stream`;
    - a folder: a split for every file named `train`, `dev` (or `val`, `valid`, `validation`) and `test`, or ending in
      `.train`, `-train`, `_train` and so on, or else having such a word in it, when there is one of each;
    - a folder of IEMOCAP: `train` and `test` by session;
    - a mapping split -> path, or split -> `{path:, kind:, limit:, paragraphs:, label:, about:}` (`label`: the
      column that turns of dialogues take their labels from; `about`: the file that describes their clips)."""
    base = Path(base)
    if isinstance(spec, Mapping):
        if not spec:
            raise BadInput("data: no splits given; wanted for example {train: train.jsonl, test: test.jsonl}")
        splits = {str(name): _read_split(str(name), entry, base) for name, entry in spec.items()}
        return Dataset(splits, name="+".join(splits), facts=_facts(splits))
    if str(spec) in KNOWN:
        return KNOWN[str(spec)]()
    path = base / Path(spec).expanduser()
    if iemocap.sessions_of(path):
        splits = iemocap.splits_of(iemocap.read_iemocap(path))
        return Dataset(splits, name=path.resolve().name, facts=_facts(splits))
    if path.is_dir() and _is_pictures(path):
        splits = {"images": read(path)}
        return Dataset(splits, name=path.resolve().name, facts=_facts(splits))
    if path.is_dir() and streams.is_stream(path):
        splits = {"stream": list(streams.read_stream(path))}
        return Dataset(splits, name=path.resolve().name, facts=_facts(splits))
    if path.is_dir() and not any(p.suffix.lower() in FORMATS for p in path.iterdir()) and holds_clips(path):
        splits = {"clips": read(path)}
        return Dataset(splits, name=path.resolve().name, facts=_facts(splits))
    if path.is_dir():
        files = _split_files(path)
        splits = {name: read(file) for name, file in files.items()}
        return Dataset(splits, name=path.resolve().name, facts=_facts(splits))
    if not path.exists():
        names = [*KNOWN, *(p.name for p in path.parent.iterdir())] if path.parent.is_dir() else [*KNOWN]
        hint = did_you_mean(path.name, names)
        raise BadInput(f"data: no data set and no file '{path}'{hint}; known data sets: {', '.join(KNOWN)}")
    records = read(path)
    stem = _ALIASES.get(path.stem.lower(), path.stem.lower())
    usual = stem if stem in (*_ORDER, "text", "calibration", "images") else None
    kind = _KINDS.get(type(records[0]).__name__, "train")
    splits = {usual or kind: records}
    return Dataset(splits, name=path.stem, facts=_facts(splits))


def shared_data(name: str) -> Path | None:
    """The path of a shared test data set (`dialogue/meld`), or None when it is not there. They lie in the folder of
    the environment variable INTARSIA_DATA, by default `../shared/data` beside the working directory."""
    root = Path(os.environ.get("INTARSIA_DATA") or Path("..") / "shared" / "data")
    path = root / name
    return path if path.exists() else None


def _read_split(name: str, entry: Any, base: Path) -> list[Any]:
    options: dict[str, Any] = {}
    if isinstance(entry, Mapping):
        options = dict(entry)
        known = ("path", "kind", "limit", "paragraphs", "label", "about")
        if unknown := [key for key in options if key not in known]:
            raise BadInput(f"data.{name}: unknown key '{unknown[0]}'{did_you_mean(str(unknown[0]), known)}")
        if (entry := options.pop("path", None)) is None:
            raise BadInput(f"data.{name}: no path given")
    if not isinstance(entry, str | Path):
        raise BadInput(f"data.{name}: wanted a path, given: {entry!r}")
    label, about = options.pop("label", None), options.pop("about", None)
    records = read(base / Path(entry).expanduser(), **options)
    if about is not None:
        records = described(records, base / Path(str(about)).expanduser())
    return records if label is None else relabelled(records, str(label))


def _is_pictures(folder: Path) -> bool:
    """A folder of pictures, and not one with split files that may hold some, too."""
    if any((folder / name).is_file() for name in ("metadata.jsonl", "metadata.csv", "metadata.parquet")):
        return True
    return not any(p.suffix.lower() in FORMATS for p in folder.iterdir()) and holds_pictures(folder)


def _split_files(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in FORMATS)
    # Plain names first: a folder with train.csv may hold other files that only end in the word.
    for pick in (lambda stem: stem, lambda stem: _words(stem)[-1], _split_word):
        for file in files:
            word = pick(file.stem.lower())
            name = _ALIASES.get(word, word)
            if name in _ORDER:
                if name in found:
                    raise BadInput(f"{folder}: two files for '{name}': {found[name].name} and {file.name}; name them")
                found[name] = file
        if found:
            return {name: found[name] for name in _ORDER if name in found}
    raise UnknownForm(
        f"{folder}: no train, dev or test file in it; files: {', '.join(p.name for p in files[:6]) or 'none'}; "
        "name them in a mapping: {train: FILE, test: FILE}"
    )


def _words(stem: str) -> list[str]:
    return re.split(r"[-_.]", stem)


def _split_word(stem: str) -> str:
    """The one split that is named in `train_sent_emo` or `emorynlp_train_final`."""
    found = {name for word in _words(stem) if (name := _ALIASES.get(word, word)) in _ORDER}
    return found.pop() if len(found) == 1 else ""


def _facts(splits: Mapping[str, list[Any]]) -> dict[str, Any]:
    facts: dict[str, Any] = {"counts": {name: len(records) for name, records in splits.items()}}
    labels = {r.label for records in splits.values() for r in records if getattr(r, "label", None)}
    if labels:
        facts["labels"] = sorted(labels)
    return facts
