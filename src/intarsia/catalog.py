"""Every technique, declared once.

A technique is a function with a `Config`. From the declaration come the command line's options, the recipe's keys, the
rows of `intarsia catalog` and the pages of the docs. Wings, Intarsia's own and other people's, register through the
entry-point group `intarsia.techniques`: each entry names a module whose import declares its techniques."""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Literal

import pydantic

from intarsia.errors import BadInput, did_you_mean

Kind = Literal["change", "look", "learn"]
ENTRY_POINT_GROUP = "intarsia.techniques"


class Config(pydantic.BaseModel):
    """A technique's settings. Unknown keys are refused, values are checked, instances are immutable and hashable.

    Give every field a default where a sensible one exists, and a `description`: it is the help text everywhere.
    A string a person may read as a choice is a `Literal`."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Technique:
    """One row of the catalog.

    `inputs` are the function's parameters beside its subject and the config: name -> (annotation as text, required).
    A recipe binds them by name: an input annotated `Model` to a state of the run, any other to a split of the data.
    `subject` is the class of what it works on, where that is no model: its `open(text)` makes one of what a person
    gives. `in_place` says that what is learned lies where the subject lies, so that nobody is asked where to save it.
    `place` is where a survey of the field puts it; `example` holds settings and inputs that show it at work;
    `restore` names the function that puts a change back on a model that was saved with it; `labels` the function that
    labels records with such a model; `model` is the known model that is taken where none is given."""

    name: str
    kind: Kind
    family: str
    source: str
    needs: str
    gives: str
    summary: str
    config: type[Config]
    function: Callable[..., Any]
    inputs: dict[str, tuple[str, bool]] = field(default_factory=dict)
    extra: str | None = None
    place: str = ""
    example: Mapping[str, Any] = field(default_factory=dict)
    restore: str | None = None
    labels: str | None = None
    model: str | None = None
    subject: type | None = None
    in_place: bool = False

    @property
    def subject_name(self) -> str:
        """What the function calls the thing that it works on."""
        return next(iter(inspect.signature(self.function).parameters))

    @property
    def folder(self) -> str:
        """Where a command line saves what it makes, unless told otherwise."""
        return self.name.rpartition(".")[2] + ("-model" if self.kind == "change" else "")

    @property
    def room(self) -> str:
        """The wing it lives in: the part of the name before the first dot."""
        return self.name.partition(".")[0]


_techniques: dict[str, Technique] = {}
_loaded = False


def technique(
    name: str,
    *,
    kind: Kind,
    family: str,
    source: str,
    needs: str = "weights",
    gives: str | None = None,
    extra: str | None = None,
    place: str = "",
    example: Mapping[str, Any] | None = None,
    restore: str | None = None,
    labels: str | None = None,
    model: str | None = None,
    in_place: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a function `(model, config, *, inputs...)` as the technique `name` (`room.verb`).

    The first parameter is the subject: a `Model`, or of another class that has a static `open(text)`.

    - kind: `change` (Model -> Model), `look` (Models and data -> Finding), `learn` (facts or texts -> a fitted object).
    - in_place: what is learned is kept in the subject itself; the function gives a finding about it.
    - source: the paper and section the method comes from.
    - extra: the optional dependency group it needs, if any.
    - place: where a survey of the field puts the method ("fine-tuning · local · perturbation").
    - example: settings and inputs of a call worth showing, by name. The documentation prints it, as Python and as a
      command line, and the tests run it on a tiny model.
    - restore: `module:function` of a change that is more than weights: called with the loaded model, what the technique
      left in `model.extras` under its name, and the folder; gives the changed model.
    - labels: `module:function` of a change after which the model labels records in a way of its own: called with the
      model, what the technique left in `model.extras` under its name, and the records; gives `LabelScores`.
    - model: the known model that a command line takes where none is given, if one is a good beginning for most.

    The function stays callable by hand in two ways: with a ready config, `quantize(model, QuantizeConfig(bits=4))`, or
    with the settings themselves, `quantize(model, bits=4)`. Module-level imports of the declaring module should be
    light: the catalog imports it to answer `--help`."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        config_class = _config_class(function, name)
        parameters = list(inspect.signature(function).parameters.values())
        inputs = {
            p.name: (str(p.annotation), p.default is p.empty) for p in parameters[2:] if p.kind is not p.VAR_KEYWORD
        }

        @functools.wraps(function)
        def call(subject: Any = None, config: Config | None = None, /, *args: Any, **given: Any) -> Any:
            settings = {k: given.pop(k) for k in list(given) if k in config_class.model_fields and k not in inputs}
            if config is None:
                config = parse(config_class, settings, name)
            elif settings:
                raise BadInput(f"{name}: give either a config or settings ({', '.join(settings)}), not both")
            if not isinstance(config, config_class):
                raise BadInput(f"{name}: wants a {config_class.__name__}, was given a {type(config).__name__}")
            if unknown := [k for k in given if k not in inputs]:
                known = [*config_class.model_fields, *inputs]
                raise BadInput(f"{name}: unknown setting '{unknown[0]}'{did_you_mean(unknown[0], known)}")
            return function(subject, config, *args, **given)

        row = Technique(
            name=name,
            kind=kind,
            family=family,
            source=source,
            needs=needs,
            gives=gives or {"change": "Model", "look": "Finding", "learn": "object"}[kind],
            summary=(inspect.getdoc(function) or "").partition("\n")[0],
            config=config_class,
            function=call,
            inputs=inputs,
            extra=extra,
            place=place,
            example=example or {},
            restore=restore,
            labels=labels,
            model=model,
            subject=_subject_class(function, name),
            in_place=in_place,
        )
        call.technique = row  # type: ignore[attr-defined]
        _techniques[name] = row
        return call

    return declare


def _config_class(function: Callable[..., Any], name: str) -> type[Config]:
    parameter = inspect.signature(function).parameters.get("config")
    annotation = parameter.annotation if parameter else None
    if isinstance(annotation, str):
        annotation = function.__globals__.get(annotation)
    if not (isinstance(annotation, type) and issubclass(annotation, Config)):
        raise TypeError(f"technique {name}: the parameter 'config' must be annotated with a Config class")
    return typing.cast("type[Config]", annotation)


def _subject_class(function: Callable[..., Any], name: str) -> type | None:
    """The class of the first parameter, unless that is a model."""
    first = next(iter(inspect.signature(function).parameters.values()))
    annotation = first.annotation
    if annotation in (inspect.Parameter.empty, "Model") or first.name == "model":
        return None
    if isinstance(annotation, str):
        annotation = function.__globals__.get(annotation)
    if not (isinstance(annotation, type) and callable(getattr(annotation, "open", None))):
        raise TypeError(f"technique {name}: the class of '{first.name}' must have a static method 'open'")
    return annotation


def parse(config_class: type[Config], settings: dict[str, Any], where: str) -> Config:
    """Build a config, turning pydantic's report into one line with the nearest known key."""
    for key in settings:
        if key not in config_class.model_fields:
            raise BadInput(f"{where}: unknown setting '{key}'{did_you_mean(key, config_class.model_fields)}")
    try:
        return config_class(**settings)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"]) or "settings"
        raise BadInput(f"{where}: {at}: {first['msg']} (given: {first.get('input')!r})") from None


def load() -> dict[str, Technique]:
    """All techniques by name; imports the modules behind the entry points once."""
    global _loaded
    if not _loaded:
        for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda p: p.name):
            point.load()
        _loaded = True
    return dict(sorted(_techniques.items()))


def find(name: str) -> Technique:
    """The technique called `name`, or a `BadInput` with the nearest names."""
    known = load()
    if name not in known:
        raise BadInput(f"no technique '{name}'{did_you_mean(name, known)}; `intarsia catalog` lists them")
    return known[name]


def model_inputs(technique: Technique) -> dict[str, bool]:
    """Inputs that are another model (a state of the run): name -> required."""
    return {name: need for name, (kind, need) in technique.inputs.items() if re.search(r"\bModel\b", kind)}


def data_inputs(technique: Technique) -> dict[str, bool]:
    """Inputs that are lists of records (splits of the data): name -> required."""
    others = {"seed", *model_inputs(technique), *fact_inputs(technique)}
    return {name: need for name, (_, need) in technique.inputs.items() if name not in others}


def fact_inputs(technique: Technique) -> dict[str, bool]:
    """Inputs that are facts about the data set (annotated with a mapping), bound by the fact's name, or the whole
    `Dataset`: name -> required."""
    return {
        name: need
        for name, (kind, need) in technique.inputs.items()
        if re.match(r"\s*(?:dict|Mapping|Dataset)\b", kind) and "Model" not in kind
    }
