"""The computation behind `interpretation.attention_knockout`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import states
from intarsia.interpretation.causal.attention_knockout import AttentionKnockout, AttentionKnockoutConfig
from intarsia.interpretation.causal.cells import base_run, resumed, site
from intarsia.interpretation.causal.contrast import contrast, span
from intarsia.interpretation.causal.findings import EffectMap
from intarsia.interpretation.wording import visible
from intarsia.measure import provenance
from intarsia.progress import tell
from intarsia.sites import Apply, read

if TYPE_CHECKING:
    from intarsia.models import Model

WHO = "interpretation.attention_knockout"
TASK = "cutting attention"


def knock_out(model: Model, config: AttentionKnockoutConfig) -> AttentionKnockout:
    """Cut every group of edges in every window; see `interpretation.attention_knockout`."""
    made = contrast(model, WHO, config.prompt, answer=config.answer, foil=config.foil, metric=config.metric)
    count = states.layer_count(model)
    for layer in range(count):
        model.sites.expand(site(model, layer, "scores"))
    source = span(model, config.prompt, config.source, WHO) if config.source is not None else []
    target = span(model, config.prompt, config.target, WHO) if config.target is not None else [made.at]
    window = min(config.window or max(1, round(count / 5)), count)
    layers = states.spaced(count, config.stride)
    causal = states.is_causal(model)
    groups: dict[str, list[int]] = {}
    if source:
        groups["the source"] = source
        groups["all other tokens but the first"] = [
            p for p in range(1, made.length) if p not in source and p not in target
        ]
    groups["the first token"] = [0]
    columns = [p for p in range(made.length) if not causal or p <= max(target)]
    wanted = [*groups.values(), *([p] for p in columns)]
    check_left(target, source, made.length, causal)
    kept = [edges for edges in wanted if edges and not _nothing_left(target, edges, made.length, causal)]

    jobs = [(layer, edges) for layer in layers for edges in kept]
    base = base_run(model, made.clean)
    heads = _heads(model, config.heads, made.clean)
    values = torch.empty(len(jobs), dtype=torch.float64)
    size = config.batch_size
    windows = {layer: range(max(0, layer - window // 2), min(count, layer - window // 2 + window)) for layer in layers}
    starts: dict[int, list[int]] = {}
    for number, (layer, _) in enumerate(jobs):
        starts.setdefault(windows[layer][0], []).append(number)
    done = 0
    for start, numbers in starts.items():
        for chunk in (numbers[i : i + size] for i in range(0, len(numbers), size)):
            tell(TASK, done, len(jobs))
            put = cutting([jobs[n][1] for n in chunk], target, heads)
            # Windows that begin at the first layer are of different length: each ends where it should.
            edits = []
            for at in sorted({a for n in chunk for a in windows[jobs[n][0]]}):
                rows = [r for r, n in enumerate(chunk) if at in windows[jobs[n][0]]]
                edits.append(Apply(site(model, at, "scores"), function=put, rows=rows))
            with torch.no_grad():
                output = resumed(model, base, start, [0] * len(chunk), edits, **made.keep)
            values[chunk] = made.scored(output).cpu()
            done += len(chunk)
    tell(TASK, done, len(jobs), finished=True)
    if values.isnan().any():
        raise BadInput(f"{WHO}: a target token has nothing left to attend to: cut fewer tokens")
    relative = config.metric == "probability"
    change = (values - made.clean_value) / (made.clean_value if relative else 1.0)
    table = {(layer, tuple(edges)): float(v) for (layer, edges), v in zip(jobs, change, strict=True)}
    names = made.tokens()
    finding = AttentionKnockout(
        title=f"Through which layers {model.identity.source} reads its prompt",
        technique=WHO,
        contrast=made.told(),
        maps=[
            EffectMap(
                site="attention",
                row_names=[f"layer {i}" for i in layers],
                column_names=[names[p] for p in columns],
                columns_are="token that may not be read",
                effect=[[table.get((layer, (p,)), 0.0) for p in columns] for layer in layers],
            )
        ],
        layers=layers,
        window=window,
        relative=relative,
        groups={
            name: [table[layer, tuple(edges)] for layer in layers]
            for name, edges in groups.items()
            if (layers[0], tuple(edges)) in table
        },
        provenance=provenance(settings=config.model_dump()),
    )
    return finding.model_copy(update={"summary": summarise(finding)})


def cutting(
    sources: Sequence[Sequence[int]], targets: Sequence[int], heads: Sequence[int]
) -> Callable[[Tensor], Tensor]:
    """A function on scores [row, query, head, key] that cuts row r's targets from `sources[r]`."""
    rows = [r for r, edges in enumerate(sources) for _ in targets for _ in edges]
    queries = [t for edges in sources for t in targets for _ in edges]
    keys = [s for edges in sources for _ in targets for s in edges]

    def put(scores: Tensor) -> Tensor:
        cut = scores.clone()
        for head in heads:
            cut[rows, queries, head, keys] = -torch.inf
        return cut

    return put


def _heads(model: Model, wanted: Sequence[int], ids: Tensor) -> list[int]:
    name = site(model, 0, "scores")
    count = read(model, ids, name)[name].shape[2]
    if bad := [h for h in wanted if not 0 <= h < count]:
        raise BadInput(f"{WHO}: head {bad[0]} does not exist, there are {count} (0 to {count - 1})")
    return list(wanted) or list(range(count))


def check_left(target: Sequence[int], source: Sequence[int], length: int, causal: bool) -> None:
    """Raise `BadInput` where a target token can attend to nothing but the source."""
    if source and _nothing_left(target, source, length, causal):
        raise BadInput(
            f"{WHO}: the target can attend to nothing but the source (in a decoder a token sees itself and "
            f"those before "
            "it): give a later target or a smaller source"
        )


def _nothing_left(target: Sequence[int], source: Sequence[int], length: int, causal: bool) -> bool:
    seen = [set(range(t + 1 if causal else length)) for t in target]
    return any(keys <= set(source) for keys in seen)


def summarise(finding: AttentionKnockout) -> str:
    """Where the largest drops are."""
    unit = ".0%" if finding.relative else ".2f"
    told = finding.contrast
    text = f"The {told.measured} is {told.clean:.3g}. "
    for name, values in finding.groups.items():
        at = max(range(len(values)), key=lambda i: abs(values[i]))
        text += f"Without {name} it changes most around layer {finding.layers[at]} ({values[at]:+{unit}}). "
    one = finding.maps[0]
    row, column = one.ranked()[0]
    text += (
        f"The single token that matters most is '{visible(one.column_names[column])}', around {one.row_names[row]} "
        f"({one.effect[row][column]:+{unit}}). {finding.window} layers were cut at a time."
    )
    return text
