"""The computation behind `interpretation.describe_entity`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.errors import BadInput, MissingExtra
from intarsia.interpretation import states as reading
from intarsia.interpretation.patchscopes.describe_entity import (
    DESCRIBE,
    DescribeEntity,
    DescribeEntityConfig,
    EntityLayer,
)
from intarsia.interpretation.patchscopes.operator import Source, Target, patch
from intarsia.interpretation.patchscopes.scoring import mean_interval

if TYPE_CHECKING:
    from intarsia.models import Model


def look(model: Model, config: DescribeEntityConfig, records: Sequence[Any], seed: int) -> DescribeEntity:
    """Describe each name from each early layer; see `interpretation.describe_entity`."""
    what = "interpretation.describe_entity"
    reading.check_readable(model, what)
    pairs = list(dict.fromkeys(_pair(record, number) for number, record in enumerate(records, 1)))
    if not pairs:
        raise BadInput(
            f"{what}: no name was given: wants texts, or records with prompt (name) and target (description)"
        )
    if len(pairs) > config.max_entities:
        picked = random.Random(seed).sample(range(len(pairs)), config.max_entities)
        pairs = [pairs[i] for i in sorted(picked)]
    names, given = [name for name, _ in pairs], [description for _, description in pairs]
    depth = reading.layer_count(model)
    layers = list(range(0, max(1, round(depth * config.depth)), config.stride))
    target = config.target_prompt or DESCRIBE
    found = patch(
        Source(model, names, layers=layers),
        Target(model, target, layers="same"),
        max_new_tokens=config.max_new_tokens,
        contamination=config.contamination,
    )
    assert found.texts is not None
    # A description ends where the prompt's list goes on to the next entity or line.
    texts = [[cells[0].split("\n")[0] for cells in row] for row in found.texts]
    described = all(given)
    finding = DescribeEntity(
        title=f"What the layers of {model.identity.source} take names for",
        technique=what,
        target_prompt=target,
        names=names,
        descriptions=given if described else [],
        read_layers=layers,
        texts=texts,
        contamination=config.contamination,
        shown=config.shown,
        provenance={"seed": seed, "settings": config.model_dump()},
    )
    if described:
        finding = finding.model_copy(update=_scored(texts, given, names, layers, seed))
    return finding.model_copy(update={"summary": summarise(finding)})


def rouge_l(wanted: str, said: str) -> float:
    """F1 of the longest common subsequence of words. Raises `MissingExtra` without rouge-score."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise MissingExtra("ROUGE", "quality") from None
    return RougeScorer(["rougeL"]).score(wanted, said)["rougeL"].fmeasure


def _scored(texts: list[list[str]], given: list[str], names: list[str], layers: list[int], seed: int) -> dict[str, Any]:
    table = np.array([[[rouge_l(wanted, text) for text in row] for row in texts] for wanted in given])
    own = np.stack([table[i, i] for i in range(len(given))])  # [name, layer]
    rest = (table.sum(0) - own).mean(0) / max(1, len(given) - 1)  # [layer]: texts against others' descriptions
    rows = [
        EntityLayer(layer=layer, rouge=mean_interval(own[:, n], names, seed), control=float(rest[n]))
        for n, layer in enumerate(layers)
    ]
    return dict(scores=own.tolist(), layers=rows)


def _pair(record: Any, number: int) -> tuple[str, str]:
    if isinstance(record, str):
        name, description = record, ""
    elif hasattr(record, "prompt"):
        name, description = record.prompt, record.target
    elif hasattr(record, "text"):
        name, description = record.text, ""
    else:
        raise BadInput(f"record {number}: wants prompt (the name) and target (its description)")
    if not name.strip():
        raise BadInput(f"record {number}: the name is empty")
    return name.strip(), description.strip()


def summarise(finding: DescribeEntity) -> str:
    """Which layer comes nearest, and whether that is more than the wording of descriptions."""
    best = finding.best
    count = f"{len(finding.names)} name" + ("s" if len(finding.names) != 1 else "")
    if best is None:
        return (
            f"{count} in the words of {len(finding.read_layers)} layers; without given descriptions there is no score."
        )
    text = (
        f"Layer {best.layer} describes the {count} best: ROUGE-L {best.rouge[0]:.2f} "
        f"[{best.rouge[1]:.2f}, {best.rouge[2]:.2f}]"
    )
    if len(finding.names) < 2:
        return text + "; with a single name there is nothing to compare it with."
    if best.rouge[1] > best.control:
        return text + f", against {best.control:.2f} for the descriptions of other names."
    return text + (
        f". That is not surely more than the {best.control:.2f} that the descriptions of other names get: what is said "
        "may be the wording of descriptions rather than the name."
    )
