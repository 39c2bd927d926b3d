"""Label tuning step by step: the task, the loss over the trie, the training, the calibration on dev."""

from __future__ import annotations

import random
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.adaptation.minimum import lowest
from intarsia.adaptation.trunk import Trunk
from intarsia.data import labelled
from intarsia.errors import BadInput
from intarsia.measure import trie as tries
from intarsia.measure.classification import macro_f1, weighted_f1
from intarsia.measure.labelling import forget_way
from intarsia.measure.labels import LabelTask
from intarsia.measure.likelihood import accepts, check_causal, given, left_padded, score, softmax
from intarsia.measure.prompts import encode_prompts
from intarsia.training import lora
from intarsia.training.loop import fixed_batches, seeded, train

if TYPE_CHECKING:
    import torch

    from intarsia.adaptation.label import LabelConfig
    from intarsia.data import LabelledText
    from intarsia.models import Model

BIAS_RATE = (
    10.0  # a bias is one number where a matrix is thousands: it needs longer steps (as for the adapters' B at 0)
)
TAUS = (0.0, 0.25, 0.5, 0.75, 1.0)


def tune(
    model: Model,
    config: LabelConfig,
    records: Sequence[LabelledText],
    dev: Sequence[LabelledText] | None,
    label_task: Mapping[str, Any] | None,
    seed: int,
) -> Model:
    """See `intarsia.adaptation.label.label`."""
    check_causal(model)
    records, dev = labelled(records, "train"), labelled(dev or [], "dev")
    task = choose_task(model, config, records, label_task)
    if dev:
        task.index(dev, "dev")
    records = evenly(records, config.max_records, seed)
    trie = tries.of_task(task, model.tokenizer)
    if config.label_bias and not trie.flat:
        raise BadInput("label_bias needs verbalisers whose first tokens differ: choose others, or leave it out")
    new = model.copy()
    with seeded(seed):
        adapted, parameters = lora.attach(new.network, config)
        examples = Examples.build(new, task, trie, records, config)
        batches = fixed_batches([len(row) for row in examples.ids], config.batch_size, seed)
        loss = TrieLoss(trie, task, records, config, new.device)
        trunk = Trunk.of(new, config.trunk_cache, config.layers_from)
        if trunk:
            trunk.fill(examples.ids)

        def loss_of(number: int) -> torch.Tensor:
            rows = batches[number]
            logits = (
                trunk.logits([examples.ids[row] for row in rows], examples.keep)
                if trunk
                else examples.logits(adapted, rows)
            )
            return loss(logits, [examples.tails[row] for row in rows], [examples.labels[row] for row in rows])

        groups = [(parameters, 1.0)] + ([([loss.bias], BIAS_RATE)] if loss.bias is not None else [])
        try:
            trained = train(groups, len(batches), loss_of, config, seed, "tuning labels")
        finally:
            if trunk:
                trunk.close()
        network = lora.merge(adapted)
    out = model.with_network(network, technique="adaptation.label", config=config.model_dump(mode="json"), seed=seed)
    task.calibration, task.prior_weight = "none", 0.0
    if loss.bias is not None:
        task.bias = [float(b) for b in loss.bias.detach().cpu()]
    facts: dict[str, Any] = {
        "records": len(records),
        "labels": dict(sorted(Counter(r.label for r in records).items())),
        "prompt_tokens": sum(map(len, examples.ids)),
        "cut": examples.cut,
        "trained_parameters": trained.parameters,
        "losses": [round(loss, 6) for loss in trained.losses],
    }
    if dev:
        facts["dev"] = calibrate(out, task, dev, config)
    forget_way(out)
    task.attach(out)
    out.extras["adaptation.label"] = facts
    return out


def choose_task(
    model: Model, config: LabelConfig, records: Sequence[LabelledText], label_task: Mapping[str, Any] | None
) -> LabelTask:
    """The task to tune: the data's, else the model's, else defaults; the config's template and words go first.

    Labels come from the task when it has them. Raises `BadInput` that names a label without training records."""
    given_task = LabelTask.parse(label_task) if label_task else LabelTask.of(model)
    words = dict(given_task.verbalisers) if given_task else {}
    words |= config.verbalisers or {}
    seen = {record.label for record in records}
    wanted = given_task.labels if given_task else sorted(set(words) | seen)
    if seen and (missing := [name for name in wanted if name not in seen]):
        raise BadInput(
            f"the label '{missing[0]}' has no training record ({len(missing)} of {len(wanted)} labels have none): "
            "add some, or take the label out of the task"
        )
    if unknown := sorted(seen - set(wanted)):
        raise BadInput(f"train has the label '{unknown[0]}', which the task does not know: add it to its verbalisers")
    settings: dict[str, Any] = {}
    if given_task:
        settings = given_task.model_dump(include={"max_tokens", "context_separator", "end"})
    if config.max_tokens is not None:
        settings["max_tokens"] = config.max_tokens
    template = config.template or (given_task.template if given_task else None)
    task = LabelTask.from_records(records, template=template, verbalisers=words or None, **settings)
    if given_task:  # keep the given order of labels
        order = [task.labels.index(name) for name in given_task.labels]
        prior = [task.prior[i] for i in order] if task.prior else None
        task = LabelTask.parse(task.model_dump() | {"labels": list(given_task.labels), "prior": prior})
    return task


def evenly(records: Sequence[LabelledText], most: int | None, seed: int) -> list[LabelledText]:
    """At most `most` records, drawn by turns from each label so that rare labels keep all they have."""
    if most is None or len(records) <= most:
        return list(records)
    shuffled = list(records)
    random.Random(seed).shuffle(shuffled)
    piles: dict[str, list[LabelledText]] = defaultdict(list)
    for record in shuffled:
        piles[record.label].append(record)
    if most < len(piles):
        raise BadInput(f"max_records is {most}, but there are {len(piles)} labels: each needs a record")
    turns = [record for turn in range(max(map(len, piles.values()))) for _, pile in sorted(piles.items())
             for record in pile[turn : turn + 1]]  # fmt: skip
    return turns[:most]


class Examples:
    """Training rows: the prompt and the label's tokens up to its last parting.

    - ids: the rows; tails: how many of each row's last tokens belong to the label; labels: label numbers."""

    def __init__(self, model: Model, ids: list[list[int]], tails: list[int], labels: list[int], cut: int, keep: int):
        self.ids, self.tails, self.labels, self.cut, self.keep = ids, tails, labels, cut, keep
        self._model = model
        self._accepts = accepts(model.network)

    @classmethod
    def build(
        cls, model: Model, task: LabelTask, trie: tries.Trie, records: Sequence[LabelledText], config: LabelConfig
    ) -> Examples:
        """Tokenise the records. The label's tokens follow the prompt's own, as when scoring."""
        prompts = encode_prompts(model, task, records, room=trie.depth + 1)
        labels = task.index(records, "train")
        last = [max(len(node.path) for node, _ in trie.steps(y)) for y in range(len(task.labels))]
        ids = [[*row, *trie.sequences[y][: last[y]]] for row, y in zip(prompts.ids, labels, strict=True)]
        return cls(model, ids, [last[y] for y in labels], labels, prompts.cut, 1 + max(last))

    def logits(self, network: Any, rows: Sequence[int]) -> torch.Tensor:
        """Logits [row, last `keep` positions, vocabulary] of some rows, ends aligned."""
        batch = left_padded([self.ids[row] for row in rows], self._model.tokenizer.pad_token_id or 0)
        batch = {name: value.to(self._model.device) for name, value in batch.items()}
        return network(**given(batch, self._accepts), logits_to_keep=self.keep, use_cache=False).logits


class TrieLoss:
    """Mean over rows of -w(y) log p(y), p the product of softmaxes over the branches along the label's path.

    - class_weight e: w(y) = count(y)^-e, scaled to mean 1 over the records.
    - logit_adjustment tau: tau * log(share of the records behind a branch) is added to the branch's logit."""

    def __init__(
        self, trie: tries.Trie, task: LabelTask, records: Sequence[LabelledText], config: LabelConfig, device: Any
    ):
        import torch

        self.steps = [trie.steps(y) for y in range(len(task.labels))]
        counts = np.bincount(task.index(records, "train"), minlength=len(task.labels)).astype(float)
        weights = counts**-config.class_weight
        self.weights = weights / (weights * counts).sum() * counts.sum()
        self.branches = {node: torch.tensor(node.branches, device=device) for node in trie.nodes}
        self.shift = {
            node: torch.tensor(
                config.logit_adjustment * np.log([counts[list(m)].sum() for m in node.members]),
                dtype=torch.float32, device=device,
            )
            for node in trie.nodes
        }  # fmt: skip
        self.bias = torch.nn.Parameter(torch.zeros(len(task.labels), device=device)) if config.label_bias else None

    def __call__(self, logits: torch.Tensor, tails: Sequence[int], labels: Sequence[int]) -> torch.Tensor:
        """Of logits [row, position from the end, vocabulary], the tails' lengths and the label numbers."""
        import torch

        # (row, position) pairs of each parting, so that one log-softmax serves all rows at a node.
        total = logits.new_zeros((), dtype=torch.float32)
        found: dict[tries.Node, list[tuple[int, int, int, float]]] = defaultdict(list)
        for row, (tail, y) in enumerate(zip(tails, labels, strict=True)):
            for node, branch in self.steps[y]:
                found[node].append((row, logits.shape[1] - 1 - tail + len(node.path), branch, self.weights[y]))
        for node, entries in found.items():
            rows, places, branches, weights = zip(*entries, strict=True)
            here = logits[list(rows), list(places)][:, self.branches[node]].float() + self.shift[node]
            if self.bias is not None:
                here = here + self.bias[[members[0] for members in node.members]]
            target = torch.tensor(branches, device=here.device)
            nll = torch.nn.functional.cross_entropy(here, target, reduction="none")
            total = total + (nll * torch.tensor(weights, dtype=torch.float32, device=here.device)).sum()
        return total / len(labels)


def calibrate(model: Model, task: LabelTask, dev: Sequence[LabelledText], config: LabelConfig) -> dict[str, Any]:
    """Fit the prior's share and the temperature on dev, into `task`; returns dev's figures."""
    true = np.array(task.index(dev, "dev"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # how many texts are cut is said where they are measured
        scores = score(model, task, dev).scores
    figures = {"weighted_f1": weighted_f1, "macro_f1": macro_f1}

    def confusion(s: np.ndarray) -> np.ndarray:
        out = np.zeros((len(task.labels), len(task.labels)))
        np.add.at(out, (true, s.argmax(1)), 1)
        return out

    facts: dict[str, Any] = {"records": len(dev)}
    if config.choose_prior != "none" and task.prior is not None:
        log_prior = np.log(np.array(task.prior) / sum(task.prior))
        # The least shift among equals: max keeps the first.
        tau = max(TAUS, key=lambda t: figures[config.choose_prior](confusion(scores - t * log_prior)))
        task.bias = [float(b) for b in np.asarray(task.bias or np.zeros(len(task.labels))) - tau * log_prior]
        scores = scores - tau * log_prior
        facts["tau"] = tau
    if config.fit_temperature:
        task.temperature = fit_temperature(scores, true)
        facts["temperature"] = task.temperature
    return facts | {name: float(figure(confusion(scores))) for name, figure in figures.items()}


def fit_temperature(scores: np.ndarray, true: np.ndarray) -> float:
    """The temperature that makes the true labels most probable, by golden-section search on its logarithm in
    [0.05, 20] (the loss has a single minimum in 1/T)."""

    def loss(log_t: float) -> float:
        return -float(np.log(softmax(scores / np.exp(log_t))[np.arange(len(true)), true] + 1e-300).mean())

    return float(np.exp(lowest(loss, np.log(0.05), np.log(20.0))))
