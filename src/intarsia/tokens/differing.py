"""How `tokens.diff` goes about it: both models on the same subjects, row against row, and the worst ones drawn."""

from __future__ import annotations

import math
import statistics
from typing import Any

from intarsia.measure import provenance
from intarsia.models import Model
from intarsia.report import PatchMap
from intarsia.sites.recomposing import installed
from intarsia.tokens.diff import DiffConfig, Moved, TokenDiff
from intarsia.tokens.outcomes import Asking, Outcome, agreements, cosines, divergences, mean, outcome
from intarsia.tokens.showing import drawn, flows_of, grid_of, groups_of
from intarsia.tokens.subjects import Subjects, check_same, own_text, subjects


def look(model: Model, config: DiffConfig, against: Model, images: Any, texts: Any, seed: int) -> TokenDiff:
    """See `intarsia.tokens.diff.diff`."""
    check_same(model, against)
    found = subjects(against, images, texts, most=config.max_pictures, seed=seed)
    asking = Asking(config.batch_size, config.new_tokens, config.template)
    before, after = (outcome(m, found, asking, t) for m, t in ((against, "before"), (model, "after")))
    near, far, same = cosines(before, after), divergences(before, after), agreements(before, after)
    moved = _rows(found, before, after, near, far, same)
    order = sorted(range(len(moved)), key=lambda i: _distance(moved[i]), reverse=True)
    out = TokenDiff(
        title="What fewer tokens changed",
        technique="tokens.diff",
        provenance=provenance(settings=config.model_dump(mode="json"), seed=seed),
        moved=[moved[i] for i in order],
        maps=_maps(model, found, order, config),
        kind=found.kind,
        pictures=len(found),
        fidelity=_interval(near),
        agreement=_share(same),
        kl=mean(far),
        right_before=mean(before.right),
        right_after=mean(after.right),
        unread=found.unread,
        listed=config.listed,
    )
    if before.right is not None and after.right is not None:
        pairs = list(zip(before.right, after.right, strict=True))
        out.lost, out.gained = pairs.count((True, False)), pairs.count((False, True))
    out.summary = _summary(out)
    return out


def _rows(
    found: Subjects,
    before: Outcome,
    after: Outcome,
    near: list[float] | None,
    far: list[float] | None,
    same: list[bool] | None,
) -> list[Moved]:
    asks = found.kind == "answer"
    own = own_text(found) if found.kind == "dual" else None
    rows = []
    for i in range(len(found.asked) if asks else len(found)):
        wanted = ""
        if asks:
            wanted = found.asked[i].answer
        elif own is not None:
            wanted = found.texts[own[i]]
        elif found.kind == "class" and found.labels is not None:
            wanted = found.labels[i]
        rows.append(
            Moved(
                name=found.names[found.asked[i].picture if asks else i],
                question=found.asked[i].question if asks else "",
                fidelity=near[i] if near else None,
                kl=far[i] if far else None,
                before=before.said[i] if before.said else "",
                after=after.said[i] if after.said else "",
                changed=not same[i] if same else False,
                wanted=wanted,
                rank_before=before.rank[i] if before.rank else None,
                rank_after=after.rank[i] if after.rank else None,
            )
        )
    return rows


def _distance(row: Moved) -> float:
    return 1 - row.fidelity if row.fidelity is not None else row.kl or 0.0


def _maps(model: Model, found: Subjects, order: list[int], config: DiffConfig) -> list[PatchMap]:
    """The pictures that moved most, with the patches that became one row; none where nothing is merged."""
    if not config.worst or not installed(model.network):
        return []
    rows, columns = grid_of(model, found)
    picked: list[int] = []
    for i in order:
        picture = found.asked[i].picture if found.kind == "answer" else i
        if picture not in picked:
            picked.append(picture)
    maps = []
    for picture in picked[: config.worst]:
        question = next((one.question for one in found.asked if one.picture == picture), "")
        flows = flows_of(model, found.values[picture : picture + 1], question or "What is this?")
        steps = groups_of(flows, 1, rows * columns)[0]
        if steps:
            maps.append(drawn(found, picture, steps, (rows, columns), config.panels))
    return maps


def _interval(values: list[float] | None) -> tuple[float, float, float] | None:
    """Mean with its 95 % interval (normal)."""
    if not values:
        return None
    middle = sum(values) / len(values)
    reach = 1.96 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return middle, middle - reach, min(1.0, middle + reach)


def _share(values: list[bool] | None) -> tuple[float, float, float] | None:
    """A share with its 95 % interval (Wilson 1927, which holds near 0 and 1)."""
    if not values:
        return None
    n, p, z = len(values), sum(values) / len(values), 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return p, max(0.0, middle - reach), min(1.0, middle + reach)


def _summary(found: TokenDiff) -> str:
    rows = len(found.moved)
    unit = "questions" if found.kind == "answer" else "pictures"
    text = ""
    if found.fidelity is not None:
        worst = found.moved[0]
        text = (
            f"The embeddings of {rows} {unit} have a mean cosine of {found.fidelity[0]:.4f} to those before; the "
            f"lowest is {worst.fidelity:.4f} ({worst.name})."
        )
    if found.agreement is not None:
        changed = sum(row.changed for row in found.moved)
        text += f" The first choice changed for {changed} of {rows} {unit}."
    if found.right_before is not None and found.right_after is not None:
        text += (
            f" Right before: {found.right_before:.1%}, after: {found.right_after:.1%} ({found.lost} lost, "
            f"{found.gained} gained)."
        )
        balance = abs((found.lost or 0) - (found.gained or 0))
        if balance <= 1.96 * math.sqrt((found.lost or 0) + (found.gained or 0)):
            text += " That difference is within chance."
    return text.strip()
