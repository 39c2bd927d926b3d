"""Few-shot labelling: how probable each label is after demonstrations and a text, and how good that is by their number.

A prompt is put together from token ids: each demonstration is its own prompt, its label's words and a separator. What
texts have in common at their beginning is run once."""

from __future__ import annotations

import time
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from intarsia.data import labelled
from intarsia.errors import BadInput, Note
from intarsia.measure import demonstrations
from intarsia.measure import trie as tries
from intarsia.measure.classification import judge
from intarsia.measure.likelihood import (
    TOKENS_PER_BATCH,
    LabelScores,
    accepts,
    calibrated,
    check_causal,
    given,
    left_padded,
    length_batches,
    node_logits,
    path_scores,
    shares_prefixes,
)
from intarsia.measure.prompts import encode_prompts
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.data import LabelledText
    from intarsia.measure.labels import LabelTask
    from intarsia.measure.quality_parts import LabelQuality
    from intarsia.models import Model

SEPARATOR = "\n\n"


@dataclass(frozen=True)
class Shots(LabelScores):
    """Scores of texts after demonstrations.

    - tokens: of all prompts together, demonstrations included; left_out: demonstrations that did not fit."""

    tokens: int = 0
    left_out: int = 0


def score_shots(
    model: Model, task: LabelTask, records: Sequence[LabelledText], shots: Sequence[Sequence[LabelledText]], *,
    calibration: str | None = None, separator: str = SEPARATOR, share: bool = True,
) -> Shots:  # fmt: skip
    """Score every label for every text, each after its own demonstrations, the last one nearest to it.

    - shots: for each text its demonstrations. Those that do not fit the network's context beside the text are left out,
      the first ones first.
    - calibration: as in `score`; `content-free` keeps each text's demonstrations and empties the text.
    - share: run demonstrations that several texts have in common once. No other scores, only less work.

    Raises `BadInput` for no texts, a network that is not a causal language model, or labels that cannot be told
    apart."""
    if not records:
        raise BadInput("there are no texts to score")
    check_causal(model)
    writer = Writer(model, task, separator)
    rows = [writer.row(record, before) for record, before in zip(records, shots, strict=True)]
    if writer.cut:
        warnings.warn(f"{writer.cut} of the texts and demonstrations were cut to fit", Note, stacklevel=2)
    cut = writer.cut
    raw, mass = _scores(model, writer.trie, rows, share and shares_prefixes(model))

    def empty() -> np.ndarray:
        nothing = [writer.row(replace(r, text="", context=()), s) for r, s in zip(records, shots, strict=True)]
        return _scores(model, writer.trie, nothing, share and shares_prefixes(model))[0]

    found = calibrated(task, raw, mass, cut, calibration, empty)
    return Shots(
        found.labels, found.raw, found.scores, found.probabilities, found.mass, found.cut,
        tokens=sum(len(row.head) + len(row.rest) for row in rows), left_out=sum(row.left_out for row in rows),
    )  # fmt: skip


@dataclass(frozen=True)
class Row:
    """Token ids of the demonstrations and of what follows them."""

    head: tuple[int, ...]
    rest: tuple[int, ...]
    left_out: int


class Writer:
    """Writes prompts with demonstrations, each as ids; a demonstration that stands before several texts is encoded
    once."""

    def __init__(self, model: Model, task: LabelTask, separator: str):
        self.model, self.task = model, task
        self.trie = tries.of_task(task, model.tokenizer)
        self.cut = 0
        self._between = tuple(model.tokenizer(separator, add_special_tokens=False)["input_ids"])
        self._label = {label: tuple(self.trie.sequences[i]) for i, label in enumerate(task.labels)}
        self._begin = _beginning(model.tokenizer)
        self._known: dict[LabelledText, tuple[int, ...]] = {}

    def row(self, record: LabelledText, shots: Sequence[LabelledText]) -> Row:
        """A text after its demonstrations, as many of the last ones as there is room for."""
        prompt = self._prompt(record)
        room = None if self.model.context_length is None else self.model.context_length - self.trie.depth - 1
        parts: list[tuple[int, ...]] = []
        size = len(self._begin) + len(prompt)
        for shot in reversed(shots):
            ids = self._shot(shot)
            if room is not None and size + len(ids) > room:
                break
            size += len(ids)
            parts.insert(0, ids)
        head = tuple(token for part in parts for token in part)
        left_out = len(shots) - len(parts)
        return Row(self._begin + head, prompt, left_out) if parts else Row((), self._begin + prompt, left_out)

    def _prompt(self, record: LabelledText) -> tuple[int, ...]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Note)  # how many were cut is said once, of all
            found = encode_prompts(self.model, self.task, [record], room=self.trie.depth + 1)
        self.cut += found.cut
        ids = tuple(found.ids[0])
        return ids[len(self._begin) :] if self._begin and ids[: len(self._begin)] == self._begin else ids

    def _shot(self, shot: LabelledText) -> tuple[int, ...]:
        if shot not in self._known:
            if shot.label not in self._label:
                raise BadInput(
                    f"a demonstration has the label '{shot.label}', which the task does not know; "
                    f"its labels: {', '.join(self.task.labels)}"
                )
            self._known[shot] = self._prompt(shot) + self._label[shot.label] + self._between
        return self._known[shot]


def _beginning(tokenizer: Any) -> tuple[int, ...]:
    """The special tokens that the tokenizer puts before a text."""
    bare, whole = tokenizer("a", add_special_tokens=False)["input_ids"], tokenizer("a")["input_ids"]
    for at in range(len(whole) - len(bare) + 1):
        if whole[at : at + len(bare)] == bare:
            return tuple(whole[:at])
    return ()


def _scores(model: Model, trie: tries.Trie, rows: Sequence[Row], share: bool) -> tuple[np.ndarray, np.ndarray]:
    """Raw scores [row, label] and masses [row]."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        groups[row.head if share else ()].append(i)
    alone = [i for head, members in groups.items() if len(members) == 1 or not head for i in members]
    work: list[tuple[tuple[int, ...], list[int]]] = []
    if alone:
        lengths = [len(rows[i].head) + len(rows[i].rest) for i in alone]
        work += [((), [alone[i] for i in batch]) for batch in length_batches(lengths, TOKENS_PER_BATCH)]
    for head, members in groups.items():
        if head and len(members) > 1:
            # The head's keys and values are there for every row of a batch: it counts in what a batch holds.
            lengths = [len(head) // 2 + len(rows[i].rest) for i in members]
            work += [(head, [members[i] for i in batch]) for batch in length_batches(lengths, TOKENS_PER_BATCH)]
    raw, mass = np.zeros((len(rows), len(trie.sequences))), np.zeros(len(rows))
    kept: tuple[tuple[int, ...], Any] = ((), None)
    for head, batch in track(work, "scoring labels"):
        if head and kept[0] != head:
            kept = head, _cache(model, head)
        ids = [rows[i].rest if head else rows[i].head + rows[i].rest for i in batch]
        raw[batch], mass[batch] = path_scores(trie, node_logits(model, trie, ids, kept[1] if head else None))
    return raw, mass


def _cache(model: Model, head: Sequence[int]) -> Any:
    """Keys and values of the tokens that rows begin with."""
    import torch

    batch = {name: value.to(model.device) for name, value in left_padded([head], 0).items()}
    with torch.inference_mode():
        return model.network(**given(batch, accepts(model.network)), logits_to_keep=1, use_cache=True).past_key_values


@dataclass(frozen=True)
class ShotQuality:
    """How good labels are after so many demonstrations.

    - tokens: mean length of a prompt; left_out: demonstrations, over all texts, that did not fit."""

    shots: int
    quality: LabelQuality
    tokens: float
    left_out: int
    seconds: float


def few_shot(
    model: Model, task: LabelTask, train: Sequence[LabelledText], test: Sequence[LabelledText], *,
    shots: Sequence[int] = (0, 1, 5, 10), how: Literal["nearest", "fixed"] = "nearest", embedder: Model | None = None,
    relevance: float = demonstrations.RELEVANCE, calibration: str | None = None, separator: str = SEPARATOR,
    draws: int = 2000, seed: int = 0,
) -> list[ShotQuality]:  # fmt: skip
    """Judge a model on labelled texts with 0, 1, 5, 10, ... demonstrations out of `train`.

    - how: `nearest` takes as many as `shots` says, most like the text by sentence embeddings and unlike each other;
      `fixed` takes so many for every label, the same ones for all texts, drawn by the seed. Neither takes any of the
      text's own group (its dialogue).
    - embedder: the model of the embeddings; default: the mean of the model's own last states.

    Raises `BadInput` for a negative or repeated number, and for labels that the task does not know."""
    if not shots or min(shots) < 0 or len(set(shots)) < len(shots):
        raise BadInput(f"shots: numbers from 0 up, each once (given: {', '.join(map(str, shots)) or 'none'})")
    if how not in ("nearest", "fixed"):
        raise BadInput(f"how: nearest or fixed (given: '{how}')")
    train, test = labelled(train, "train"), labelled(test, "test")
    if not train or not test:
        raise BadInput("few-shot: wants demonstrations (train) and texts to label (test); one of them is empty")
    task.index(train, "train")
    true = np.array(task.index(test, "test"))
    vectors = None
    if how == "nearest" and max(shots) > 0:
        from intarsia.models.embedding import embed

        both = embed(embedder or model, [record.text for record in (*train, *test)])
        vectors = both[: len(train)], both[len(train) :]
    out = []
    for count in shots:
        begun = time.perf_counter()
        if count == 0:
            chosen: list[list[int]] = [[] for _ in test]
        elif vectors is not None:
            chosen = demonstrations.nearest(train, vectors[0], test, vectors[1], count, relevance=relevance)
        else:
            chosen = demonstrations.fixed(train, test, task.labels, count, seed=seed)
        found = score_shots(
            model, task, test, [[train[i] for i in numbers] for numbers in chosen], calibration=calibration,
            separator=separator,
        )  # fmt: skip
        quality = judge(
            task.labels, true, found.probabilities, found.raw, [record.group for record in test], mass=found.mass,
            cut=found.cut, draws=draws, seed=seed,
        )  # fmt: skip
        seconds = time.perf_counter() - begun
        out.append(ShotQuality(count, quality, found.tokens / len(test), found.left_out, seconds))
    return out
