"""The computation behind `interpretation.structural_probe`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import states
from intarsia.interpretation.evaluation.correlation import spearman
from intarsia.interpretation.probing import trees
from intarsia.interpretation.probing.structural_probe import StructuralLayer, StructuralProbe, StructuralProbeConfig
from intarsia.interpretation.wording import percent
from intarsia.progress import track
from intarsia.sites import read

if TYPE_CHECKING:
    from intarsia.models import Model

WHAT = "interpretation.structural_probe"


def look(
    model: Model, config: StructuralProbeConfig, texts: Sequence[Any] | None, test: Sequence[Any] | None, seed: int
) -> StructuralProbe:
    """Read the states once, train a projection a layer; see `interpretation.structural_probe`."""
    states.check_readable(model, WHAT)
    if (texts is None) == (config.treebank is None):
        raise BadInput(f"{WHAT}: give either texts labelled by their heads, or treebank (a CoNLL-U file)")
    gold = trees.of_conllu(config.treebank, WHAT) if config.treebank else trees.of_records(texts or [], WHAT)
    gold = [sentence for sentence in gold if sentence.edges]
    shuffled = random.Random(seed).sample(gold, min(len(gold), config.max_texts))
    if test is not None:
        training, held = shuffled, [s for s in trees.of_records(test, WHAT) if s.edges]
    else:
        cut = max(1, round(config.test_share * len(shuffled)))
        training, held = shuffled[cut:], shuffled[:cut]
    if not training or not held:
        raise BadInput(f"{WHAT}: {len(gold)} sentences with two words or more: wants at least two")
    layers = states.spaced(states.layer_count(model), config.stride)
    read_states = _word_states(model, config, [*training, *held], layers)
    rows = []
    for n in track(range(len(layers)), "training projections"):
        mine = [s[:, n].double() for s in read_states]
        flat = torch.cat(mine[: len(training)])
        mean, scale = flat.mean(0), flat.std(0, correction=0).clamp_min(1e-8)
        mine = [(s - mean) / scale for s in mine]
        b = train(mine[: len(training)], [torch.from_numpy(s.distances()) for s in training], config.rank,
                  config.epochs, config.learning_rate, seed)  # fmt: skip
        generator = torch.Generator().manual_seed(seed + 1)
        blind = torch.randn(b.shape, generator=generator, dtype=torch.float64)
        own, other = ([squared_distances(s, m).numpy() for s in mine[len(training) :]] for m in (b, blind))
        spans = [
            [trees.spanning_tree(d, s.punctuation) for d, s in zip(distances, held, strict=True)]
            for distances in (own, other)
        ]
        rows.append(
            StructuralLayer(
                layer=layers[n],
                uuas=trees.uuas(spans[0], held),
                random=trees.uuas(spans[1], held),
                spearman=float(np.mean([spearman_by_word(d, s.distances()) for d, s in zip(own, held, strict=True)])),
            )
        )
    finding = StructuralProbe(
        title=f"Syntax trees in the states of {model.identity.source}",
        technique=WHAT,
        layers=rows,
        chain=trees.uuas([trees.chain(s) for s in held], held),
        rank=min(config.rank, model.sites.main.width),
        trained_on=len(training),
        tested_on=len(held),
        provenance={"seed": seed, "settings": config.model_dump(), "texts": len(gold)},
    )
    best = finding.best
    text = f"Layer {best.layer} holds most of the tree: {percent(best.uuas)} of its edges are found in {len(held)}"
    text += f" held-out sentences; linking each word with the next finds {percent(finding.chain)}, a random projection"
    text += f" {percent(best.random)}."
    if best.uuas <= finding.chain:
        text += " That is no better than the order of the words: nothing here speaks for syntax."
    if len(training) < 100:
        text += f" Trained on only {len(training)} sentences: the paper has 40,000."
    return finding.model_copy(update={"summary": text})


def _word_states(
    model: Model, config: StructuralProbeConfig, sentences: Sequence[trees.Parsed], layers: Sequence[int]
) -> list[Tensor]:
    """For each sentence [word, layer, width] float32: means over the words' tokens."""
    limit = min(n for n in (config.max_tokens, model.context_length) if n)
    found = [trees.word_positions(model, s.words, limit, f"{WHAT}: sentence {i}") for i, s in enumerate(sentences, 1)]
    names = [states.site_name(model.sites, layer, "resid_post") for layer in layers]
    out: list[Tensor] = [torch.empty(0)] * len(found)
    order = sorted(range(len(found)), key=lambda i: len(found[i][0]))
    for start in track(range(0, len(order), config.batch_size), "reading states"):
        rows = order[start : start + config.batch_size]
        acts = read(model, [found[i][0] for i in rows], names)
        for row, i in enumerate(rows):
            words = [
                torch.stack([acts[name][row, positions].float().mean(0).cpu() for name in names])
                for positions in found[i][1]
            ]
            out[i] = torch.stack(words)
    return out


def squared_distances(x: Tensor, b: Tensor) -> Tensor:
    """|B(x_i - x_j)|^2 [word, word] of states x [word, width] under B [rank, width]."""
    projected = x @ b.T
    gram = projected @ projected.T
    norm = gram.diagonal()
    return norm[:, None] + norm[None] - 2 * gram


def loss(x: Tensor, gold: Tensor, b: Tensor) -> Tensor:
    """Mean over pairs of words of |d_tree - d_B|: equation 3 of the paper, for one sentence."""
    return (gold - squared_distances(x, b)).abs().sum() / len(x) ** 2


def train(
    x: Sequence[Tensor], gold: Sequence[Tensor], rank: int, epochs: int, learning_rate: float, seed: int
) -> Tensor:
    """B [rank, width] float64 by Adam over batches of 20 sentences, the rate halved at half and three quarters."""
    width = x[0].shape[1]
    generator = torch.Generator().manual_seed(seed)
    b = torch.randn(min(rank, width), width, generator=generator, dtype=torch.float64) / width
    b.requires_grad_()
    optimiser = torch.optim.Adam([b], lr=learning_rate)
    for epoch in range(epochs):
        if epoch in (epochs // 2, 3 * epochs // 4):
            optimiser.param_groups[0]["lr"] /= 2
        for rows in torch.randperm(len(x), generator=generator).split(20):
            optimiser.zero_grad()
            with torch.enable_grad():
                total = torch.stack([loss(x[int(i)], gold[int(i)], b) for i in rows]).mean()
                total.backward()
            optimiser.step()
    return b.detach()


def spearman_by_word(found: np.ndarray, gold: np.ndarray) -> float:
    """Rank correlation of a word's distances to the others with the tree's, averaged over words (0 where constant)."""
    values = []
    for i in range(len(found)):
        others = [j for j in range(len(found)) if j != i]
        values.append(spearman(found[i, others], gold[i, others]))
    return float(np.nan_to_num(values).mean())
