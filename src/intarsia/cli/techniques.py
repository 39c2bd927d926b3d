"""A command for every technique: `intarsia <room> <verb>`, made from its declaration."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import click

from intarsia import catalog
from intarsia.catalog import Technique
from intarsia.cli import options
from intarsia.cli.base import Command, Group, console, print_json, settings_of, told
from intarsia.cli.examples import example
from intarsia.cli.progress import shown
from intarsia.errors import BadInput, MissingExtra, OutOfBudget

# Commands of a room that are no techniques: they find nothing and change nothing, they go on until stopped.
SERVERS = {
    "adaptation": ("intarsia.cli.serving", "serve_labels"),
    "detection": ("intarsia.cli.serving", "serve_detector"),
    "moe": ("intarsia.cli.serving", "serve_experts"),
}


# What a room does to a model that is named in place of a technique: `intarsia compress smollm2-135m --budget ...`.
PLAIN = {"compression": ("fit", "--budget")}


class Room(Group):
    """The techniques of a room. A model in place of one gets the room's own, where its option is among the words."""

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        verb, option = PLAIN.get(self.name or "", ("", ""))
        named = [word.partition("=")[0] for word in args[1:]]
        if option in named and self.get_command(context, args[0]) is None and verb in self.commands:
            args = [verb, "--model", *args]
        return super().resolve_command(context, args)


def rooms() -> list[str]:
    """The rooms of the catalog."""
    return sorted({t.room for t in catalog.load().values()})


def room_help(name: str) -> str:
    """One line on a room: how its module begins."""
    try:
        text = inspect.getdoc(importlib.import_module(f"intarsia.{name}")) or ""
    except ImportError:
        text = ""
    line = text.partition("\n\n")[0].replace("\n", " ").partition(": ")[2]
    verbs = ", ".join(t.name.partition(".")[2] for t in catalog.load().values() if t.room == name)
    return line[:1].upper() + line[1:] if line else f"Techniques: {verbs}."


def room(name: str) -> click.Group:
    """The group of a room's techniques."""
    inside = [t for t in catalog.load().values() if t.room == name]
    first = inside[0].name.replace(".", " ", 1)
    group = Room(name, help=room_help(name), example=f"intarsia {first} --help")
    for technique in inside:
        group.add_command(command(technique))
    if name in SERVERS:
        module, attribute = SERVERS[name]
        group.add_command(getattr(importlib.import_module(module), attribute))
    return group


def command(technique: Technique) -> click.Command:
    """The command of one technique."""
    from intarsia.recipes.binding import FACTS, data_inputs, model_inputs

    others, splits = model_inputs(technique), data_inputs(technique)
    parameters: list[click.Parameter] = []
    if technique.subject is not None:
        parameters.append(click.Argument(["subject_"], metavar=technique.subject_name.upper()))
    else:
        parameters.append(
            click.Option(
                ["--model", "model_"],
                metavar="MODEL",
                **({"required": True} if technique.model is None else {"default": technique.model}),
                show_default=True,
                help="A known name, hub id, folder or .gguf file.",
            )
        )
    for name, needed in others.items():
        help_ = f"Another model, as for --model.{'  [required]' if needed else ''}"
        parameters.append(click.Option([f"--{name.replace('_', '-')}", f"model_{name}"], metavar="MODEL", help=help_))
    if set(splits) - {FACTS}:
        parameters.append(
            click.Option(
                ["--data", "data_"], metavar="SPEC", help="A data set by name, a file, or a folder with its splits."
            )
        )
    for name, needed in splits.items():
        if name == FACTS:
            help_ = "A file, an archive or a folder of facts."
            parameters.append(click.Option(["--facts", "split_facts"], metavar="PATH", help=help_))
            continue
        what, kind = _wanted(name)
        help_ = f"{what}; else the split of that name of --data.{'  [required]' if needed else ''}"
        parameters.append(click.Option([f"--{name.replace('_', '-')}", f"split_{name}"], metavar=kind, help=help_))
    if "seed" in technique.inputs:
        parameters.append(
            click.Option(
                ["--seed", "seed_"],
                type=click.IntRange(0),
                default=0,
                show_default=True,
                help="Of every random choice.",
            )
        )
    if not _found(technique):
        what = {"change": "the model", "learn": "what was fitted"}[technique.kind]
        parameters += [
            click.Option(
                ["--out", "out_"],
                default=technique.folder,
                show_default=True,
                type=click.Path(path_type=Path),
                help=f"Where to save {what}.",
            ),
            click.Option(["--force", "force_"], is_flag=True, help="Replace what is at --out."),
        ]
        if technique.kind == "change":
            help_ = "Write a page of what was found on the way to this file, where something was."
            parameters.append(click.Option(["--html", "html_"], type=click.Path(path_type=Path), help=help_))
    if _found(technique):
        parameters.append(
            click.Option(["--html", "html_"], type=click.Path(path_type=Path), help="Write a page to this file.")
        )
        parameters.append(click.Option(["--force", "force_"], is_flag=True, help="Replace the file at --html."))
    parameters += options.options(technique.config, technique.inputs)
    return Command(
        technique.name.partition(".")[2],
        params=parameters,
        callback=partial(_call, technique),
        help=_help(technique),
        short_help=technique.summary,
        example=example(technique),
    )


def _found(technique: Technique) -> bool:
    """Whether it gives a finding, and nothing to save."""
    return technique.kind == "look" or technique.in_place


def _help(technique: Technique) -> str:
    text = inspect.getdoc(technique.function) or technique.summary
    # Click wraps paragraphs; each item of a list stays one of its own.
    text = re.sub(r"\n(?=- )", "\n\n", text)
    text = re.sub(r"(?<=\S)\n +", " ", text)
    return f"{text}\n\nSource: {technique.source}."


def _call(technique: Technique, **given: Any) -> None:
    from intarsia.recipes.extras import lacking

    config = catalog.parse(technique.config, options.settings(technique.config, given), technique.name)
    out, html, force = given.get("out_"), given.get("html_"), given.get("force_")
    if out is not None and not force and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} is there already: give another --out, or --force to replace it")
    if html is not None and not force and html.exists():
        raise BadInput(f"{html} is there already: give another --html, or --force to replace it")
    if technique.extra and (missing := lacking(technique.extra)):
        raise MissingExtra(f"{technique.name} ({', '.join(missing)})", technique.extra)
    try:
        with shown():
            model, inputs = _inputs(technique, given)
            result = technique.function(model, config, **inputs)
            if not _found(technique):
                result.save(out, force=bool(force))
    except OutOfBudget as error:
        # What was measured is worth as much as a model: it says what to ask for instead.
        if error.finding is not None:
            _told_found(error.finding, html)
        raise
    if not _found(technique):
        changes = {"changes": list(result.identity.changes)} if technique.kind == "change" else {}
        _told_saved(result, out, {"model" if changes else "saved": str(out), **changes})
        if html is not None and getattr(result, "finding", None) is not None:
            _write_page(html, result.finding)
        return
    _told_found(result, html)


def _told_found(finding: Any, html: Path | None) -> None:
    """A finding on stdout, and on a page where one is asked for."""
    # The finding first: a page that cannot be written must not cost what was found.
    if settings_of().json:
        click.echo(finding.to_json())
    else:
        from intarsia.report import print_finding

        print_finding(finding, console())
    if html is not None:
        _write_page(html, finding)


def _write_page(html: Path, finding: Any) -> None:
    from intarsia.report import render_finding

    _write(html, render_finding(finding))
    if not settings_of().json:
        click.echo(f"page: {html}")


def _told_saved(result: Any, out: Any, facts: dict[str, Any]) -> None:
    """What a change or a fit found about what it made, where it says so, and where that lies."""
    finding = getattr(result, "finding", None)
    if settings_of().json:
        print_json({**facts, **({"finding": json.loads(finding.to_json())} if finding is not None else {})})
        return
    if finding is not None:
        from intarsia.report import print_finding

        print_finding(finding, console())
    told(f"saved: {out}")


def _write(path: Path, text: str) -> None:
    """Write beside and rename: an earlier page stays whole until the new one is."""
    from intarsia.models.cache import disk_errors

    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(text, encoding="utf-8")
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _wanted(name: str) -> tuple[str, str]:
    """What is given for an input, in words and as a placeholder."""
    from intarsia.recipes.binding import CLIPS, PICTURES, STREAM

    return {
        CLIPS: ("A folder of video clips, or a file of turns that name them", "PATH"),
        PICTURES: ("A folder of pictures, or a file that names them", "DIR"),
        STREAM: ("A folder of tasks, or a file with a column 'task'", "PATH"),
    }.get(name, ("A file with these records", "FILE"))


def _inputs(technique: Technique, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    from intarsia.data import load_data
    from intarsia.models import load
    from intarsia.recipes.binding import (
        FACTS,
        data_inputs,
        default_split,
        facts_for,
        model_inputs,
        splits_line,
        with_task,
    )

    inputs: dict[str, Any] = {}
    files = {name: given[f"split_{name}"] for name in data_inputs(technique) if given.get(f"split_{name}")}
    if FACTS in files:
        inputs[FACTS] = files.pop(FACTS)
    data = load_data(given["data_"], Path.cwd()) if given.get("data_") else None
    own = load_data(files, Path.cwd()) if files else None
    for name, needed in data_inputs(technique).items():
        if name in inputs or (name == FACTS and not needed):
            continue
        if name in files:
            inputs[name] = own[name]  # type: ignore[index]
        elif split := default_split(name, data.splits if data is not None else ()):
            inputs[name] = data[split]  # type: ignore[index]
        elif needed:
            has = f"--data has the splits {splits_line(data)}" if data is not None else "no --data given"
            flag = f"--{name.replace('_', '-')} {_wanted(name)[1]}"
            raise BadInput(f"{technique.name} needs '{name}': give {flag} or --data SPEC ({has})")
    facts = facts_for(technique, data)
    for name, needed in model_inputs(technique).items():
        if source := given.get(f"model_{name}"):
            inputs[name] = with_task(load(source), data)
        elif needed:
            raise BadInput(f"{technique.name} needs another model: give --{name.replace('_', '-')} MODEL")
    if "seed" in technique.inputs:
        inputs["seed"] = given["seed_"]
    if technique.subject is not None:
        return technique.subject.open(given["subject_"]), {**inputs, **facts}
    return with_task(load(given["model_"]), data), {**inputs, **facts}
