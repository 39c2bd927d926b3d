"""With training: each method and a dense control get the same extra steps, over several seeds.

Every run is kept (bench/tokens/bed/cache.py says where), so a stopped benchmark goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from bench.tokens.bed import Bed, fidelity, load
from bench.tokens.bed.cache import cache_folder, key
from bench.tokens.fidelity import work
from intarsia.models import Model
from intarsia.tokens import merge
from intarsia.tokens.losses import answering, pairing
from intarsia.tokens.train import TrainConfig
from intarsia.tokens.training import fit

MAIN: Mapping[str, Mapping[str, Any] | None] = {
    "dense, same steps": None,
    "ToMe": {"matcher": "bipartite", "importance": "none"},
    "default (dominance, cross tokens)": {"cross": True, "strength": 0.05},
}
ABLATION: Mapping[str, Mapping[str, Any] | None] = {
    "dominance alone": {"importance": "none"},
    "dominance, attention": {"strength": 0.05},
    "ToMe's matching, cross tokens": {"matcher": "bipartite", "cross": True, "strength": 0.05},
    "CrossGET's matching, cross tokens": {"matcher": "complete", "cross": True, "strength": 0.05},
    "pruning by attention": {"matcher": "prune"},
    "random pairs": {"matcher": "random"},
}
COLUMNS = ("", "work", "accuracy", "over dense control", "fidelity", "seeds over ToMe")
BATCH = 48


def settings(steps: int) -> TrainConfig:
    """What every contender is trained with. (The alignment loss teaches the cross tokens only.)"""
    return TrainConfig(steps=steps, learning_rate=2e-4, offset_rate=30.0, distill=1.0, align=0.5, anneal=1 / 3)


def one(bed: Bed, name: str, method: Mapping[str, Any] | None, keep: float, seed: int, steps: int) -> dict[str, Any]:
    """One contender trained with one seed: accuracy, fidelity to the dense model before, counted work."""
    recipe = {
        "kind": bed.kind, "bed": bed.key, "method": dict(method) if method is not None else None, "keep": keep,
        "seed": seed, "config": settings(steps).model_dump(mode="json"), "batch": BATCH, "format": 1,
    }  # fmt: skip
    model: Model = bed.model.copy() if method is None else merge(bed.model, keep=keep, **method)
    if method is not None and (method.get("cross") or bed.kind != "dual"):
        recipe["removed"] = {name: plan["removed"] for name, plan in model.extras["tokens.merge"].items()}
    path = cache_folder() / "runs" / f"{key(f'{bed.kind}-{seed}', recipe)}.json"
    if path.is_file():
        return json.loads(path.read_text("utf-8"))
    task = pairing if bed.kind == "dual" else answering
    fit(model.network, bed.batches(seed, BATCH), task, settings(steps), seed=seed)
    model.network.eval()
    with torch.no_grad():
        before, after = bed.evaluate(bed.model.network), bed.evaluate(model.network)
    found = {
        "method": name,
        "seed": seed,
        "accuracy": after["accuracy"],
        "right": after["right"].int().tolist(),
        "fidelity": fidelity(after, before),
        "work": work(bed, model) / work(bed, bed.model),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found), "utf-8")
    part.replace(path)
    print(f"{bed.kind} seed {seed}: {name}: accuracy {found['accuracy']:.4f}, fidelity {found['fidelity']:.4f}")
    return found


def table(kind: str, seeds: int, steps: int, keep: float, ablation: bool) -> tuple[dict[str, float], list[list[str]]]:
    """All runs of a kind: figures, and a row for each method over the seeds."""
    bed = load(kind)
    methods = {**MAIN, **(ABLATION if ablation else {})}
    found = {name: [one(bed, name, m, keep, seed, steps) for seed in range(seeds)] for name, m in methods.items()}
    control = found["dense, same steps"]
    rows = []
    for name, runs in found.items():
        gaps = [run["accuracy"] - other["accuracy"] for run, other in zip(runs, control, strict=True)]
        wins = sum(run["accuracy"] > other["accuracy"] for run, other in zip(runs, found["ToMe"], strict=True))
        spread = f" ± {np.std(gaps, ddof=1):.3f}" if len(gaps) > 1 else ""
        rows.append(
            [
                name,
                f"{np.mean([r['work'] for r in runs]):.3f}",
                f"{np.mean([r['accuracy'] for r in runs]):.4f}",
                f"{np.mean(gaps):+.4f}{spread}",
                f"{np.mean([r['fidelity'] for r in runs]):.4f}",
                f"{wins} of {len(runs)}" if name != "ToMe" else "",
            ]
        )
    ours = found["default (dominance, cross tokens)"]
    pairs = list(zip(ours, control, found["ToMe"], strict=True))
    figures = {
        f"accuracy_loss_half_flops_{kind}": float(np.mean([c["accuracy"] - o["accuracy"] for o, c, _ in pairs])),
        f"beats_tome_seeds_{kind}": float(sum(o["accuracy"] > t["accuracy"] for o, _, t in pairs)),
    }
    return figures, rows
