"""Relations on SmolLM2-135M: what generated tokens should see of the placeholder, attributes against a probe, two hops.

Only subjects are used whose attribute the model names when it is asked outright; how many these are stands beside the
scores. Sources are sentences that mention the subject; cells are a coarse grid over the lower layers."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from bench.patchscopes import Figures, Table

if TYPE_CHECKING:
    import numpy as np

    from intarsia.interpretation.patchscopes.relations import Relation, Subject
    from intarsia.models import Model

MODES = ("keep", "drop", "trajectory")
SOURCE_LAYERS = (4, 12)
TARGET_LAYERS = (1, 5, 9, 13, 17, 21)
MOST, ENOUGH = 20, 16  # known subjects of a task that are taken, and that make it count
TOKENS = 10
DEFAULT = "keep"  # of what is compared elsewhere


def run_contamination(options: argparse.Namespace) -> tuple[Figures, list[Table]]:
    """Accuracy over cells of keep, drop and trajectory on the tasks of which the model knows enough subjects."""
    import intarsia

    model = intarsia.load("smollm2-135m")
    chosen, counts = tasks_with(model, 3 if options.quick else 6, MOST, ENOUGH, 64)
    sources = SOURCE_LAYERS[1:] if options.quick else SOURCE_LAYERS
    targets = TARGET_LAYERS[1::2] if options.quick else TARGET_LAYERS
    hits = {
        relation.name: {mode: contaminated(model, relation, subjects, mode, sources, targets) for mode in MODES}
        for relation, subjects in chosen
    }
    figures, tables = compare_modes(hits, sources, targets)
    return figures, [*tables, counted(counts)]


def compare_modes(
    hits: dict[str, dict[str, np.ndarray]], sources: tuple[int, ...], targets: tuple[int, ...]
) -> tuple[Figures, list[Table]]:
    """Means and paired differences, by task and over all subjects, from hits [subject, source layer, target layer]."""
    import numpy as np

    from intarsia.interpretation.patchscopes import scoring

    if not hits:
        return {"contamination_tasks": 0}, []
    share = {task: {mode: h.mean((1, 2)) for mode, h in of.items()} for task, of in hits.items()}
    pooled = {mode: np.concatenate([of[mode] for of in share.values()]) for mode in MODES}
    figures: Figures = {"contamination_tasks": len(hits), "contamination_subjects": len(pooled["keep"])}
    rows = []
    for task, of in [*share.items(), ("all subjects", pooled)]:
        line = [task, str(len(of["keep"])), *(f"{of[mode].mean():.3f}" for mode in MODES)]
        for mode in MODES[1:]:
            gain = of[mode] - of["keep"]
            mean, low, high = scoring.mean_interval(gain, [str(i) for i in range(len(gain))])
            line.append(f"{mean:+.3f} [{low:+.3f}, {high:+.3f}] p {sign_flip(gain):.3f}")
        rows.append(line)
    for mode in MODES:
        figures[f"contamination_{mode}"] = float(np.mean([of[mode].mean() for of in share.values()]))
    for mode in MODES[1:]:
        gain = pooled[mode] - pooled["keep"]
        figures |= {
            f"contamination_{mode}_minus_keep": float(gain.mean()),
            f"contamination_{mode}_p": sign_flip(gain),
            f"contamination_{mode}_tasks_better": sum(
                float(of[mode].mean()) > float(of["keep"].mean()) for of in share.values()
            ),
        }
    title = f"Mean accuracy over {len(sources)} x {len(targets)} cells, {TOKENS} tokens; differences paired by subject"
    columns = ("task", "known", *MODES, "drop - keep", "trajectory - keep")
    layers = [
        [mode, *(f"{v:.2f}" for v in np.mean([of[mode].mean((0, 1)) for of in hits.values()], axis=0))]
        for mode in MODES
    ]  # fmt: skip
    return figures, [
        (title, columns, rows),
        ("The same by target layer, mean over tasks", ("", *map(str, targets)), layers),
    ]


def run_attributes(options: argparse.Namespace, relations: tuple[str, ...] = ()) -> tuple[Figures, list[Table]]:
    """The relations of the paper's main table: patchscope, probe and chance, with the controls."""
    import intarsia
    from intarsia.interpretation.patchscopes import attributes
    from intarsia.interpretation.patchscopes.relations import MAIN

    model = intarsia.load("smollm2-135m")
    found = attributes(
        model, relations=list(relations or MAIN), subjects=8 if options.quick else 16,
        asked=40 if options.quick else 120, grid=3 if options.quick else 4, max_new_tokens=TOKENS,
        contamination=DEFAULT,
    )  # fmt: skip
    rows = []
    for r in found.relations:
        scores = (r.chosen, r.random_chosen, r.probe_chosen, r.chance, r.any_target, r.random_any_target,
                  r.other_any_target, r.probe)  # fmt: skip
        rows.append([r.name, str(r.known), str(r.asked), str(r.classes), *map(_share, scores)])
    scored = [r for r in found.scored if r.known >= 8]
    figures: Figures = {
        "attributes_relations": len(found.relations),
        "attributes_relations_scored": len(scored),
        "attributes_known": sum(r.known for r in found.relations),
        "attributes_asked": sum(r.asked for r in found.relations),
    }
    for key in ("chosen", "random_chosen", "probe_chosen", "chance", "any_target", "random_any_target", "probe",
                "other_any_target"):  # fmt: skip
        values = [getattr(r, key)[0] for r in scored if getattr(r, key) is not None]
        if values:
            figures[f"attributes_{key}"] = sum(values) / len(values)
    if scored:
        pairs = [(r.chosen[0], r.probe_chosen[0]) for r in scored if r.chosen and r.probe_chosen]
        figures["attributes_better_than_probe"] = sum(a > b for a, b in pairs)
        figures["attributes_better_than_chance"] = sum(
            r.chosen[1] > r.chance[0] for r in scored if r.chosen and r.chance
        )
    title = (
        f"Attributes read from states, {len(found.source_layers)} x {len(found.target_layers)} cells, {DEFAULT}; one "
        "cell and one probe layer chosen on other subjects; any target: mean over source layers"
    )
    columns = ("relation", "known", "asked", "classes", "one cell", "random there", "probe", "chance", "any target",
               "random", "other subject", "probe, mean layer")  # fmt: skip
    return figures, [(title, columns, rows)]


def run_multihop(options: argparse.Namespace) -> tuple[Figures, list[Table]]:
    """Two-step questions both of whose steps are known: as they are, step by step, and patched."""
    import intarsia
    from intarsia.interpretation.patchscopes import multihop

    model = intarsia.load("smollm2-135m")
    found = multihop(
        model, queries=12 if options.quick else 24, asked=100 if options.quick else 300, grid=3 if options.quick else 4,
        max_new_tokens=TOKENS if options.quick else 15, contamination=DEFAULT,
    )  # fmt: skip
    figures: Figures = {"multihop_known": found.known, "multihop_asked": found.asked}
    names = ("plain", "cot", "chosen", "random_chosen", "any_cell", "random_any_cell", "other_any_cell", "gain")
    values = {name: getattr(found, name) for name in names if getattr(found, name) is not None}
    figures |= {f"multihop_{name}": value[0] for name, value in values.items()}
    rows = [[name.replace("_", " "), _share(value)] for name, value in values.items()]
    title = f"{len(found.rows)} queries of which both steps are known, of {found.asked} asked; {found.tries} cells"
    lines = [[r.query, f"{r.bridge} -> {r.answer}", " ".join(r.plain.split()), " ".join(r.patched.split())]
             for r in found.rows[:12]]  # fmt: skip
    return figures, [
        (title, ("way", "right [95 %]"), rows),
        ("Some of them", ("query", "wanted", "as it is", "patched"), lines),
    ]


def _share(value: tuple[float, float, float] | None) -> str:
    return "-" if value is None else f"{value[0]:.2f} [{value[1]:.2f}, {value[2]:.2f}]"


def contaminated(
    model: Model, relation: Relation, subjects: list[Subject], mode: str, sources: Any, targets: Any
) -> np.ndarray:
    """Hits [subject, source layer, target layer] with one sentence a subject."""
    from intarsia.interpretation.patchscopes import extraction, relations, scoring

    rows = extraction.mention_rows(model, subjects, 1, seed=0)
    texts, _ = extraction.say_patched(
        model, [(prompt, index) for _, prompt, index in rows], relation.target_prompt, sources, targets,
        new_tokens=TOKENS, contamination=mode,
        stop=lambda text, row: relations.holds(text, rows[row][0].objects),
    )  # fmt: skip
    return scoring.hit_array(texts, [subject.objects for subject, _, _ in rows])


def tasks_with(
    model: Model, wanted: int, most: int, least: int, asked: int
) -> tuple[list[tuple[Relation, list[Subject]]], list[list[str]]]:
    """The first `wanted` relations of which at least `least` subjects are known, with at most `most` of them; and what
    was counted on the way. At most `asked` subjects of each are asked about."""
    from intarsia.interpretation.patchscopes import attribute_run, relations

    chosen, counts = [], []
    everything = relations.read_relations(relations.data_folder(""), ORDER)
    for relation in everything:
        if len(chosen) == wanted:
            break
        if len(relation.subjects) < least:
            continue
        known, tried = attribute_run.known_subjects(
            model, relation, most=most, asked=asked, new_tokens=2 * TOKENS, seed=0
        )  # fmt: skip
        counts.append([relation.name, str(len(known)), str(tried), str(len(relation.subjects))])
        if len(known) >= least:
            chosen.append((relation, known))
    return chosen, counts


def counted(rows: list[list[str]]) -> Table:
    """How many subjects the model knows, of how many asked, of how many there are."""
    return ("Subjects whose attribute the model names when asked", ("task", "known", "asked", "there are"), rows)


def sign_flip(differences: np.ndarray, draws: int = 10_000, seed: int = 0) -> float:
    """Two-sided p of a paired permutation test: signs of the subjects' differences flipped at random."""
    import numpy as np

    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, len(differences)))
    means = np.abs((signs * differences).mean(1))
    return float((1 + (means >= abs(differences.mean()) - 1e-12).sum()) / (1 + draws))


# Those with many known subjects first, so that counting ends early.
ORDER = (
    "word_sentiment", "substance_phase", "object_superclass", "country_largest_city", "country_capital_city",
    "country_currency", "fruit_inside_color", "fruit_outside_color", "person_plays_pro_sport",
    "person_plays_position_in_sport", "product_by_company", "star_constellation", "task_done_by_tool",
    "work_location", "company_ceo", "superhero_person", "superhero_archnemesis", "food_from_country",
    "task_done_by_person", "pokemon_evolutions", "person_father", "person_mother",
)  # fmt: skip
