"""The engine against nnsight, TransformerLens, pyvene and the bare network on SmolLM2-135M-Instruct, in one process.

    python -m bench.sites [--quick] [--json FILE]

Reading every block's stream, patching one site, and a sweep of all source layers x all target layers against patching
one by one. All contenders share the same weights, get the same inputs and are checked to give the same tensors first.
Peers compute the logits when they read, so what is compared with them reads the logits too; the bare forward is the
faster of with and without key-value cache. One by one is timed on a sample of cells and scaled to the whole grid."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import intarsia
from bench.common import TIMING_COLUMNS, Timing, interleave, parser, ratio, show, start, timing_rows, write
from bench.naive import cell, patched_logits, sample
from bench.peers import NNsight, Peer, available
from intarsia.models import Model
from intarsia.sites import Replace, read, run, sweep

SITES = "layers.*.resid_post"
SOURCE = "Alexander the Great was a king of the ancient kingdom of Macedon"
TARGET = "cat -> cat\n1135 -> 1135\nhello -> hello\n?"


def same(ours: list[Tensor], theirs: list[Tensor], tolerance: float = 1e-3) -> bool:
    """Whether two lists of tensors are equal to rounding, relative to the size of what is in them."""
    return len(ours) == len(theirs) and all(
        a.shape == b.shape and float((a - b).abs().max()) <= tolerance * max(1.0, float(a.abs().max()))
        for a, b in zip(ours, theirs, strict=True)
    )


def checked(calls: dict[str, Callable[[], list[Tensor]]], truth: list[Tensor]) -> dict[str, Callable[[], Any]]:
    """The calls whose result is `truth`; the others are named with the reason."""
    good = {}
    for name, once in calls.items():
        try:
            if same(truth, once()):
                good[name] = once
            else:
                print(f"{name} is left out: it gives other tensors than the network")
        except Exception as error:
            print(f"{name} is left out: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    return good


def token_ids(model: Model, rows: int, tokens: int) -> dict[str, Tensor]:
    """Inputs without padding: random ids."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 40000, (rows, tokens), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def bare(model: Model, inputs: dict[str, Tensor], **settings: Any) -> Any:
    """The network without anything around it."""
    with torch.no_grad():
        return model.network(**inputs, **settings)


def bench_reading(model: Model, peers: dict[str, Peer], size: tuple[int, int], rounds: int) -> dict[str, float]:
    """Reading all blocks' streams: figures of one size."""
    inputs = token_ids(model, *size)
    label = "{}x{}".format(*size)
    acts = read(model, inputs, SITES)
    streams = [acts[s] for s in acts.sites]
    truth = [*streams, bare(model, inputs).logits]
    # transformers gives the last state after the final norm, so only the others can be compared.
    hidden = bare(model, inputs, output_hidden_states=True).hidden_states
    assert same(streams[:-1], list(hidden[1:-1])), "the engine and transformers disagree"

    def of_peer(peer: Peer) -> Callable[[], list[Tensor]]:
        def once() -> list[Tensor]:
            tensors, logits = peer.read(inputs)
            return [*tensors, logits]

        return once

    contenders: dict[str, Callable[[], Any]] = {
        "bare": lambda: bare(model, inputs),
        "bare without cache": lambda: bare(model, inputs, use_cache=False),
        "transformers, output_hidden_states": lambda: bare(model, inputs, use_cache=False, output_hidden_states=True),
    }
    ours = {"intarsia": lambda: list(read(model, inputs, [SITES, "logits"]).values())}
    contenders |= checked(ours, truth)
    contenders |= checked({"intarsia, early stop": lambda: list(read(model, inputs, SITES).values())}, streams)
    theirs = checked({name: of_peer(peer) for name, peer in peers.items()}, truth)
    timings = interleave(contenders | theirs, rounds, warmup=2)
    show(f"Reading all blocks' streams, {size[0]} x {size[1]} tokens", TIMING_COLUMNS, timing_rows(timings, "bare"))
    plain = (timings["bare"], timings["bare without cache"])
    figures = {
        f"read_over_bare_{label}": ratio(timings["intarsia"], *plain),
        f"read_early_stop_over_bare_{label}": ratio(timings["intarsia, early stop"], *plain),
        f"hidden_states_over_bare_{label}": ratio(timings["transformers, output_hidden_states"], *plain),
    }
    if theirs:
        figures[f"read_over_fastest_peer_{label}"] = ratio(timings["intarsia"], *(timings[n] for n in theirs))
    return figures | {f"read_{_key(n)}_{label}_ms": t.median * 1e3 for n, t in timings.items()}


def bench_patching(model: Model, peers: dict[str, Peer], rounds: int) -> dict[str, float]:
    """Writing one state into one site of a 1 x 8 prompt."""
    inputs = token_ids(model, 1, 8)
    layer, position = len(model.sites.blocks) // 2, 3
    state = torch.randn(model.sites.main.width, generator=torch.Generator().manual_seed(1))
    block, site = model.sites.blocks[layer], f"layers.{layer}.resid_post"
    truth = [patched_logits(model.network, block, inputs, position, state)]
    edits = [Replace(site, at=position, value=state)]

    def of_peer(peer: Peer) -> Callable[[], list[Tensor]]:
        return lambda: [peer.patch(inputs, layer, position, state)]

    contenders: dict[str, Callable[[], Any]] = {
        "bare": lambda: bare(model, inputs, use_cache=False),
        "plain hook": lambda: patched_logits(model.network, block, inputs, position, state),
    }
    contenders |= checked({"intarsia": lambda: [run(model, inputs, edits).logits]}, truth)
    theirs = checked({name: of_peer(peer) for name, peer in peers.items()}, truth)
    timings = interleave(contenders | theirs, rounds, warmup=2)
    show("Patching one site, 1 x 8 tokens", TIMING_COLUMNS, timing_rows(timings, "bare"))
    figures = {"patch_over_plain_hook": ratio(timings["intarsia"], timings["plain hook"])}
    if theirs:
        figures["patch_over_fastest_peer"] = ratio(timings["intarsia"], *(timings[n] for n in theirs))
    return figures | {f"patch_{_key(n)}_ms": t.median * 1e3 for n, t in timings.items()}


def bench_sweep(model: Model, peers: dict[str, Peer], new_tokens: int, samples: int, rounds: int) -> dict[str, float]:
    """All source layers x all target layers, against one by one on a sample of cells."""
    source = torch.tensor([model.tokenizer(SOURCE)["input_ids"]])  # type: ignore[misc]
    target = torch.tensor([model.tokenizer(TARGET)["input_ids"]])  # type: ignore[misc]
    blocks, depth = model.sites.blocks, len(model.sites.blocks)
    cells = sample(depth, samples)
    whole = sweep(model, source, target, keep_logits=not new_tokens, max_new_tokens=new_tokens)  # also warms up
    check_cells(model, whole, source, target, cells[:3] if new_tokens else cells, new_tokens)

    def at_once() -> Any:
        return sweep(model, source, target, max_new_tokens=new_tokens)

    every = max(1, len(cells) // rounds)
    ours, naive, traced = [], [], []
    tracer = peers.get("nnsight")
    for i, pair in enumerate(cells):
        if i % every == 0 and len(ours) < rounds:
            ours.append(seconds(at_once))
        naive.append(seconds(lambda p=pair: cell(model.network, blocks, source, target, p, new_tokens=new_tokens)))
        if isinstance(tracer, NNsight) and not new_tokens:
            traced.append(seconds(lambda p=pair: nnsight_cell(tracer, source, target, p)))
    total = {"intarsia": Timing(tuple(ours)).median, "one by one": statistics.median(naive) * depth**2}
    if traced:
        total["nnsight, one by one"] = statistics.median(traced) * depth**2
    what = f"{new_tokens} generated tokens" if new_tokens else "next token"
    show(
        f"Sweep of {depth} x {depth} cells, {what}, source {source.shape[1]} and target {target.shape[1]} tokens; "
        f"one by one scaled up from {len(cells)} cells",
        ("", "seconds", "over intarsia"),
        [[n, f"{s:.2f}", f"{s / total['intarsia']:.1f}"] for n, s in total.items()],
    )
    key = "sweep_generate" if new_tokens else "sweep"
    figures = {f"{key}_speedup_one_by_one": total["one by one"] / total["intarsia"]}
    if traced:
        figures[f"{key}_speedup_nnsight_one_by_one"] = total["nnsight, one by one"] / total["intarsia"]
    return figures | {f"{key}_{_key(n)}_seconds": s for n, s in total.items()}


def check_cells(model: Model, whole: Any, source: Tensor, target: Tensor, cells: list, new_tokens: int) -> None:
    """Raise `AssertionError` unless the sweep's cells are what one by one gives."""
    for pair in cells:
        alone = cell(model.network, model.sites.blocks, source, target, pair, new_tokens=new_tokens)
        if new_tokens:
            ours = whole.ids[0, pair[0], pair[1]][: len(alone)]
            assert torch.equal(ours, alone), f"cell {pair}: the sweep generates other tokens than one by one"
        else:
            assert same([alone], [whole.logits[0, pair[0], pair[1]]]), f"cell {pair}: other logits than one by one"


def nnsight_cell(tracer: NNsight, source: Tensor, target: Tensor, pair: tuple[int, int]) -> Tensor:
    """The last token's logits of one cell, through nnsight."""
    state = tracer.state({"input_ids": source}, pair[0], -1)
    return tracer.patch({"input_ids": target}, pair[1], -1, state)[0, -1]


def seconds(once: Callable[[], Any]) -> float:
    """How long one call takes."""
    begin = time.perf_counter()
    once()
    return time.perf_counter() - begin


def _key(name: str) -> str:
    return name.replace(",", "").replace(" ", "_")


def main() -> None:
    """Measure, print, write."""
    options = parser(__doc__).parse_args()
    start(options)
    model = intarsia.load("smollm2-135m")
    peers = available(model.network, model.tokenizer)
    figures: dict[str, float] = {}
    small, large, patches = (30, 5, 20) if options.quick else (100, 15, 60)
    figures |= bench_reading(model, peers, (1, 8), small)
    figures |= bench_reading(model, peers, (8, 64), large)
    for name in ("read_over_bare", "read_early_stop_over_bare", "read_over_fastest_peer"):
        if found := [figures[k] for k in (f"{name}_1x8", f"{name}_8x64") if k in figures]:
            figures[name] = max(found)  # the worse of the two sizes
    figures |= bench_patching(model, peers, patches)
    figures |= bench_sweep(model, peers, 0, *((24, 3) if options.quick else (90, 5)))
    figures |= bench_sweep(model, peers, 10, *((6, 1) if options.quick else (30, 2)))
    write(figures, options.json)


if __name__ == "__main__":
    main()
