"""Models from the Hugging Face hub: safetensors only, in the hub's own cache, and quick to say that there is no way."""

from __future__ import annotations

from pathlib import Path

from intarsia.errors import BadInput, IntarsiaError, first_line, is_disk_full
from intarsia.models import folders
from intarsia.models.beats import beats

TIMEOUT = 2.0  # seconds until an unreachable hub is given up
_SIDE_FILES = ("*.json", "*.txt", "*.model", "*.jinja")  # config, tokenizer, processor
_UNWANTED = ("*/*",)  # folders hold the same model for other engines


def local_snapshot(name: str, revision: str | None = None) -> Path | None:
    """The folder of the hub model in the hub's cache, when it is there with all its weights."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(
                name, revision=revision, local_files_only=True,
                allow_patterns=list(_SIDE_FILES), ignore_patterns=list(_UNWANTED),
            )
        )  # fmt: skip
        folders.weight_files(folder)
    except (OSError, ValueError, IntarsiaError):
        return None
    return folder


def fetch(name: str, revision: str | None = None, *, offline: bool = False, code: bool = False) -> Path:
    """The snapshot folder of the hub model `name`, downloaded when it is not yet in the hub's cache.

    A whole snapshot on disk is used without asking the hub. `code` downloads Python files too. Raises `IntarsiaError`
    with a short reason when the model cannot be had, `BadInput` when it has no safetensors weights."""
    if found := local_snapshot(name, revision):
        return found
    from huggingface_hub import HfApi, constants, snapshot_download

    if offline or constants.is_offline_mode():
        raise IntarsiaError("not in the hub's cache, and offline")
    try:
        info = HfApi().model_info(name, revision=revision, timeout=TIMEOUT)
    except Exception as error:
        raise IntarsiaError(_reason(error, revision)) from error
    files = [s.rfilename for s in info.siblings or []]
    weights = _weights(files)
    if not weights:
        raise BadInput(folders.no_safetensors(f"hub model {name}", files))
    try:
        folder = snapshot_download(
            name,
            # By name, not by commit: only so the hub's cache notes which commit `main` is, for later loads offline.
            revision=revision,
            allow_patterns=[*_SIDE_FILES, *weights, *(["*.py"] if code else [])],
            ignore_patterns=list(_UNWANTED),
            tqdm_class=beats(f"downloading {name}"),
        )
    except Exception as error:
        if is_disk_full(error):
            raise IntarsiaError(f"the disk is full: {constants.HF_HUB_CACHE} has no room (set HF_HOME)") from error
        raise IntarsiaError(_reason(error, revision)) from error
    return Path(folder)


def _weights(files: list[str]) -> list[str]:
    if "model.safetensors.index.json" in files:
        return ["model-*.safetensors"]
    if "model.safetensors" in files:
        return ["model.safetensors"]
    return [f for f in files if f.endswith(".safetensors") and "/" not in f]


def _reason(error: Exception, revision: str | None) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "it asks to accept its terms first: do so on its page, then `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "the hub has no such model, or it is private (`hf auth login`)"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no revision '{revision}'"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "not in the hub's cache, and HF_HUB_OFFLINE is set"
    first = first_line(error, 120)
    if isinstance(error, errors.HfHubHTTPError):
        return f"the hub answered: {first}"
    return f"the hub cannot be reached: {first}"
