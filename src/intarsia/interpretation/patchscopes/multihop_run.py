"""The computation behind `interpretation.multihop`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.errors import BadInput
from intarsia.interpretation import states as reading
from intarsia.interpretation.patchscopes import scoring
from intarsia.interpretation.patchscopes.attribute_run import others
from intarsia.interpretation.patchscopes.extraction import Step, coarse, gaussian_like, known, say, say_patched
from intarsia.interpretation.patchscopes.multihop import COT, HopRow, Multihop, MultihopConfig
from intarsia.interpretation.patchscopes.prompts import encode, token_at
from intarsia.interpretation.patchscopes.relations import (
    PLACEHOLDER,
    Relation,
    data_folder,
    holds,
    read_relations,
    rows_of,
)
from intarsia.interpretation.wording import percent

if TYPE_CHECKING:
    from intarsia.models import Model


OF_COUNTRY = ("country_capital_city", "country_currency", "country_largest_city")


@dataclass(frozen=True)
class Query:
    """outer + " " + inner; `bridge` answers the inner part, `answer` the whole."""

    outer: str
    inner: str
    bridge: str
    answer: str

    @property
    def text(self) -> str:
        return f"{self.outer} {self.inner}"


def read_queries(folder: str) -> list[Query]:
    """The published two-hop queries, and those that the relations between countries and cities can be joined to.

    Queries that hold one of their own answers are left out."""
    path = data_folder(folder)
    published = [Query(r["pi2"], r["pi1"], r["hop2"], r["hop3"]) for r in rows_of(path, "multihop.tsv")]
    of_country = read_relations(path, OF_COUNTRY)
    queries = dict.fromkeys([*published, *joined_queries(of_country)])
    return [query for query in queries if not holds(query.text, (query.answer, query.bridge))]


def joined_queries(relations: Sequence[Relation]) -> list[Query]:
    """A country named by one of its attributes, asked for another one ("The official currency of" "the country whose
    capital city is Tokyo"), where the attribute names no other country."""
    queries = []
    for given in relations:
        what = given.target_prompt.removeprefix("The ").removesuffix(f" {PLACEHOLDER}").removesuffix(" of")
        what = what.removesuffix(" in")
        named = Counter(value for country in given.subjects for value in country.objects)
        for wanted in relations:
            answers = {country.name: country.objects[0] for country in wanted.subjects}
            for country in given.subjects:
                value, answer = country.objects[0], answers.get(country.name)
                if wanted is given or answer is None or named[value] > 1:
                    continue
                query = Query(
                    wanted.target_prompt.removesuffix(f" {PLACEHOLDER}"), f"the country whose {what} is {value}",
                    country.name, answer,
                )  # fmt: skip
                queries.append(query)
    return queries


def from_records(records: Sequence[Any]) -> list[Query]:
    """Queries from records. Raises `BadInput` for one that lacks a part."""
    queries = []
    for number, record in enumerate(records, 1):
        outer = getattr(record, "context", ())
        parts = (outer[-1] if outer else "", getattr(record, "text", ""), getattr(record, "group", None))
        if not all(parts) or not getattr(record, "label", None):
            raise BadInput(
                f"record {number}: wants text (the inner part), context (the outer part), group (the inner answer) and "
                "label (the final answer)"
            )
        queries.append(Query(parts[0], parts[1], str(parts[2]), record.label))
    return queries


def look(model: Model, config: MultihopConfig, records: Sequence[Any] | None, seed: int) -> Multihop:
    """Ask, patch, and patch the controls; see `interpretation.multihop`."""
    reading.check_readable(model, "interpretation.multihop")
    queries = from_records(records) if records else read_queries(config.folder)
    asked, count = 0, 0
    if config.only_known:
        used, asked = known(
            model, queries, lambda q: steps(q, config.ask), most=config.queries, asked=config.asked,
            new_tokens=config.max_new_tokens, seed=seed, task="asking both steps",
        )  # fmt: skip
        count = len(used)
    else:
        used = queries[: config.queries]
    layers = coarse(reading.layer_count(model), config.grid)
    finding = Multihop(
        title=f"Two-step questions to {model.identity.source}",
        technique="interpretation.multihop",
        known=count,
        asked=asked,
        source_layers=layers,
        target_layers=layers,
        contamination=config.contamination,
        provenance={"seed": seed, "settings": config.model_dump()},
    )
    if used:
        finding = finding.model_copy(update=_measured(model, used, layers, config, seed))
    return finding.model_copy(update={"summary": summarise(finding)})


def steps(query: Query, ask: str = "") -> list[Step]:
    """The two questions whose answers a query needs, each with and without `ask`, and the answer."""
    inner, outer = query.inner, f"{query.outer} {query.bridge}"
    endings = list(dict.fromkeys((ask, "")))
    return [([inner + end for end in endings], (query.bridge,)), ([outer + end for end in endings], (query.answer,))]


def _measured(
    model: Model, queries: list[Query], layers: list[int], config: MultihopConfig, seed: int
) -> dict[str, Any]:
    wanted = [(query.answer,) for query in queries]
    names = [query.text for query in queries]
    plain = say(model, [q.text + config.ask for q in queries], config.max_new_tokens)
    thought = say(model, [COT + q.text + config.ask for q in queries], config.max_new_tokens)
    texts: list[Any] = [None] * len(queries)
    noise = np.zeros((len(queries), config.random_vectors, len(layers), len(layers)), dtype=bool)
    # Queries with the same outer part share a target prompt, and are patched together.
    outers: dict[str, list[int]] = {}
    for i, query in enumerate(queries):
        outers.setdefault(query.outer, []).append(i)
    for outer, members in outers.items():
        target, at = outer, -1
        if config.placeholder:
            target = f"{outer} {config.placeholder}{config.ask}"
            at = token_at(encode(model, target, start=False), len(outer) + 1 + len(config.placeholder), "outer part")
        prompts = [encode(model, queries[i].inner, "inner part") for i in members]
        common: dict[str, Any] = dict(
            new_tokens=config.max_new_tokens, contamination=config.contamination, target_at=at
        )
        said, states = say_patched(model, [(p, len(p) - 1) for p in prompts], target, layers, layers, **common)
        control = gaussian_like(states, config.random_vectors, seed)
        random_said, _ = say_patched(model, [], target, layers, layers, states=control, **common)
        for place, i in enumerate(members):
            texts[i] = said[place]
        noise[members] = scoring.cross_hits(random_said, [wanted[i] for i in members])
    hits = scoring.hit_array(texts, wanted)
    right, own = scoring.chosen_cell(hits, names, seed)
    plain_right = np.array([holds(t, w) for t, w in zip(plain, wanted, strict=True)])
    thought_right = np.array([holds(t, w) for t, w in zip(thought, wanted, strict=True)])
    best = max((plain_right, thought_right), key=lambda a: a.mean())
    values = {
        "plain": plain_right,
        "cot": thought_right,
        "chosen": right,
        "random_chosen": np.array([noise[i, :, a, b].mean() for i, (a, b) in enumerate(own)]),
        "any_cell": scoring.any_cell(hits),
        "random_any_cell": scoring.any_cell(noise),
        "gain": right - best.astype(float),
    }
    if len(set(names)) > 1:
        values["other_any_cell"] = others(texts, wanted, names)[1]
    return dict(
        rows=[
            HopRow(
                query=q.text, bridge=q.bridge, answer=q.answer, plain=plain[i], cot=thought[i],
                patched=texts[i][own[i][0]][own[i][1]], plain_right=bool(plain_right[i]),
                cot_right=bool(thought_right[i]), patched_right=bool(right[i]), any_right=bool(hits[i].any()),
            )
            for i, q in enumerate(queries)
        ],
        cells=hits.mean(0).tolist(),
        best=sorted({(layers[a], layers[b]) for a, b in own}),
        **{name: scoring.mean_interval(each, names, seed) for name, each in values.items()},
    )  # fmt: skip


def summarise(finding: Multihop) -> str:
    """Whether the patch repairs, and what of it is luck."""
    if not finding.rows:
        return f"Of none of {finding.asked} queries the model knows both steps: there is nothing to repair."
    assert finding.plain and finding.cot and finding.chosen and finding.any_cell and finding.random_any_cell
    assert finding.gain
    mean, low, high = finding.gain
    text = (
        f"{percent(finding.plain[0])} of {len(finding.rows)} two-step questions are answered as they are, "
        f"{percent(finding.cot[0])} step by step, {percent(finding.chosen[0])} patched in a cell chosen on others"
    )
    text += " (no sure difference)." if low <= 0 <= high else f" ({'better' if mean > 0 else 'worse'} than both)."
    text += (
        f" In any of {finding.tries} cells it is {percent(finding.any_cell[0])}, which is an oracle: random vectors "
        f"get {percent(finding.random_any_cell[0])} with as many tries."
    )
    if len(finding.rows) < 20:
        text += " Few queries: take the direction, not the figures."
    return text
