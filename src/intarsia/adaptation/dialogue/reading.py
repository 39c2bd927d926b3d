"""Labelling with a model that `adaptation.dialogue` made: who labels, what each counts for, and where it is kept.

<folder>/parts/adaptation.dialogue.safetensors   the labels' rows, the linear model, the training turns' embeddings
<folder>/intarsia.json                           under `adaptation.dialogue`: labels, writing, weights"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from intarsia.adaptation.dialogue import features as of_turns
from intarsia.adaptation.dialogue.linear import Linear
from intarsia.adaptation.dialogue.mixing import Mix
from intarsia.adaptation.dialogue.neighbours import Neighbours
from intarsia.adaptation.dialogue.scripts import Writer, Writing
from intarsia.adaptation.dialogue.states import Depths, frozen, whole
from intarsia.adaptation.dialogue.tagging import Head
from intarsia.adaptation.dialogue.technique import NAME
from intarsia.errors import BadInput
from intarsia.measure.likelihood import LabelScores
from intarsia.models.saved import Saved
from intarsia.models.weights import weights_key

if TYPE_CHECKING:
    from intarsia.data import LabelledText, Turn
    from intarsia.models import Model

LINEAR, FIELDS = ("behind", "within", "linear"), ("weight", "bias", "mean", "spread")


@dataclass
class Reader:
    """Everything beside the network.

    - labels: in order. writing: of dialogues, for the network. head: of the tuned network. depths: where the linear
      models `behind` and `within` read. embedder: where the embedding model is loaded from.
    - window, decay, speakers, future: of the linear model's features."""

    labels: list[str]
    mix: Mix
    writing: Writing | None = None
    head: Head | None = None
    embedder: str = ""
    embedder_key: str = ""
    depths: Depths | None = None
    behind: Linear | None = None
    within: Linear | None = None
    linear: Linear | None = None
    neighbours: Neighbours | None = None
    window: int = 5
    decay: float = 0.6
    speakers: list[str] = field(default_factory=list)
    future: int = 0

    def vectors(self, turns: Sequence[Turn]) -> np.ndarray | None:
        """[turn, width] embeddings, where somebody wants them."""
        if self.linear is None and self.neighbours is None:
            return None
        if self.embedder_key != key_of(self.embedder):
            raise BadInput(
                f"{self.embedder}: is another model than the one these embeddings were made with: put that one there, "
                "or tune again"
            )
        return vectors_of(self.embedder, turns)

    def features(self, turns: Sequence[Turn], vectors: np.ndarray) -> np.ndarray:
        """What the linear model sees."""
        return of_turns.features(
            turns, vectors, window=self.window, decay=self.decay, speakers=self.speakers, future=self.future
        )

    def each(self, model: Model, turns: Sequence[Turn], vectors: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """[turn, label] log probabilities by labeller."""
        out: dict[str, np.ndarray] = {}
        if self.writing is not None:
            scripts = Writer(model.tokenizer, self.writing).write(turns)
            head = self.head and Head(self.head.weight.to(model.device), self.head.bias.to(model.device))
            if head is None and self.depths is not None:
                found = frozen(model, scripts, len(turns), self.depths, None)
            else:
                found = whole(model, scripts, len(turns), self.depths, head)
            if found.scores is not None:
                out["network"] = found.scores
            if self.behind is not None and self.within is not None:
                out["behind"] = self.behind.scores(found.behind.astype(np.float32))
                out["within"] = self.within.scores(found.within.astype(np.float32))
        vectors = self.vectors(turns) if vectors is None else vectors
        if self.linear is not None and vectors is not None:
            out["linear"] = self.linear.scores(self.features(turns, vectors))
        if self.neighbours is not None and vectors is not None:
            out["neighbours"] = self.neighbours.scores(vectors)
        return out

    def save(self) -> tuple[Saved, dict[str, Any]]:
        """Tensors, and what JSON holds."""
        tensors: dict[str, torch.Tensor] = {}
        note: dict[str, Any] = {
            "labels": self.labels, "mix": asdict(self.mix), "embedder": self.embedder,
            "embedder_key": self.embedder_key, "window": self.window,
            "decay": self.decay, "speakers": self.speakers, "future": self.future,
        }  # fmt: skip
        if self.writing is not None:
            note["writing"] = asdict(self.writing)
        if self.head is not None:
            tensors |= {"head.weight": self.head.weight, "head.bias": self.head.bias}
        if self.depths is not None:
            note["depths"] = asdict(self.depths)
        for part in LINEAR:
            if (model := getattr(self, part)) is not None:
                tensors |= {f"{part}.{name}": torch.from_numpy(getattr(model, name)) for name in FIELDS}
        if (near := self.neighbours) is not None:
            # Half precision: a cosine changes by less than .001, and the folder is half as large.
            tensors["neighbours.vectors"] = torch.from_numpy(near.vectors).half()
            tensors["neighbours.labels"] = torch.from_numpy(near.labels.astype(np.int32))
            note["neighbours"] = {"nearest": near.nearest, "temperature": near.temperature}
        return Saved(tensors), note

    @staticmethod
    def load(saved: Saved, note: dict[str, Any]) -> Reader:
        """The inverse. Raises `BadInput` for what another version wrote."""
        tensors = saved.tensors
        try:
            reader = Reader(
                list(note["labels"]), Mix(**note["mix"]), embedder=note["embedder"],
                embedder_key=note["embedder_key"], window=note["window"],
                decay=note["decay"], speakers=list(note["speakers"]), future=note["future"],
            )  # fmt: skip
            if "writing" in note:
                reader.writing = Writing(**note["writing"])
            if "head.weight" in tensors:
                reader.head = Head(tensors["head.weight"], tensors["head.bias"])
            if "depths" in note:
                reader.depths = Depths(**note["depths"])
            for part in LINEAR:
                if f"{part}.weight" in tensors:
                    setattr(reader, part, Linear(*(tensors[f"{part}.{name}"].numpy() for name in FIELDS)))
            if "neighbours" in note:
                reader.neighbours = Neighbours(
                    tensors["neighbours.vectors"].float().numpy(), tensors["neighbours.labels"].numpy(),
                    None, len(reader.labels), **note["neighbours"],
                )  # fmt: skip
        except (KeyError, TypeError) as error:
            raise BadInput(f"{NAME}: was saved by another version of Intarsia ({error}); tune again") from None
        return reader


@functools.lru_cache(maxsize=1)
def embedder(name: str) -> Model:
    """The model of sentence embeddings; the last one stays in memory."""
    from intarsia.models import load

    return load(name)


@functools.lru_cache(maxsize=1)
def key_of(name: str) -> str:
    """Of its weights."""
    return weights_key(embedder(name))


def vectors_of(name: str, turns: Sequence[Turn]) -> np.ndarray:
    """[turn, width] sentence embeddings by the model of that name."""
    from intarsia.models.embedding import embed

    return embed(embedder(name), [turn.text for turn in turns])


def reader_of(model: Model) -> Reader:
    """The reader that a model carries. Raises `BadInput` where it has none."""
    if NAME not in model.extras or NAME not in model.parts:
        raise BadInput("this model does not label dialogues: make one with `intarsia adaptation dialogue`")
    return Reader.load(model.parts[NAME], model.extras[NAME])


def label(model: Model, note: dict[str, Any], records: Sequence[LabelledText]) -> LabelScores:
    """Scores [record, label] of turns; other labelled texts are read as dialogues of one turn. `raw`: those of the
    tuned network alone, where there is one."""
    if note.get("recipe") == "dialoguellm":
        from intarsia.adaptation.dialogue.published import label as published

        return published(model, note, records)
    reader = reader_of(model)
    turns, places = as_turns(records)
    each = {name: scores[places] for name, scores in reader.each(model, turns).items()}
    scores = reader.mix.scores(each)
    raw = each.get("network", scores)
    return LabelScores(tuple(reader.labels), raw, scores, np.exp(scores), np.full(len(places), np.nan))


def as_turns(records: Sequence[LabelledText]) -> tuple[list[Turn], list[int]]:
    """Records as turns, and where each of them is: what is no turn is a dialogue by itself, with its context before
    it."""
    from intarsia.data import Turn

    turns: list[Turn] = []
    places = []
    for i, record in enumerate(records):
        if not isinstance(record, Turn):
            turns += [Turn(text, "", f"record {i}", number=n) for n, text in enumerate(record.context)]
            record = Turn(record.text, record.label, f"record {i}", number=len(record.context))
        places.append(len(turns))
        turns.append(record)
    return turns, places
