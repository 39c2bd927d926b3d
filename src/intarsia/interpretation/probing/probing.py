"""The computation behind `interpretation.probe`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.data import labelled
from intarsia.errors import BadInput, Note
from intarsia.interpretation import averages, outcomes, places, states
from intarsia.interpretation.probing import classifier, online_code
from intarsia.interpretation.probing.causal import erase_and_compare
from intarsia.interpretation.probing.probe import Probe, ProbeConfig, ProbeLayer
from intarsia.interpretation.wording import percent
from intarsia.measure import LabelTask
from intarsia.measure.intervals import group_numbers
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model

WHAT = "interpretation.probe"


def look(model: Model, config: ProbeConfig, records: Sequence[Any], seed: int) -> Probe:
    """Read the states once, fit the probes; see `interpretation.probe`."""
    classifier.sklearn()
    states.check_readable(model, WHAT)
    chosen = states.choose(labelled(records, WHAT), config.max_texts, seed, WHAT)
    names, y = label_numbers(chosen, WHAT)
    # The label task's prompt, where these labels are its own, read where the model reads it.
    task = LabelTask.of(model) if config.as_prompts and config.at != "marked" else None
    if task is not None and not set(names) <= set(task.labels):
        task = None
    texts = places.placed(model, chosen, config.at, max_tokens=config.max_tokens, task=task, what=WHAT)
    layers = states.spaced(states.layer_count(model), config.stride)
    if config.causal_layer is not None and config.causal_layer not in layers:
        raise BadInput(f"{WHAT}: causal_layer {config.causal_layer} is not among the probed layers {layers}")
    x = places.collect(model, texts, layers, batch_size=config.batch_size).double().numpy()
    group_names = [getattr(record, "group", None) for record in chosen]
    groups = group_numbers(group_names)
    folds = classifier.split(y, groups, config.folds, seed)
    drawn = range(config.draws if len(set(texts.words)) > 1 else 0)  # one word has one label: nothing to learn
    controls = [control_labels(texts.words, y, seed + 1 + draw) for draw in drawn]

    rows = []
    settings = {"strength": config.strength, "seed": seed}
    for n in track(range(len(layers)), "probing layers"):
        at = x[:, n]
        if config.method == "mdl":
            bits = online_code.code_length(at, y, groups, len(names), **settings)
            control = [online_code.code_length(at, c, groups, len(names), **settings) for c in controls]
            rows.append(
                ProbeLayer(
                    layer=layers[n],
                    bits=bits,
                    control_bits=_mean(control),
                    compression=online_code.uniform_length(len(y), len(names)) / bits,
                )
            )
            continue
        right = classifier.cross_validated(at, y, groups, folds, len(names), **settings) == y
        control = [
            (classifier.cross_validated(at, c, groups, folds, len(names), **settings) == c).mean() for c in controls
        ]
        accuracy = averages.mean(right.astype(float), group_names, seed=seed)
        rows.append(ProbeLayer(layer=layers[n], accuracy=accuracy, control=_mean(control)))
    finding = Probe(
        title=f"Reading {_listed(names)} off the states of {model.identity.source}",
        technique=WHAT,
        labels=names,
        layers=rows,
        method=config.method,
        chance=float(np.bincount(y).max() / len(y)),
        uniform_bits=online_code.uniform_length(len(y), len(names)),
        texts=len(y),
        groups=len(np.unique(groups)),
        words=len(set(texts.words)),
        seen=seen_share(texts.words, folds),
        at="where the label is read" if task is not None and config.at == "last" else config.at,
        provenance={"seed": seed, "settings": config.model_dump(), "texts": len(y)},
    )
    says = states.has_head(model) or outcomes.classes_of(model) is not None
    if config.causal and not says:
        warnings.warn(f"{type(model.network).__name__} has no output that an erasure could change: none is tried", Note,
                      stacklevel=3)  # fmt: skip
    elif config.causal:
        layer = finding.best.layer if config.causal_layer is None else config.causal_layer
        erased = erase_and_compare(model, config, chosen, texts, x[:, layers.index(layer)], y, groups, folds, names,
                                   layer, seed)  # fmt: skip
        finding = finding.model_copy(update={"erased": erased, "erased_layer": layer})
    return finding.model_copy(update={"summary": summarise(finding)})


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def label_numbers(records: Sequence[Any], what: str) -> tuple[list[str], np.ndarray]:
    """The labels in order, and each record's number among them. Raises `BadInput` where there is nothing to tell."""
    if missing := [i for i, record in enumerate(records) if not getattr(record, "label", None)]:
        raise BadInput(f"{what}: text {missing[0] + 1} has no label: wants labelled texts (text and label)")
    names = sorted({record.label for record in records})
    if len(names) < 2:
        raise BadInput(f"{what}: all {len(records)} texts have the label '{names[0]}': wants two labels or more")
    y = np.array([names.index(record.label) for record in records])
    counts = np.bincount(y)
    if counts.min() < 2:
        raise BadInput(
            f"{what}: the label '{names[int(counts.argmin())]}' has a single text: wants two or more of each"
        )
    return names, y


def control_labels(words: Sequence[str], y: np.ndarray, seed: int) -> np.ndarray:
    """One random label for each different word, drawn with the labels' own frequencies (Hewitt & Liang 2019).

    Never one label alone, where there are two words or more."""
    generator = np.random.default_rng(seed)
    share = np.bincount(y) / len(y)
    drawn = {word: int(generator.choice(len(share), p=share)) for word in sorted(set(words))}
    out = np.array([drawn[word] for word in words])
    if len(np.unique(out)) == 1:  # with few words the draw may give one label alone: nothing to learn then
        out[[i for i, word in enumerate(words) if word == words[0]]] = (out[0] + 1) % len(share)
    return out


def seen_share(words: Sequence[str], folds: np.ndarray) -> float:
    """Share of the records whose word also occurs outside their own fold."""
    seen = [any(w == word and f != fold for w, f in zip(words, folds, strict=True))
            for word, fold in zip(words, folds, strict=True)]  # fmt: skip
    return float(np.mean(seen))


def _listed(names: Sequence[str]) -> str:
    return " / ".join(names) if len(names) <= 4 else f"{len(names)} labels"


def summarise(finding: Probe) -> str:
    """Where the label reads best, against chance and control, and whether erasing it matters."""
    best = finding.best
    if best.accuracy is not None:
        value, low, _ = best.accuracy
        text = (
            f"The label reads best from layer {best.layer}: {percent(value)} right, chance is {percent(finding.chance)}"
        )
        text += "." if best.control is None else f", the control task {percent(best.control)}."
        if low <= finding.chance:
            text += " That is within what chance gives: do not rely on it."
        elif best.selectivity is None:
            text += " All probed places hold the same word, so that there is no control task."
        elif best.selectivity < 0.05:
            text += " The probe does the control task as well"
            few = finding.words <= 4 * len(finding.labels)
            text += f", which is easy with {finding.words} words." if few else ": it may be memorising words."
    else:
        text = (
            f"The labels of {finding.texts} texts take {best.bits:,.0f} bits from layer {best.layer}, "
            f"{finding.uniform_bits:,.0f} without a model and "
            f"{'none' if best.control_bits is None else format(best.control_bits, ',.0f')} for the control task "
            f"({best.compression:.2f} times shorter than without)."
            if (best.compression or 0) > 1
            else f"The labels of {finding.texts} texts do not get shorter with any layer's states: a probe learns "
            "nothing."
        )
    if finding.seen < 0.2 and best.selectivity is not None:
        text += f" Only {percent(finding.seen)} of the probed words occur in training, so the control task says little."
    if len(finding.erased) == 3 and (best.accuracy is None or best.accuracy[1] > finding.chance):
        before, own, other = finding.erased
        text += f" Erasing its {own.rank} direction{'s' * (own.rank != 1)} at layer {finding.erased_layer}"
        if own.accuracy is not None:
            text += f" leaves a new probe {percent(own.accuracy)} there, and"
        text += f" moves the output by {own.kl:.2g} nats (random ones: {other.kl:.2g})"
        if own.loss is not None and before.loss is not None and other.loss is not None:
            text += f"; the label's loss goes from {before.loss:.2f} to {own.loss:.2f} (random: {other.loss:.2f})"
        text += "." + (" That is hardly more than random ones do." if own.kl <= 1.5 * other.kl else "")
    return text
