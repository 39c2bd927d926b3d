"""Editing facts in SmolLM2-135M-Instruct: what ROME and MEMIT write, and what else moves, by number of edits.

    python -m bench.editing [--quick] [--json FILE] [--edits 10,50] [--alone N] [--method rome,memit]

Facts are relations of LRE, as published with Patchscopes (shared data `patchscopes`). Each edit wants another object of
the same relation. Paraphrases are the relation's other wordings. Neighbours are other subjects of the relation whose
object the model says by itself (where it knows too few, any), of the same object where there are such; none of them is
edited. A subject is edited once. One number of edits is one call: MEMIT writes all together, ROME one by one."""

from __future__ import annotations

import csv
import json
import random
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import intarsia as ia
from bench.common import parser, show, start, write
from intarsia.adaptation.editing import EditConfig, EditFinding, edit
from intarsia.data import FactEdit, shared_data
from intarsia.models import Model
from intarsia.sites import generate

RELATIONS = (
    "country_capital_city", "country_largest_city", "country_currency", "person_plays_pro_sport", "product_by_company",
    "food_from_country", "object_superclass", "fruit_outside_color", "substance_phase", "star_constellation",
    "work_location",
)  # fmt: skip
NEIGHBOURS, PARAPHRASES = 3, 2  # of an edit, at most
SPARE = 12  # subjects that the model knows and that are not edited, of a relation


@dataclass(frozen=True)
class Relation:
    """Wordings with `{}` for the subject, and the object of each subject."""

    name: str
    wordings: list[str]
    objects: dict[str, str]


def relations(folder: Path) -> Iterator[Relation]:
    """The relations that are edited, from the published files."""
    csv.field_size_limit(1 << 24)
    with (folder / "tasks.tsv").open(encoding="utf-8", newline="") as file:
        wordings = {
            row["task"]: json.loads(row["lre_zero_shot_templates"]) + json.loads(row["lre_templates"])
            for row in csv.DictReader(file, delimiter="\t")
        }
    objects: dict[str, dict[str, str]] = defaultdict(dict)
    with (folder / "attributes.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            subject, name = (_letters(row[key]) for key in ("subject", "object"))
            objects[row["task"]].setdefault(subject, name)
    for name in RELATIONS:
        # The plainest wording first: statements before questions.
        ways = sorted(dict.fromkeys(wordings[name]), key=lambda w: ("?" in w, len(w)))
        yield Relation(name, ways, objects[name])


def _letters(text: str) -> str:
    """Some names are written with escapes (`Bogot\\u00e1`)."""
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), text)


def known(model: Model, relation: Relation) -> dict[str, str]:
    """Subject and object, for subjects after which the model says the right object by itself."""
    found = {}
    subjects = sorted(relation.objects)
    for first in range(0, len(subjects), 32):
        part = subjects[first : first + 32]
        prompts = [relation.wordings[0].replace("{}", subject) for subject in part]
        for subject, text in zip(part, generate(model, prompts, max_new_tokens=6).texts or [], strict=True):
            if text.strip().casefold().startswith(relation.objects[subject].casefold()):
                found[subject] = relation.objects[subject]
    return found


def edits(model: Model, folder: Path, most: int, seed: int = 0) -> list[FactEdit]:
    """Up to `most` edits, the relations by turns."""
    draw = random.Random(seed)
    piles: list[list[FactEdit]] = []
    taken: set[str] = set()
    for relation in relations(folder):
        right = known(model, relation)
        spare, rest = sorted(right), sorted(set(relation.objects) - set(right) - taken)
        draw.shuffle(spare)
        draw.shuffle(rest)
        spare = [*spare, *rest[: max(0, NEIGHBOURS - len(spare))]][:SPARE]
        edited = sorted(set(relation.objects) - set(spare) - taken)
        draw.shuffle(edited)
        taken |= set(edited)
        others = sorted(set(relation.objects.values()))
        pile = []
        for subject in edited:
            old = relation.objects[subject]
            near = sorted(spare, key=lambda s, old=old: relation.objects[s] != old)[:NEIGHBOURS]
            target = draw.choice([o for o in others if o.split()[0] != old.split()[0]])
            pile.append(
                FactEdit(
                    relation.wordings[0], target, relation.name, subject=subject, old=old,
                    paraphrases=tuple(relation.wordings[1 : 1 + PARAPHRASES]),
                    neighbours=tuple(relation.wordings[0].replace("{}", s) for s in near),
                    neighbour_targets=tuple(relation.objects[s] for s in near),
                )
            )  # fmt: skip
        piles.append(pile)
    turns = [pile[i] for i in range(max(map(len, piles))) for pile in piles if i < len(pile)]
    return turns[:most]


def figures(findings: Sequence[EditFinding]) -> dict[str, float | None]:
    """Of one call, or the mean over several."""
    after, count = [f.rates(1) for f in findings], len(findings)

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    names = ("efficacy", "said", "paraphrase", "paraphrase said", "neighbourhood")
    return {name: mean([rates[name] for rates in after]) for name in names} | {
        "neighbours kept": mean([f.kept for f in findings]),
        "KL of neighbours": mean([f.divergence for f in findings]),
        "KL of essence": mean([f.essence for f in findings]),
        "perplexity": sum(f.perplexity[1] / f.perplexity[0] for f in findings if f.perplexity) / count - 1,
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--edits", default="", help="numbers of edits, a call each (default: 10,50; quick: 5)")
    options.add_argument("--alone", type=int, default=0, metavar="N", help="also N edits, each alone in a fresh model")
    options.add_argument("--method", default="rome,memit", help="which methods")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, as JSON")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    start(given)
    folder = shared_data("patchscopes")
    if folder is None:
        raise SystemExit("the shared data 'patchscopes' is not there: set INTARSIA_DATA")
    settings = {key: json.loads(value) for key, _, value in (part.partition("=") for part in given.set)}
    counts = [int(n) for n in (given.edits or ("5" if given.quick else "10,50")).split(",")]
    model = ia.load("smollm2-135m")
    facts = edits(model, folder, max([*counts, given.alone]), given.seed)
    calls = {f"{given.alone} x 1": [[fact] for fact in facts[: given.alone]]} if given.alone else {}
    calls |= {str(count): [facts[:count]] for count in counts}
    rows, flat, names = [], {}, []
    for method in given.method.split(","):
        config = EditConfig(method=method, **settings)
        for name, parts in calls.items():
            begun = time.process_time()
            found = [edit(model, config, edits=part, seed=given.seed).finding for part in parts]
            row = figures(found) | {"CPU seconds": time.process_time() - begun}
            names = list(row)
            rows.append([f"{method}, {name}", *("" if value is None else f"{value:.3f}" for value in row.values())])
            flat |= {f"{method}.{name}.{key}".replace(" ", "_"): v for key, v in row.items() if v is not None}
            print(" | ".join([*rows[-1], f"layers {sorted({tuple(f.layers) for f in found})}"]), flush=True)
    show("Edits", ["edits", *names], rows)
    write(flat, given.json)


if __name__ == "__main__":
    main()
