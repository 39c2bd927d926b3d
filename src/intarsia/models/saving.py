"""Save a `Model` as a plain Hugging Face folder, and read back what only Intarsia knows about it.

<folder>/                config.json, model.safetensors, tokenizer, processor, generation_config.json
<folder>/intarsia.json   identity with its history, extras, names of exports; only when there is something to say
<folder>/parts/<name>.safetensors   tensors of techniques that are none of the network's
<folder>/export/<name>/  the same model for another engine"""

from __future__ import annotations

import copy
import importlib
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia import catalog
from intarsia.errors import BadInput
from intarsia.models import cache, folders
from intarsia.models.model import Identity, Model
from intarsia.progress import tell

if TYPE_CHECKING:
    from intarsia.models.saved import Saved

FILE = "intarsia.json"
FORMAT = 1
PARTS = "parts"


def save(model: Model, path: str | Path, force: bool = False) -> Path:
    """Write `model` to the folder `path`, which transformers loads without Intarsia; returns the folder.

    Everything is written beside and renamed at the end, so `path` is whole or untouched. The same model gives the same
    bytes each time. Raises `BadInput` when `path` holds something and not `force`, or when extras are not JSON;
    `IntarsiaError` when the disk is full."""
    import transformers as tf

    from intarsia.sites import guest_of

    path = Path(path).expanduser().absolute()
    if path.is_file() or path.is_symlink():
        raise BadInput(f"cannot save to {path}: it is a file or a link, a folder is wanted")
    if not force and path.is_dir() and any(path.iterdir()):
        raise BadInput(f"{path} is not empty: give another folder, or force (--force) to replace it")
    if not isinstance(model.network, tf.PreTrainedModel):
        raise BadInput(f"cannot save a {type(model.network).__name__}: merge it into a transformers network first")
    for name, folder in model.exports.items():
        if not Path(folder).is_dir():
            raise BadInput(f"the export '{name}' is gone: {folder} is no folder")
    note = _note(model)
    tell("saving", 0)
    with cache.beside(path, replace=force) as part, folders.quiet():
        plain(model.network).save_pretrained(part)
        cache.share_modes(part)
        if model.processor is not None:
            model.processor.save_pretrained(part)
        if model.tokenizer is not None:
            model.tokenizer.save_pretrained(part)
        if (guest := guest_of(model.network)) is not None:
            guest.save_into(part)
        for name, saved in sorted(model.parts.items()):
            saved.write(part / PARTS / f"{name}.safetensors")
        for name, folder in sorted(model.exports.items()):
            shutil.copytree(folder, part / "export" / name)
        if note:
            (part / FILE).write_text(note, "utf-8")
    tell("saving", 1, 1, finished=True)
    return path


def plain(network: Any) -> Any:
    """The network in a state that can be saved: itself, or, when it was read from GGUF, a view without those marks.

    The view shares the weights; the network given stays as it is."""
    from intarsia.models.gguf import strip_quantizer

    given = getattr(network.config, "quantization_config", None)
    method = given.get("quant_method") if isinstance(given, dict) else getattr(given, "quant_method", None)
    if str(getattr(method, "value", method)) != "gguf":
        return network
    view = copy.copy(network)
    view.config = copy.deepcopy(network.config)
    strip_quantizer(view)
    return view


def _note(model: Model) -> str | None:
    """The text of intarsia.json, or None for a model that is just what transformers sees."""
    identity = asdict(model.identity)
    if model.identity == Identity("memory") and not (model.extras or model.parts or model.exports):
        return None
    said = {
        "format": FORMAT,
        "identity": identity,
        "extras": model.extras,
        "parts": sorted(model.parts),
        "exports": sorted(model.exports),
    }
    try:
        return json.dumps(said, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise BadInput(f"the model's extras or history cannot be written as JSON: {error}") from error


def restore(model: Model, folder: Path) -> Model:
    """`model` with the identity, extras and exports that `folder`'s intarsia.json tells of, if it has one."""
    file = folder / FILE
    if not file.is_file():
        return model
    try:
        said = json.loads(file.read_text("utf-8"))
        identity = said["identity"]
        changes = tuple(identity.pop("changes", ()))
        identity = Identity(**identity, changes=changes)
        exports = {name: folder / "export" / name for name in said.get("exports", ())}
        extras = dict(said.get("extras", {}))
        newer = said.get("format", 0) > FORMAT
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{file} is damaged ({error!r}): mend it, or remove it to load the bare network") from None
    if newer:
        raise BadInput(f"{file} was written by a newer Intarsia: upgrade with pip install -U intarsia")
    exports = {n: p for n, p in exports.items() if p.is_dir()}
    parts = {name: _part(folder / PARTS / f"{name}.safetensors") for name in said.get("parts", ())}
    return _again(replace(model, identity=identity, extras=extras, parts=parts, exports=exports), folder)


def _part(file: Path) -> Saved:
    from intarsia.models.saved import Saved

    try:
        saved = Saved.read(file)
    except BadInput:
        raise BadInput(f"{file} is damaged: without it the model is another one; save it again") from None
    if saved is None:
        raise BadInput(f"{file} is missing: without it the model is another one; save it again")
    return saved


def _again(model: Model, folder: Path) -> Model:
    """`model` with the changes that its weights alone do not hold (merged tokens, say)."""
    if not model.extras:
        return model
    known = catalog.load()
    for name, value in model.extras.items():
        if name in known and (path := known[name].restore):
            module, _, function = path.partition(":")
            model = getattr(importlib.import_module(module), function)(model, value, folder)
    return model
