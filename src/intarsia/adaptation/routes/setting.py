"""`Setting`: a model, its task and the settings of a ladder: what every rung needs to be opened again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from intarsia.measure import trie as tries
from intarsia.models.embedding import embed

if TYPE_CHECKING:
    from intarsia.adaptation.routes.examples import Example
    from intarsia.adaptation.routes.technique import PlanConfig
    from intarsia.measure.labels import LabelTask
    from intarsia.models import Model

DECAY = 0.6  # of an earlier turn's embedding, a turn further back


class Setting:
    """- model: as it was given; nothing changes it. task: prompt and words of the labels, without calibration."""

    def __init__(self, model: Model, task: LabelTask, config: PlanConfig, seed: int):
        self.model, self.task, self.config, self.seed = model, task, config, seed
        self._vectors: dict[str, np.ndarray] = {}

    @cached_property
    def trie(self) -> tries.Trie:
        """Of the labels' words."""
        return tries.of_task(self.task, self.model.tokenizer)

    @property
    def labels(self) -> list[str]:
        """In the task's order."""
        return self.task.labels

    @cached_property
    def embedder(self) -> Model:
        """The model of sentence embeddings."""
        if self.config.embedder == "self":
            return self.model
        from intarsia.models import load

        return load(self.config.embedder)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """[text, width] float32, of length one. A text that was embedded before is not run again."""
        if new := [text for text in dict.fromkeys(texts) if text not in self._vectors]:
            self._vectors.update(zip(new, embed(self.embedder, new), strict=True))
        return np.stack([self._vectors[text] for text in texts])

    @contextmanager
    def afresh(self) -> Iterator[None]:
        """Inside, every text is embedded as if it was never seen."""
        before, self._vectors = self._vectors, {}
        try:
            yield
        finally:
            self._vectors = before

    def said(self, examples: Sequence[Example]) -> np.ndarray:
        """[example, width]: embeddings of what is said."""
        return self.embed([example.said for example in examples])

    def features(self, examples: Sequence[Example]) -> np.ndarray:
        """[example, 2 width]: what is said, and what was said before it, fading by `DECAY` a turn; [example, width]
        where no earlier turns are to be seen (`past`)."""
        self.embed([text for example in examples for text in (example.said, *example.before)])  # all in one go
        said = self.said(examples)
        if not self.config.past:
            return said
        before = np.zeros_like(said)
        for row, example in zip(before, examples, strict=True):
            for back, text in enumerate(reversed(example.before), 1):
                row += DECAY**back * self.embed([text])[0]
        return np.concatenate([said, before], axis=1)
