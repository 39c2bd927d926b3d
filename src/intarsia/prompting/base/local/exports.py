"""Models that were exported for another engine: found, and opened as a backend."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput, did_you_mean
from intarsia.prompting.base.local.backend import LocalBackend
from intarsia.prompting.base.local.engine import Engine
from intarsia.prompting.base.local.identity import Fingerprint

if TYPE_CHECKING:
    from intarsia.models import Model

# Engines that can be asked step by step, the quickest first, and the package that runs each.
ENGINES = {"gguf": "ik_llama_cpp", "onnx-genai": "onnxruntime_genai", "openvino": "openvino"}
WHOLE = "ctranslate2"
"""An engine that cannot: see `CTranslate2.no_session`."""


@dataclass(frozen=True)
class Export:
    """path: a GGUF file or an exported folder. beside: the model's own folder, which has its tokenizer, if there is
    one."""

    path: Path
    engine: str
    beside: Path | None = None


def find_export(source: str | Path | Model, engine: str, plain: bool) -> Export | None:
    """The export that is to be run in place of a network; None: the network itself. plain: whether something was asked
    for that only a network can do.

    A model that is asked for by name has a GGUF file all the same: see `gguf_of`. Raises `BadInput` for an engine that
    is not there, or that cannot be asked step by step."""
    if engine == WHOLE or _is_whole(source):
        from intarsia.models.runtime.ctranslate2 import CTranslate2
        from intarsia.prompting.base.local.engines import check_session

        check_session(CTranslate2)
    if engine not in ("auto", "torch", *ENGINES):
        raise BadInput(f"no engine '{engine}'{did_you_mean(engine, ENGINES)}: auto, torch, {', '.join(ENGINES)}")
    if engine in ENGINES and plain:
        raise BadInput("adapters, dtype, device and packed are of a network: leave engine out, or give torch")
    if engine == "torch" or (engine == "auto" and plain):
        return None
    found = _exports(source)
    if engine == "auto":
        # A model in memory may have been changed since it was exported: it is run as it is.
        installed = [e for e in found if importlib.util.find_spec(ENGINES[e.engine])]
        return installed[0] if installed and isinstance(source, str | Path) else None
    wanted = [export for export in found if export.engine == engine]
    if not wanted and engine == "gguf" and isinstance(source, str):
        from intarsia.prompting.base.local.making import gguf_of

        if (made := gguf_of(source)) is not None:
            return Export(made[0], engine, made[1])
    if not wanted:
        has = ", ".join(e.engine for e in found) or "none"
        raise BadInput(f"{source} has no export for {engine} (there: {has}): make one with intarsia compression export")
    return wanted[0]


def _exports(source: str | Path | Model) -> list[Export]:
    """What of a source other engines can run, the quickest first."""
    if not isinstance(source, str | Path):
        return [Export(source.exports[name], name) for name in ENGINES if name in source.exports]
    path = Path(source).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return [Export(path, "gguf", _model_above(path.parent))]
    if not path.is_dir():
        return []
    for engine, file in (("onnx-genai", "genai_config.json"), ("openvino", "openvino_model.xml")):
        if (path / file).is_file():
            return [Export(path, engine, _model_above(path))]
    if (path / "config.json").is_file():
        return [Export(path / "export" / name, name, path) for name in ENGINES if (path / "export" / name).is_dir()]
    if len(files := sorted(path.glob("*.gguf"))) == 1:
        return [Export(files[0], "gguf", _model_above(path))]
    return []


def _is_whole(source: Any) -> bool:
    """Whether a source is a folder of the engine that cannot be asked step by step."""
    if not isinstance(source, str | Path):
        return False
    folder = Path(source).expanduser()
    return (folder / "model.bin").is_file() and (folder / "vocabulary.json").is_file()


def _model_above(folder: Path) -> Path | None:
    """The saved model that an export lies in, as `<model>/export/<engine>`."""
    above = folder.absolute().parent
    return above.parent if above.name == "export" and (above.parent / "config.json").is_file() else None


def over_export(
    export: Export, name: str, threads: int | None, rows: int, waiting: int, describe: bool
) -> LocalBackend:  # fmt: skip
    """A backend over an export."""
    from intarsia.models.runtime import open_runtime
    from intarsia.prompting.base.local.engines import SPARE, SessionRunner, check_session

    tokenizer = _tokenizer(export)
    runtime: Any = open_runtime(export.path, threads)
    check_session(runtime)
    session = runtime.session(2 * rows + SPARE)
    runner = SessionRunner(session, rows)
    settings = _generation_config(export)
    return LocalBackend(
        Engine(runner, name, threads=threads, waiting=waiting), name=name, tokenizer=tokenizer,
        ends=ends(settings, tokenizer) | frozenset(session.ends), context_length=session.context_length,
        vocabulary=session.vocabulary, fingerprint=Fingerprint(tokenizer, file=export.path), runs_on=runtime.name,
        describe_tools=describe,
    )  # fmt: skip


def _tokenizer(export: Export) -> Any:
    from intarsia.models import folders, gguf

    for folder in (export.beside, export.path if export.path.is_dir() else None):
        if folder is not None and (found := folders.load_tokenizer(folder)) is not None:
            return found
    files = [export.path] if export.path.is_file() else sorted(export.path.glob("*.gguf"))
    if len(files) == 1:
        return gguf.load_tokenizer(files[0])
    raise BadInput(f"{export.path} has no tokenizer: keep the export inside the saved model's folder")


def _generation_config(export: Export) -> Any:
    """What of the model's own settings says which tokens end an answer."""
    from types import SimpleNamespace

    file = (export.beside or export.path) / "generation_config.json"
    try:
        said = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        said = {}
    return SimpleNamespace(eos_token_id=said.get("eos_token_id"))


def ends(generation_config: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer, by a generation config and a tokenizer, either of which may be missing."""
    found = getattr(generation_config, "eos_token_id", None)
    ids = set(found if isinstance(found, list | tuple) else [] if found is None else [found])
    if tokenizer is not None and tokenizer.eos_token_id is not None:
        ids.add(tokenizer.eos_token_id)
    return frozenset(int(i) for i in ids)
