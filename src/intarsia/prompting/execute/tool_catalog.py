"""`catalog_tool`: a technique of the catalog as a tool that a model may call."""

from __future__ import annotations

import functools
import itertools
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia import catalog
from intarsia.errors import BadInput, IntarsiaError
from intarsia.prompting.base.errors import ToolError
from intarsia.prompting.execute.schemas import adapter_of, schema_of
from intarsia.prompting.execute.tools import LIMIT, Tool

if TYPE_CHECKING:
    from intarsia.catalog import Technique
    from intarsia.models import Model

_TEXTS = {
    "anyOf": [
        {"type": "string", "description": "a file"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "texts"},
        {"type": "array", "items": {"type": "object"}, "minItems": 1, "description": "records, with the usual keys"},
    ]
}


def catalog_tool(
    name: str,
    *,
    model: Model | str | None = None,
    out: str | Path | None = None,
    timeout: float | None = None,
    limit: int = LIMIT,
) -> Tool:
    """A technique as a tool: its settings are the arguments, beside its data (texts, records or a file) and models.

    - name: as `intarsia catalog` says it, `interpretation.patchscope`; the tool's name has `_` for the dot.
    - model: what it works on: a `Model`, or a name; None: the model that calls it says which.
    - out: the folder below which a changed model, or what was fitted, is saved; such techniques need it, and write.

    The result is the finding as JSON, or where something was saved. Models and files that a call names are opened as
    they would be from the command line: give such a tool to models you would give that to. Raises `BadInput` for what
    is no technique, and for one that needs `out`."""
    technique = catalog.find(name)
    saves = technique.kind != "look" and not technique.in_place
    if saves and out is None:
        raise BadInput(f"{name} makes something that has to be saved: give out=, a folder")
    subject = technique.subject_name
    adapter = adapter_of(technique.config)
    schema = schema_of(adapter, name)
    shared = schema.get("$defs", {})
    settings = {key: one for key, one in schema.get("properties", {}).items() if key not in technique.inputs}
    properties: dict[str, Any] = {}
    required: list[str] = []
    if model is None:
        what = "a known name, hub id, folder or file" if technique.subject is None else "what it works on"
        properties[subject] = {"type": "string", "description": what}
        if technique.model is None:
            required.append(subject)
    for key, needed in catalog.model_inputs(technique).items():
        properties[key] = {"type": "string", "description": "another model"}
        required += [key] if needed else []
    for key, needed in catalog.data_inputs(technique).items():
        properties[key] = _TEXTS
        required += [key] if needed else []
    if "seed" in technique.inputs:
        properties["seed"] = {"type": "integer", "minimum": 0, "description": "of every random choice"}
    for one in settings.values():
        one.pop("title", None)
    required += [key for key in schema.get("required", ()) if key in settings]
    parameters = {
        "type": "object",
        "properties": {**properties, **{key: one for key, one in settings.items() if key not in properties}},
        "required": required,
        "additionalProperties": False,
        **({"$defs": shared} if shared else {}),
    }
    called = name.replace(".", "_")
    numbers = itertools.count(1)

    def run(**given: Any) -> Any:
        return _run(technique, model, out, numbers, given)

    check = functools.partial(_checked, technique, called, set(properties), required)
    return Tool(
        called, f"{technique.summary} ({technique.source})", parameters, run, check, writes=saves or technique.in_place,
        timeout=timeout, limit=limit,
    )  # fmt: skip


def _checked(
    technique: Technique, name: str, inputs: set[str], required: list[str], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    settings = {key: value for key, value in arguments.items() if key not in inputs}
    if missing := [key for key in required if key not in arguments]:
        raise ToolError(name, f"{missing[0]} is missing")
    try:
        config = catalog.parse(technique.config, settings, name)
    except BadInput as error:
        raise ToolError(name, str(error).removeprefix(f"{name}: ")) from None
    return {"config": config, **{key: arguments[key] for key in inputs if key in arguments}}


def _run(technique: Technique, model: Any, out: Any, numbers: Any, given: dict[str, Any]) -> Any:
    from intarsia.models import load

    try:
        source = given.get(technique.subject_name, technique.model) if model is None else model
        if technique.subject is not None:
            subject = technique.subject.open(source) if isinstance(source, str) else source
        else:
            subject = load(source) if isinstance(source, str) else source
        inputs: dict[str, Any] = {}
        for key in catalog.model_inputs(technique):
            if key in given:
                inputs[key] = load(given[key])
        for key in catalog.data_inputs(technique):
            if key in given:
                inputs[key] = _records(key, given[key])
        if "seed" in technique.inputs:
            inputs["seed"] = given.get("seed", 0)
        result = technique.function(subject, given["config"], **inputs)
        if technique.kind == "look" or technique.in_place:
            return result
        folder = _place(Path(out), technique.folder, numbers)
        result.save(folder)
        return {"saved": str(folder)}
    except IntarsiaError as error:
        raise ToolError(technique.name.replace(".", "_"), str(error)) from None


def _place(out: Path, name: str, numbers: Any) -> Path:
    """A folder that is not there yet."""
    for number in numbers:
        if not (folder := out / f"{name}-{number}").exists():
            out.mkdir(parents=True, exist_ok=True)
            return folder
    raise AssertionError("numbers have no end")


def _records(name: str, given: Any) -> Any:
    """What a call gives as data: the path of a file, or the records themselves, read as a file of them would be."""
    from intarsia.data import load_data

    if isinstance(given, str):
        return load_data({name: given})[name] if name != "facts" else given
    with tempfile.TemporaryDirectory(prefix="intarsia-") as folder:
        file = Path(folder) / f"{name}.jsonl"
        rows = ({"text": row} if isinstance(row, str) else row for row in given)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return load_data({name: str(file)})[name]
