"""The computation behind `interpretation.steer`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import averages, places, states
from intarsia.interpretation.concepts.concept import ConceptConfig
from intarsia.interpretation.concepts.learning import learn
from intarsia.interpretation.concepts.steer import Dose, Said, Steer, SteerConfig
from intarsia.interpretation.concepts.vectors import Concept
from intarsia.interpretation.wording import one_line
from intarsia.measure.likelihood import check_causal
from intarsia.progress import track
from intarsia.sites import Apply, generate, read

if TYPE_CHECKING:
    from intarsia.models import Model

WHAT = "interpretation.steer"


def look(
    model: Model, config: SteerConfig, records: Sequence[Any], positive: Sequence[Any] | None,
    negative: Sequence[Any] | None, seed: int,
) -> Steer:  # fmt: skip
    """Write under every strength of every direction, then read what was written; see `interpretation.steer`."""
    check_causal(model)
    strengths = sorted({*config.strengths, 0.0})
    if not config.strengths or not all(map(math.isfinite, strengths)):
        raise BadInput(f"{WHAT}: strengths must be numbers, given: {config.strengths}")
    count = states.layer_count(model)
    if config.layer is not None and not 0 <= config.layer < count:
        raise BadInput(f"{WHAT}: layer {config.layer} does not exist: there are 0 to {count - 1}")
    chosen = states.choose(records, config.max_texts, seed, WHAT)
    concept = _concept(model, config, positive, negative, seed)
    layer = concept.best_layer if config.layer is None else config.layer
    prompts = places.placed(model, chosen, "last", max_tokens=_room(model, config), what=WHAT).ids
    vector = concept.vector(layer).float()
    length = float(vector.norm())
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.randn(len(vector), generator=generator) for _ in range(config.draws)]
    directions = [vector, *(v / v.norm() * length for v in noise)]
    # The unsteered text is the same for all directions.
    jobs = [(p, d, s) for s in strengths for d in range(len(directions)) if s or not d for p in range(len(prompts))]
    written: dict[tuple[int, int, float], list[int]] = {}
    for start in track(range(0, len(jobs), config.batch_size), "writing under the concept"):
        part = jobs[start : start + config.batch_size]
        added = torch.stack([directions[d] * s for _, d, s in part])
        found = write(model, [prompts[p] for p, _, _ in part], layer, added, config.max_new_tokens)
        written.update(zip(part, found, strict=True))
    judged = judge(model, concept, layer, prompts, written, config.batch_size)
    doses = []
    for random in (False, True):
        for strength in strengths:
            mine = range(1, len(directions)) if random and strength else [0]
            doses.append(dose(judged, strength, mine, random, len(prompts), seed))
    texts = [states.text_of(record) for record in chosen]
    said = [
        Said(prompt=one_line(texts[p]), strength=s, text=one_line(model.tokenizer.decode(written[p, 0, s])))  # type: ignore[union-attr]
        for p in range(min(config.samples, len(prompts)))
        for s in strengths
    ]
    finding = Steer(
        title=f"Steering {model.identity.source} at layer {layer}",
        technique=WHAT,
        layer=layer,
        doses=doses,
        said=said,
        prompts=len(prompts),
        length=length,
        norm=_norm(model, prompts, layer),
        draws=config.draws,
        provenance={"seed": seed, "settings": config.model_dump(), "prompts": len(prompts)},
    )
    return finding.model_copy(update={"summary": summarise(finding)})


def _concept(
    model: Model, config: SteerConfig, positive: Sequence[Any] | None, negative: Sequence[Any] | None, seed: int
) -> Concept:
    given = positive is not None and negative is not None
    if (config.concept is not None) == (positive is not None or negative is not None) or not (config.concept or given):
        raise BadInput(f"{WHAT}: give either concept (a saved folder), or both positive and negative texts")
    if config.concept is not None:
        return Concept.load(config.concept).check(model)
    settings = ConceptConfig(method=config.method, at=config.at, max_tokens=config.max_tokens, draws=1)
    return learn(model, settings, positive or [], negative or [], seed)


def _room(model: Model, config: SteerConfig) -> int:
    """Tokens that a prompt may have."""
    limit = model.context_length
    if limit and limit <= config.max_new_tokens + 1:
        raise BadInput(f"{WHAT}: max_new_tokens {config.max_new_tokens} leaves no room in a context of {limit}")
    return min(config.max_tokens, limit - config.max_new_tokens if limit else config.max_tokens)


def write(model: Model, prompts: Sequence[list[int]], layer: int, added: Tensor, new_tokens: int) -> list[list[int]]:
    """Greedy continuations, with `added` [row, width] added to each row's stream after `layer` at every token."""

    def function(tensor: Tensor) -> Tensor:
        return tensor + added.to(tensor)[:, None]

    edit = Apply(states.site_name(model.sites, layer, "resid_post"), function=function, when="always")
    ids = generate(model, list(prompts), [edit], max_new_tokens=new_tokens).ids.tolist()
    special = set(model.tokenizer.all_special_ids)  # type: ignore[union-attr]
    ends = [next((n for n, token in enumerate(row) if token in special), len(row)) for row in ids]
    return [row[:end] for row, end in zip(ids, ends, strict=True)]


@torch.no_grad()
def judge(
    model: Model, concept: Concept, layer: int, prompts: Sequence[list[int]],
    written: dict[tuple[int, int, float], list[int]], batch_size: int,
) -> dict[tuple[int, int, float], tuple[float, float, float]]:  # fmt: skip
    """For each continuation, by the unsteered model: concept score, loss in nats a token, share of repeated tokens.

    Nothing is said about continuations that are empty."""
    site = states.site_name(model.sites, layer, "resid_post")
    keys = [key for key, ids in written.items() if ids]
    keys.sort(key=lambda key: len(prompts[key[0]]) + len(written[key]))
    out = {}
    for start in track(range(0, len(keys), batch_size), "reading what was written"):
        part = keys[start : start + batch_size]
        rows = [prompts[key[0]] + written[key] for key in part]
        acts = read(model, rows, [site, "logits"])
        for n, key in enumerate(part):
            begin, end = len(prompts[key[0]]), len(rows[n])
            state = acts[site][n, end - 1] if concept.at == "last" else acts[site][n, begin:end].float().mean(0)
            log_p = acts["logits"][n, begin - 1 : end - 1].double().log_softmax(-1)
            right = torch.tensor(written[key], device=log_p.device)[:, None]
            loss = -float(log_p.gather(-1, right).mean())
            repeated = 1 - len(set(written[key])) / len(written[key])
            out[key] = float(concept.score(state.cpu(), layer)), loss, repeated
    return out


def dose(
    judged: dict[tuple[int, int, float], tuple[float, float, float]], strength: float, directions: Sequence[int],
    random: bool, prompts: int, seed: int,
) -> Dose:  # fmt: skip
    """Means over prompts (and directions); the interval is over prompts."""
    by_prompt = []
    for p in range(prompts):
        mine = [judged[key] for d in directions if (key := (p, d, strength)) in judged]
        if mine:
            by_prompt.append(np.mean(mine, axis=0))
    if not by_prompt:
        return Dose(strength=strength, random=random, score=(0.0, 0.0, 0.0), perplexity=None, repeated=0.0)
    values = np.array(by_prompt)
    return Dose(
        strength=strength,
        random=random,
        score=averages.mean(values[:, 0], seed=seed),
        perplexity=float(np.exp(values[:, 1].mean())),
        repeated=float(values[:, 2].mean()),
    )


def _norm(model: Model, prompts: Sequence[list[int]], layer: int) -> float:
    """Median length of the prompts' states at their last token."""
    site = states.site_name(model.sites, layer, "resid_post")
    return float(read(model, list(prompts[:16]), site).last(site).float().norm(dim=-1).median())


def summarise(finding: Steer) -> str:
    """How far the dose moves what is written, against random directions, and from where on it breaks the language."""
    own = sorted((d for d in finding.doses if not d.random), key=lambda d: d.strength)
    low, high, base = own[0], own[-1], finding.dose(0.0)
    text = f"From strength {low.strength:+g} to {high.strength:+g} at layer {finding.layer} the concept score of"
    text += f" what is written goes from {low.score[0]:+.2f} to {high.score[0]:+.2f}; random directions of equal"
    text += f" length move it by {finding.random_effect:+.2f}."
    if finding.effect <= max(0.2, 1.5 * abs(finding.random_effect)):
        text += " The direction does not steer more than any push of this size."
    usual, worst = base.perplexity or 1.0, max(d.perplexity or 0.0 for d in own)
    broken = [d.strength for d in own if (d.perplexity or 0) > 3 * usual or d.repeated > base.repeated + 0.3]
    text += f" Unsteered text has a perplexity of {usual:.1f};"
    if broken:
        text += f" at {', '.join(f'{s:+g}' for s in broken)} the language suffers (perplexity up to {worst:,.0f}, or"
        text += " repetition)."
    else:
        text += f" steered text at most {worst:.1f}."
    return text + f" One gap is {finding.length / max(finding.norm, 1e-12):.0%} of a state's length."
