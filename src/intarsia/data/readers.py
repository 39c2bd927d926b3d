"""Files to records. Every error is one line that names the file, the line and the way to mend it."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from intarsia.data import clips, streams
from intarsia.data.dialogues import emorynlp, iemocap
from intarsia.data.dialogues.turns import in_order
from intarsia.data.documents import read_documents
from intarsia.data.fields import KINDS, RecordKind, guess_kind, to_record
from intarsia.data.files import PACKED, must_exist, split_name, unpacked
from intarsia.data.pictures import SUFFIXES, holds_pictures, pictures_in
from intarsia.data.records import ImageQuestion, ImageText, Record, Text, Turn
from intarsia.errors import BadInput, MissingExtra, did_you_mean, first_line

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".md", ".parquet")


def read(
    path: str | Path, kind: RecordKind | None = None, limit: int | None = None, *, paragraphs: bool | None = None
) -> list[Record]:
    """The records of a file, or the pictures of a folder, in order.

    - Format by suffix: `.jsonl` (an object a line), `.json` (a list of objects, or of texts), `.csv` / `.tsv` (with a
      header line), `.txt` (a text a line), `.md` (a text a paragraph), `.parquet` (needs pyarrow); packed where `.gz`
      or `.xz` follows it.
    - A folder is read as pictures (`intarsia.data.pictures`), or, where it has a `metadata.jsonl` or `metadata.csv`
      that names them, as that says. A single picture is one record. Pictures named in a file lie beside it.
    - A `.json` file of EmoryNLP and a folder of IEMOCAP are read as they are published (`intarsia.data.dialogues`).
    - A folder of tasks is read as a stream (`intarsia.data.streams`). A folder of clips gives a turn without words for
      each (`intarsia.data.clips`); a single clip is one record.
    - `kind`: `text`, `label`, `turn`, `chat`, `pair`, `task`, `edit`, `image` or `image-question`; by default found
      from the columns (see `intarsia.data.fields`). Turns come dialogue by dialogue, in the order of their numbers.
      `document` is never found but must be asked for: all is read as `intarsia.data.documents` does then.
    - `limit`: read no more records than this.
    - `paragraphs`: of `.txt` and `.md`: whether a blank line, rather than a line's end, ends a text.

    Text is UTF-8, with or without a byte order mark. Raises `BadInput` for anything that cannot be read."""
    path = Path(path)
    if kind is not None and kind not in KINDS:
        raise BadInput(f"unknown kind of record '{kind}'{did_you_mean(str(kind), KINDS)}; known: {', '.join(KINDS)}")
    if limit is not None and limit < 1:
        raise BadInput(f"{path}: limit must be at least 1, given: {limit}")
    if kind == "document":
        return list(read_documents(path, limit))
    must_exist(path)
    if path.is_dir():
        return _folder(path, kind, limit)
    if path.suffix.lower() in SUFFIXES:
        return [ImageText(str(path))]
    if path.suffix.lower() in clips.SUFFIXES:
        return [Turn("", "", clip=str(path))]
    if (suffix := split_name(path.name)[1]) not in FORMATS:
        raise BadInput(
            f"{path}: unknown format '{suffix or path.name}'; known: {', '.join(FORMATS)}, each also with "
            f"{' or '.join(PACKED)}"
        )
    if path.stat().st_size == 0:
        raise BadInput(f"{path}: the file is empty")
    records: list[Record] = []
    places: list[str] = []
    if suffix in (".txt", ".md"):
        if kind not in (None, "text"):
            raise BadInput(f"{path}: a plain text file holds texts only, not kind '{kind}'; use .jsonl or .csv")
        by_paragraph = suffix == ".md" if paragraphs is None else paragraphs
        parts = re.split(r"\n[ \t]*\n", _decode(path)) if by_paragraph else _decode(path).split("\n")
        records = [Text(part.strip()) for part in parts if part.strip()][:limit]
    else:
        for where, row in rows(path):
            kind = kind or guess_kind(list(row), where, row)
            records.append(_beside(path, to_record(row, kind, where)))
            places.append(where)
            if len(records) == limit:
                break
    if not records:
        raise BadInput(f"{path}: no records in it")
    return in_order(records, places, str(path)) if kind == "turn" else records  # type: ignore[return-value,arg-type]


def _folder(path: Path, kind: RecordKind | None, limit: int | None) -> list[Record]:
    if kind in (None, "turn") and iemocap.sessions_of(path):
        return list(iemocap.read_iemocap(path)[:limit])
    if kind not in (None, "image", "image-question", "task"):
        raise BadInput(f"{path}: is a folder; give a file in it")
    for name in ("metadata.jsonl", "metadata.csv", "metadata.parquet"):
        if (path / name).is_file():
            return read(path / name, kind or None, limit)
    if kind == "task" or (not holds_pictures(path) and streams.holds_tasks(path)):
        return list(streams.read_stream(path)[:limit])
    if kind is None and not holds_pictures(path) and clips.holds_clips(path):
        return list(clips.clips_in(path)[:limit])
    if not holds_pictures(path):
        raise BadInput(f"{path}: is a folder without pictures; give a file in it, or a folder of {', '.join(SUFFIXES)}")
    return list(pictures_in(path)[:limit])


def _beside(file: Path, record: Record) -> Record:
    """The path of a picture or a clip, which counts from the file that names it."""
    if isinstance(record, Turn) and record.clip:
        return replace(record, clip=str(file.parent / Path(record.clip).expanduser()))
    if isinstance(record, ImageText | ImageQuestion):
        return replace(record, image=str(file.parent / Path(record.image).expanduser()))
    return record


def rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a file of records (all formats but `.txt` and `.md`), packed or not, each with the place that
    messages about it begin with.

    Raises `BadInput` for what cannot be read, and `MissingExtra`."""
    match suffix := split_name(path.name)[1]:
        case ".jsonl":
            # Not splitlines(): JSON strings may hold U+2028 and the like as they are.
            for number, line in enumerate(_decode(path).split("\n"), 1):
                if line.strip():
                    where = f"{path}: line {number}"
                    yield where, _object(_parse(line, where), where)
        case ".json":
            text = _decode(path)
            value = _parse(text, str(path), whole_file=True)
            if emorynlp.holds_episodes(value):
                yield from emorynlp.rows_of(value, str(path))
                return
            if not isinstance(value, list):
                lists = [k for k, v in value.items() if isinstance(v, list)] if isinstance(value, dict) else []
                hint = f" (its key '{lists[0]}' holds one)" if lists else ""
                raise BadInput(f"{path}: line 1: a .json file must be a list of objects or texts{hint}")
            for number, (item, line) in enumerate(zip(value, _lines_of_items(text), strict=True), 1):
                where = f"{path}: line {line}: item {number}"
                yield where, _object({"text": item} if isinstance(item, str) else item, where)
        case ".csv" | ".tsv":
            yield from _table(path, "," if suffix == ".csv" else "\t")
        case ".parquet":
            yield from _parquet(path)


def _decode(path: Path) -> str:
    # The way to mend it works on a file as it lies there.
    return decoded(unpacked(path), str(path), path.name if split_name(path.name)[2] == "" else "")


def decoded(raw: bytes, label: str, name: str = "") -> str:
    """UTF-8 bytes, with or without a byte order mark, as text with `\n` for line ends.

    Raises `BadInput` that begins with `label` and says how to convert the file called `name`."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # With a byte order mark, positions are counted after it.
        at = error.start + (3 if raw.startswith(b"\xef\xbb\xbf") else 0)
        line = raw.count(b"\n", 0, at) + 1
        guess = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "cp1252"
        command = f"iconv -f {guess} -t utf-8" + (f" {name} > new{Path(name).suffix}" if name else "")
        raise BadInput(
            f"{label}: line {line}: not UTF-8 (byte 0x{raw[at]:02x} at offset {at}); convert it: {command}"
        ) from None
    return text.replace("\r\n", "\n")


def _parse(text: str, where: str, whole_file: bool = False) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f": line {error.lineno}" if whole_file else ""
        raise BadInput(f"{where}{place}: not valid JSON: {error.msg} at column {error.colno}") from None


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f"{where}: wanted a JSON object with fields, found a {type(value).__name__}")
    return value


def _lines_of_items(text: str) -> Iterator[int]:
    """The line on which each item of a top-level JSON list (known to be valid) begins."""
    decoder, at, line, counted = json.JSONDecoder(), text.index("[") + 1, 1, 0
    while True:
        while text[at] in " \t\r\n,":
            at += 1
        if text[at] == "]":
            return
        line, counted = line + text.count("\n", counted, at), at
        yield line
        _, at = decoder.raw_decode(text, at)


def _table(path: Path, delimiter: str) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(_decode(path), newline=""), delimiter=delimiter, strict=True)
    csv.field_size_limit(2**31 - 1)  # a cell may hold a whole document, and 128 KiB are the most by default
    start = 1
    try:
        header = [name.strip() for name in next(reader, [])]
        if len(header) != len(set(header)):
            twice = next(name for name in header if header.count(name) > 1)
            raise BadInput(f"{path}: line 1: column '{twice}' stands twice in the header")
        start = reader.line_num + 1
        for cells in reader:
            where = f"{path}: line {start}"
            start = reader.line_num + 1
            if not cells:
                continue
            if len(cells) != len(header):
                raise BadInput(f"{where}: {len(cells)} fields where the header has {len(header)}; quote the delimiter")
            yield where, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise BadInput(f"{path}: line {start}: broken table: {error}") from None


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtra(f"{path}: reading .parquet", "parquet") from None
    content = io.BytesIO(unpacked(path)) if split_name(path.name)[2] else path
    try:
        found = parquet.ParquetFile(content).read().to_pylist()
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: not a readable parquet file: {first_line(error)}") from None
    for number, row in enumerate(found, 1):
        yield f"{path}: row {number}", row
