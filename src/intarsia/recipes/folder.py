"""The folder of a run: one owner at a time, and nothing in it is ever half-written.

    runs/emotion/
        run.json                                    the plan: which steps, by which hash
        steps/02-adaptation.label-1f0c9a77b2d4/     a finished step: step.json and finding.json or model/
        bundle/                                     what the run leaves (`bundle.py`)

A step is written in a folder with `.tmp` in its name, flushed to the disk, and renamed: under its own name it is
whole."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from intarsia.errors import BadInput, IntarsiaError, is_disk_full

TMP = ".tmp"
_LEFTOVER = re.compile(r"\.tmp(\d+|-old)$")


class RunFolder:
    """A run's folder on the disk."""

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser().resolve()

    @property
    def steps(self) -> Path:
        """The folder of the finished steps."""
        return self.path / "steps"

    @property
    def bundle(self) -> Path:
        """Where the bundle stands once the run is finished."""
        return self.path / "bundle"

    @property
    def plan(self) -> Path:
        """The file that says which steps the run has."""
        return self.path / "run.json"

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Own the folder for the block. Raises `BadInput` when another live process does, or it holds other things.

        The lock is the operating system's: it ends with the process, however that ends."""
        if self.path.exists() and not self.path.is_dir():
            raise BadInput(f"{self.path} is a file: a run needs a folder of its own (--out DIR)")
        ours = ("steps", ".lock", ".owner")
        foreign = (
            self.path.is_dir() and not self.plan.exists() and [i for i in self.path.iterdir() if i.name not in ours]
        )
        if foreign:
            raise BadInput(f"{self.path} holds other things and is no run folder: choose another (--out DIR)")
        try:
            self.steps.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.path / ".lock", blocking=False)
            lock.acquire()
        except filelock.Timeout:
            raise BadInput(
                f"{self.path} is in use by process {self._holder()}: wait for it, or give another folder (--out DIR)"
            ) from None
        except OSError as error:
            raise BadInput(f"{self.path}: cannot be written: {error.strerror or error}") from None
        owner = self.path / ".owner"
        try:
            with contextlib.suppress(OSError):  # only for the message above: a full disk shall not stop a finished run
                owner.write_text(str(os.getpid()))
            self.sweep()
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()

    def _holder(self) -> str:
        try:
            return (self.path / ".owner").read_text() or "unknown"
        except OSError:
            return "unknown"

    def sweep(self) -> None:
        """Remove what a killed run left half-written."""
        for place in (self.path, self.steps):
            for item in place.iterdir():
                if _LEFTOVER.search(item.name):
                    shutil.rmtree(item) if item.is_dir() else item.unlink()

    def clear(self) -> None:
        """Remove every finished step and the bundle."""
        for place in (self.steps, self.bundle):
            shutil.rmtree(place, ignore_errors=True)
        self.plan.unlink(missing_ok=True)
        self.steps.mkdir(parents=True, exist_ok=True)

    def finished(self, digest: str) -> Path | None:
        """The folder of the step whose inputs hash to `digest`, or None. Its number may be an earlier recipe's."""
        return next((p for p in sorted(self.steps.glob(f"*-{digest}")) if (p / "step.json").is_file()), None)

    @contextlib.contextmanager
    def writing(self, final: Path) -> Iterator[Path]:
        """Fill a folder beside `final`; it gets its name when the block ends well, and vanishes when it does not."""
        tmp = final.with_name(f"{final.name}{TMP}{os.getpid()}")
        tmp.mkdir(parents=True)
        try:
            yield tmp
            flush(tmp)
            replace(tmp, final)
        except BaseException as error:
            shutil.rmtree(tmp, ignore_errors=True)
            if is_disk_full(error):
                raise disk_full(self.path) from error
            raise


def replace(tmp: Path, final: Path) -> None:
    """Rename the folder `tmp` to `final`, putting away a `final` that is there."""
    if final.exists():
        old = final.with_name(f"{final.name}{TMP}-old")
        final.rename(old)
        tmp.rename(final)
        shutil.rmtree(old)
    else:
        tmp.rename(final)
    _sync(final.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON beside, flush, rename."""
    tmp = path.with_name(f"{path.name}{TMP}{os.getpid()}")
    tmp.write_text(dumps(value), encoding="utf-8")
    _sync(tmp)
    tmp.replace(path)


def dumps(value: Any) -> str:
    """JSON as it stands in every file of a run."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def flush(folder: Path) -> None:
    """Make sure that all of a folder is on the disk."""
    for item in sorted(folder.rglob("*")):
        if not item.is_symlink():
            _sync(item)
    _sync(folder)


def _sync(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # folders cannot be opened on Windows
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.EACCES):  # file systems that cannot
            raise
    finally:
        os.close(handle)


def disk_full(path: Path) -> IntarsiaError:
    """The error a full disk gives."""
    free = shutil.disk_usage(path).free
    return IntarsiaError(
        f"the disk is full: {free / 1e6:,.0f} MB free at {path}; finished steps are kept, "
        "make room and give the same command again"
    )


def link_tree(source: Path, target: Path) -> None:
    """The files of `source` under `target`: hard links where the file system can, copies elsewhere."""
    target.mkdir(parents=True)
    for item in sorted(source.rglob("*")):
        place = target / item.relative_to(source)
        if item.is_dir():
            place.mkdir()
            continue
        try:
            os.link(item, place)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            shutil.copy2(item, place)
