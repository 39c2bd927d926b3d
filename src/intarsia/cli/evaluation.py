"""`eval`: a prompt and a model, or a store, on a set."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import click

from intarsia.cli.base import Command, console, settings_of, told
from intarsia.cli.inputs import json_of
from intarsia.cli.progress import shown
from intarsia.errors import BadInput, OutOfBudget


@click.command(
    cls=Command, name="eval",
    example="intarsia eval set.jsonl --model smollm2-135m --prompt emotion.md.j2 --metric wf1 --gate 'wf1>=0.5'\n"
    "intarsia eval questions.jsonl --store handbook --metric recall@5 --metric mrr",
)  # fmt: skip
@click.argument("set_", metavar="SET", type=click.Path(path_type=Path))
@click.option("--model", metavar="NAME", help="As `intarsia prompt show --model`; also openai:http://host/v1#name.")
@click.option("--adapter", metavar="NAME", help="An adapter of the model.")
@click.option("--prompt", "prompt_file", metavar="FILE", help="Its inputs are columns of the set.")
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help=(
    "accuracy, macro_f1, wf1, exact, contains, rouge, regex, regex:PATTERN, json_valid, judge, python:module:function; "
    "with --store recall@5, mrr. Several may be given.  [default: accuracy; recall@5 and mrr]"
))  # fmt: skip
@click.option("--gate", "gates", multiple=True, metavar="TEXT", help="'wf1>=0.5'; exit code 3 where it is missed.")
@click.option("--gate-on", type=click.Choice(["point", "lower"]), default="point", show_default=True,
              help="Judge the figure, or the end of its interval that is against it.")  # fmt: skip
@click.option("--against", metavar="OLD", help="An earlier result (its folder or results.json), compared in pairs.")
@click.option("--gold", metavar="COLUMN", help="The wanted answer.  [default: answer, target, label or alike]")
@click.option("--labels", metavar="A,B,C", help="Score answers among these; 'none' has them written.")
@click.option("--shape", metavar="FORM", help="Form of answers: schema.json, or FILE.py:TYPE.")
@click.option("--judge", "judge_file", metavar="FILE", help="The prompt of the metric judge.")
@click.option("--judge-model", metavar="NAME", help="Who judges.  [default: the model itself]")
@click.option("--store", metavar="FOLDER", help="Measure the searches of this store instead of a model.")
@click.option("--question", metavar="COLUMN", help="What is searched for.  [default: question, query or text]")
@click.option("--limit", type=click.IntRange(1), help="So many records, drawn by the seed.")
@click.option("--seed", default=0, show_default=True, help="Of draws, samples and intervals.")
@click.option("--max-tokens", type=click.IntRange(1), help="Of an answer.  [default: as the prompt says]")
@click.option("--temperature", type=click.FloatRange(0), help="[default: as the prompt says]")
@click.option("--at-once", default=8, show_default=True, type=click.IntRange(1), help="Requests under way.")
@click.option("--together", default=1, show_default=True, type=click.IntRange(1), help=(
    "Records in a request, numbered: fewer requests, and perhaps worse answers; labels are scored, each by itself."
))  # fmt: skip
@click.option("--out", metavar="FOLDER", help="Keep answers as they come, results.json and report.html.")
@click.option("--replay", is_flag=True, help="Take the answers that --out holds; only new ones are asked for.")
@click.option("--check", is_flag=True, help="Ask again for all answers that --out holds, and say which differ.")
@click.option("--force", is_flag=True, help="Begin anew where --out holds results.")
def evaluate(set_: Path, model: str | None, store: str | None, metrics: tuple[str, ...], **given: Any) -> None:
    """Measure a prompt and a model on SET (JSONL, JSON, CSV, Parquet), or the searches of a store.

    Every answer is kept by the prompt as it was sent, the model and the record: a run that was stopped goes on, and
    every number can be had again. Exit code 3 where a gate is missed."""
    try:
        with shown():
            if store is not None:
                finding = _of_store(set_, store, metrics, model, given)
            else:
                finding = _of_model(set_, model, metrics, given)
    except OutOfBudget as missed:
        if missed.finding is not None:
            _print(missed.finding, given["out"])
        raise
    _print(finding, given["out"])


def _of_store(set_: Path, folder: str, metrics: tuple[str, ...], model: str | None, given: dict[str, Any]) -> Any:
    from intarsia.prompting.data import Store
    from intarsia.prompting.execute.evaluating import RetrievalEvaluation

    for option in ("prompt_file", "labels", "shape", "judge_file", "judge_model", "adapter"):
        if given[option] is not None or model is not None or given["together"] > 1:
            raise BadInput("--store measures searches: leave --model, --prompt and what belongs to them out")
    if given["replay"] or given["check"]:
        raise BadInput("searches are quick: they are done again, and --replay and --check are for answers of models")
    made = RetrievalEvaluation(
        set_, metrics or ("recall@5", "mrr"), gold=given["gold"], question=given["question"], gates=given["gates"],
        gate_on=given["gate_on"], against=given["against"], limit=given["limit"], seed=given["seed"],
    )  # fmt: skip
    opened = Store.open(folder, create=False)
    return made.run(opened, name=str(folder), out=given["out"], force=given["force"])


def _of_model(set_: Path, model: str | None, metrics: tuple[str, ...], given: dict[str, Any]) -> Any:
    from intarsia.prompting.base import Sampling
    from intarsia.prompting.execute.evaluating import Evaluation
    from intarsia.prompting.execute.evaluating.evaluate import look_at
    from intarsia.prompting.execute.prompt import Prompt

    if model is None or given["prompt_file"] is None:
        raise BadInput("give --model and --prompt, or --store for searches")
    if given["question"] is not None:
        raise BadInput("--question is of --store; a prompt's inputs are columns of the set")
    prompt = Prompt.load(given["prompt_file"])
    judge = Prompt.load(given["judge_file"]) if given["judge_file"] is not None else None
    changed = {name: given[name] for name in ("max_tokens", "temperature") if given[name] is not None}
    sampling: Sampling = dataclasses.replace(prompt.sampling, **changed)
    if sampling.temperature > 0 and sampling.seed is None:
        sampling = dataclasses.replace(sampling, seed=given["seed"])
    made = Evaluation(
        set_, prompt, metrics or ("accuracy",), gold=given["gold"], labels=_labels(given["labels"]),
        shape=_shape(given["shape"]), sampling=sampling, gates=given["gates"], gate_on=given["gate_on"],
        against=given["against"], judge=judge, limit=given["limit"], seed=given["seed"],
    )  # fmt: skip
    again = given["replay"] or given["check"]
    look_at(given["out"], replay=again, force=given["force"])  # before a model is loaded
    return asyncio.run(_asked(made, model, given))


async def _asked(made: Any, model: str, given: dict[str, Any]) -> Any:
    from intarsia.prompting.base.opening import open_backend

    backend = open_backend(model, adapter=given["adapter"])
    judge = open_backend(given["judge_model"]) if given["judge_model"] is not None else None
    try:
        return await made.run(
            backend, judge=judge, out=given["out"], at_once=given["at_once"], replay=given["replay"],
            check=given["check"], force=given["force"], together=given["together"],
        )  # fmt: skip
    finally:
        for one in (backend, judge):
            if one is not None:
                await one.close()


def _labels(text: str | None) -> list[str] | None:
    if text is None:
        return None
    return [] if text == "none" else [label.strip() for label in text.split(",") if label.strip()]


def _shape(text: str | None) -> Any:
    """A form by a schema's file, or a type's name."""
    if text is None:
        return None
    if text.endswith(".json"):
        return json_of(text)
    from intarsia.prompting.execute.flows.loading import module_of

    place, _, name = text.rpartition(":")
    if not place:
        raise BadInput(f"--shape {text}: give schema.json, or FILE.py:TYPE")
    found = getattr(module_of(place), name, None)
    if found is None:
        raise BadInput(f"{place}: no '{name}' in it, which --shape asks for")
    return found


def _print(finding: Any, out: str | None) -> None:
    if settings_of().json:
        click.echo(finding.to_json())
        return
    from intarsia.report import print_finding

    print_finding(finding, console())
    if out is not None:
        told(f"results: {Path(out) / 'results.json'}, page: {Path(out) / 'report.html'}")
