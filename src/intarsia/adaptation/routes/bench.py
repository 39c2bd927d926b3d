"""`Bench`: the data that rungs learn from, what they share, and the clock that says how long each one has."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from intarsia.adaptation.label_tuning import Examples
from intarsia.adaptation.routes.keeping import Kept, mark
from intarsia.adaptation.routes.setting import Setting
from intarsia.adaptation.trunk import Overflow, Trunk
from intarsia.measure.likelihood import node_logits, score
from intarsia.models.saved import Saved
from intarsia.models.weights import weights_key
from intarsia.progress import track
from intarsia.training.lora import first_block

if TYPE_CHECKING:
    from intarsia.adaptation.routes.examples import Example
    from intarsia.adaptation.routes.general import General
    from intarsia.adaptation.routes.technique import PlanConfig
    from intarsia.measure.labels import LabelTask
    from intarsia.models import Model

CHUNK = 256  # texts that are embedded between two looks at the clock
CALIBRATING = 64  # training texts whose mean score is taken off before training
SHARE = 1 / 3  # of a rung's minutes that work which others use again may take


class Bench(Setting):
    """- train, dev: examples; y, y_dev: numbers of their labels. general: None where no rung changes the network."""

    def __init__(
        self, model: Model, task: LabelTask, config: PlanConfig, seed: int, train: list[Example], dev: list[Example],
        general: General | None, kept: Kept,
    ):  # fmt: skip
        super().__init__(model, task, config, seed)
        self.train, self.dev, self.general, self.kept = train, dev, general, kept
        self.y, self.y_dev = np.array(task.index(train, "train")), np.array(task.index(dev, "dev"))
        self.groups = [example.group for example in dev]
        self.teacher: tuple[str, Callable[[Sequence[Example]], np.ndarray]] | None = None
        self._begun, self._borrowed = time.monotonic(), 0.0
        self._paid: set[str] = set()
        self._memory: dict[str, Saved] = {}
        self._trunk: Trunk | None = None
        self._data = mark(*([e.text, e.label, e.group, e.context, e.said] for e in (*train, *dev)))
        self.weights = weights_key(model)

    @cached_property
    def log_prior(self) -> np.ndarray:
        """[label]: log share of each in train, add-one smoothed."""
        counts = np.bincount(self.y, minlength=len(self.labels)) + 1
        return np.log(counts / counts.sum())

    def mark(self, name: str, reads: Sequence[str], *more: object) -> str:
        """What a rung or a thing they share is kept under: by weights, task, data, seed and the settings it reads."""
        settings = {field: getattr(self.config, field) for field in reads}
        task = self.task.model_dump(mode="json")
        return f"{name}-{mark(name, self.weights, task, self._data, self.seed, settings, *more)}"

    # ---- the clock

    def start(self) -> None:
        """A rung begins."""
        self._begun, self._borrowed, self._paid = time.monotonic(), 0.0, set()

    def spent(self) -> float:
        """Minutes since, and those that it would have taken to make what it found made."""
        return (time.monotonic() - self._begun + self._borrowed) / 60

    def left(self) -> float:
        """Minutes left to learn."""
        return self.config.minutes - self.spent()

    def _shared(self, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """What was made before is not made again, but its time counts for every rung that uses it."""
        import torch

        fresh = False
        if name not in self._memory:
            found = self.kept.shared(name)
            if fresh := found is None:
                begun = time.monotonic()
                arrays = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in make().items()}
                found = Saved(arrays, {"seconds": time.monotonic() - begun})
                self.kept.keep_shared(name, found)
            assert found is not None
            self._memory[name] = found
        saved = self._memory[name]
        if not fresh and name not in self._paid:
            self._borrowed += saved.note["seconds"]
        self._paid.add(name)
        return {key: value.numpy() for key, value in saved.tensors.items()}

    # ---- what rungs share

    def raw(self) -> np.ndarray:
        """[dev, label]: log probabilities of the labels' words by the model as it is."""
        return self._shared(
            self.mark("scores", ()), lambda: {"raw": score(self.model, self.task, self.dev, calibration="none").raw}
        )["raw"]  # fmt: skip

    def head_start(self) -> np.ndarray:
        """[label]: a bias under which the model as it is is calibrated, so that training need not find it: the log
        prior in place of the mean score over some training texts. Zeros where labels' words begin alike: then the loss
        has no place for it."""
        if not self.trie.flat:
            return np.zeros(len(self.labels))
        some = self.train[:CALIBRATING]
        found = self._shared(
            self.mark("start", ()), lambda: {"raw": score(self.model, self.task, some, calibration="none").raw}
        )  # fmt: skip
        return self.log_prior - found["raw"].mean(0)

    def embedded(self) -> tuple[list[Example], np.ndarray, np.ndarray]:
        """Examples of train, and embeddings [example, width] of what is said in them and in dev. All of train, or as
        many as there is time for."""

        def make() -> dict[str, np.ndarray]:
            dev, done = self.said(self.dev), []
            for start in track(range(0, len(self.train), CHUNK), "embedding the training texts"):
                done.append(self.said(self.train[start : start + CHUNK]))
                if self.left() < (1 - SHARE) * self.config.minutes:
                    break
            return {"dev": dev, "train": np.concatenate(done)}

        found = self._shared(self.mark("embeddings", ("embedder", "minutes"), self._embedder_key()), make)
        some = self.train[: len(found["train"])]
        # So that the same texts are not run again where they are asked for as such.
        self._vectors.update(zip((e.said for e in some), found["train"], strict=True))
        self._vectors.update(zip((e.said for e in self.dev), found["dev"], strict=True))
        return some, found["train"], found["dev"]

    def featured(self) -> tuple[list[Example], np.ndarray, np.ndarray]:
        """Examples of train, and `features` of them and of dev: of those that are embedded, or of as many as there is
        time for."""
        some, _, _ = self.embedded()

        def make() -> dict[str, np.ndarray]:
            dev, done = self.features(self.dev), []
            for start in track(range(0, len(some), CHUNK), "embedding what was said before"):
                done.append(self.features(some[start : start + CHUNK]))
                if self.left() < (1 - 2 * SHARE) * self.config.minutes:
                    break
            return {"dev": dev, "train": np.concatenate(done)}

        found = self._shared(self.mark("features", ("embedder", "minutes", "past"), self._embedder_key()), make)
        return some[: len(found["train"])], found["train"], found["dev"]

    def _embedder_key(self) -> str:
        return self.weights if self.config.embedder == "self" else weights_key(self.embedder)

    def pace(self) -> float:
        """Seconds that the network takes to read a token of a prompt, in batches."""

        def make() -> dict[str, np.ndarray]:
            ids = self.written.ids[:8]
            rows = [row[: max(1, len(row) - 1)] for row in ids]
            node_logits(self.model, self.trie, rows[:1])  # the first call is slower than all others
            begun = time.monotonic()
            node_logits(self.model, self.trie, rows)
            return {"pace": np.array([(time.monotonic() - begun) / sum(map(len, rows))])}

        return float(self._shared(self.mark("pace", ()), make)["pace"][0])

    @cached_property
    def written(self) -> Examples:
        """The training rows as token ids."""
        from intarsia.adaptation.label import LabelConfig

        return Examples.build(self.model, self.task, self.trie, self.train, LabelConfig())

    @contextmanager
    def trunk(self, network_of: Model) -> Iterator[Trunk | None]:
        """States of the training rows that enter the first block which is trained, for this network, whose blocks
        below are the model's own; computed once for all rungs. None where no block is frozen, or where a rung has not
        the time to come back to a row."""
        config = self.config
        depth = self.model.config.get_text_config().num_hidden_layers
        first = first_block(self.model.network, config.layers_from)
        tokens = sum(map(len, self.written.ids))
        epoch = tokens * self.pace() / 60
        if first == 0 or epoch * (3 - 2 * first / depth) > self.left() / 2:
            yield None
            return
        if self._trunk is None:
            begun = time.monotonic()
            for dtype in ("float16", "float32"):
                self._trunk = Trunk(self.model, first, dtype)
                try:
                    self._trunk.fill(self.written.ids)
                    break
                except Overflow:
                    self._trunk.close()
            self._trunk_seconds = time.monotonic() - begun
        else:
            self._borrowed += self._trunk_seconds
        self._trunk.model = network_of
        try:
            yield self._trunk
        finally:
            self._trunk.model = self.model

    def close(self) -> None:
        """Give the trunk's file back."""
        if self._trunk is not None:
            self._trunk.close()
            self._trunk = None
