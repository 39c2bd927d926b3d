"""The computation behind `interpretation.patchscope`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import divergence, states
from intarsia.interpretation.patchscopes.describe_entity import DESCRIBE
from intarsia.interpretation.patchscopes.mapping import StateMaps
from intarsia.interpretation.patchscopes.operator import Source, Target, check_widths, own_layer, patch, read_states
from intarsia.interpretation.patchscopes.patchscope import Patchscope, PatchscopeConfig
from intarsia.interpretation.patchscopes.prompts import (
    Encoded,
    encode,
    encode_target,
    place,
    positions,
    same_vocabulary,
)
from intarsia.interpretation.patchscopes.relations import TARGET_PROMPTS
from intarsia.interpretation.patchscopes.token_identity import PAPER, SINK

if TYPE_CHECKING:
    from intarsia.models import Model
    from intarsia.sites.sweeping import Mapping

CHUNK = 64  # states whose logits are held at a time


def look(model: Model, config: PatchscopeConfig, explainer: Model | None) -> Patchscope:
    """Read the prompt's states by the target prompt; see `interpretation.patchscope`."""
    reader = explainer or model
    states.check_readable(model, "interpretation.patchscope")
    target = target_prompt(config)
    prompt = encode(model, config.prompt, "prompt")
    goal, target_at = encode_target(reader, target, config.target_at)
    mapping = _mapping(config.mapping, model, reader)
    check_widths(model, reader, mapping)
    wide = config.show in ("identity", "sink")
    if config.at is None and wide:
        where = positions(prompt, config.max_tokens)
        if not where:
            raise BadInput("prompt: it has no token but the first, which is the attention sink: give a longer one")
    else:
        where = [place(prompt, -1 if config.at is None else config.at, "prompt")]
    stride = config.stride or (3 if config.show == "attribute" else 1)
    layers = states.spaced(states.layer_count(model), stride)
    if mapping is not None and config.show != "attribute":
        layers = [layer for layer in layers if (layer, own_layer(layer, model, reader)) in mapping.pairs]
        if not layers:
            raise BadInput(
                f"{config.mapping}: it has no map from a layer to the one at its own depth: fit them with "
                "interpretation.map_states --pairs same"
            )
    name = states.Vocabulary(model)
    finding = Patchscope(
        title=f"What the states of {model.identity.source} say",
        technique="interpretation.patchscope",
        show=config.show,
        prompt=config.prompt,
        target_prompt=target,
        model=model.identity.source,
        explainer=explainer.identity.source if explainer else "",
        layers=layers,
        tokens=[name(prompt.ids[i]) for i in where],
        positions=[i - prompt.own for i in where],
        look_for=config.look_for,
        contamination=config.contamination,
        provenance={"settings": config.model_dump()},
    )
    goal_at = target_at - goal.own
    if wide:
        found = _next_tokens(model, reader, prompt, where, layers, goal, goal_at, mapping, config)
    else:
        found = _generated(model, reader, prompt, where, layers, goal, goal_at, mapping, config)
    finding = finding.model_copy(update=found)
    return finding.model_copy(update={"summary": summarise(finding)})


def target_prompt(config: PatchscopeConfig) -> str:
    """The target prompt that the settings mean."""
    if config.target_prompt:
        return TARGET_PROMPTS.get(config.target_prompt, config.target_prompt)
    if config.show == "attribute":
        raise BadInput(
            "interpretation.patchscope: --show attribute needs --target-prompt: a text that ends with a placeholder "
            f'("The capital city of x") or a relation ({", ".join(list(TARGET_PROMPTS)[8:12])}, ...)'
        )
    return {"identity": PAPER, "sink": SINK, "describe": DESCRIBE}[config.show]


def _mapping(path: str, model: Model, reader: Model) -> StateMaps | None:
    if not path:
        return None
    return StateMaps.load(path).check(model, reader)


@torch.no_grad()
def _next_tokens(
    model: Model, reader: Model, prompt: Encoded, where: list[int], layers: list[int], goal: Encoded, goal_at: int,
    mapping: Mapping | None, config: PatchscopeConfig,
) -> dict:  # fmt: skip
    vectors = read_states(model, [prompt] * len(where), where, layers)  # [position, layer, width]
    same_words = reader is model or same_vocabulary(model, reader)
    final = _own_logits(model, prompt)[where]
    own_ids, name, source_name = final.argmax(-1), states.Vocabulary(reader), states.Vocabulary(model)
    top, probability, own_probability, own_rank = [], [], [], []
    candidates: list[list[tuple[str, float]]] = []
    for part, own in zip(vectors.split(CHUNK), own_ids.split(CHUNK), strict=True):
        cells = patch(
            Source(model, "", layers=layers, states=part),
            Target(reader, goal, goal_at, layers="same"),
            mapping=mapping,
            keep_logits=True,
        )
        assert cells.logits is not None
        log_p = divergence.log_probabilities(cells.logits[:, :, 0])  # [position, layer, vocabulary]
        value, index = log_p.max(-1)
        top.append(index)
        probability.append(value.exp())
        if same_words:
            ids = own[:, None, None].expand(-1, len(layers), 1)
            mine = log_p.gather(-1, ids)
            own_probability.append(mine[..., 0].exp())
            own_rank.append((log_p > mine).sum(-1) + 1)
        best = log_p[-1].topk(config.candidates, dim=-1)  # the focus is the last position read
        candidates = [
            [(name(int(i)), float(v.exp())) for v, i in zip(*line, strict=True)]
            for line in zip(best.values, best.indices, strict=True)
        ]

    def lines(parts: list[Tensor]) -> list[list]:
        return torch.cat(parts).T.tolist()

    return dict(
        own=[source_name(int(i)) for i in own_ids],
        top=[[name(i) for i in line] for line in lines(top)],
        probability=lines(probability),
        own_probability=lines(own_probability) if same_words else None,
        own_rank=lines(own_rank) if same_words else None,
        candidates=candidates,
    )


def _generated(
    model: Model, reader: Model, prompt: Encoded, where: list[int], layers: list[int], goal: Encoded, goal_at: int,
    mapping: Mapping | None, config: PatchscopeConfig,
) -> dict:  # fmt: skip
    grid = config.show == "attribute"
    to = sorted({own_layer(layer, model, reader) for layer in layers})
    cells = patch(
        Source(model, prompt, where[0] - prompt.own, layers=layers),
        Target(reader, goal, goal_at, layers=to if grid else "same"),
        mapping=mapping,
        max_new_tokens=config.max_new_tokens,
        contamination=config.contamination,
        keep_logits=True,
    )
    assert cells.texts is not None and cells.logits is not None
    first = divergence.log_probabilities(cells.logits[0]).max(-1).values.exp()
    texts = cells.texts[0]
    if not grid:
        # The few-shot prompt goes on to the next entity: what describes this one ends there.
        texts = [[text.split("\n")[0] for text in row] for row in texts]
    return dict(texts=texts, text_probability=first.tolist(), target_layers=to if grid else [])


@torch.no_grad()
def _own_logits(model: Model, prompt: Encoded) -> Tensor:
    from intarsia.sites import run

    return run(model, [list(prompt.ids)]).logits[0].float()


def summarise(finding: Patchscope) -> str:
    """What a person should know first."""
    reader = f", read by {finding.explainer}" if finding.explainer else ""
    token = finding.tokens[finding.focus].strip() or "␣"
    if finding.texts:
        return _summarise_texts(finding, token, reader)
    own = finding.own[finding.focus].strip() or "␣"
    at = len(finding.tokens) - 1
    settled = finding.settled(at)
    text = f"After '{token}' the model goes on with '{own}'{reader}; "
    if settled is None:
        text += "that token is not what is read from the last layer."
    elif settled == finding.layers[0]:
        text += "this can be read from every layer."
    else:
        text += f"this can be read from layer {settled} on (the last is {finding.layers[-1]})."
    if len(finding.tokens) > 1:
        known = [finding.settled(i) for i in range(len(finding.tokens))]
        early = sum(layer is not None and layer <= finding.layers[len(finding.layers) // 2] for layer in known)
        text += (
            f" For {early} of the {len(known)} tokens read it can be read by the middle, "
            f"layer {finding.layers[len(finding.layers) // 2]}."
        )
    return text


def _summarise_texts(finding: Patchscope, token: str, reader: str) -> str:
    cells = sum(map(len, finding.texts))
    if finding.look_for:
        hits = finding.found()
        if not hits:
            return f"None of the {cells} patches of '{token}' says '{finding.look_for}'{reader}."
        first = min(layer for layer, _ in hits)
        return (
            f"'{finding.look_for}' is said in {len(hits)} of {cells} patches of '{token}'{reader}, from layer {first} "
            "on. Chance finds words too: see interpretation.attributes for the control with random vectors."
        )
    words = [" ".join(row[len(row) // 2].split()) or "nothing" for row in finding.texts]
    picks = sorted({0, len(words) // 3, 2 * len(words) // 3})
    said = "; ".join(f"layer {finding.layers[i]}: {words[i]!r}" for i in picks)
    return f"What '{token}' stands for{reader}: {said}. It is what the model can make of a state, not all it holds."
