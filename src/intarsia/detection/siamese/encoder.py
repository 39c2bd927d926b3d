"""The Siamese detector: one encoder reads a text and what a machine wrote on its topic, and a head compares them. With
the head `single` it is an encoder that is tuned to tell texts apart one by one.

Source: Dou et al. 2024 (arXiv 2401.08046), "Synthetic-Siamese": inquiry and reference go through one shared encoder and
the pair is classified. Its sizes and rates could not be read: see `SiameseConfig`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.catalog import parse
from intarsia.detection.siamese.asking import asked
from intarsia.detection.siamese.heads import DISTANCE, Head
from intarsia.detection.siamese.pairs import Pair, check_labels, make_pairs
from intarsia.detection.siamese.reading import Reader
from intarsia.detection.siamese.settings import SiameseConfig
from intarsia.detection.siamese.tuning import bare, open_to_training
from intarsia.errors import BadInput
from intarsia.training.loop import Trained, seeded, train

if TYPE_CHECKING:
    import torch

    from intarsia.data import Document
    from intarsia.detection.siamese.asking import Asked, References
    from intarsia.models import Model

NAME = "detection.siamese"


@dataclass
class SiameseDetector:
    """- model: around the encoder, a plain network without a head for words. head: what reads its vectors.
    - trained: losses of all steps and the number of parameters, after `fit`; None after `load`."""

    model: Model
    head: Head
    config: SiameseConfig
    trained: Trained | None = field(default=None, compare=False)

    @property
    def needs_references(self) -> bool:
        """Whether a text without references has no score."""
        return self.head.needs_reference

    def score(self, documents: Asked, references: References | None = None) -> np.ndarray:
        """[document] float64 logits that a machine wrote it: the mean over the document's references.

        NaN where it has none and the head needs one; the head `single` reads none. Each different text is run once.
        Raises `BadInput` for a reference that is identical with its text, and unless there is one sequence of
        references for each document."""
        import torch

        texts, others = asked(documents, references)
        if not self.needs_references:
            others = [[text] for text in texts]  # the head does not look at it
        vectors, rows, pairs = self._read(texts, others)
        out = np.full(len(texts), np.nan)
        with torch.no_grad():
            for i, some in enumerate(pairs):
                if some:
                    u, v = vectors[[rows[i]] * len(some)], vectors[some]
                    out[i] = float(self.head.logits(u, v).double().mean())
        return out

    def similarity(self, documents: Asked, references: References) -> list[np.ndarray]:
        """For each document the cosine between the encoder's vectors of it and of each of its references, [reference]
        float64: evidence to show, not a score. Raises as `score` does."""
        from torch.nn.functional import normalize

        texts, others = asked(documents, references)
        vectors, rows, pairs = self._read(texts, others)
        unit = normalize(vectors.double(), dim=-1)
        return [(unit[some] @ unit[rows[i]]).numpy() if some else np.zeros(0) for i, some in enumerate(pairs)]

    def _read(self, texts: list[str], others: list[list[str]]) -> tuple[torch.Tensor, list[int], list[list[int]]]:
        """Vectors [different text, width]; the row of each text, and the rows of its references. Texts without a
        reference are not run."""
        wanted = [text for text, some in zip(texts, others, strict=True) if some]
        reader = Reader(
            self.model, [*wanted, *(text for some in others for text in some)], pooling=self.config.pooling,
            longest=self.config.max_tokens,
        )  # fmt: skip
        rows = [reader.rows([text])[0] if some else -1 for text, some in zip(texts, others, strict=True)]
        return reader.all(), rows, [reader.rows(some) for some in others]

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write a plain Hugging Face folder of the encoder; the head lies in its `parts/` as safetensors, the settings
        in its `intarsia.json`. Raises as `Model.save`."""
        from dataclasses import replace

        from intarsia.models.saved import Saved

        names = ("weight", "bias")[: len(self.head.parameters)]
        head = Saved(dict(zip(names, self.head.parameters, strict=True)), {"kind": self.head.kind})
        extras = {NAME: {"config": self.config.model_dump(mode="json")}}
        return replace(self.model, extras=extras, parts={NAME: head}).save(path, force=force)

    @staticmethod
    def load(path: str | Path, *, device: str | None = None) -> SiameseDetector:
        """What `save` wrote. Raises `BadInput` for a folder that holds no such detector."""
        from intarsia.models import load

        if not Path(path).expanduser().is_dir():
            raise BadInput(f"{path} is no folder: give one that a Siamese detector was saved to")
        model = load(path, dtype="auto", device=device)
        if NAME not in model.parts or NAME not in model.extras:
            raise BadInput(f"{path} holds no Siamese detector: it is a model without its head")
        saved = model.parts.pop(NAME)
        settings = model.extras.pop(NAME).get("config", {})
        config = parse(SiameseConfig, settings, f"{path}: settings of the detector")
        head = Head(saved.note["kind"], saved.tensors.get("weight"), saved.tensors.get("bias"))
        return SiameseDetector(model, head, config)  # type: ignore[arg-type]


def fit(
    model: Model, documents: Sequence[Document], config: SiameseConfig | None = None, seed: int = 0
) -> SiameseDetector:
    """Train a detector on documents with labels, starting from a model's encoder; the model stays as it is.

    The pairs are those of `make_pairs`; with the head `single` each document stands alone. A frozen encoder
    (`tune: none`) reads every text once, and so do the frozen blocks below the tuned ones. Equal seeds give equal
    results on one machine.

    Raises `BadInput`, before any training, for documents that give no pair or pairs of one class only, an unknown
    label, settings that contradict one another, and a model that is no encoder of texts."""
    import torch

    config = config or SiameseConfig()
    config.check()
    pairs = _pairs(documents, config, seed)
    encoder = bare(model, config)
    reader = Reader(
        encoder, [documents[i].text for pair in pairs for i in (pair.inquiry, pair.reference)],
        pooling=config.pooling, longest=config.max_tokens,
    )  # fmt: skip
    rows = [reader.rows([documents[p.inquiry].text, documents[p.reference].text]) for p in pairs]
    machine = torch.tensor([pair.machine for pair in pairs], device=encoder.device)
    settings = config.for_training()
    with seeded(seed):
        if config.tune == "none":
            tuned, vectors = None, reader.all().to(encoder.device)
        else:
            tuned, vectors = open_to_training(encoder, config), None
            reader.keep_below(tuned.first)
        kind = DISTANCE if config.loss == "contrastive" else config.head
        head = Head.new(kind, encoder.config.get_text_config().hidden_size, encoder.device)
        batches = _batches(len(pairs), config.batch_size, seed)

        def loss_of(number: int) -> torch.Tensor:
            some = batches[number]
            both = [row for i in some for row in rows[i]]
            if vectors is not None:
                found = vectors[both]
            else:  # each text once, however many pairs of the batch it stands in
                different = sorted(set(both))
                found = reader.vectors(different)[[different.index(row) for row in both]]
            return head.loss(found[0::2], found[1::2], machine[some])

        trained = train(_groups(tuned, head, settings), len(batches), loss_of, settings, seed, "training the detector")
    if tuned is not None:
        said: dict[str, Any] = {"technique": NAME, "config": config.model_dump(mode="json"), "seed": seed}
        encoder = encoder.with_network(tuned.finish(), **said)
    return SiameseDetector(encoder, head.to("cpu"), config, trained)


def _pairs(documents: Sequence[Document], config: SiameseConfig, seed: int) -> list[Pair]:
    if config.head == "single":
        check_labels(documents)
        # A text beside itself: the head looks at the first only.
        pairs = [Pair(i, i, document.label != "human") for i, document in enumerate(documents)]
    else:
        pairs = make_pairs(documents, references=config.references, seed=seed)
    what = "documents" if config.head == "single" else "pairs of a document and a reference of its topic"
    if not pairs:
        raise BadInput(f"there are no {what} to train on: {len(documents)} documents were given")
    positive = sum(pair.machine for pair in pairs)
    if positive in (0, len(pairs)):
        missing, there = ("machine", "human") if positive == 0 else ("human", "machine")
        raise BadInput(f"{there} text only, in all {len(pairs)} {what}: {missing} text is wanted too")
    return pairs


def _batches(count: int, size: int, seed: int) -> list[list[int]]:
    """Numbers in batches, drawn by the seed. Not by length, as people and machines write at different lengths: a batch
    of texts of one length would be a batch of one class."""
    order = list(range(count))
    random.Random(f"{seed} batches").shuffle(order)
    return [order[start : start + size] for start in range(0, count, size)]


def _groups(tuned: Any, head: Head, settings: SiameseConfig) -> list[tuple[list[Any], float]]:
    """Parameters, with factors on the encoder's learning rate."""
    groups: list[tuple[list[Any], float]] = [] if tuned is None else [(tuned.parameters, 1.0)]
    if head.parameters:
        groups.append((head.parameters, settings.head_rate / settings.learning_rate))
    return groups
