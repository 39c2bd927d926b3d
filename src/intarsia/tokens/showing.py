"""How `tokens.show` goes about it: run the pictures, read the flows that the engine kept, draw the groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.measure import provenance
from intarsia.models import Model
from intarsia.models.seeing import embed_pictures, question_inputs
from intarsia.progress import track
from intarsia.report import PatchMap, PatchPanel, data_uri
from intarsia.report.patches import connected
from intarsia.sites.recomposing import Flow, installed
from intarsia.tokens.merge import MergeConfig
from intarsia.tokens.planning import merged
from intarsia.tokens.show import MergedBlock, MergedPicture, ShowConfig, TokenMaps
from intarsia.tokens.subjects import Subjects, subjects
from intarsia.tokens.towers import patch_of, towers_of


@dataclass(frozen=True)
class Grouped:
    """The patches of one picture after one block: `groups` [patch] names what each is part of (-1: dropped)."""

    tower: str
    block: int
    groups: list[int]


def look(model: Model, config: ShowConfig, images: Any, seed: int) -> TokenMaps:
    """See `intarsia.tokens.show.show`."""
    ready = as_merged(model, config)
    found = subjects(ready, images, most=config.max_pictures, seed=seed)
    grid = grid_of(ready, found)
    tally: dict[tuple[str, int], list[Tensor]] = defaultdict(list)
    likeness: dict[tuple[str, int], list[Tensor]] = defaultdict(list)
    pictures, maps = [], []
    with watched(ready):
        for start in track(range(0, len(found), config.batch_size), "looking"):
            part = found.values[start : start + config.batch_size]
            flows = flows_of(ready, part, config.question)
            _count(flows, tally, likeness)
            for row, steps in enumerate(groups_of(flows, len(part), grid[0] * grid[1])):
                index = start + row
                pictures.append(_described(found.names[index], steps, grid))
                if index < config.pictures:
                    maps.append(drawn(found, index, steps, grid, config.panels))
    blocks = [_block(key, tally[key], likeness.get(key, [])) for key in tally]
    out = TokenMaps(
        title="Where the patches went",
        technique="tokens.show",
        provenance=provenance(settings=config.model_dump(mode="json"), seed=seed),
        blocks_=blocks,
        pictures=pictures,
        maps=maps,
        unread=found.unread,
    )
    out.summary = _summary(out)
    return out


def as_merged(model: Model, config: MergeConfig) -> Model:
    """The model itself when its tokens are merged, else a merged copy by the settings."""
    names = set(MergeConfig.model_fields)
    if installed(model.network):
        if given := sorted(names & config.model_fields_set):
            raise BadInput(
                f"this model's tokens are merged already, by its own settings: leave out {', '.join(given)}, or give "
                "the dense model"
            )
        return model
    return merged(model, MergeConfig(**{name: getattr(config, name) for name in names}))


def grid_of(model: Model, found: Subjects) -> tuple[int, int]:
    """Rows and columns of patches in a picture."""
    patch = patch_of(towers_of(model).vision)
    if patch is None:
        raise BadInput(f"{type(model.network).__name__} does not say how large its patches are: they cannot be drawn")
    height, width = found.values.shape[-2:]
    return height // patch[0], width // patch[1]


@contextmanager
def watched(model: Model) -> Iterator[None]:
    """Inside the block the rules keep how alike the rows were that they merged."""
    rules: list[Any] = [owner.rule for owner in installed(model.network).values()]
    for rule in rules:
        rule.watching = True
    try:
        yield
    finally:
        for rule in rules:
            rule.watching = False


def flows_of(model: Model, values: Tensor, question: str) -> dict[str, Flow]:
    """Run pictures through the network; the finished flow of each tower that pictures go through, by its name."""
    towers, owners = towers_of(model), installed(model.network)
    with torch.inference_mode():
        if towers.decoder is not None:
            model.network(**question_inputs(model, values, [question] * len(values)))
        else:
            embed_pictures(model, values)
    wanted = [towers.vision.name, *([towers.decoder.name] if towers.decoder is not None else [])]
    return {name: flow for name in wanted if name in owners and (flow := owners[name].flow) is not None}


def groups_of(flows: dict[str, Flow], count: int, patches: int) -> list[list[Grouped]]:
    """For each picture the groups of its patches after every block that lost rows, in the order of the work.

    In a language model that takes up the vision tower's merged rows, its blocks start from those."""
    steps: list[list[Grouped]] = [[] for _ in range(count)]
    for name, flow in flows.items():
        within = _places(flow, count, patches)
        for trace in flow.traces:
            owner = trace.owner.cpu().gather(1, within)
            for row in range(count):
                groups = owner[row].tolist()
                if steps[row] and steps[row][-1].groups and _finer(groups, steps[row][-1].groups):
                    continue  # taking up what is merged already shows nothing new
                steps[row].append(Grouped(name, trace.index, groups))
    return steps


def _places(flow: Flow, count: int, patches: int) -> Tensor:
    """[picture, patch] where the patches lie among a flow's original tokens."""
    mask = flow.inputs.get("image_mask")
    if mask is None:
        prefix = flow.original - patches
        if prefix < 0:
            raise BadInput(f"the vision tower works on {flow.original} rows, which are not its {patches} patches")
        return torch.arange(prefix, flow.original).expand(count, -1)
    each = int(mask[0].sum())
    column = mask.cpu().nonzero()[:, 1].view(count, each)
    return column[:, each - patches :]


def _finer(new: list[int], old: list[int]) -> bool:
    """Whether the new groups are the old ones, under whatever names."""
    return len(set(zip(new, old, strict=True))) == len(set(new)) == len(set(old))


def drawn(found: Subjects, index: int, steps: list[Grouped], grid: tuple[int, int], panels: int) -> PatchMap:
    """One picture: as the network sees it, then its groups after some of the blocks, the last one among them."""
    rows, columns = grid
    picked = steps
    if len(steps) > panels:
        picked = [steps[round((i + 1) * len(steps) / panels) - 1] for i in range(panels)]
    total = rows * columns
    shown = [PatchPanel(name=f"as seen: {total} patches", groups=list(range(total)))]
    for step in picked:
        left = len(set(step.groups) - {-1})
        shown.append(PatchPanel(name=f"after {step.tower} block {step.block}: {left} left", groups=step.groups))
    return PatchMap(
        title=found.names[index], picture=data_uri(found.seen(index)), rows=rows, columns=columns, panels=shown
    )


def _count(
    flows: dict[str, Flow], tally: dict[tuple[str, int], list[Tensor]], likeness: dict[tuple[str, int], list[Tensor]]
) -> None:
    for name, flow in flows.items():
        before = torch.full((len(flow.sizes),), float(flow.original))
        for trace in flow.traces:
            real = (trace.sizes > 0) & (trace.position >= 0)
            after = real.sum(1).float().cpu()
            tally[name, trace.index].append(torch.stack([before, after]))
            if trace.score is not None and trace.score.numel():
                likeness[name, trace.index].append(trace.score.float().flatten().cpu())
            before = after


def _block(key: tuple[str, int], counts: list[Tensor], scores: list[Tensor]) -> MergedBlock:
    before, after = torch.cat(counts, dim=1).mean(1).tolist()
    values = torch.cat(scores) if scores else torch.empty(0)
    values = values[values.isfinite()]
    known = len(values) > 0
    return MergedBlock(
        tower=key[0],
        block=key[1],
        before=before,
        after=after,
        similarity=float(values.mean()) if known else None,
        lowest=float(values.min()) if known else None,
    )


def _described(name: str, steps: list[Grouped], grid: tuple[int, int]) -> MergedPicture:
    total = grid[0] * grid[1]
    if not steps:
        return MergedPicture(name=name, patches=total, left=total, largest=1, apart=0.0)
    members: dict[int, list[int]] = defaultdict(list)
    for place, group in enumerate(steps[-1].groups):
        members[group].append(place)
    members.pop(-1, None)
    apart = sum(len(places) for places in members.values() if len(connected(places, grid[1])) > 1)
    return MergedPicture(
        name=name,
        patches=total,
        left=len(members),
        largest=max(map(len, members.values()), default=0),
        apart=apart / total,
    )


def _summary(found: TokenMaps) -> str:
    if not found.blocks_:
        return "Nothing was merged: every block works on all rows."
    known = [b for b in found.blocks_ if b.similarity is not None]
    text = f"Of each picture's patches {found.left:.0%} are left as rows of their own at the end."
    if known:
        worst = min(known, key=lambda b: b.similarity or 0)
        text += (
            f" Rows that were merged had keys with a cosine of {sum(b.similarity or 0 for b in known) / len(known):.2f}"
            f" on average, and were least alike in {worst.tower} block {worst.block} ({worst.similarity:.2f})."
        )
    apart = sum(p.apart for p in found.pictures) / len(found.pictures)
    return text + f" {apart:.0%} of the patches are in groups whose members lie in several places."
