"""`Step`: one step of a recipe, resolved against the catalog and the states that exist at that point."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from intarsia.catalog import Config, Technique, find
from intarsia.catalog import parse as parse_config
from intarsia.errors import BadInput, MissingExtra, did_you_mean
from intarsia.recipes import marks
from intarsia.recipes.binding import data_inputs, default_split, model_inputs, splits_line
from intarsia.recipes.extras import lacking

BASE = "base"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Step:
    """One step, resolved: which technique with which settings, on which states, with which models and splits.

    - state: the name of the model state a change gives; None for a look.
    - on: the states it works on (a change: exactly one).
    - models: input name -> state; splits: input name -> split, where the recipe says so itself.
    - seed: the step's own seed, or None to take one from the recipe's."""

    technique: Technique
    config: Config
    state: str | None
    on: tuple[str, ...]
    models: dict[str, str]
    splits: dict[str, str]
    seed: int | None
    where: tuple[str | int, ...]


def read_step(marked: marks.Marked, index: int, states: list[str], splits: set[str] | None, has_data: bool) -> Step:
    """Check the step at `index`. `states`: the names there are by then; `splits`: the data's, or None if not known."""
    where = ("steps", index)
    entry = marked.value["steps"][index]
    if isinstance(entry, str):
        entry = {entry: None}
    if not isinstance(entry, dict):
        raise marked.error(where, "a step is '- room.verb: {setting: value}'")
    names = [key for key in entry if key != "as"]
    if not names:
        raise marked.error(where, "a step needs a technique: '- room.verb: {setting: value}'")
    if len(names) > 1:
        raise marked.error(
            (*where, names[1]), f"unknown key '{names[1]}' in the step of {names[0]}; known beside it: as"
        )
    name, settings = names[0], entry[names[0]]
    try:
        technique = find(name)
    except BadInput as error:
        raise marked.error((*where, name), str(error)) from None
    if technique.subject is not None:
        raise marked.error((*where, name), f"{name} works on a {technique.subject.__name__}, not on a model: no step")
    if technique.kind == "learn":
        raise marked.error(
            (*where, name), f"{name} gives a {technique.gives}, not a model or a finding: no step of a recipe"
        )
    if settings is None:
        settings = {}
    if not isinstance(settings, dict):
        raise marked.error((*where, name), f"{name}: settings are wanted as {{key: value}} (given: {settings!r})")
    at = (*where, name)
    config = _config(marked, at, technique, settings)
    on = _on(marked, at, technique, settings.get("on"), states)
    models: dict[str, str] = {}
    for key, needed in model_inputs(technique).items():
        state = settings.get(key)
        if state is not None:
            models[key] = _known_state(marked, (*at, key), state, states)
        elif needed:
            raise marked.error(at, f"{name} needs '{key}': one of the states {', '.join(states)}")
    chosen = {key: settings[key] for key in data_inputs(technique) if settings.get(key) is not None}
    for key, split in chosen.items():
        if not isinstance(split, str):
            raise marked.error((*at, key), f"{name}: {key}: the name of a split is wanted (given: {split!r})")
        if not has_data or (splits is not None and split not in splits):
            hint = did_you_mean(split, splits or ())
            raise marked.error(
                (*at, key),
                f"no split '{split}'{hint}; the data set has: {splits_line(dict.fromkeys(sorted(splits or ())))}",
            )
    if splits is not None or not has_data:
        for key, needed in data_inputs(technique).items():
            if needed and key not in chosen and default_split(key, splits or ()) is None:
                given = f"the data set has: {', '.join(sorted(splits))}" if splits else "the recipe names no 'data:'"
                raise marked.error(at, f"{name} needs a split '{key}'; {given}")
    seed = settings.get("seed") if "seed" in technique.inputs else None
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or seed < 0):
        raise marked.error((*at, "seed"), f"{name}: seed: a whole number from 0 is wanted (given: {seed!r})")
    if technique.extra and (missing := lacking(technique.extra)):
        raise MissingExtra(f"{marked.name}:{marked.line(at)}: {name} ({', '.join(missing)})", technique.extra)
    return Step(technique, config, _state(marked, where, technique, entry, states), on, models, chosen, seed, where)


def _config(marked: marks.Marked, at: tuple[str | int, ...], technique: Technique, settings: dict[str, Any]) -> Config:
    fields = technique.config.model_fields
    reserved = {"on", *technique.inputs}
    for key in settings:
        if key not in fields and key not in reserved:
            known = [*fields, *technique.inputs, "on"]
            hint = did_you_mean(key, known) or f"; known: {', '.join(known)}"
            raise marked.error((*at, key), f"{technique.name}: unknown setting '{key}'{hint}")
    values = {key: value for key, value in settings.items() if key in fields}
    try:
        return parse_config(technique.config, values, technique.name)
    except BadInput as error:
        bad = next((key for key in values if f"{technique.name}: {key}" in str(error)), None)
        raise marked.error((*at, bad) if bad else at, str(error)) from None


def _known_state(marked: marks.Marked, at: tuple[str | int, ...], state: Any, states: list[str]) -> str:
    if state in states:
        return state
    hint = did_you_mean(str(state), states)
    raise marked.error(at, f"no state '{state}' so far{hint}; there are: {', '.join(states)}")


def _on(
    marked: marks.Marked, at: tuple[str | int, ...], technique: Technique, on: Any, states: list[str]
) -> tuple[str, ...]:
    if on is None:
        return (states[-1],)
    wanted = on if isinstance(on, list) else [on]
    if not wanted:
        raise marked.error((*at, "on"), f"{technique.name}: on: at least one state is wanted")
    if technique.kind == "change" and len(wanted) != 1:
        raise marked.error((*at, "on"), f"{technique.name} changes one state, not {len(wanted)}")
    if len(set(map(str, wanted))) != len(wanted):
        raise marked.error((*at, "on"), f"{technique.name}: on: a state stands there twice")
    return tuple(_known_state(marked, (*at, "on"), state, states) for state in wanted)


def _state(
    marked: marks.Marked, where: tuple[str | int, ...], technique: Technique, entry: dict[str, Any], states: list[str]
) -> str | None:
    given = entry.get("as")
    if technique.kind != "change":
        if given is not None:
            raise marked.error((*where, "as"), f"'as' names what a change gives; {technique.name} changes nothing")
        return None
    if given is None:
        verb = technique.name.rpartition(".")[2]
        return (
            verb if verb not in states else next(f"{verb}-{n}" for n in range(2, 10_000) if f"{verb}-{n}" not in states)
        )
    if not isinstance(given, str) or not NAME.fullmatch(given):
        raise marked.error((*where, "as"), f"as: letters, digits, '.', '_' and '-' are wanted (given: {given!r})")
    if given in states:
        raise marked.error((*where, "as"), f"as: there is a state '{given}' already")
    return given
