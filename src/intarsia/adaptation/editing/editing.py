"""The steps of `adaptation.edit`, in order: where, the keys' covariance, the new values, the change, the judgement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from intarsia.adaptation.editing import solving, tracing, values, wording
from intarsia.adaptation.editing.checking import WHO, check
from intarsia.adaptation.editing.finding import EditFinding
from intarsia.adaptation.editing.judging import judge, own_answers
from intarsia.adaptation.editing.keys import at_subject, grouped, means
from intarsia.adaptation.editing.moments import divided, embedded, moments, samples, windows_of
from intarsia.adaptation.editing.places import Place, places
from intarsia.adaptation.editing.solving import Moment
from intarsia.adaptation.editing.values import Value, Wish
from intarsia.adaptation.editing.wording import Row
from intarsia.data import Dataset
from intarsia.errors import BadInput
from intarsia.measure import perplexity, provenance
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.adaptation.editing.technique import EditConfig
    from intarsia.data import FactEdit, Text
    from intarsia.models import Model

PER_NEURON, LEAST_TOKENS = 6, 10_000  # of text, for the covariance
LARGEST = {"rome": 4.0, "memit": 0.75}  # of the MLP's output, of the stream: as the papers' released settings have it


def edit_facts(
    model: Model, config: EditConfig, edits: Sequence[FactEdit], texts: Sequence[Text] | None, seed: int
) -> Model:
    """See `intarsia.adaptation.editing.technique.edit`."""
    able = check(model, config, edits)
    tokens = config.tokens or max(LEAST_TOKENS, PER_NEURON * able[0].neurons)
    background, held = _texts(model, config, texts, tokens, seed)
    layers, traced = choose_layers(model, config, edits, [place.layer for place in able], seed)
    new = model.copy()
    where = places(new, layers)
    found = {
        layer: Moment(matrix, config.ridge) for layer, matrix in moments(model, _same(able, layers), background).items()
    }
    before = wording.prefixes(model, config.prefixes, seed)
    olds = own_answers(model, edits)
    weights = [place.weight() for place in where]
    write = _rome if config.method == "rome" else _memit
    searched = write(new, config, edits, before, where, found)
    changed = [float((p.weight() - w).norm() / w.norm()) for p, w in zip(where, weights, strict=True)]
    judged = [
        one.model_copy(update={"wanted": value.probability, "steps": value.steps})
        for one, value in zip(judge(model, new, edits, olds), searched, strict=True)
    ]
    most = config.perplexity_tokens
    held = held[:most]  # a text has a token at least
    told = [float(perplexity(m, held, max_tokens=most).perplexity[0]) for m in (model, new)]
    settings = config.model_dump(mode="json")
    finding = EditFinding(
        title=f"{len(edits)} facts written into {model.identity.source}",
        technique=WHO,
        method=config.method,
        layers=list(layers),
        changed=changed,
        edits=judged,
        effects=traced or {},
        perplexity=(told[0], told[1]),
        provenance=provenance(seed=seed, settings=settings, data=Dataset({"edits": list(edits)}).sha256),
    )
    finding = finding.model_copy(update={"summary": summarise(finding)})
    out = model.with_network(new.network, technique=WHO, config=settings, layers=list(layers), seed=seed)
    facts = [{"prompt": e.prompt, "subject": e.subject, "target": e.target} for e in edits]
    earlier = out.extras.get(WHO, {}).get("edits", [])
    out.extras[WHO] = {"edits": [*earlier, *facts], "layers": list(layers)}
    out.finding = finding
    return out


def _texts(
    model: Model, config: EditConfig, texts: Sequence[Text] | None, tokens: int, seed: int
) -> tuple[list[list[int]], list[str]]:
    """Windows of token ids for the covariance, and texts for perplexity."""
    if texts is None and config.background == "samples":
        windows, kept = divided(samples(model, tokens, seed))
        return windows, [model.tokenizer.decode(ids) for ids in kept]  # type: ignore[union-attr]
    if texts is None:
        own, held = embedded()
        return windows_of(model, own, tokens), held
    given = [text if isinstance(text, str) else getattr(text, "text", None) for text in texts]
    if odd := next((t for t, g in zip(texts, given, strict=True) if not isinstance(g, str)), None):
        raise BadInput(f"{WHO}: texts: wanted plain texts, found a {type(odd).__name__}")
    kept = [text for text in given if text and text.strip()]
    if not kept:
        raise BadInput(f"{WHO}: texts: all of them are empty")
    own, held = divided(kept)
    return windows_of(model, own, tokens), held


def choose_layers(
    model: Model, config: EditConfig, edits: Sequence[FactEdit], able: Sequence[int], seed: int
) -> tuple[list[int], dict[int, float] | None]:
    """The layers to edit, and what tracing found where it was asked for.

    Given ones; else the one that tracing finds, or that lies at `depth`; for memit with those below it, `spread` in
    all: the last layer is where the new values must have arrived."""
    if config.layers:
        return list(able), None
    count = len(model.sites.blocks)
    traced = None
    if config.trace:
        asked = tracing.prompts(edits, config.trace_prompts)
        rows = [wording.row(model, prompt, subject) for prompt, subject in asked]
        traced = tracing.effects(model, rows, [layer for layer in able if layer > 0 or len(able) == 1], seed)
    if traced:
        last = max(traced, key=traced.__getitem__)
    else:
        last = min(able, key=lambda layer: abs(layer - config.depth * (count - 1)))
    width = config.spread if config.method == "memit" else 1
    at = able.index(last)
    return list(able[max(0, at + 1 - width) : at + 1]), traced


def _same(able: Sequence[Place], layers: Sequence[int]) -> list[Place]:
    return [place for place in able if place.layer in layers]


def _rome(
    model: Model, config: EditConfig, edits: Sequence[FactEdit], before: Sequence[str], where: Sequence[Place],
    moment: dict[int, Moment],
) -> list[Value]:  # fmt: skip
    """One edit after the other, each in the network that the ones before it have left.

    v* is what W gives today for k*, and the change that was searched."""
    (place,) = where
    found = []
    for edit in track(edits, "writing facts") if len(edits) > 1 else edits:
        rows = wording.rows_of(model, edit, before)
        (value,) = _search(model, config, place, [edit], [rows], place.value)
        groups = grouped(model, [rows], place.key)
        keys = means(model, groups, place.key)
        place.add(solving.change(keys, value.change.expand(len(groups), -1), moment[place.layer]))
        found.append(value)
    return found


def _memit(
    model: Model, config: EditConfig, edits: Sequence[FactEdit], before: Sequence[str], where: Sequence[Place],
    moment: dict[int, Moment],
) -> list[Value]:  # fmt: skip
    """All edits together: the stream behind the last layer shall hold the new values; each layer takes its share of
    what is still missing there."""
    last = where[-1]
    rows = [wording.rows_of(model, edit, before) for edit in edits]
    found = _search(model, config, last, edits, rows, last.stream)
    groups = grouped(model, rows, last.key)
    changes = torch.stack([found[group.edit].change for group in groups])
    wanted = means(model, groups, last.stream) + changes
    for number, place in enumerate(track(where, "writing facts")):
        keys = means(model, groups, place.key)
        missing = wanted - means(model, groups, last.stream)
        weight = config.covariance_weight or keys.shape[1]
        place.add(solving.change(keys, missing / (len(where) - number), moment[place.layer], weight))
    return found


def _search(
    model: Model, config: EditConfig, place: Place, edits: Sequence[FactEdit], rows: Sequence[Sequence[Row]], base: str
) -> list[Value]:
    """The change for each edit; its size counts in what stands at the site `base` in the mean over prefixes."""
    sizes = [_typical(model, group, base) for group in rows]
    wishes = [
        Wish(group, wording.essence(model, edit), size) for edit, group, size in zip(edits, rows, sizes, strict=True)
    ]
    return values.search(model, place.layer, place.stream, wishes, config, config.largest or LARGEST[config.method])


def _typical(model: Model, rows: Sequence[Row], site: str) -> float:
    """The median norm over rows: at a text's first token the stream can be a hundred times as large as elsewhere."""
    return float(at_subject(model, rows, site).norm(dim=1).median())


def summarise(finding: EditFinding) -> str:
    """What worked, and what else moved."""
    after = finding.rates(1)
    count = len(finding.edits)
    said = sum(e.asked.greedy[1] for e in finding.edits)
    text = f"{said} of {count} edits are now what the model says"
    text += f" ({after['efficacy']:.0%} are likelier than the old answer)"
    if after["paraphrase"] is not None:
        text += f", and {after['paraphrase']:.0%} of the paraphrases follow"
    text += "."
    if finding.kept is not None:
        text += f" Of the neighbours {finding.kept:.0%} keep their next token."
    if finding.perplexity is not None:
        text += " Perplexity on other text went from {:.2f} to {:.2f}.".format(*finding.perplexity)
    return text
