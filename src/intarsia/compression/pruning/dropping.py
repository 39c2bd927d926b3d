"""The steps of `compression.drop_blocks`: the ranking, the removals, and the shorter network."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.compression.checking import check_plain, check_reads_text
from intarsia.compression.pruning.finding import BlocksFinding, Ranked
from intarsia.compression.pruning.ranking import Worth, divergence, worth
from intarsia.compression.pruning.rebuilding import filled, main_output, prove, prove_blocks, skeleton, text_config
from intarsia.compression.statistics import batches
from intarsia.data import Dataset
from intarsia.errors import BadInput, Note
from intarsia.measure import provenance
from intarsia.sites import Batch, read, resume
from intarsia.sites.probe import dummy_inputs, evaluating

if TYPE_CHECKING:
    from intarsia.compression.pruning.technique import DropBlocksConfig
    from intarsia.data import Text
    from intarsia.models import Model

WHO = "compression.drop_blocks"
NUMBERED = ("mlp_only_layers", "moe_layers")  # fields of configs that hold numbers of blocks


def drop_blocks(model: Model, config: DropBlocksConfig, calibration: Sequence[Text] | None) -> Model:
    """See `intarsia.compression.pruning.technique.drop_blocks`."""
    check_plain(model, WHO)
    count = len(model.sites.blocks)
    text_config(model, WHO)
    _check(model, config, count)
    if model.parts:
        warnings.warn(
            f"{', '.join(sorted(model.parts))}: learnt from the states of all blocks; learn it again", Note, 3
        )
    settings = config.model_dump(mode="json")
    found = None
    removed = list(config.blocks)
    if not removed:
        from intarsia.compression.calibration import calibration_windows

        windows = calibration_windows(model, calibration, config.tokens)
        check_reads_text(model, windows, WHO)
        found = _removals(model, config, batches(model, windows))
        data = Dataset({"calibration": list(calibration)}).sha256 if calibration is not None else "python-docs"
        facts = {"title": f"Blocks of {model.identity.source}", "technique": WHO}
        found = found.model_copy(update=facts | {"provenance": provenance(settings=settings, data=data)})
        removed = found.removed
    short = shorter(model.copy(), [i for i in range(count) if i not in removed])
    prove_blocks([model.sites.blocks[i] for i in range(count) if i not in removed], short.sites.blocks, WHO)
    prove(_without(model, sorted(removed)), short.network, WHO)
    out = model.with_network(short.network, technique=WHO, config=settings, blocks=removed)
    out.extras[WHO] = {"removed": removed, "blocks": count - len(removed)}
    if found is not None:
        out.extras[WHO] |= {"divergence": found.divergence, "ranking": [r.model_dump() for r in found.ranking]}
        out.finding = found
    return out


def _check(model: Model, config: DropBlocksConfig, count: int) -> None:
    if config.blocks:
        if wrong := [b for b in config.blocks if not 0 <= b < count]:
            raise BadInput(f"{WHO}: there is no block {wrong[0]}; this network has blocks 0 to {count - 1}")
        if len(set(config.blocks)) < len(config.blocks):
            raise BadInput(f"{WHO}: a block can be removed once: {', '.join(map(str, config.blocks))}")
    if (gone := len(config.blocks) or config.count) >= count:
        raise BadInput(f"{WHO}: {gone} of {count} blocks would leave none; remove {count - 1} at most")
    if not config.blocks and config.rank == "divergence" and "logits" not in model.sites:
        raise BadInput(
            f"{WHO}: {type(model.network).__name__} has no logits to rank blocks by; give rank influence, or the blocks"
        )


def _removals(model: Model, config: DropBlocksConfig, text: Sequence[Batch]) -> BlocksFinding:
    """Which blocks go, and the ranking of all of them."""
    measured = config.rank == "divergence"
    left = list(range(len(model.sites.blocks)))
    first = worth(model, model, text, divergence=measured)
    removed: list[int] = []
    steps: list[float] = []
    if measured and config.greedy:
        now, current = first, model
        while True:
            assert now.divergence is not None
            lowest = min(range(len(left)), key=now.divergence.__getitem__)
            steps.append(now.divergence[lowest])
            removed.append(left.pop(lowest))
            if len(removed) == config.count:
                break
            current = shorter(model, left)
            now = worth(current, model, text, divergence=True)
        last: float | None = steps[-1]
    else:
        scores = first.divergence if first.divergence is not None else first.influence
        removed = sorted(left, key=scores.__getitem__)[: config.count]
        left = [i for i in left if i not in removed]
        last = divergence(shorter(model, left), model, text) if "logits" in model.sites else None
    return _found(config, first, removed, steps, last, sum(int(b.mask.sum()) for b in text))  # type: ignore[union-attr]


def _found(
    config: DropBlocksConfig, first: Worth, removed: list[int], steps: list[float], last: float | None, tokens: int
) -> BlocksFinding:
    count = len(first.influence)
    ranking = [
        Ranked(block=i, influence=first.influence[i], divergence=first.divergence[i] if first.divergence else None)
        for i in range(count)
    ]
    said = f"{len(removed)} of {count} blocks removed ({', '.join(map(str, removed))})"
    if last is not None:
        said += f": the next token moved by {last:.3f} nats on {tokens:,} tokens"
    return BlocksFinding(
        summary=f"{said}.", ranking=ranking, removed=removed, divergences=steps, divergence=last, tokens=tokens,
        blocks=count, rank=config.rank,
    )  # fmt: skip


def shorter(model: Model, kept: Sequence[int]) -> Model:
    """A model of these blocks alone; its tensors are those of `model`."""
    tower = model.sites.main
    stem = f"{tower.path}."
    place = {str(old): str(new) for new, old in enumerate(kept)}

    def move(name: str, tensor: Tensor) -> tuple[str, Tensor] | None:
        if not name.startswith(stem):
            return name, tensor
        number, _, rest = name.removeprefix(stem).partition(".")
        return (f"{stem}{place[number]}.{rest}", tensor) if number in place else None

    changes = fewer(text_config(model, WHO), kept, len(tower.blocks))
    return model.with_network(filled(model.network, skeleton(model.network, changes, move, WHO), move))


def fewer(config: Any, kept: Sequence[int], count: int) -> dict[str, Any]:
    """The fields of a config that change when of `count` blocks only `kept` are left: how many there are, lists with
    an entry a block, and lists of numbers of blocks."""
    changes: dict[str, Any] = {"num_hidden_layers": len(kept)}
    for key, value in config.to_dict().items():
        if not isinstance(value, list | tuple):
            continue
        if key in NUMBERED:
            changes[key] = [kept.index(i) for i in value if i in kept]
        elif len(value) == count and ("layer" in key or "block" in key):
            changes[key] = [value[i] for i in kept]
    if isinstance(kinds := changes.get("attention_layers"), list):  # GPT-Neo derives these from pairs of (kinds, times)
        changes["attention_types"] = [[kinds, 1]]
    return changes


def _without(model: Model, removed: Sequence[int]) -> Tensor:
    """What the network says to `dummy_inputs` when the stream goes round these blocks."""
    prefix = model.sites.main.prefix
    given: Any = dummy_inputs(model.network)
    state, before = None, -1
    with torch.no_grad(), evaluating(model.network):
        for block in removed:
            at = f"{prefix}layers.{block}.resid_pre"
            if state is None:
                state = read(model, given, at)[at]
            elif block > before + 1:
                state = resume(model, given, f"{prefix}layers.{before}", state=state, at=at)[at]
            before = block
        return main_output(resume(model, given, f"{prefix}layers.{before}", state=state))
