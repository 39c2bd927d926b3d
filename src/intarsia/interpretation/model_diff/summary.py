"""The plain-language summary of a `Diff`: every sentence is computed, and left out where it has nothing to say."""

from __future__ import annotations

import itertools

from intarsia.interpretation.model_diff.finding import Diff, OutputDiff
from intarsia.interpretation.wording import percent


def summarise(finding: Diff) -> str:
    """A few sentences a person understands without knowing the measures."""
    if finding.identical:
        compared = [f"every layer's states on {finding.texts} texts"]
        if finding.output is not None:
            compared.insert(0, f"every prediction at {finding.output.positions:,} positions")
        if finding.weights:
            compared.append(f"all {len(finding.weights)} weight tensors")
        return f"The two models are identical: {', '.join(compared)} are exactly equal."
    facts = [finding.facts.sentence()] if finding.facts is not None else []
    sentences = [*_cue(finding), *_predictions(finding), *facts, *_inside(finding), *_weights(finding)]
    return " ".join(sentences)


def _predictions(finding: Diff) -> list[str]:
    output = finding.output
    if output is None:
        return ["There is no head over a vocabulary in both models, so only their layers were compared."]
    if output.kl_max == 0:
        return [f"All predictions at {output.positions:,} positions are exactly equal."]
    what = "next token" if finding.causal else "token"
    said = [
        f"The two models agree on the {what} at {percent(output.agreement[0])} of {output.positions:,} positions "
        f"(mean KL {output.kl[0]:.3g} nats)."
    ]
    said.append(f"Half of the difference sits in {percent(output.half_share)} of the positions.")
    return said + _loss(output, "On these texts")


def _loss(output: OutputDiff, where: str) -> list[str]:
    if output.loss_change is None:
        return []
    change, low, high = output.loss_change
    if change == 0 and low == high == 0:
        return [f"{where} neither predicts better."]
    if low <= 0 <= high:
        return [
            f"{where} neither predicts clearly better ({change:+.3g} nats a token, interval {low:+.3g} to {high:+.3g})."
        ]
    word = "better" if change < 0 else "worse"
    return [
        f"{where} the model predicts {word} than before, by {abs(change):.2g} nats a token (loss "
        f"{output.loss_before:.3g} → {output.loss_after:.3g})."
    ]


def _cue(finding: Diff) -> list[str]:
    cue = finding.cue
    if cue is None:
        return []
    said = [
        f"Where the label is read, the top token stays the same in {percent(cue.agreement[0])} of {cue.positions} "
        f"prompts (mean KL {cue.kl[0]:.3g} nats)."
    ]
    return said + _loss(cue, "There")


def _inside(finding: Diff) -> list[str]:
    rows = [row for row in finding.layers if row.stream is not None]
    if not rows:
        if not finding.layers:
            return []
        return ["Their layers have different widths, so that only the pattern over tokens (CKA) can be compared."]
    if finding.parted_at is None:
        return ["Their layers do exactly the same."]
    said = []
    last = rows[-1]
    if finding.parted_at > rows[0].after:
        said.append(f"Inside, nothing differs before layer {finding.parted_at}, where the streams part.")
    else:
        said.append(f"Inside, the streams differ from layer {rows[0].after} on.")
    steps = [rows[0].stream or 0.0] + [(b.stream or 0.0) - (a.stream or 0.0) for a, b in itertools.pairwise(rows)]
    where = max(range(len(steps)), key=lambda i: steps[i])
    peak = max(rows, key=lambda row: row.stream or 0.0)
    text = f"They end {100 * (last.stream or 0):.2g} % apart (relative distance)"
    if peak is not last and (peak.stream or 0) > 1.2 * (last.stream or 0):
        text += f", were up to {100 * (peak.stream or 0):.2g} % apart at layer {peak.after}"
    if steps[where] > 0:
        text += f", and the largest step is made by layer {rows[where].after}"
    said.append(text + ".")
    return said


def _weights(finding: Diff) -> list[str]:
    if not finding.weights:
        return []
    changed = finding.changed_weights
    if not changed:
        return [f"Their {len(finding.weights)} weight tensors are equal."]
    said = f"Weights changed in {len(changed)} of {len(finding.weights)} tensors"
    layers = sorted({w.layer for w in changed if w.layer is not None})
    every = {w.layer for w in finding.weights if w.layer is not None}
    if (layers and len(layers) <= 3 < len(every)) or len(layers) == 1:
        said += f", in layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))} only"
        if any(w.layer is None for w in changed):
            said = said.removesuffix(" only") + " and outside the layers"
    elif layers and len(layers) == len(every):
        said += ", in every layer"
    # A role is judged by its mean over layers: the one large change in one layer is not typical of it.
    roles: dict[str, list[float]] = {}
    for w in finding.weights:
        roles.setdefault(w.role, []).append(w.distance)
    role = max(roles, key=lambda r: sum(roles[r]) / len(roles[r]))
    mean = sum(roles[role]) / len(roles[role])
    touched = [d for d in roles[role] if d > 0]
    most = changed[0]
    if len(touched) > 1:
        said += f"; most in {role} ({100 * mean:.2g} % on average)"
    else:
        said += f"; most in {most.role}" + (f" of layer {most.layer}" if most.layer is not None else "")
        said += f" ({100 * most.distance:.2g} %)"
    said += "."
    if finding.unmatched:
        count = "1 tensor has" if finding.unmatched == 1 else f"{finding.unmatched} tensors have"
        said += f" {count} no partner of the same shape in the other model."
    return [said]
