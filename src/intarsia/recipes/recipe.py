"""`Recipe`: steps over a model, read from YAML and checked wholly before any work starts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from intarsia.data import Dataset
from intarsia.errors import BadInput, did_you_mean
from intarsia.recipes import marks
from intarsia.recipes.binding import data_inputs, default_split, fact_inputs, splits_line
from intarsia.recipes.steps import BASE, NAME, Step, read_step

KEYS = ("name", "description", "model", "data", "seed", "threads", "steps")


@dataclass(frozen=True)
class Recipe:
    """A checked recipe. `document` is what was written (with overrides), `base` the folder its paths start from.

    `shipped` is the name of the recipe when it came with Intarsia; `settings` the overrides given beside the file."""

    name: str
    model: str
    data: str | dict[str, Any] | None
    seed: int
    threads: int | None
    steps: tuple[Step, ...]
    document: dict[str, Any]
    base: Path
    description: str = ""
    shipped: str | None = None
    settings: tuple[str, ...] = ()
    marked: marks.Marked = field(default_factory=lambda: marks.Marked(None), repr=False, compare=False)

    @staticmethod
    def read(source: str | Path, settings: tuple[str, ...] | list[str] = ()) -> Recipe:
        """Read a recipe file, or a shipped recipe by name, and check it.

        `settings` are overrides `key=value`: `seed=3`, `model=minilm`, `adaptation.label.epochs=2` (every step of that
        technique) or `steps.2.epochs=2` (the second step). Raises `BadInput` with file and line for whatever is wrong,
        `MissingExtra` for an optional dependency that is not installed."""
        path, known = _locate(source)
        text = _text(path)
        return Recipe.parse(
            text, name=path.stem, base=path.resolve().parent, label=str(source) if known is None else path.name,
            shipped=known, settings=tuple(settings),
        )  # fmt: skip

    @staticmethod
    def parse(
        text: str,
        *,
        name: str = "recipe",
        base: str | Path = ".",
        label: str | None = None,
        shipped: str | None = None,
        settings: tuple[str, ...] = (),
    ) -> Recipe:
        """Check a recipe given as text. `base`: where its relative paths start; `label`: its name in error messages."""
        marked = marks.parse(text, label or name)
        if not isinstance(marked.value, dict):
            raise marked.error((), "a recipe is a mapping with the keys " + ", ".join(KEYS))
        for setting in settings:
            _override(marked, setting)
        return _check(marked, name, Path(base).resolve(), shipped, settings)

    def to_yaml(self) -> str:
        """The recipe as run: overrides applied, file paths made absolute, so that it runs from anywhere."""
        document = {"name": self.name, **{k: v for k, v in self.document.items() if k != "name"}}
        document["model"] = self.model
        if isinstance(self.data, dict):
            document["data"] = {split: self._absolute(entry) for split, entry in self.data.items()}
        elif isinstance(self.data, str):
            document["data"] = self._absolute(self.data)
        document["seed"] = self.seed
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)

    def load_data(self) -> Dataset | None:
        """Read the data set and check that every step finds its splits there. None when the recipe names no data."""
        data = None
        if self.data is not None:
            from intarsia.data import load_data

            try:
                data = load_data(self.data, self.base)
            except BadInput as error:
                raise self.marked.error(("data",), str(error)) from None
        for step in self.steps:
            self.bind(step, data)
        return data

    def bind(self, step: Step, data: Dataset | None) -> dict[str, str]:
        """Input name -> split for a step, given what splits there are."""
        out = dict(step.splits)
        splits = data.splits if data is not None else {}
        name = step.technique.name
        for entry, split in step.splits.items():
            if split not in splits:
                hint = did_you_mean(split, splits)
                raise self.marked.error(
                    (*step.where, name, entry), f"no split '{split}'{hint}; the data set has: {splits_line(splits)}"
                )
            if not splits[split]:
                raise self.marked.error((*step.where, name, entry), f"the split '{split}' is empty")
        for entry, needed in data_inputs(step.technique).items():
            if entry in out:
                continue
            split = default_split(entry, splits)
            if split is not None and splits[split]:
                out[entry] = split
            elif needed:
                given = (
                    f"the data set has: {splits_line(splits)}" if data is not None else "the recipe names no 'data:'"
                )
                raise self.marked.error((*step.where, name), f"{name} needs a split '{entry}'; {given}")
        for entry, needed in fact_inputs(step.technique).items():
            whole = "Dataset" in step.technique.inputs[entry][0]
            if needed and (data is None or not (whole or entry in data.facts)):
                raise self.marked.error(
                    (*step.where, name), f"{name} needs '{entry}', which this data set does not say"
                )
        return out

    def _absolute(self, entry: Any) -> Any:
        if isinstance(entry, dict):
            return {**entry, "path": self._absolute(entry["path"])}
        path = self.base / Path(entry).expanduser()
        return str(path) if path.exists() else entry


def shipped() -> dict[str, str]:
    """The recipes that come with Intarsia: name -> description."""
    out = {}
    for item in sorted(resources.files("intarsia.recipes").joinpath("shipped").iterdir(), key=lambda i: i.name):
        if item.name.endswith(".yaml"):
            value = marks.parse(item.read_text(encoding="utf-8"), item.name).value
            out[item.name.removesuffix(".yaml")] = str(value.get("description", "")).strip()
    return out


def _locate(source: str | Path) -> tuple[Path, str | None]:
    """The file of a recipe, and its name when it is a shipped one. A file of that name wins."""
    path = Path(source).expanduser()
    if path.is_file():
        return path, None
    if path.is_dir() and (path / "recipe.yaml").is_file():
        return path / "recipe.yaml", None
    known = shipped()
    if str(source) in known:
        folder = resources.files("intarsia.recipes").joinpath("shipped")
        return Path(str(folder.joinpath(f"{source}.yaml"))), str(source)
    hint = did_you_mean(str(source), known)
    raise BadInput(f"no recipe '{source}': neither a file nor a shipped recipe{hint}; `intarsia recipes` lists those")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None


def _override(marked: marks.Marked, setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise BadInput(f"--set {setting}: wants key=value, for example --set seed=3")
    value = marks.scalar(text)
    steps = marked.value.get("steps")
    steps = [s for s in steps if isinstance(s, dict)] if isinstance(steps, list) else []
    head, _, rest = key.partition(".")
    if head == "steps" and (found := re.fullmatch(r"(\d+)\.([A-Za-z_]\w*)", rest)):
        number, entry = int(found[1]), found[2]
        if not 1 <= number <= len(steps):
            raise BadInput(f"--set {setting}: there are steps 1 to {len(steps)}")
        targets = [steps[number - 1]]
    elif key in KEYS or (head == "data" and isinstance(marked.value.get("data"), dict)):
        if key in ("model", "data") or head == "data":
            # A path given on the command line starts from where the person stands, not from the recipe.
            value = str(Path(value).resolve()) if isinstance(value, str) and Path(value).exists() else value
        if key in KEYS:
            marked.value[key] = value
        else:
            marked.value["data"][rest] = value
        return
    else:
        name, _, entry = key.rpartition(".")
        targets = [step for step in steps if name in step]
        if not targets:
            names = [k for step in steps for k in step if k != "as"]
            hint = did_you_mean(name or key, [*KEYS, *names])
            raise BadInput(f"--set {setting}: the recipe has no key '{key}'{hint}")
    for step in targets:
        technique = next(k for k in step if k != "as")
        step[technique] = {**(step[technique] or {}), entry: value}


def _check(marked: marks.Marked, stem: str, base: Path, known: str | None, settings: tuple[str, ...]) -> Recipe:
    document = marked.value
    for key in document:
        if key not in KEYS:
            raise marked.error((key,), f"unknown key '{key}'{did_you_mean(key, KEYS)}; known: {', '.join(KEYS)}")
    for key in ("model", "steps"):
        if document.get(key) in (None, "", []):
            raise marked.error((key,) if key in document else (), f"the recipe needs '{key}:'")
    name = document.get("name") or stem
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise marked.error(("name",), f"name: letters, digits, '.', '_' and '-' are wanted (given: {name!r})")
    seed = document.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise marked.error(("seed",), f"seed: a whole number from 0 is wanted (given: {seed!r})")
    threads = document.get("threads")
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
        raise marked.error(("threads",), f"threads: a whole number from 1 is wanted (given: {threads!r})")
    model = document["model"]
    if not isinstance(model, str):
        raise marked.error(("model",), f"model: a known name, hub id, folder or file is wanted (given: {model!r})")
    data = _data(marked, base)
    if not isinstance(document["steps"], list):
        raise marked.error(("steps",), "steps: a list is wanted, each entry '- room.verb: {setting: value}'")
    steps: list[Step] = []
    states: list[str] = [BASE]
    for index in range(len(document["steps"])):
        step = read_step(marked, index, states, set(data) if isinstance(data, dict) else None, data is not None)
        if step.state:
            states.append(step.state)
        steps.append(step)
    return Recipe(
        name=name, model=_model_path(marked, model, base), data=data, seed=seed, threads=threads, steps=tuple(steps),
        document=document, base=base, description=str(document.get("description") or "").strip(), shipped=known,
        settings=settings, marked=marked,
    )  # fmt: skip


def _model_path(marked: marks.Marked, model: str, base: Path) -> str:
    path = base / Path(model).expanduser()
    if path.exists():
        return str(path)
    if model.startswith(("./", "../", "/", "~")) or model.endswith((".gguf", ".safetensors")):
        raise marked.error(("model",), f"model: no file or folder {path}")
    return model


def _data(marked: marks.Marked, base: Path) -> str | dict[str, Any] | None:
    data = marked.value.get("data")
    if data is None or (isinstance(data, str) and data):
        return data
    if not isinstance(data, dict) or not data:
        raise marked.error(("data",), "data: a known data set's name, a file, or 'split: file' pairs are wanted")
    for split, entry in data.items():
        file = entry.get("path") if isinstance(entry, dict) else entry
        if not isinstance(file, str):
            raise marked.error(("data", split), f"data: {split}: a file name is wanted (given: {entry!r})")
        if not (base / Path(file).expanduser()).exists():
            near = [p.name for p in base.iterdir() if p.is_file()] if base.is_dir() else []
            hint = did_you_mean(file, near)
            raise marked.error(("data", split), f"data: {split}: no file {base / file}{hint}")
    return data
