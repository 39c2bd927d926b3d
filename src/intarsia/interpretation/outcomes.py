"""`Outcome`: what a change inside a model is judged by, text by text: how well it still says what it should.

One of four: the next tokens of the texts themselves, the label of a label task, the class of a classifier's head, or a
given word after each text. All are losses in nats, -log p: an ablation, an eraser or a steering vector that hurts makes
them rise, whatever they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from intarsia.errors import BadInput, did_you_mean
from intarsia.interpretation import states
from intarsia.measure import LabelTask
from intarsia.measure import trie as tries
from intarsia.measure.likelihood import length_batches
from intarsia.progress import track
from intarsia.sites import Add, Edit, run

if TYPE_CHECKING:
    from intarsia.models import Model

Measure = Literal["auto", "loss", "label", "word"]
TOKENS_PER_BATCH = 1024
Step = tuple[int, tuple[int, ...] | None, int]
Edits = Sequence[Edit] | Callable[[list[int]], Sequence[Edit]]


class Outcome:
    """Texts, and what should be said at which of their positions.

    - ids: token ids of each text. steps: for each text (position, the token ids in question or None for all, index of
      the right one among these); a classifier's head has position -1.
    - name: what the loss is of, in words. mean: averaged over a text's steps (else summed).
    - batches: numbers of the texts that go through the network together, of similar length."""

    def __init__(
        self,
        model: Model,
        ids: list[list[int]],
        steps: list[list[Step]],
        name: str,
        mean: bool = False,
        tokens: int = TOKENS_PER_BATCH,
    ):
        self.model, self.ids, self.steps, self.name, self.mean = model, ids, steps, name, mean
        self.batches = length_batches([len(row) for row in ids], tokens)

    def __len__(self) -> int:
        return len(self.ids)

    def inputs(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """What the network is fed for some of the texts, padded on the right."""
        width = max(len(self.ids[i]) for i in rows)
        pad = getattr(self.model.tokenizer, "pad_token_id", None) or 0
        ids = torch.tensor([self.ids[i] + [pad] * (width - len(self.ids[i])) for i in rows])
        mask = torch.tensor([[1] * len(self.ids[i]) + [0] * (width - len(self.ids[i])) for i in rows])
        return {"input_ids": ids.to(self.model.device), "attention_mask": mask.to(self.model.device)}

    def losses(self, logits: Tensor, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """([row] -log p of what is right, [row] share of steps where it comes first), float64, with a graph.

        logits: [row, token, vocabulary], or a classifier's [row, class]."""
        loss, hit = [], []
        for row, i in enumerate(rows):
            steps = self.steps[i]
            if steps[0][0] < 0:
                chosen = logits[row : row + 1]
            else:
                chosen = logits[row, [position for position, _, _ in steps]]
            if all(among is None for _, among, _ in steps):
                log_p = chosen.double().log_softmax(-1)
                right = torch.tensor([taken for _, _, taken in steps], device=log_p.device)
                values = -log_p.gather(-1, right[:, None])[:, 0]
                first = log_p.argmax(-1) == right
            else:
                each = [
                    (line if among is None else line[list(among)]).double().log_softmax(-1)
                    for line, (_, among, _) in zip(chosen, steps, strict=True)
                ]
                values = torch.stack([-line[taken] for line, (_, _, taken) in zip(each, steps, strict=True)])
                first = torch.stack([line.argmax() == taken for line, (_, _, taken) in zip(each, steps, strict=True)])
            loss.append(values.mean() if self.mean else values.sum())
            hit.append(first.double().mean() if self.mean else first.all().double())
        return torch.stack(loss), torch.stack(hit)

    def measure(self, edits: Edits = (), task: str = "") -> tuple[Tensor, Tensor]:
        """Losses and hits [text] on the CPU, under edits (a function is given the numbers of a batch's texts)."""
        loss, hit = torch.empty(len(self), dtype=torch.float64), torch.empty(len(self), dtype=torch.float64)
        for rows in track(self.batches, task) if task else self.batches:
            output = run(self.model, self.inputs(rows), edits(rows) if callable(edits) else edits)
            values = self.losses(output.logits, rows)
            loss[rows], hit[rows] = values[0].cpu(), values[1].cpu()
        return loss, hit

    def gradients(
        self, rows: Sequence[int], sites: Sequence[str], widths: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """Losses [row] of some texts, and their gradients [row, token, width] at sites of the stream or of neurons.

        - widths: the sites' last dimension. What is differentiated is an edit that adds zero there, so that every
          network works whatever its output looks like."""
        inputs = self.inputs(rows)
        shape, device = inputs["input_ids"].shape, inputs["input_ids"].device
        added = [torch.zeros(*shape, width, device=device, requires_grad=True) for width in widths]
        edits = [Add(site, value=value) for site, value in zip(sites, added, strict=True)]
        output = run(self.model, inputs, edits, grad=True)
        with torch.enable_grad():
            loss, _ = self.losses(output.logits, rows)
            found = torch.autograd.grad(loss.sum(), added)
        return loss.detach().cpu(), [g.float().cpu() for g in found]


def outcome(
    model: Model,
    records: Sequence[Any],
    measure: Measure = "auto",
    *,
    word: str | None = None,
    target: str | None = None,
    max_tokens: int | None = None,
    seed: int = 0,
    what: str = "",
) -> Outcome:
    """The outcome for texts (strings or records).

    - measure: `loss` of the texts' own tokens, their `label`, a `word` that follows; `auto` is `word` when one is
      given, `label` when the model has a label task or a classifier's head and there is a label, else `loss`.
    - target: this label for every text, instead of each record's own.

    Raises `BadInput` for a measure that the model or the records do not allow."""
    if measure == "auto":
        measure = "word" if word is not None else "label" if _labelled(model, records, target) else "loss"
    limit = min((n for n in (max_tokens, model.context_length) if n), default=None)
    if measure == "label":
        return _of_labels(model, records, target, limit, what)
    if model.tokenizer is None:
        raise BadInput(f"{what}: this model has no tokenizer: wrap(network, tokenizer)")
    if not states.has_head(model):
        raise BadInput(f"{what}: {type(model.network).__name__} has no head over a vocabulary: give labelled texts")
    texts = [states.text_of(record) for record in records]
    encoded = [list(model.tokenizer(text, verbose=False)["input_ids"]) for text in texts]
    if measure == "word":
        if not word:
            raise BadInput(f"{what}: the measure 'word' wants a word: the one that should follow each text")
        if not states.is_causal(model):
            raise BadInput(f"{what}: {type(model.network).__name__} predicts no next word: measure loss or label")
        tail = list(model.tokenizer(word, add_special_tokens=False)["input_ids"])
        kept = [row[-(limit - len(tail)) :] if limit else row for row in encoded]
        steps: list[list[Step]] = [[(len(row) - 1 + n, None, t) for n, t in enumerate(tail)] for row in kept]
        return Outcome(model, [row + tail[:-1] for row in kept], steps, f"loss of {word!r} after the texts")
    states.tell_cut(sum(limit is not None and len(row) > limit for row in encoded), len(encoded), limit)
    encoded = [row[:limit] for row in encoded if len(row) > 1]
    if not encoded:
        raise BadInput(f"{what}: every text is a single token: wants texts of two tokens or more")
    if states.is_causal(model):
        steps = [[(n, None, t) for n, t in enumerate(row[1:])] for row in encoded]
        return Outcome(model, encoded, steps, "loss a token", mean=True)
    return _masked(model, encoded, seed, what)


def _masked(model: Model, encoded: list[list[int]], seed: int, what: str) -> Outcome:
    """A masked language model predicts a seeded 15 % of the tokens, at least one a text."""
    mask = getattr(model.tokenizer, "mask_token_id", None)
    if mask is None:
        raise BadInput(f"{what}: the tokenizer has no mask token: the loss of a masked language model needs one")
    generator = torch.Generator().manual_seed(seed)
    special = set(model.tokenizer.all_special_ids)
    ids, steps = [], []
    for row in encoded:
        free = [n for n, token in enumerate(row) if token not in special] or list(range(len(row)))
        some = torch.randperm(len(free), generator=generator)[: max(1, round(0.15 * len(free)))]
        hidden = sorted(free[int(n)] for n in some)
        steps.append([(n, None, row[n]) for n in hidden])
        ids.append([mask if n in hidden else token for n, token in enumerate(row)])
    return Outcome(model, ids, steps, "loss of a masked token", mean=True)


def classes_of(model: Model) -> list[str] | None:
    """The class names of a sequence classifier, or None."""
    if not type(model.network).__name__.endswith("ForSequenceClassification") or model.config.num_labels < 2:
        return None
    return [str(model.config.id2label[i]) for i in sorted(model.config.id2label)]


def _labelled(model: Model, records: Sequence[Any], target: str | None) -> bool:
    known = classes_of(model) or getattr(LabelTask.of(model), "labels", None)
    labels = {target} if target is not None else {getattr(record, "label", None) for record in records}
    return bool(known) and labels <= set(known or ())


def _of_labels(model: Model, records: Sequence[Any], target: str | None, limit: int | None, what: str) -> Outcome:
    labels = [target if target is not None else getattr(record, "label", None) for record in records]
    task = LabelTask.of(model)
    known = classes_of(model) or (task.labels if task is not None else None)
    if known is None:
        raise BadInput(
            f"{what}: the model has neither a label task nor a classifier's head: tune it with adaptation.label, "
            "give it data with a label task, or measure loss or word"
        )
    for label in labels:
        if label not in known:
            given = "a text has no label" if label is None else f"no label '{label}'{did_you_mean(label, known)}"
            raise BadInput(f"{what}: {given}; the model's labels: {', '.join(known)}")
    if classes_of(model) is not None:
        ids = [list(model.tokenizer(states.text_of(r), verbose=False)["input_ids"])[:limit] for r in records]  # type: ignore[misc]
        return Outcome(model, ids, [[(-1, None, known.index(label))] for label in labels], "loss of the class")
    from intarsia.data import LabelledText
    from intarsia.measure.prompts import encode_prompts

    assert task is not None
    trie = tries.of_task(task, model.tokenizer)
    rows = [LabelledText(states.text_of(r), "", context=tuple(getattr(r, "context", ()))) for r in records]
    task = task.model_copy(update={"max_tokens": min((n for n in (limit, task.max_tokens) if n), default=None)})
    prompts = encode_prompts(model, task, rows, room=trie.depth + 1).ids
    ids, steps = [], []
    for prompt, label in zip(prompts, labels, strict=True):
        number = known.index(label)
        path = [(len(node.path), node.branches, branch) for node, branch in trie.steps(number)]
        deepest = max((depth for depth, _, _ in path), default=0)
        ids.append([*prompt, *trie.sequences[number][:deepest]])
        steps.append([(len(prompt) - 1 + depth, among, taken) for depth, among, taken in path])
    return Outcome(model, ids, steps, "loss of the label")
