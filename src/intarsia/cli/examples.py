"""A technique's example, from its declaration: as a command line with what it needs, and as Python."""

from __future__ import annotations

import dataclasses
import json
import shlex
import typing
from typing import Any

from pydantic_core import PydanticUndefined

from intarsia.catalog import Technique
from intarsia.cli import options

EXAMPLE_MODEL = "smollm2-135m"
EXAMPLE_VISION = "openai/clip-vit-base-patch32"
EXAMPLE_CAPTIONS = "blip-caption"
EXAMPLE_SKILLS = "skills"
EXAMPLE_EXPERTS = "allenai/OLMoE-1B-7B-0924"
EXAMPLE_DATA = "python-docs"
EXAMPLE_PICTURES = "pictures"
EXAMPLE_CHAT = '{"messages": [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "4"}]}'


def example_model(technique: Technique) -> str:
    """A model that the technique works on."""
    if technique.needs.startswith("experts"):
        return EXAMPLE_EXPERTS
    known = {"vision": EXAMPLE_VISION, "captions": EXAMPLE_CAPTIONS, "skills": EXAMPLE_SKILLS}
    return known.get(technique.needs, EXAMPLE_MODEL)


def _routing(needs: str) -> list[str]:
    """Lines that make a routing trace, and a placement, for what needs them."""
    lines = [
        "echo 'Any text of the kind that the model will see, the more the better.' > texts.txt",
        f"intarsia moe trace --model {EXAMPLE_EXPERTS} --text texts.txt --length 8 --out trace.npz",
        "intarsia moe place trace.npz --to placement.json",
    ]
    return lines if "placement" in needs else lines[:2] if "trace" in needs else []


def example(technique: Technique) -> str:
    """A line that runs, after lines that make what it needs and nobody has."""
    from intarsia.recipes.binding import FACTS, PICTURES, data_inputs, model_inputs

    before = _routing(technique.needs)
    source = example_model(technique)
    words = ["intarsia", *technique.name.split(".", 1)]
    words += ["--model", source] if technique.subject is None else [shlex.quote(technique.example["subject"])]
    if source == EXAMPLE_SKILLS:
        before.append(f"intarsia adaptation continual --model {EXAMPLE_MODEL} --stream tasks --out {EXAMPLE_SKILLS}")
    others = [name for name, needed in model_inputs(technique).items() if needed]
    if others:
        change = "tokens merge" if source == EXAMPLE_VISION else "compression quantize"
        before.append(f"intarsia {change} --model {source} --out small")
        words[-1] = "small"
    for name in others:
        words += [f"--{name.replace('_', '-')}", source]
    chats = [name for name in data_inputs(technique) if "Chat" in technique.inputs[name][0]]
    given = {name: technique.example[name] for name in data_inputs(technique) if name in technique.example}
    if given:
        for name, records in given.items():
            if isinstance(records, str):  # a path as it stands
                words += [f"--{name.replace('_', '-')}", records]
                continue
            file = f"{name}.txt" if all(isinstance(r, str) for r in records) else f"{name}.jsonl"
            for i, record in enumerate(records):
                before.append(f"echo {shlex.quote(_line(record))} {'>>' if i else '>'} {file}")
            words += [f"--{name.replace('_', '-')}", file]
    elif chats:
        before.append(f"echo '{EXAMPLE_CHAT}' > chats.jsonl")
        words += [f"--{chats[0].replace('_', '-')}", "chats.jsonl"]
    elif PICTURES in data_inputs(technique):
        words += ["--images", EXAMPLE_PICTURES]
    elif set(data_inputs(technique)) - {FACTS}:
        words += ["--data", EXAMPLE_DATA]
    for name, field in technique.config.model_fields.items():
        flag = options.flag(name, {*options.RESERVED, *technique.inputs})
        if name in technique.example:
            value = technique.example[name]
            if isinstance(value, bool):
                words.append(f"--{'' if value else 'no-'}{flag}")
            else:
                text = options.shown(value) if isinstance(value, list | tuple) else str(value)
                words += [f"--{flag}", shlex.quote(text)]
        elif options.default_of(field) is PydanticUndefined:
            words += [f"--{flag}", _sample(field.annotation)]
    if technique.kind != "look" and not technique.in_place:
        words += ["--out", technique.folder]
    return "\n".join([*before, " ".join(words)])


def _subject(technique: Technique) -> tuple[str, str, str]:
    """(name of the variable, line that makes it, line that imports what that needs) of what a technique works on."""
    if technique.subject is None:
        return "model", f'ia.load("{example_model(technique)}")', "import intarsia as ia"
    name, kind = technique.subject_name, technique.subject.__name__
    room = f"from intarsia.{technique.room} import {kind}, {technique.function.__name__}"
    return name, f'{kind}.open("{technique.example["subject"]}")', room


def python_example(technique: Technique) -> str:
    """The technique's own example as Python that runs; empty when it declares none."""
    from intarsia.recipes.binding import model_inputs

    if not technique.example:
        return ""
    given = {name: repr(example_model(technique)) for name, needed in model_inputs(technique).items() if needed}
    arguments = [f"{name}=ia.load({value})" for name, value in given.items()]
    kinds: set[str] = set()
    subject, made, imported = _subject(technique)
    for name, value in technique.example.items():
        if technique.subject is not None and name == "subject":
            continue
        many = isinstance(value, list | tuple) and not isinstance(value, str)
        kinds |= {type(v).__name__ for v in value if dataclasses.is_dataclass(v)} if many else set()
        if many and len(value) > 1:
            inside = "".join(f"\n        {_python(v)}," for v in value)
            arguments.append(f"{name}=[{inside}\n    ]")
        else:
            arguments.append(f"{name}=" + (f"[{', '.join(map(_python, value))}]" if many else repr(value)))
    word = {"change": "changed", "look": "finding", "learn": "fitted"}[technique.kind]
    word = "finding" if technique.in_place else word
    lines = ["import intarsia as ia"] if technique.subject is None else []
    if kinds:
        lines.append(f"from intarsia.data import {', '.join(sorted(kinds))}")
    lines += [
        imported if technique.subject else f"from intarsia.{technique.room} import {technique.function.__name__}",
        "",
        f"{subject} = {made}",
        *_called(f"{word} = {technique.function.__name__}", [subject, *arguments]),
        f"print({word})",
    ]
    return "\n".join(lines)


def _called(start: str, arguments: list[str]) -> list[str]:
    if len(arguments) == 1:
        return [f"{start}({arguments[0]})"]
    return [f"{start}(", *(f"    {argument}," for argument in arguments), ")"]


def _python(record: Any) -> str:
    """A record as one would write it: without the fields that are as they are by default."""
    if not dataclasses.is_dataclass(record) or isinstance(record, type):
        return repr(record)
    written = [f"{f.name}={getattr(record, f.name)!r}" for f in dataclasses.fields(record) if _said(record, f)]
    return f"{type(record).__name__}({', '.join(written)})"


def _line(record: Any) -> str:
    """A record as a line of a data file."""
    if isinstance(record, str):
        return record
    fields = {f.name: getattr(record, f.name) for f in dataclasses.fields(record) if _said(record, f)}
    return json.dumps(fields, ensure_ascii=False)


def _said(record: Any, field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING or getattr(record, field.name) != field.default


def _sample(annotation: Any) -> str:
    if typing.get_origin(annotation) is typing.Literal:
        return str(typing.get_args(annotation)[0])
    return "1" if annotation in (int, float) else "NAME"
