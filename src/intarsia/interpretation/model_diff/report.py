"""From the measures of `model_diff` to a finished `Diff`: averages, intervals, token maps, examples, summary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from intarsia.interpretation.divergence import share_carrying
from intarsia.interpretation.model_diff import summary as diff_summary
from intarsia.interpretation.model_diff.finding import (
    KL_BINS,
    Change,
    Diff,
    InputChange,
    Interval,
    OutputDiff,
    TokenChange,
)
from intarsia.interpretation.states import Vocabulary
from intarsia.interpretation.wording import one_line, visible
from intarsia.measure.intervals import bootstrap, group_numbers, sum_by_group
from intarsia.report import TokenMap

if TYPE_CHECKING:
    from intarsia.interpretation.model_diff.compare import Output
    from intarsia.interpretation.model_diff.prompts import Prompt
    from intarsia.interpretation.model_diff.technique import DiffConfig
    from intarsia.models import Model


def complete(
    finding: Diff,
    before: Model,
    after: Model,
    config: DiffConfig,
    items: Sequence[Prompt],
    output: Output | None,
    seed: int,
) -> Diff:
    """Fill in what is derived from the measured positions, the names and the summary."""
    names = name_both(before, after)
    fields: dict = {"before": names[0], "after": names[1], "title": f"What changed from {names[0]} to {names[1]}"}
    counted = 0
    if output is not None:
        counts = output["position"] > 0
        counted = int(counts.sum())
        groups = group_numbers([item.group for item in items])
        fields["output"] = average(output, counts, groups, seed)
        if finding.prompts and (cue := at_cues(output, items)).any():
            fields["cue"] = average(output, cue, groups, seed)
        fields["lens_stays"] = fields["output"].agreement[0] if config.lens_sample else None
        examples = _Examples(output, Vocabulary(after), config)
        fields |= {
            "maps": examples.maps(),
            "changes": examples.changes(),
            "risen": examples.tokens(1),
            "fallen": examples.tokens(-1),
            "inputs": examples.inputs(),
        }
    fields["provenance"] = {
        "seed": seed,
        "settings": config.model_dump(),
        "texts": len(items),
        "positions": counted,
        "before": {"source": before.identity.source, "changes": list(before.identity.changes)},
        "after": {"source": after.identity.source, "changes": list(after.identity.changes)},
    }
    finding = finding.model_copy(update=fields)
    return finding.model_copy(update={"summary": diff_summary.summarise(finding)})


def name_both(before: Model, after: Model) -> tuple[str, str]:
    """Short names: the source, and the techniques that were applied since."""

    def steps(model: Model, skip: int) -> str:
        done = [str(change.get("technique", "change")).rpartition(".")[2] for change in model.identity.changes[skip:]]
        return " + ".join(done)

    a, b = before.identity, after.identity
    shared = len(a.changes) if a.source == b.source and b.changes[: len(a.changes)] == a.changes else 0
    first = " + ".join(filter(None, [a.source, steps(before, 0)]))
    if a.source == b.source and shared == len(a.changes) and len(b.changes) > shared:
        return first, f"{first} + {steps(after, shared)}"
    second = " + ".join(filter(None, [b.source, steps(after, 0)]))
    return (first, second) if first != second else (f"{first} (before)", f"{second} (after)")


def average(output: Output, where: Tensor, groups: np.ndarray, seed: int) -> OutputDiff:
    """Averages over the positions marked in `where`; intervals by resampling whole `groups` of texts [text]."""

    def mean(values: Tensor, where: Tensor) -> Interval:
        # Positions of one text are not independent, texts are. Differences of two models are paired by position.
        pairs = np.stack([values.double().numpy(), np.ones(len(values))], 1)
        _, numbers = np.unique(groups[output["text"][where].numpy()], return_inverse=True)
        low, high = bootstrap(sum_by_group(pairs, numbers), lambda sums: sums[..., 0] / sums[..., 1], seed=seed)
        return float(values.double().mean()), float(low), float(high)

    kl = output["kl"][where]
    counts = torch.bucketize(kl.contiguous(), torch.tensor(KL_BINS[1:], dtype=torch.float64), right=True)
    quantiles = torch.quantile(kl, torch.tensor([0.5, 0.9, 0.99], dtype=torch.float64)).tolist()
    result = OutputDiff(
        positions=len(kl),
        kl=mean(kl, where),
        kl_quantiles=dict(zip(("50", "90", "99"), quantiles, strict=True)),
        kl_max=float(kl.max()),
        total_variation=float(output["total_variation"][where].mean()),
        agreement=mean(output["agreement"][where], where),
        overlap=float(output["overlap"][where].mean()),
        entropy_before=float(output["entropy_before"][where].mean()),
        entropy_after=float(output["entropy_after"][where].mean()),
        half_share=share_carrying(kl),
        histogram=(torch.bincount(counts, minlength=len(KL_BINS)).double() / len(kl)).tolist(),
    )
    known = where & (output["following"] >= 0)
    if known.any():
        losses = [output[name][known] for name in ("loss_before", "loss_after")]
        result.loss_before, result.loss_after = (float(loss.mean()) for loss in losses)
        result.loss_change = mean(losses[1] - losses[0], known)
    return result


def at_cues(output: Output, items: Sequence[Prompt]) -> Tensor:
    """Marks the cue of every prompt among all positions."""
    cue = torch.tensor([-1 if item.cue is None else item.cue for item in items])
    return output["position"] == cue[output["text"]]


class _Examples:
    """Texts, positions and tokens that show the change."""

    def __init__(self, output: Output, name: Vocabulary, config: DiffConfig):
        self.output, self.name, self.config = output, name, config
        self.kl, self.text, self.position = output["kl"], output["text"], output["position"]
        self.token, self.following = output["token"].tolist(), output["following"].tolist()
        self.tops = {side: (output[f"top_{side}"], output[f"top_{side}_p"]) for side in ("before", "after")}

    def _top(self, side: str, at: int, count: int = 3) -> str:
        ids, p = self.tops[side]
        pairs = zip(ids[at, :count].tolist(), p[at, :count].tolist(), strict=True)
        return " · ".join(f"'{visible(self.name(i))}'\u00a0{100 * chance:.0f}\u00a0%" for i, chance in pairs)

    def _tip(self, at: int) -> str:
        lines = [
            f"KL {float(self.kl[at]):.3g} nats",
            f"before: {self._top('before', at)}",
            f"after: {self._top('after', at)}",
        ]
        if self.following[at] >= 0:
            chances = [float((-self.output[f"loss_{side}"][at]).exp()) for side in ("before", "after")]
            actual = visible(self.name(self.following[at]))
            lines.append(f"actual next: '{actual}' {100 * chances[0]:.1f} % → {100 * chances[1]:.1f} %")
        return "\n".join(lines)

    def maps(self) -> list[TokenMap]:
        """The texts with the largest mean KL, tokens coloured by the KL of what is predicted next."""
        inner = torch.where(self.position > 0, self.kl, 0.0)
        count = int(self.text.max()) + 1
        total = torch.zeros(count, dtype=torch.float64).index_add_(0, self.text, inner)
        length = torch.bincount(self.text[self.position > 0], minlength=count)
        mean = total / length.clamp_min(1)
        maps = []
        for text in mean.sort(descending=True, stable=True).indices[: self.config.maps].tolist():
            if mean[text] <= 0:
                break
            at = (self.text == text).nonzero()[:, 0].tolist()
            maps.append(
                TokenMap(
                    title=f"Text {text + 1}: mean KL {float(mean[text]):.3g} nats",
                    tokens=[self.name(self.token[i]) for i in at],
                    values=[float(self.kl[i]) if self.position[i] > 0 else None for i in at],
                    tips=[self._tip(i) for i in at],
                    # One scale for all maps, set where the rare outliers begin.
                    maximum=max(float(torch.quantile(inner, 0.99)), 1e-12),
                    meaning="KL in nats",
                    format=".3g",
                    note="Darker: after reading this token, the two models expect different things next.",
                )
            )
        return maps

    def changes(self) -> list[Change]:
        """The positions with the largest KL."""
        inner = torch.where(self.position > 0, self.kl, 0.0)
        found = []
        for at in inner.sort(descending=True, stable=True).indices[: self.config.examples].tolist():
            if inner[at] <= 0:
                break
            start = max(at - 8, at - int(self.position[at]))
            context = "".join(self.name(i) for i in self.token[start:at])
            found.append(
                Change(
                    context=("…" if start > at - int(self.position[at]) else "") + one_line(context),
                    token=one_line(self.name(self.token[at])),
                    actual=self.name(self.following[at]) if self.following[at] >= 0 else None,
                    kl=float(inner[at]),
                    before=self._top("before", at),
                    after=self._top("after", at),
                )
            )
        return found

    def tokens(self, sign: int) -> list[TokenChange]:
        """Tokens of the vocabulary whose mean probability rose (sign 1) or fell (-1) most."""
        before, after = (mass / int((self.position > 0).sum()) for mass in self.output.mass)
        change = sign * (after - before)
        best = change.sort(descending=True, stable=True).indices[: self.config.examples].tolist()
        return [
            TokenChange(token=self.name(i), before=float(before[i]), after=float(after[i]))
            for i in best
            if change[i] > 0
        ]

    def inputs(self) -> list[InputChange]:
        """Tokens read at least twice, by the mean KL of the predictions right after them."""
        inner = self.position > 0
        ids, at = self.output["token"][inner].unique(return_inverse=True)
        count = torch.bincount(at)
        mean = torch.zeros(len(ids), dtype=torch.float64).index_add_(0, at, self.kl[inner]) / count
        mean = torch.where(count >= 2, mean, 0.0)
        best = mean.sort(descending=True, stable=True).indices[: self.config.examples].tolist()
        return [
            InputChange(token=self.name(int(ids[i])), count=int(count[i]), kl=float(mean[i]))
            for i in best
            if mean[i] > 0
        ]
