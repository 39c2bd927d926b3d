"""Projected gradients of single texts, and what they say about each other."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from intarsia.data import TextPair
from intarsia.errors import BadInput
from intarsia.interpretation import states
from intarsia.interpretation.examples.influence import Influence, InfluenceConfig, Influenced, StepCheck
from intarsia.interpretation.wording import one_line, percent
from intarsia.measure import LabelTask
from intarsia.measure import trie as tries
from intarsia.measure.likelihood import check_causal
from intarsia.measure.prompts import encode_prompts
from intarsia.progress import track
from intarsia.sites import read

if TYPE_CHECKING:
    from intarsia.models import Model

Steps = list[tuple[int, tuple[int, ...] | None, int]]  # logits row, tokens in question (None: all), index of the one


def parameters(model: Model) -> dict[str, nn.Parameter]:
    """The adapter's matrices where there is one, else the output projections of every block."""
    named = {n: p for n, p in model.network.named_parameters() if p.dim() == 2}
    if adapter := {n: p for n, p in named.items() if "lora_" in n}:
        return adapter
    sites = model.sites
    modules = [
        sites.tap(s).module for s in sites.expand([f"{sites.main.prefix}layers.*.{k}" for k in ("z", "mlp_act")])
    ]
    weights = {id(getattr(m, "weight", None)) for m in modules}
    chosen = {n: p for n, p in named.items() if id(p) in weights}
    if not chosen:
        raise BadInput(f"interpretation.influence: no output projection found in {type(model.network).__name__}")
    return chosen


def encode(model: Model, records: Sequence[Any], max_tokens: int) -> list[tuple[list[int], Steps]]:
    """Token ids of each record and what its loss is read from."""
    task = LabelTask.of(model)
    if task is not None and all(getattr(r, "label", None) for r in records):
        trie = tries.of_task(task, model.tokenizer)
        numbers = task.index(records)
        prompts = encode_prompts(model, task, records, room=trie.depth + 1).ids
        out: list[tuple[list[int], Steps]] = []
        for ids, label in zip(prompts, numbers, strict=True):
            steps: Steps = [(len(ids) - 1 + len(n.path), n.branches, b) for n, b in trie.steps(label)]
            out.append(([*ids, *trie.sequences[label]], steps))
        return out
    out = []
    limit = min(n for n in (max_tokens, model.context_length) if n)
    for record in records:
        head: list[int] = []
        if isinstance(record, TextPair):
            head = list(model.tokenizer(record.prompt)["input_ids"])  # type: ignore[misc]
            tail = list(model.tokenizer(record.target, add_special_tokens=False)["input_ids"])  # type: ignore[misc]
            ids = [*head, *tail]
        else:
            ids = list(model.tokenizer(states.text_of(record))["input_ids"])  # type: ignore[misc]
        ids = ids[:limit]
        steps = [(i - 1, None, ids[i]) for i in range(max(1, len(head)), len(ids))]
        if not steps:
            raise BadInput(f"interpretation.influence: '{one_line(_shown(record))}' leaves no token to be predicted")
        out.append((ids, steps))
    return out


def loss_of(model: Model, ids: list[int], steps: Steps) -> Tensor:
    """Mean -log probability of the steps, in nats."""
    logits = model.network(input_ids=torch.tensor([ids], device=model.device)).logits[0]
    total = logits.new_zeros(())
    for row, branches, taken in steps:
        at = logits[row] if branches is None else logits[row, list(branches)]
        total = total - at.float().log_softmax(-1)[taken]
    return total / len(steps)


class Projection:
    """The same random projection for every text: rank x rank numbers of each weight's gradient, from both sides."""

    def __init__(self, weights: dict[str, nn.Parameter], rank: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        self.sides = []
        for weight in weights.values():
            left, right = (
                torch.randn(min(rank, n), n, generator=generator) / min(rank, n) ** 0.5 if n > rank else torch.eye(n)
                for n in weight.shape
            )
            self.sides.append((left.to(weight.device), right.to(weight.device)))

    def __call__(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        return [(left @ g.float() @ right.T).cpu() for g, (left, right) in zip(gradients, self.sides, strict=True)]


def gradients(
    model: Model, encoded: list[tuple[list[int], Steps]], projection: Projection, what: str
) -> tuple[list[Tensor], Tensor]:
    """For each weight the projected gradients [text, rank, rank] of each text's loss, and the losses [text]."""
    weights = list(parameters(model).values())
    wanted = [w.requires_grad for w in weights]
    rows: list[list[Tensor]] = []
    losses = []
    try:
        for w in weights:
            w.requires_grad_(True)
        for ids, steps in track(encoded, what):
            with torch.enable_grad():
                loss = loss_of(model, ids, steps)
                rows.append(projection(torch.autograd.grad(loss, weights)))
            losses.append(loss.detach().double().cpu())
    finally:
        for w, before in zip(weights, wanted, strict=True):
            w.requires_grad_(before)
    return [torch.stack(parts).double() for parts in zip(*rows, strict=True)], torch.stack(losses)


def precondition(train: list[Tensor], other: list[Tensor], damping: float) -> list[Tensor]:
    """`other` times the inverse of the curvature of `train`, weight by weight.

    The curvature is taken in the eigenbasis of the two Kronecker factors E[G G'] and E[G' G], with the second moments
    of the gradients in that basis as eigenvalues, and damping x their mean added (EK-FAC)."""
    out = []
    for g, o in zip(train, other, strict=True):
        _, left = torch.linalg.eigh(torch.einsum("nij,nkj->ik", g, g))
        _, right = torch.linalg.eigh(torch.einsum("nij,nik->jk", g, g))
        moments = (left.T @ g @ right).square().mean(0)
        turned = (left.T @ o @ right) / (moments + damping * moments.mean() + torch.finfo(g.dtype).tiny)
        out.append(left @ turned @ right.T)
    return out


def scores(train: list[Tensor], test: list[Tensor], method: str, damping: float) -> Tensor:
    """[test, train]: drop of each test loss to first order when a training text is learned."""
    if method == "ekfac":
        test = precondition(train, test, damping)
    a, b = (torch.cat([g.flatten(1) for g in side], dim=1) for side in (test, train))
    if method == "cosine":
        a, b = (torch.nn.functional.normalize(side, dim=1) for side in (a, b))
    return a @ b.T


@torch.no_grad()
def nearness(model: Model, train: list[tuple[list[int], Steps]], test: list[tuple[list[int], Steps]]) -> Tensor:
    """[test, train]: cosine of the last block's states at the texts' last tokens, without their common mean."""
    site = states.site_name(model.sites, states.layer_count(model) - 1, "resid_post")
    rows = [
        read(model, torch.tensor([ids]), site)[site][0, -1].double().cpu()
        for ids, _ in track([*train, *test], "reading states")
    ]
    centred = torch.stack(rows) - torch.stack(rows[: len(train)]).mean(0)
    unit = torch.nn.functional.normalize(centred, dim=1)
    return unit[len(train) :] @ unit[: len(train)].T


@torch.no_grad()
def _losses(model: Model, encoded: list[tuple[list[int], Steps]]) -> Tensor:
    return torch.tensor([float(loss_of(model, *one)) for one in encoded], dtype=torch.float64)


def look(model: Model, config: InfluenceConfig, train: Sequence[Any], test: Sequence[Any], seed: int) -> Influence:
    """See `interpretation.influence`."""
    check_causal(model)
    train = _drawn(train, config.max_train, seed)
    test = _drawn(test, config.max_test, seed)
    if len(train) < 2:
        raise BadInput(f"interpretation.influence wants two training texts or more, was given {len(train)}")
    total: Tensor | None = None
    losses = torch.zeros(0)
    for turn, path in enumerate([None, *config.checkpoints]):
        at = model
        if path is not None:
            from intarsia.models import load

            at = load(path)
        of_train, of_test = encode(at, train, config.max_tokens), encode(at, test, config.max_tokens)
        if config.method == "states":
            found, lost = nearness(at, of_train, of_test), _losses(at, of_test)
        else:
            projection = Projection(parameters(at), config.rank, seed)
            left, _ = gradients(at, of_train, projection, "training texts")
            right, lost = gradients(at, of_test, projection, "test texts")
            found = scores(left, right, config.method, config.damping)
        losses = lost if turn == 0 else losses
        total = found if total is None else total + found
    assert total is not None
    tests = []
    shown = min(config.top, len(train) // 2)
    for row, record, loss in zip(total, test, losses.tolist(), strict=True):
        order = row.argsort(descending=True, stable=True).tolist()
        ends = [
            [(one_line(_shown(train[i])), float(row[i])) for i in some] for some in (order[:shown], order[::-1][:shown])
        ]
        tests.append(Influenced(text=one_line(_shown(record)), loss=loss, helpful=ends[0], harmful=ends[1]))
    checks = _check(model, config, train, test, total.mean(0), seed) if config.check else []
    size = total.abs().mean(0).sort(descending=True).values
    finding = Influence(
        title="The training texts behind the answers",
        technique="interpretation.influence",
        method=config.method,
        tests=tests,
        checks=checks,
        concentration=(size.cumsum(0) / size.sum().clamp(min=1e-300)).tolist(),
        provenance={"seed": seed, "settings": config.model_dump(), "train": len(train), "test": len(test)},
    )
    return finding.model_copy(update={"summary": _summary(finding)})


def _check(
    model: Model, config: InfluenceConfig, train: list[Any], test: list[Any], mean: Tensor, seed: int, draws: int = 5
) -> list[StepCheck]:
    """One step on some texts in a copy of the network, always of the same length: that which by its own gradient would
    lower the loss of a random draw by 0.02 nats."""
    count = min(config.check, max(1, len(train) // 2))
    order = mean.argsort(descending=True, stable=True).tolist()
    generator = torch.Generator().manual_seed(seed)
    random = [torch.randperm(len(train), generator=generator)[:count].tolist() for _ in range(draws)]
    encoded, tests = encode(model, train, config.max_tokens), encode(model, test, config.max_tokens)
    before = float(_losses(model, tests).mean())

    at = model.with_network(copy.deepcopy(model.network))
    weights = list(parameters(at).values())
    for w in weights:
        w.requires_grad_(True)
    start = [w.detach().clone() for w in weights]

    def slopes_on(chosen: list[int]) -> tuple[list[Tensor], float]:
        with torch.enable_grad():
            loss = torch.stack([loss_of(at, *encoded[i]) for i in chosen]).mean()
            slopes = list(torch.autograd.grad(loss, weights))
        return slopes, sum(float(s.double().square().sum()) for s in slopes) ** 0.5

    length = 0.02 / max(slopes_on(random[0])[1], 1e-300)

    def step(chosen: list[int]) -> float:
        slopes, norm = slopes_on(chosen)
        with torch.no_grad():
            for w, slope in zip(weights, slopes, strict=True):
                w.sub_(slope * (length / max(norm, 1e-300)))
            change = float(_losses(at, tests).mean()) - before
            for w, value in zip(weights, start, strict=True):
                w.copy_(value)
        return change

    tried = [order[:count], order[::-1][:count], *random]
    changes = [step(chosen) for chosen in track(tried, "checking by a step of training")]
    by_chance = changes[2:]
    return [
        StepCheck(on=f"the {count} most helpful", change=changes[0]),
        StepCheck(on=f"{count} at random", change=sum(by_chance) / draws, low=min(by_chance), high=max(by_chance)),
        StepCheck(on=f"the {count} most harmful", change=changes[1]),
    ]


def _summary(finding: Influence) -> str:
    count = max(1, len(finding.concentration) // 10)
    share = percent(finding.concentration[count - 1])
    text = (
        f"The most influential {count} of {len(finding.concentration)} training texts carry {share} of the influence."
    )
    if finding.checks:
        good, chance, bad = (c.change for c in finding.checks)
        word = "pass" if good < chance < bad else "do not pass"
        text += (
            f" The scores {word} the check: one step on the most helpful texts changes the test loss by {good:+.4f}, "
            f"on random ones by {chance:+.4f}, on the most harmful ones by {bad:+.4f} nats."
        )
    return text


def _drawn(records: Sequence[Any], most: int, seed: int) -> list[Any]:
    pairs = [r for r in records if isinstance(r, TextPair)]
    if len(pairs) == len(records) and pairs:
        generator = torch.Generator().manual_seed(seed)
        return [pairs[i] for i in sorted(torch.randperm(len(pairs), generator=generator)[:most].tolist())]
    return states.choose(records, most, seed, "interpretation.influence")


def _shown(record: Any) -> str:
    return f"{record.prompt}{record.target}" if isinstance(record, TextPair) else states.text_of(record)
