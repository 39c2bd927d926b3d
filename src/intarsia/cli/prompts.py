"""`prompt`: see what prompts say, exactly, before anything is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from intarsia.cli.base import Command, Group, console, print_json, print_table, settings_of
from intarsia.cli.inputs import inputs_of, named
from intarsia.cli.progress import shown
from intarsia.errors import BadInput, did_you_mean

if TYPE_CHECKING:
    from intarsia.prompting.execute.prompt import Prompt, Rendered

INPUTS = click.option("--inputs", metavar="FILE", help="A JSON object with the inputs; - reads it from stdin.")
SET = click.option(
    "--set", "given", metavar="NAME=VALUE", multiple=True, help="An input: a text, or JSON where its type wants it."
)
MODEL = click.option(
    "--model", metavar="MODEL", help="Show the exact text and count tokens as this model's tokenizer does."
)


@click.group(cls=Group, example="intarsia prompt show emotion.md.j2 --set turn='Oh no!'")
def prompt() -> None:
    """See what prompts say, exactly, before anything is sent."""


@prompt.command("ls", cls=Command, example="intarsia prompt ls prompts/")
@click.argument("folder", default=".")
@click.option("--shipped", is_flag=True, help="List the prompts that come with the package instead.")
def list_(folder: str, shipped: bool) -> int:
    """List the prompts (*.j2) of FOLDER: inputs, version, description. Exit code 2 where one cannot be read."""
    from intarsia.prompting.execute import prompt as prompts

    if shipped:
        found: dict[Any, Any] = {name: prompts.Prompt.load(path) for name, path in prompts.shipped().items()}
    else:
        root = Path(folder).expanduser()
        found = {str(path.relative_to(root)): one for path, one in prompts.prompts_in(root).items()}
    wrong = sum(isinstance(one, BadInput) for one in found.values())
    if settings_of().json:
        print_json([_told(name, one) for name, one in found.items()])
    elif not found:
        click.echo(f"no prompts (*.j2) in {folder}")
    else:
        from rich.table import Table
        from rich.text import Text

        table = Table("prompt", "version", "inputs", "description", box=None, header_style="bold")
        for name, one in found.items():
            if isinstance(one, BadInput):
                table.add_row(Text(name), "", "", Text(str(one), style="red"))
            else:
                table.add_row(Text(name), one.version, Text(_signature(one)), Text(one.description))
        print_table(table)
    return 2 if wrong else 0


@prompt.command(cls=Command, example="intarsia prompt show emotion.md.j2 --inputs turn.json --model smollm2-135m")
@click.argument("file")
@INPUTS
@SET
@MODEL
def show(file: str, inputs: str | None, given: tuple[str, ...], model: str | None) -> None:
    """Show FILE: its inputs, and with them filled in the messages it makes; with --model the exact text and its tokens.

    FILE may be the name of a prompt that comes with the package (`prompt ls --shipped`)."""
    one = _load(file)
    made = None
    if inputs is not None or given or not any(spec.required for spec in one.inputs.values()):
        made = _render(one, inputs, given, model)
    elif model is not None:
        raise BadInput(f"{file}: --model counts a rendered prompt: give its inputs ({_signature(one)})")
    if settings_of().json:
        print_json({**_told(file, one), "source": one.source, **({"rendered": _rendered(made)} if made else {})})
        return
    from rich.text import Text

    out = console()
    out.print(Text(f"{one.name} {one.version}", style="bold"), Text(one.description))
    for name, spec in one.inputs.items():
        default = "" if spec.required else f" = {spec.default!r}"
        about = f"  {spec.description}" if spec.description else ""
        out.print(Text(f"  {name}: {spec.type}{default}{about}", style="dim"))
    if made is None:
        out.print()
        click.echo(one.source)
        return
    for number, message in enumerate(made):
        out.print(Text(f"\n[{message.role}]", style="bold cyan"))
        text = Text(str.__str__(message.content))
        for span in made.untrusted:
            if span.message == number:
                text.stylize("yellow", span.start, span.end)
        out.print(text, soft_wrap=True)
    out.print()
    for span in made.untrusted:
        hidden = ", ".join(f"{count} {kind}" for kind, count in span.removed.items()) or "nothing"
        more = f"; {span.defused} marks defused" if span.defused else ""
        what = f"{span.end - span.start} characters from outside; hidden characters taken out: {hidden}{more}"
        out.print(Text(f"message {span.message + 1}: {what}", style="yellow"))
    if made.text is not None:
        out.print(Text("[exact text]", style="bold cyan"))
        click.echo(made.text)
        out.print(Text(f"\n{len(made.ids or ())} tokens", style="bold"))


@prompt.command(cls=Command, example="intarsia prompt render emotion.md.j2 --set turn='Oh no!' --model smollm2-135m")
@click.argument("file")
@INPUTS
@SET
@MODEL
def render(file: str, inputs: str | None, given: tuple[str, ...], model: str | None) -> None:
    """Print what FILE makes of its inputs, and nothing else: messages as JSON lines; with --model the exact text."""
    made = _render(_load(file), inputs, given, model)
    if settings_of().json:
        print_json(_rendered(made))
    elif made.text is not None:
        click.echo(made.text, nl=False)
    else:
        for message in made:
            click.echo(json.dumps({"role": message.role, "content": message.content}, ensure_ascii=False))


@prompt.command(cls=Command, example="intarsia prompt diff old.md.j2 new.md.j2 --inputs turn.json")
@click.argument("old")
@click.argument("new")
@INPUTS
@SET
def diff(old: str, new: str, inputs: str | None, given: tuple[str, ...]) -> None:
    """Show what changed from OLD to NEW: in the files, or, with inputs, in what is sent."""
    from intarsia.prompting.execute.prompt import difference

    before, after = _load(old), _load(new)
    values = _inputs({**before.inputs, **after.inputs}, inputs, given) if inputs is not None or given else None
    lines = difference(before, after, values)
    if settings_of().json:
        print_json({"old": before.version, "new": after.version, "diff": lines})
        return
    if not lines:
        click.echo("no difference")
    for line in lines:
        color = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
        click.secho(line, fg=color)


@prompt.command(
    cls=Command,
    example="intarsia prompt optimise emotion.md.j2 --data turns.jsonl --metric accuracy --model smollm2-135m "
    "--out better.md.j2",
)
@click.argument("file")
@click.option(
    "--data", required=True, metavar="FILE", help="Rows with the prompt's inputs and an answer (JSONL, CSV...)."
)
@click.option(
    "--metric",
    default="accuracy",
    show_default=True,
    help="accuracy, exact, contains, rouge, regex:... or python:FILE:NAME.",
)
@click.option("--model", required=True, metavar="MODEL", help="Who answers: a model here, or openai:URL#NAME.")
@click.option("--proposer", metavar="MODEL", help="Who proposes other words; default: the same.")
@click.option("--propose", metavar="FILE", help="How it is asked to; default: `prompt show intarsia:propose`.")
@click.option("--calls", type=click.IntRange(1), default=500, show_default=True, help="Calls of models, all together.")
@click.option("--choice", "choices", multiple=True, help="An answer that is possible; default: the prompt's `shape`.")
@click.option("--shots", metavar="INPUT", help="The input for demonstrations; default: `shots`, if there is one.")
@click.option("--shot-count", type=click.IntRange(1), default=4, show_default=True, help="How many demonstrations.")
@click.option("--seed", default=0, show_default=True, help="Of every draw.")
@click.option(
    "--out", required=True, metavar="FILE", help="Where the best prompt goes; a stopped run goes on from FILE.journal."
)
@click.option("--force", is_flag=True, help="Write over what is there, and begin anew.")
def optimise(
    file: str, data: str, metric: str, model: str, proposer: str | None, propose: str | None, calls: int,
    choices: tuple[str, ...], shots: str | None, shot_count: int, seed: int, out: str, force: bool,
) -> None:  # fmt: skip
    """Look for better wording of FILE, and better demonstrations, by a metric on labelled examples.

    A model sees what went wrong and proposes; a part of the data decides, another part says what it is worth. The
    words that come out are a model's, which saw the data: read what changed before you use it."""
    import asyncio

    from intarsia.prompting.base import opening
    from intarsia.prompting.execute import optimising

    target, journal = Path(out).expanduser(), Path(f"{out}.journal").expanduser()
    if target.exists() and not force:
        raise BadInput(f"{out}: is there already; give --force to write over it, or another name")
    one, asks = _load(file), _load(propose) if propose else None
    optimising.metric_of(metric)
    examples = optimising.read_examples(one, data, shots or ("shots" if "shots" in one.inputs else ""))
    if force:
        journal.unlink(missing_ok=True)

    async def run() -> Any:
        backend = opening.open_backend(model)
        other = opening.open_backend(proposer) if proposer else None
        try:
            return await optimising.optimise(
                one, examples, metric, backend, calls=calls, choices=choices or None, proposer=other, propose=asks,
                shots=shots, shot_count=shot_count, journal=journal, seed=seed,
            )  # fmt: skip
        finally:
            for opened in filter(None, (backend, other)):
                await opened.close()

    with shown():
        found = asyncio.run(run())
    found.save(target, force=force)
    journal.unlink(missing_ok=True)
    if settings_of().json:
        print_json(found.to_dict())
        return
    from rich.table import Table

    table = Table("", "examples", "before", "after", "gain (95 %)", box=None, header_style="bold")
    gain, low, high = found.gain
    table.add_row("dev", str(found.sizes["dev"]), *(f"{value:.3f}" for value in found.dev), "chosen by it")
    test = (f"{value:.3f}" for value in found.test)
    table.add_row("test", str(found.sizes["test"]), *test, f"{gain:+.3f} ({low:+.3f} to {high:+.3f})")
    print_table(table)
    click.echo(f"{len(found.history)} attempts, {found.calls} calls; {found.stopped}")
    for line in found.diff:
        click.secho(line, fg={"+": "green", "-": "red", "@": "cyan"}.get(line[:1]))
    click.echo(f"the best prompt is {target}")


def _load(name: str) -> Prompt:
    from intarsia.prompting.execute.prompt import Prompt, find

    return Prompt.load(find(name))


def _render(one: Prompt, inputs: str | None, given: tuple[str, ...], model: str | None) -> Rendered:
    values = _inputs(one.inputs, inputs, given)
    tokenizer = None
    if model is not None:
        from intarsia.models.folders import load_tokenizer
        from intarsia.models.loading import located

        with shown():
            tokenizer = load_tokenizer(located(model))
        if tokenizer is None:
            raise BadInput(f"{model}: has no tokenizer, so its tokens cannot be shown")
    return one.render(tokenizer=tokenizer, **values)


def _inputs(known: dict[str, Any], file: str | None, given: tuple[str, ...]) -> dict[str, Any]:
    """The inputs, out of a JSON file and of options."""
    out = inputs_of(file)
    for pair in given:
        name, value = named("set", pair)
        if name not in known:
            raise BadInput(
                f"--set {name}: no such input{did_you_mean(name, known)}; there are {', '.join(known) or 'none'}"
            )
        out[name] = _value(value, str(known[name].type))
    return out


def _value(text: str, kind: str) -> Any:
    if kind in ("str", "untrusted", "any") or kind.startswith("Literal"):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text  # what is wrong with it the prompt says best


def _signature(one: Prompt) -> str:
    return ", ".join(f"{name}: {spec.type}" + ("" if spec.required else "?") for name, spec in one.inputs.items())


def _told(name: str, one: Prompt | BadInput) -> dict[str, Any]:
    if isinstance(one, BadInput):
        return {"prompt": name, "error": str(one)}
    inputs = {
        key: {"type": str(spec.type), "required": spec.required, "description": spec.description}
        for key, spec in one.inputs.items()
    }
    return {"prompt": name, "version": one.version, "description": one.description, "inputs": inputs}


def _rendered(made: Rendered) -> dict[str, Any]:
    out: dict[str, Any] = {
        "hash": made.hash,
        "messages": [{"role": m.role, "content": m.content} for m in made],
        "untrusted": [vars(span) for span in made.untrusted],
    }
    return out if made.ids is None else {**out, "text": made.text, "ids": list(made.ids), "tokens": len(made.ids)}


__all__ = ["prompt"]
