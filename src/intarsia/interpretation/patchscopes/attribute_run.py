"""The computation behind `interpretation.attributes`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.errors import BadInput
from intarsia.interpretation import states as reading
from intarsia.interpretation.patchscopes import scoring
from intarsia.interpretation.patchscopes.attributes import Attributes, AttributesConfig, RelationResult
from intarsia.interpretation.patchscopes.extraction import coarse, gaussian_like, known, mention_rows, say_patched
from intarsia.interpretation.patchscopes.operator import read_states
from intarsia.interpretation.patchscopes.probing import probe
from intarsia.interpretation.patchscopes.relations import (
    MAIN,
    Relation,
    Subject,
    data_folder,
    from_records,
    read_relations,
)
from intarsia.interpretation.wording import percent
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model

FEWEST = 3  # subjects that are needed to hold some out


def look(model: Model, config: AttributesConfig, records: Sequence[Any] | None, seed: int) -> Attributes:
    """Score each relation; see `interpretation.attributes`."""
    reading.check_readable(model, "interpretation.attributes")
    if records and (config.folder or config.relations):
        raise BadInput("interpretation.attributes: give either texts or published relations, not both")
    if records:
        relations = [from_records(records, config.target_prompt)]
    else:
        relations = read_relations(data_folder(config.folder), config.relations or MAIN)
    layers = coarse(reading.layer_count(model), config.grid)
    results = [score(model, relation, layers, config, seed) for relation in track(relations, "relations")]
    finding = Attributes(
        title=f"Attributes that can be read from the states of {model.identity.source}",
        technique="interpretation.attributes",
        relations=results,
        source_layers=layers,
        target_layers=layers,
        contamination=config.contamination,
        provenance={"seed": seed, "settings": config.model_dump()},
    )
    return finding.model_copy(update={"summary": summarise(finding)})


def known_subjects(
    model: Model, relation: Relation, *, most: int, asked: int, new_tokens: int, seed: int, every: bool = True
) -> tuple[list[Subject], int]:
    """The first `most` subjects, in an order drawn by `seed`, whose attribute the model names when asked, and how many
    it was asked about. `every`: in any of the relation's wordings, else after the target prompt only."""
    return known(
        model,
        relation.subjects,
        lambda subject: [(relation.ask(subject.name, every), subject.objects)],
        most=most,
        asked=asked,
        new_tokens=new_tokens,
        seed=seed,
        task=f"asking: {relation.name}",
    )


def score(model: Model, relation: Relation, layers: list[int], config: AttributesConfig, seed: int) -> RelationResult:
    """One relation: ask, patch, patch the controls, fit the probes."""
    if config.only_known:
        subjects, asked = known_subjects(
            model,
            relation,
            most=config.subjects,
            asked=config.asked,
            new_tokens=config.ask_tokens,
            seed=seed,
            every=config.known_by == "any",
        )
        count = len(subjects)
    else:
        subjects, asked, count = list(relation.subjects[: config.subjects]), 0, 0
    result = RelationResult(
        name=relation.name, target_prompt=relation.target_prompt, known=count, asked=asked, used=len(subjects)
    )
    if not subjects:
        return result
    rows = mention_rows(model, subjects, config.mentions, seed)
    names = [subject.name for subject, _, _ in rows]
    objects = [subject.objects for subject, _, _ in rows]

    def patched(states: Any = None) -> tuple[Any, Any]:
        return say_patched(
            model, [(prompt, index) for _, prompt, index in rows], relation.target_prompt, layers, layers,
            new_tokens=config.max_new_tokens, contamination=config.contamination, states=states,
        )  # fmt: skip

    texts, states = patched()
    random_texts, _ = patched(gaussian_like(states, config.random_vectors, seed))
    hits = scoring.hit_array(texts, objects)
    noise = scoring.cross_hits(random_texts, objects)  # [row, vector, source layer, target layer]
    cells, own = scoring.chosen_cell(hits, names, seed)
    found: dict[str, Any] = dict(
        rows=len(rows),
        classes=len({wanted[0] for wanted in objects}),
        cells=hits.mean(0).tolist(),
        by_layer=scoring.any_target(hits).mean(0).tolist(),
        random_by_layer=scoring.any_target(noise).mean(0).tolist(),
        **{
            key: scoring.mean_interval(values, names, seed)
            for key, values in {
                "mean_cell": hits.mean((1, 2)),
                "any_target": scoring.any_target(hits).mean(1),
                "any_cell": scoring.any_cell(hits),
                "random_any_target": scoring.any_target(noise).mean(1),
                "random_any_cell": scoring.any_cell(noise),
                "chosen": cells,
                "random_chosen": np.array([noise[row, :, a, b].mean() for row, (a, b) in enumerate(own)]),
            }.items()
        },
    )
    if len(set(names)) > 1:
        target, whole = others(texts, objects, names)
        found["other_any_target"] = scoring.mean_interval(target, names, seed)
        found["other_any_cell"] = scoring.mean_interval(whole, names, seed)
    if len(set(names)) >= FEWEST:
        found |= probes(model, subjects, rows, layers, config, seed)
    return result.model_copy(update=found)


def others(texts: Sequence, objects: Sequence[Sequence[str]], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """For each row the scores that the states of other subjects get for its attribute: any target layer (mean over
    source layers), and any cell."""
    target, whole = [], []
    for wanted, name in zip(objects, names, strict=True):
        rest = [text for text, other in zip(texts, names, strict=True) if other != name]
        hits = scoring.hit_array(rest, [wanted] * len(rest))
        target.append(scoring.any_target(hits).mean())
        whole.append(scoring.any_cell(hits).mean())
    return np.array(target), np.array(whole)


def probes(
    model: Model,
    subjects: Sequence[Subject],
    rows: Sequence[Any],
    layers: list[int],
    config: AttributesConfig,
    seed: int,
) -> dict[str, Any]:
    """The probe's scores on the rows that were patched. It learns from further sentences of the other subjects too."""
    more = mention_rows(model, subjects, max(config.probe_mentions, config.mentions), seed)
    judged = {(subject.name, prompt.ids, index) for subject, prompt, index in rows}
    states = read_states(model, [prompt for _, prompt, _ in more], [index for _, _, index in more], layers)
    right, common = probe(
        states, [subject.objects[0] for subject, _, _ in more], [subject.name for subject, _, _ in more], seed=seed
    )
    keep = np.array([(subject.name, prompt.ids, index) in judged for subject, prompt, index in more])
    names = [subject.name for (subject, _, _), kept in zip(more, keep, strict=True) if kept]
    right, common = right[keep], common[keep]
    best, _ = scoring.chosen_cell(right, names, seed)
    return dict(
        probe=scoring.mean_interval(right.mean(1), names, seed),
        probe_chosen=scoring.mean_interval(best, names, seed),
        chance=scoring.mean_interval(common, names, seed),
        probe_by_layer=right.mean(0).tolist(),
    )


def summarise(finding: Attributes) -> str:
    """What was read, against what it has to beat."""
    scored = finding.scored
    if not scored:
        asked = sum(r.asked for r in finding.relations)
        return (
            f"Asked outright, the model names the attribute of none of {asked} subjects: there is nothing to look for "
            "in its states."
        )

    def mean(key: str) -> float:
        values = [getattr(r, key)[0] for r in scored if getattr(r, key) is not None]
        return sum(values) / len(values) if values else 0.0

    what = "one relation" if len(scored) == 1 else f"{len(scored)} relations"
    text = (
        f"In the cell chosen on other subjects the attribute is read from {percent(mean('chosen'))} of the states, "
        f"from {percent(mean('random_chosen'))} of random vectors ({what}, subjects the model knows)."
    )
    if any(r.probe_chosen for r in scored):
        text += (
            f" A trained probe names it for {percent(mean('probe_chosen'))} of unseen subjects; always naming the most "
            f"common is right for {percent(mean('chance'))}."
        )
    tries = len(finding.target_layers)
    text += (
        f" With {tries} tries for each layer read the share is {percent(mean('any_target'))}, but random vectors get "
        f"{percent(mean('random_any_target'))} with as many."
    )
    few = [r.name for r in finding.relations if 0 < r.used < 10]
    if few:
        text += f" Fewer than ten known subjects, so take with care: {', '.join(few)}."
    if lacking := [r.name for r in finding.relations if r.chosen is None]:
        text += f" No subject known: {', '.join(lacking)}."
    return text
