"""Prompts on the ranks that torchrun started, on one machine or many:

    torchrun --nproc-per-node 2 -m intarsia.moe.runtime MODEL --text prompts.txt --mode coherent

`intarsia moe run` starts its processes itself and says more; this is for machines that a scheduler joins. Rank 0 prints
one JSON line a prompt, then one with what was sent for each token."""

from __future__ import annotations

import json
from pathlib import Path

import click

from intarsia.errors import BadInput, IntarsiaError


@click.command(help=__doc__)
@click.argument("model")
@click.option("--text", type=click.Path(exists=True, path_type=Path), required=True, help="A file of prompts.")
@click.option("--placement", type=click.Path(path_type=Path), help="A placement.json; unset: contiguous.")
@click.option("--mode", type=click.Choice(["vanilla", "home", "coherent"]), default="vanilla", show_default=True)
@click.option("--max-new-tokens", type=click.IntRange(1), default=32, show_default=True)
@click.option("--deterministic", is_flag=True, help="Equal bits in every mode and on any number of ranks.")
@click.option("--accelerator", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--timeout", type=float, default=60.0, show_default=True, help="Seconds until a rank counts as gone.")
def main(
    model: str, text: Path, placement: Path | None, mode: str, max_new_tokens: int, deterministic: bool,
    accelerator: str, timeout: float,
) -> None:  # fmt: skip
    from intarsia.moe.runtime.processes import joined

    try:
        with joined(device=accelerator, timeout=timeout) as place:
            _run(place, model, text, placement, mode, max_new_tokens, deterministic)
    except IntarsiaError as error:
        raise click.ClickException(str(error)) from None


def _run(place, model, text, placement, mode, max_new_tokens, deterministic) -> None:
    from dataclasses import asdict

    import torch.distributed as dist

    from intarsia.data import load_data
    from intarsia.models import folders
    from intarsia.moe.checkpoint import Checkpoint
    from intarsia.moe.placement.placement import Placement, contiguous
    from intarsia.moe.runtime.counters import totals
    from intarsia.moe.runtime.exchange import Wire
    from intarsia.moe.runtime.request import Request
    from intarsia.moe.runtime.running import Runtime
    from intarsia.moe.runtime.shard import Shard, shape_of

    folder = Checkpoint.open(model).folder
    tokenizer = folders.load_tokenizer(folder)
    if tokenizer is None:
        raise BadInput(f"{model} has no tokenizer: prompts of text cannot be run")
    prompts = [record.text for record in load_data({"text": str(text)}, Path.cwd())["text"]]
    made_for = (
        Placement.open(placement) if placement is not None
        else Placement(contiguous(*shape_of(folder), place.ranks), place.ranks)
    )  # fmt: skip
    shard = Shard.load(folder, made_for, place.rank)
    shard.network.to(place.device)
    runtime = Runtime(shard, Wire(place.rank, place.ranks, device=place.device), mode=mode, deterministic=deterministic)
    ids = [tuple(tokenizer(prompt)["input_ids"]) for prompt in prompts]
    made = runtime.run([Request(number, prompt, max_new_tokens) for number, prompt in enumerate(ids)])
    every: list = [None] * place.ranks
    dist.all_gather_object(every, runtime.traffic)
    if place.rank == 0:
        for number, tokens in sorted(made.items()):
            click.echo(json.dumps({"prompt": prompts[number], "text": tokenizer.decode(tokens), "tokens": tokens}))
        click.echo(json.dumps({"ranks": place.ranks, "mode": mode, "for each token": asdict(totals(every))}))


if __name__ == "__main__":
    main()
